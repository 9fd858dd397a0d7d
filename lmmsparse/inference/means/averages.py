"""Means, or slopes, as linear functions of the fixed effects, with the predictors they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.table import label_text


@dataclass(frozen=True, eq=False)
class Averages:
    """Means, or slopes, as linear functions of the fixed effects, or with their derivatives.

    Attributes
    ----------
    labels : mapping
        Predictor → its value in every row.
    F : (rows, P) array
        In all columns of the formula, dropped ones too; zero where undefined.
    defined : (rows,) bool array
        False where an expression of the formula is undefined.
    occurs : (rows,) bool array
        False where no level of a nested factor occurs.
    shift : float
        Mean of the offset, part of every mean.
    notes : tuple of str
        What is to be said of the averages.
    by : tuple of str
        Predictors within whose combinations rows are compared.
    values : (rows,) array or None
        The averages themselves where they are no linear functions, `F` then being their derivatives
        by the fixed effects: averages on the scale of the response.
    """

    labels: dict[str, list[Any]]
    F: FloatArray
    defined: BoolArray
    occurs: BoolArray
    shift: float
    notes: tuple[str, ...]
    by: tuple[str, ...]
    values: FloatArray | None = None

    @property
    def names(self) -> list[str]:
        """What varies within the groups."""
        return [name for name in self.labels if name not in self.by]

    def groups(self) -> list[list[int]]:
        """Rows that are compared with one another, in order of appearance."""
        keys = list(zip(*(self.labels[name] for name in self.by), strict=True))
        found: dict[Any, list[int]] = {}
        for i in range(len(self.F)):
            found.setdefault(keys[i] if self.by else (), []).append(i)
        return list(found.values())

    def text(self, i: int, names: Sequence[str] | None = None) -> str:
        """The values of a row in words."""
        chosen = self.labels if names is None else names
        return ", ".join(label_text(self.labels[name][i]) for name in chosen)
