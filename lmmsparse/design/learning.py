"""A transform that learns from the data, and rows in which what it is given is undefined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic.materializers.types import FactorValues

from lmmsparse.common.arrays import BoolArray
from lmmsparse.design.functions import Arguments, Function


@dataclass(frozen=True, eq=False)
class Learnt:
    """What a transform has learnt, and the rows (of `sample`; None: all) it may learn from."""

    state: dict[str, Any]
    rows: int
    sample: BoolArray | None

    def __call__(self, transform: Function, args: Sequence[Any], named: Arguments) -> Any:
        """Its values where all arguments are finite numbers.

        They are missing in other rows, or infinite where an argument is.
        """
        wanted = np.ones(self.rows, dtype=bool) if self.sample is None else self.sample.copy()
        infinite = np.zeros(self.rows, dtype=bool)
        for value in (*args, *named.values()):
            if self._by_row(value) and getattr(value.dtype, "kind", "") == "f":
                numbers = np.asarray(value).reshape(self.rows, -1)
                infinite |= np.isinf(numbers).any(axis=1)
                wanted &= np.isfinite(numbers).all(axis=1)
        if wanted.all() or not wanted.any():
            return transform.call(*args, **named, _state=self.state)
        fill = np.where(infinite, np.inf, np.nan)
        some = [value[wanted] if self._by_row(value) else value for value in args]
        others = {n: v[wanted] if self._by_row(v) else v for n, v in named.items()}
        return _spread(transform.call(*some, **others, _state=self.state), wanted, fill)

    def _by_row(self, value: Any) -> bool:
        return isinstance(value, (pd.Series, np.ndarray)) and value.shape[:1] == (self.rows,)


def _spread(values: Any, wanted: BoolArray, fill: Any) -> Any:
    """Values of some rows among those of all."""
    if isinstance(values, FactorValues):
        inner = values.__wrapped__
        if isinstance(inner, dict):
            inner = {name: _spread(each, wanted, fill) for name, each in inner.items()}
        else:
            inner = _spread(inner, wanted, fill)
        return FactorValues(inner, metadata=values.__formulaic_metadata__)
    numbers = np.asarray(values, dtype=np.float64)
    out = np.repeat(fill.reshape(-1, *[1] * (numbers.ndim - 1)), numbers[0].size, axis=-1)
    out[wanted] = numbers
    return out if not isinstance(values, pd.Series) else pd.Series(out)
