"""Weights of levels, as they are given → numbers, one per level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import is_number, several
from lmmsparse.common.table import label_text
from lmmsparse.common.words import alternatives, brief, listed

_NAMED = ("equal", "proportional")


def named_weights(weights: Any) -> Any:
    """Weights that are a word by the word here; R takes the beginning of one."""
    if isinstance(weights, str) and len(weights) > 1:
        return next((name for name in _NAMED if name.startswith(weights.lower())), weights)
    return weights


def given_weights(
    weights: Any, over: Sequence[str], values: Mapping[str, Sequence[Any]]
) -> dict[str, FloatArray]:
    """Weights of the levels of factors that are averaged over, as far as they were given.

    Each factor's sum to one.
    """
    if isinstance(weights, str) and weights in _NAMED:
        return {}
    if not isinstance(weights, Mapping):
        raise OptionError(
            "weights must be 'equal', 'proportional' or a mapping of factors to weights of "
            f"their levels, not {brief(weights)}. Write, for example, "
            "weights={'segment': {'a': 0.7, 'b': 0.3}}."
        )
    out = {}
    for name, own in weights.items():
        if name not in over:
            raise OptionError(
                f"weights are given for {name!r}, which is not averaged over. Give them for "
                f"{alternatives(over) if over else 'none'}."
            )
        out[name] = level_weights(f"weights of {name!r}", own, values[name])
        if out[name].min() < 0 or out[name].sum() <= 0:
            raise OptionError(
                f"weights of {name!r} must not be negative, and not all zero: {brief(own)}."
            )
        out[name] = out[name] / out[name].sum()
    return out


def level_weights(what: str, given: Any, levels: Sequence[Any]) -> FloatArray:
    """Weights of levels: a mapping of levels to numbers, or a number for each.

    A mapping may leave levels out, which have none.
    """
    names = [label_text(level) for level in levels]
    values = several(given)
    if isinstance(given, Mapping):
        own = {label_text(level): weight for level, weight in given.items()}
        if unknown := [name for name in own if name not in names]:
            raise OptionError(
                f"{what} name {unknown[0]!r}, which is none of {listed(names)}. Name these."
            )
        values = [own.get(name, 0.0) for name in names]
    if len(values) != len(names) or not all(is_number(v) and np.isfinite(v) for v in values):
        raise OptionError(
            f"{what} must be {len(names)} numbers, for {listed(names)}, not {brief(given)}. Give "
            "one for each."
        )
    return np.array(values, dtype=np.float64)
