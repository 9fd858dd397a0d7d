"""The name of a parameter → a label for an axis."""

from __future__ import annotations

from lmmsparse.fit import Fit


def parameter_label(fit: Fit, name: str) -> str:
    """A parameter of `confint` in words.

    Parameters
    ----------
    fit : Fit
        Whose parameter it is.
    name : str
    """
    if name in fit.design.x_names:
        return name
    if name == "sigma":
        return "Residual standard deviation"
    left, _, group = name.partition("|")
    kind, _, effects = left.partition("_")
    if kind == "sd":
        return f"SD of {effects} | {group}" if effects else f"SD | {group}"
    if kind == "cor":
        return f"Correlation of {effects.replace('.', ', ', 1)} | {group}"
    return name
