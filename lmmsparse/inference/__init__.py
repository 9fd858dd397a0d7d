"""Inference from a `Fit`: tables of coefficients, intervals, tests."""
