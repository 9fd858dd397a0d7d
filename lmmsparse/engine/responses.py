"""The cross-products that involve a response, or many of one design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray, ReadOnly
from lmmsparse.engine.columns import InternalColumns
from lmmsparse.engine.pairs import TermColumns
from lmmsparse.engine.products import level_sums


@dataclass(frozen=True, eq=False)
class Response(ReadOnly):
    """The cross-products of the least-squares residual e = y − o − X β₀.

    Attributes
    ----------
    Zty : (q,) array
        Z'We.
    Xty : (p,) array
        Q'We, zero up to rounding.
    yty : float
        e'We.
    beta0 : (p,) array
        The least-squares coefficients, in internal coordinates: β = R⁻¹ (β₀ + internal β).
    """

    Zty: FloatArray
    Xty: FloatArray
    yty: float
    beta0: FloatArray


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


def response_products(
    y: FloatArray,
    Q: InternalColumns,
    terms: Sequence[TermColumns],
    weights: FloatArray | None = None,
    offset: FloatArray | None = None,
) -> Response:
    """Form the cross-products that involve the response.

    Parameters
    ----------
    y : (n,) array
    Q : InternalColumns
        Orthonormal under the weights.
    weights, offset : (n,) arrays, optional
    """
    many = many_response_products(y[:, None], Q, terms, weights, offset)
    return many.one(0)


def many_response_products(
    Y: FloatArray,
    Q: InternalColumns,
    terms: Sequence[TermColumns],
    weights: FloatArray | None = None,
    offset: FloatArray | None = None,
) -> ManyResponses:
    """What `response_products` forms, for every column of Y, (n, m)."""

    def weighted(columns: FloatArray) -> FloatArray:
        return columns if weights is None else columns * weights[:, None]

    residual = Y if offset is None else Y - offset[:, None]
    beta0 = np.zeros((Q.p, Y.shape[1]))
    for _ in range(2):  # the second pass removes what rounding left of the first
        step = Q.transposed_times(weighted(residual))
        residual = residual - Q.times(step)
        beta0 += step
    Wr = weighted(residual)
    return ManyResponses(
        Zty=np.concatenate([level_sums(term, Wr) for term in terms]),
        Xty=Q.transposed_times(Wr),
        yty=np.einsum("nm,nm->m", residual, Wr),
        beta0=beta0,
    )
