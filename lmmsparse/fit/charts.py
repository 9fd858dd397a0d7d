"""θ̃ → the criterion's derivatives in coordinates around θ̃ that have no singular points.

The entries of a lower-triangular T are bad coordinates where a diagonal is small: a tiny change of
TT' turns T far around, and a search creeps along a bent valley. Around every point, T moves instead
in orthonormal directions that change TT', and is brought back to triangular form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.covariance.structures import Unstructured
from lmmsparse.engine.covariance.triangular import directions, lower_triangular
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.fit.undetermined import Undetermined
from lmmsparse.optimize import Derivatives


class ChartedObjective:
    """A criterion in standardized coordinates with derivatives along charts (`Derivatives.frame`).

    Parameters
    ----------
    to_theta : (n_theta, n_theta) array
        The linear map of standardized coordinates to θ, lower triangular, block diagonal by term.
    undetermined : Undetermined, optional
        Directions in which steps are not to go.
    """

    def __init__(
        self,
        objective: ProfiledDeviance,
        to_theta: FloatArray,
        undetermined: Undetermined | None = None,
    ) -> None:
        self._objective, self._to_theta = objective, to_theta
        self._undetermined = undetermined
        # From the coordinates that derivatives are taken in: charts are standardized already.
        self._inner = to_theta.copy()
        self._terms: list[_Term] = []
        template = objective.template
        self._fixed_ways: list[FloatArray | None] = [None] * len(template.structures)
        for t, (structure, part) in enumerate(
            zip(template.structures, template.slices, strict=True)
        ):
            if not isinstance(structure, Unstructured):
                continue
            # T = K⁻¹ T̃, which the first column of T̃ shows.
            K_inverse = to_theta[part, part][: structure.k, : structure.k]
            self._inner[part, part] = np.eye(structure.n_par)
            if structure.k == 1:
                self._fixed_ways[t] = K_inverse[None]
            else:
                rows, columns = template.places[t]
                self._terms.append(_Term(t, structure, part, K_inverse, rows, columns))
        self._standardized = np.array_equal(self._inner, np.eye(len(to_theta)))

    def __call__(self, x: FloatArray) -> float:
        return self._objective(self._to_theta @ x)

    def gradient(self, x: FloatArray) -> FloatArray:
        """The gradient along the charts at x."""
        ways = self._ways(_Frame(x, self._terms))
        gradient = self._objective.gradient(self._to_theta @ x, directions=ways)
        return np.asarray(self._inner.T @ gradient)

    def _ways(self, frame: _Frame) -> list[FloatArray | None]:
        """Per term in which directions T moves; None for those of its parameters."""
        ways = self._fixed_ways.copy()
        for term, D in zip(self._terms, frame.directions, strict=True):
            ways[term.number] = np.matmul(term.K_inverse, D)
        return ways

    def derivatives(self, x: FloatArray) -> Derivatives:
        template = self._objective.template
        frame = _Frame(x, self._terms)
        ways = self._ways(frame)
        theta = self._to_theta @ x
        out = self._objective.derivatives(theta, ways)
        if not self._standardized:
            out = out.along(self._inner)
        if self._undetermined is not None:
            rows = self._undetermined.along(template, theta, ways, self._objective.column_scales)
            out = out.kept_off(rows @ self._inner)
        return out.within(frame)


@dataclass(frozen=True, eq=False)
class _Term:
    """A term whose T moves in charts.

    Attributes
    ----------
    part : slice
        Its parameters.
    K_inverse : (k, k) array
        T = K⁻¹ T̃ with T̃ the factor in standardized coordinates.
    rows, columns : (n_par,) int arrays
        Place in T of every parameter.
    """

    number: int
    structure: Unstructured
    part: slice
    K_inverse: FloatArray
    rows: IntArray
    columns: IntArray


class _Frame:
    """The charts of all terms around one point: a `Frame`."""

    def __init__(self, x: FloatArray, terms: Sequence[_Term]) -> None:
        self._x, self._terms = x, terms
        self._T = [term.structure.factor(x[term.part]) for term in terms]
        self.directions = [directions(T) for T in self._T]

    def _away(self, step: FloatArray) -> list[FloatArray]:
        """T of every term a step away, before it is triangular."""
        return [
            T + (step[term.part] @ D.reshape(len(D), -1)).reshape(T.shape)
            for term, T, D in zip(self._terms, self._T, self.directions, strict=True)
        ]

    def moved(self, step: FloatArray) -> FloatArray:
        out = self._x + step
        for term, A in zip(self._terms, self._away(step), strict=True):
            out[term.part] = lower_triangular(A)[term.rows, term.columns]
        return out

    def carried(self, step: FloatArray, there: _Frame) -> FloatArray:
        P = np.eye(len(step))
        for term, A, D, T, other in zip(
            self._terms, self._away(step), self.directions, there._T, there.directions, strict=True
        ):
            # T = AQ there, and directions turn with it.
            U, _, V = np.linalg.svd(A.T @ T)
            turned = np.matmul(D, U @ V)
            P[term.part, term.part] = other.reshape(len(other), -1) @ turned.reshape(len(D), -1).T
        return P
