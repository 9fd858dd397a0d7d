"""Changes of the covariances that no data can show → the steps that a search keeps off.

The criterion is constant along such a change. What derivatives say there is rounding error, and a
search that believes it goes to infinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.template import LambdaTemplate


@dataclass(frozen=True, eq=False)
class Undetermined:
    """Combinations of variances and covariances that do not enter the likelihood.

    Attributes
    ----------
    changes : tuple of (m, k, k) arrays
        Per term, symmetric changes of its covariance matrix, in the units of its effects. The m
        combinations are the same for all terms.
    residual : (m,) array
        The change of the residual variance that goes with each.

    Notes
    -----
    Only directions matter, not lengths: the sum of V_i times the changes is to be zero (or what X
    takes out of it), with V_i the derivative of V by an element of a term's covariance matrix.
    """

    changes: tuple[FloatArray, ...]
    residual: FloatArray

    def along(
        self,
        template: LambdaTemplate,
        theta: FloatArray,
        directions: Sequence[FloatArray | None],
        scales: Sequence[FloatArray],
    ) -> FloatArray:
        """What of a step moves TT' along these combinations: (m, n_theta).

        Parameters
        ----------
        theta : (n_theta,) array
        directions : sequence of (parameters, k, k) arrays or None
            Per term ∂T of a step's coordinates; None for the parameters themselves.
        scales : sequence of (k,) arrays
            Per term the units of T's rows, in which sizes are compared.
        """
        rows = np.zeros((len(self.residual), template.n_theta))
        for structure, part, way, N, unit in zip(
            template.structures, template.slices, directions, self.changes, scales, strict=True
        ):
            T = structure.factor(theta[part])
            D = structure.derivative(theta[part]) if way is None else way
            # TT' is the covariance over σ²: it also changes by what the residual takes.
            along = N - self.residual[:, None, None] * (T @ T.T)
            along = along / np.outer(unit, unit) ** 2
            # tr(N (DT' + TD')) = 2 tr(N D T').
            rows[:, part] = (along @ T).reshape(len(along), -1) @ D.reshape(len(D), -1).T
        return rows
