"""The face: a fit with names on it, and the functions that make one."""

from lmmsparse.model.linear import LinearMixedModel

__all__ = ["LinearMixedModel"]
