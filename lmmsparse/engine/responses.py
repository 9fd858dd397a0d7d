"""Many responses of one design → their cross-products, all columns at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.columns import InternalColumns
from lmmsparse.engine.products import Response, TermColumns


@dataclass(frozen=True, eq=False)
class ManyResponses:
    """The cross-products of m responses; see `Response`.

    Attributes
    ----------
    Zty : (q, m) array
    Xty, beta0 : (p, m) arrays
    yty : (m,) array
    """

    Zty: FloatArray
    Xty: FloatArray
    yty: FloatArray
    beta0: FloatArray

    def __len__(self) -> int:
        return len(self.yty)

    def one(self, j: int) -> Response:
        """The products of response j."""
        columns = (np.ascontiguousarray(a[:, j]) for a in (self.Zty, self.Xty, self.beta0))
        Zty, Xty, beta0 = columns
        return Response(Zty=Zty, Xty=Xty, yty=float(self.yty[j]), beta0=beta0)

    def some(self, which: slice | IntArray) -> ManyResponses:
        """The products of some of the responses."""
        return ManyResponses(
            self.Zty[:, which], self.Xty[:, which], self.yty[which], self.beta0[:, which]
        )


def many_response_products(
    Y: FloatArray,
    Q: InternalColumns,
    terms: Sequence[TermColumns],
    weights: FloatArray | None = None,
    offset: FloatArray | None = None,
) -> ManyResponses:
    """What `response_products` forms, for every column of Y.

    Parameters
    ----------
    Y : (n, m) array
    Q : InternalColumns
        Orthonormal under the weights.
    terms : sequence of TermColumns
    weights, offset : (n,) arrays, optional
    """
    residual = Y if offset is None else Y - offset[:, None]
    beta0 = np.zeros((Q.p, Y.shape[1]))
    for _ in range(2):  # the second pass removes what rounding left of the first
        step = Q.transposed_times(_weighted(residual, weights))
        residual = residual - Q.times(step)
        beta0 += step
    weighted = _weighted(residual, weights)
    return ManyResponses(
        Zty=np.concatenate([term.transposed @ weighted for term in terms]),
        Xty=Q.transposed_times(weighted),
        yty=np.einsum("nm,nm->m", residual, weighted),
        beta0=beta0,
    )


def _weighted(columns: FloatArray, weights: FloatArray | None) -> FloatArray:
    return columns if weights is None else columns * weights[:, None]
