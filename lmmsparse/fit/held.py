"""Design and the user's mapping of names to numbers → which covariance parameters are held.

The names are those of `LinearMixedModel.theta`, and ``"sigma"``. What is held is no parameter any
more: it is not counted, not varied, and has no uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import mapping
from lmmsparse.common.words import brief, close_match
from lmmsparse.design import Design
from lmmsparse.engine.held import Held


def theta_names(design: Design) -> list[str]:
    """Names of θ in lme4's manner: ``Subject.Intercept``, ``Subject.Days.Intercept``."""
    names = []
    for block in design.blocks:
        structure = block.structure
        for label, (row, column) in zip(structure.labels, structure.entries, strict=True):
            effects = [block.names[row]] + ([block.names[column]] if row != column else [])
            names.append(".".join([block.group, *([label] if label else effects)]))
    return names


def held_parameters(design: Design, fixed: Mapping[str, Any] | Held | None) -> Held:
    """Read the user's ``fixed=``.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> data = lmm.load_dataset("sleepstudy")
    >>> design = lmm.build_design(lmm.parse_formula("Reaction ~ Days + (1 | Subject)"), data)
    >>> held_parameters(design, {"sigma": 30, "Subject.Intercept": 1.2})
    Held(theta=((0, 1.2),), sigma=30.0, residual=())
    """
    if isinstance(fixed, Held):
        return fixed
    if fixed is None:
        return Held()
    held_values = mapping("fixed", fixed, "Give, for example, fixed={'sigma': 1.0}.")
    names = theta_names(design)
    of_residual = () if design.residual is None else design.residual.parameter_names
    residual: list[tuple[str, float]] = []
    held: list[tuple[int, float]] = []
    sigma: float | None = None
    for name, given in held_values.items():
        value = _number(name, given)
        if name == "sigma":
            if not value > 0:
                raise OptionError(f"sigma in fixed= must be a positive number, not {value:g}.")
            sigma = value
            continue
        if name in of_residual:
            residual.append((name, value))
            continue
        if name not in names:
            raise OptionError(_unknown(str(name), [*names, *of_residual], design))
        if names.count(name) > 1:
            raise OptionError(
                f"{names.count(name)} parameters of the model have the name {name!r} in fixed=. "
                "Fit the terms with different effects, or hold none of these."
            )
        held.append((names.index(name), value))
    out = Held(tuple(sorted(held)), sigma, tuple(residual))
    _check_bounds(design, names, out)
    return out


def _number(name: Any, given: Any) -> float:
    if isinstance(given, (bool, str, complex, np.complexfloating)) or np.ndim(given) != 0:
        value = np.nan
    else:
        try:
            value = float(given)
        except (TypeError, ValueError):
            value = np.nan
    if not np.isfinite(value):
        raise OptionError(
            f"{name!r} in fixed= must be held at a finite number, not {brief(given)}."
        )
    return value


def _unknown(name: str, names: list[str], design: Design) -> str:
    if name in design.x_names:
        return (
            f"{name!r} in fixed= is a fixed effect, and only covariance parameters can be held. "
            "Give the effect as an offset instead: offset = value * column."
        )
    return (
        f"{name!r} in fixed= is not a covariance parameter of this model."
        f"{close_match(name, [*names, 'sigma'])} Its covariance parameters are "
        f"{', '.join([*names, 'sigma'])}; all but sigma are relative to sigma (m.theta)."
    )


def _check_bounds(design: Design, names: list[str], fixed: Held) -> None:
    if not fixed.theta:
        return
    lower = np.concatenate([block.structure.lower() for block in design.blocks])
    upper = np.concatenate([block.structure.upper() for block in design.blocks])
    for i, value in fixed.theta:
        if not lower[i] <= value <= upper[i]:
            raise OptionError(
                f"{names[i]!r} in fixed= must be between {lower[i]:g} and {upper[i]:g}, not "
                f"{value:g}."
            )
