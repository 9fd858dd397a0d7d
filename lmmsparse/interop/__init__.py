"""Bridges to other packages, each in a module that alone imports it; none is needed to fit.

They are imported where they are wanted: ``from lmmsparse.interop.sklearn import ...``.
"""
