"""β, θ, δ → −2 log-likelihood by Laplace's approximation: the criterion of generalized models.

u is integrated out and never linearized in the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.generalized.laplace_levels import LaplaceByLevel
from lmmsparse.engine.generalized.laplace_point import LaplacePoint, Parameters
from lmmsparse.engine.generalized.modes import TIGHT, conditional_mode
from lmmsparse.engine.generalized.rows import GeneralizedRows


@dataclass(frozen=True, eq=False)
class LaplaceDeviance:
    """−2 log-likelihood, u integrated out by Laplace's approximation.

    Attributes
    ----------
    rows : GeneralizedRows
    expected : bool
        Whether log|M| is taken with expected weights, as lme4 does.
    """

    rows: GeneralizedRows
    expected: bool = False

    def point(
        self, at: Parameters, u: FloatArray | None = None, tolerance: float = TIGHT
    ) -> LaplacePoint:
        """The criterion with its derivatives.

        Parameters
        ----------
        at : Parameters
        u : (q,) array, optional
            Where to look for the mode first.
        tolerance : float
            Of the mode, as a Newton decrement.

        Raises
        ------
        NumericalError
        """
        first = np.zeros(self.rows.template.q) if u is None else u
        mode = conditional_mode(self.rows, at.beta, at.theta, at.delta, first, tolerance)
        one = self.rows.one_factor
        if one is not None and (not self.expected or self.rows.family.canonical):
            return LaplaceByLevel(mode, one)
        return LaplacePoint(mode, self.expected)

    def __call__(self, at: Parameters, u: FloatArray | None = None) -> float:
        return self.point(at, u).value
