"""θ̃ → the criterion's derivatives in coordinates around θ̃ that have no singular points.

The entries of a lower-triangular T are bad coordinates where a diagonal is small: a tiny change of
TT' turns T far around, and a search creeps along a bent valley. Around every point, T moves instead
in orthonormal directions that change TT', and is brought back to triangular form.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.linalg as sla

from lmmsparse._types import FloatArray
from lmmsparse.covariance import Unstructured
from lmmsparse.objective import ProfiledDeviance
from lmmsparse.optimize import Derivatives
from lmmsparse.triangular import directions, lower_triangular
from lmmsparse.undetermined import Undetermined


class ChartedObjective:
    """A criterion in standardized coordinates with derivatives along charts (`Derivatives.move`).

    Parameters
    ----------
    objective : ProfiledDeviance
    to_theta : (n_theta, n_theta) array
        The linear map of standardized coordinates to θ, lower triangular, block diagonal by term.
    rough : (n_theta,) array or None
        A point at which to look for a better one by the method of moments.
    undetermined : Undetermined, optional
        Directions in which steps are not to go.
    """

    def __init__(
        self,
        objective: ProfiledDeviance,
        to_theta: FloatArray,
        rough: FloatArray | None = None,
        undetermined: Undetermined | None = None,
    ) -> None:
        self._objective, self._to_theta, self._rough = objective, to_theta, rough
        self._undetermined = undetermined
        # From the coordinates that derivatives are taken in: charts are standardized already.
        self._inner = to_theta.copy()
        self._terms = []
        template = objective.template
        for t, (structure, part) in enumerate(
            zip(template.structures, template.slices, strict=True)
        ):
            if isinstance(structure, Unstructured) and structure.k > 1:
                # T = K⁻¹ T̃, which the first column of T̃ shows.
                K_inverse = to_theta[part, part][: structure.k, : structure.k]
                self._inner[part, part] = np.eye(structure.n_par)
                rows, columns = template.places[t]
                self._terms.append((t, structure, part, K_inverse, rows, columns))

    def __call__(self, x: FloatArray) -> float:
        return self._objective(self._to_theta @ x)

    def derivatives(self, x: FloatArray) -> Derivatives:
        ways: list[FloatArray | None] = [None] * len(self._objective.template.structures)
        charts = []
        for t, structure, part, K_inverse, rows, columns in self._terms:
            T = structure.factor(x[part])
            D = directions(T)
            ways[t] = np.matmul(K_inverse, D)
            charts.append((part, T, D, rows, columns))

        def move(step: FloatArray) -> FloatArray:
            out = x + step
            for part, T, D, rows, columns in charts:
                moved = lower_triangular(T + np.tensordot(step[part], D, axes=1))
                out[part] = moved[rows, columns]
            return out

        rough = self._rough is not None and np.array_equal(x, self._rough)
        theta = self._to_theta @ x
        at = self._objective.derivatives(theta, ways, moments=rough)
        better = at.better
        if better is not None:
            better = sla.solve_triangular(self._to_theta, better, lower=True)
        out = replace(at.along(self._inner, move), better=better)
        if self._undetermined is None:
            return out
        along = self._undetermined.along(
            self._objective.template, theta, ways, self._objective.column_scales
        )
        return out.kept_off(along @ self._inner)
