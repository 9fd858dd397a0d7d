"""What is known at a conditional mode of the random effects; the factor of M for any weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.families.base import Pointwise
from lmmsparse.engine.generalized.one_factor import AtLevels
from lmmsparse.engine.generalized.rows import GeneralizedRows
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.solvers.base import PLSFactor

NOT_DEFINITE = "M is not positive definite."


@dataclass(frozen=True, eq=False)
class Mode:
    """The conditional mode with the factor of M there.

    Attributes
    ----------
    rows : GeneralizedRows
    beta : (p,) array
        Internal coordinates.
    theta : (n_theta,) array
    delta : float
    factors : list of (k, k) arrays
        T of every term, for the columns that cross-products are taken of.
    u : (q,) array
    eta : (n,) array
    at : Pointwise
        The log density there, without its third derivative.
    v : (q,) array
        Z's.
    h : float
    logdet : float
        log|M|.
    steps : int
        Factorizations.
    made : CrossProducts and PLSFactor, optional
        Z'WZ and the factor of M, where these exist already.
    by_level : AtLevels, optional
        The same and u level by level, for one grouping factor.
    """

    rows: GeneralizedRows
    beta: FloatArray
    theta: FloatArray
    delta: float
    factors: Sequence[FloatArray]
    u: FloatArray
    eta: FloatArray
    at: Pointwise
    v: FloatArray
    h: float
    logdet: float
    steps: int
    made: tuple[CrossProducts, PLSFactor] | None = None
    by_level: AtLevels | None = None

    @cached_property
    def _algebra(self) -> tuple[CrossProducts, PLSFactor]:
        return self.made or factorized(self.rows, self.theta, self.at.w)

    @property
    def products(self) -> CrossProducts:
        """Z'WZ."""
        return self._algebra[0]

    @property
    def factor(self) -> PLSFactor:
        """Of M."""
        return self._algebra[1]


def factorized(
    rows: GeneralizedRows, theta: FloatArray, weights: FloatArray
) -> tuple[CrossProducts, PLSFactor]:
    """Z'WZ and the factor of M.

    Raises
    ------
    NumericalError
        If M is not positive definite.
    """
    products = rows.products(weights)
    try:
        factor = rows.system.with_products(products).factor(theta)
    except np.linalg.LinAlgError as error:
        raise NumericalError(NOT_DEFINITE) from error
    if not np.isfinite(factor.logdet):
        raise NumericalError(NOT_DEFINITE)
    return products, factor
