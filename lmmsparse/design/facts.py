"""What a design knows of rows that are not kept: their sums, and who asks for a row is told so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from lmmsparse.common.arrays import FloatArray, ReadOnly
from lmmsparse.common.errors import RowsNotKeptError
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response


class NotKept:
    """Stands where a value for every row would be; whoever uses it is told that there is none.

    Parameters
    ----------
    what : str
        What is missing, for the message.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __repr__(self) -> str:
        return f"<{self._what}: not kept>"

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RowsNotKeptError(
            f"This needs {self._what}, row by row, which a model fitted in chunks does not keep. "
            "Use m.predict_batches(source), m.residual_batches(source) or m.simulate_batches("
            "source, n, rng=...) for values of rows, or fit a part of the data in memory."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    __array_ufunc__ = None
    __array__ = __len__ = __iter__ = __getitem__ = __bool__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __pow__ = __neg__ = __abs__ = _refuse
    __matmul__ = __rmatmul__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse


@dataclass(frozen=True, eq=False)
class Facts(ReadOnly):
    """Numbers about all rows of a design that does not keep them.

    Attributes
    ----------
    products, response : CrossProducts, Response
        Of the engine: all that a fit needs.
    n, read : int
        Rows that are fitted, and all that were read.
    low, high : float
        Smallest and largest response, the offset subtracted.
    spread, size : float
        Σ w (y − o − mean)² and Σ w (y − o)².
    mean_offset, mean_inverse_weight : float
    between : tuple of float or None
        Variance of the level means of the response in the rows, per term; of models of random
        intercepts, one per grouping factor.
    variance : float
        Of the response.
    R : (p, p) array
        Upper triangular, X'X = R'R without weights.
    sums : (p,) array
        Column sums of X.
    grams : tuple of (k, k) arrays
        Per term the sums of products of its columns, without weights.
    systematic : int
        Rows at the beginning of the sample that do not depend on the model.
    cells : mapping
        Factors → rows in every combination of their levels; of all factors among the predictors.
    """

    products: CrossProducts
    response: Response
    n: int
    read: int
    low: float
    high: float
    spread: float
    size: float
    mean_offset: float
    mean_inverse_weight: float
    between: tuple[float, ...] | None
    variance: float
    R: FloatArray
    sums: FloatArray
    grams: tuple[FloatArray, ...]
    systematic: int
    cells: Mapping[tuple[str, ...], FloatArray]

    def same_rows(self, s: int, t: int) -> bool:
        """Whether the levels of two terms with as many levels put the same rows together."""
        if s == t:
            return True
        s, t = max(s, t), min(s, t)
        pair = next(pair for pair in self.products.pairs if (pair.s, pair.t) == (s, t))
        return len(pair.rows) == self.products.n_levels[s]

    @property
    def fingerprint(self) -> FloatArray:
        """Numbers that two models of the same responses and weights share, but for rounding."""
        return np.array([self.low, self.high, self.variance, self.mean_inverse_weight])
