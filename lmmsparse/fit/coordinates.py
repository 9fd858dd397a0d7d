"""θ ↔ coordinates in which every random-effects column has unit size, and the criterion in them."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.linalg import solve_triangular
from lmmsparse.engine.products import CrossProducts
from lmmsparse.fit.charts import ChartedObjective
from lmmsparse.fit.undetermined import Undetermined
from lmmsparse.optimize import Bounds, Derivatives

_DEPENDENT = 1e-8


class StandardizedObjective:
    """The criterion in coordinates in which every random-effects column has unit size.

    For a term with columns M let K be lower triangular with K'K = M'WM/n. Then T = K⁻¹ T̃ with T̃
    lower triangular, a linear map of θ̃ to θ that keeps every bound at zero; the model is the same
    and the units of the predictors disappear from the search. Where elements of T are held, K is
    diagonal, so that they are coordinates of the search too.

    Parameters
    ----------
    undetermined : Undetermined, optional
        Directions in which steps are not to go.
    """

    def __init__(
        self, objective: ProfiledDeviance, undetermined: Undetermined | None = None
    ) -> None:
        self.objective, self._undetermined = objective, undetermined
        self.template = template = objective.template
        products = objective.products
        self._map = standardizing_map(template, products)
        self._inverse = solve_triangular(self._map, np.eye(template.n_theta), lower=True)

    @property
    def bounds(self) -> Bounds:
        """The box of the internal coordinates, a point where θ is held, and their mirrors."""
        template = self.template
        if not template.held:
            return Bounds(template.lower, template.upper, template.mirrors)
        held = ~template.free
        at = self.to_internal(template.start)[held]
        lower, upper = template.lower.copy(), template.upper.copy()
        lower[held] = upper[held] = at
        return Bounds(lower, upper, template.mirrors)

    def to_theta(self, x: FloatArray) -> FloatArray:
        """Internal coordinates (d,) or (d, m) → θ."""
        return np.asarray(self._map @ x)

    def to_internal(self, theta: FloatArray) -> FloatArray:
        """θ → internal coordinates."""
        return np.asarray(self._inverse @ theta)

    def charted(self) -> ChartedObjective:
        """The same with derivatives along charts, where no coordinate has a limit."""
        return ChartedObjective(self.objective, self._map, self._undetermined)

    def __call__(self, x: FloatArray) -> float:
        return self.objective(self._map @ x)

    def derivatives(self, x: FloatArray) -> Derivatives:
        theta = self.to_theta(x)
        at = self.objective.derivatives(theta).along(self._map)
        if self._undetermined is None:
            return at
        nothing = [None] * len(self.template.structures)
        rows = self._undetermined.along(self.template, theta, nothing, self.objective.column_scales)
        return at.kept_off(rows @ self._map)


def standardizing_map(template: LambdaTemplate, products: CrossProducts) -> FloatArray:
    """The linear map of standardized coordinates to θ, (n_theta, n_theta), lower triangular."""
    out = np.eye(template.n_theta)
    for t, (structure, part, whole) in enumerate(
        zip(template.structures, template.slices, products.grams, strict=True)
    ):
        gram = whole / products.n
        S = template.shifts[t] if template.shifts else None
        if not template.free[part].all():
            inverse = standardizer(np.diag(np.diag(template.unshifted(t, gram))))
        else:
            inverse = standardizer(gram) if S is None else _standardizer_of_shifted(gram, S)
        out[part, part] = structure.standardizer(inverse)
    return out


def standardizer(gram: FloatArray) -> FloatArray:
    """K⁻¹ for K lower triangular with K'K = gram; diagonal scaling where gram is singular."""
    size = np.sqrt(gram.diagonal())
    if not (size > 0).all():
        return np.diag(1.0 / np.where(size > 0, size, 1.0))
    if len(size) == 1:
        return 1.0 / size[:, None]
    # K'K is a Cholesky factorization from the end: K = L reversed, transposed, with LL' reversed.
    L, info = lapack.dpotrf((gram / (size[:, None] * size))[::-1, ::-1], lower=1)
    if info or L.diagonal().min() < 1e-6:
        return np.diag(1.0 / size)
    inverse, _ = lapack.dtrtri(L, lower=1)
    return np.asarray(inverse.T[::-1, ::-1] / size[:, None])


def _standardizer_of_shifted(gram: FloatArray, S: FloatArray) -> FloatArray:
    """K⁻¹ for K lower triangular with K'K = S' gram S, about that where gram is singular.

    The product is not formed: it would have lost the digits that the shift has saved. Nor would
    diagonal scaling do: from far away, all columns look like the constant one.
    """
    size = np.sqrt(np.diag(gram))
    correlation = gram / np.outer(size, size)
    if np.linalg.eigvalsh(correlation)[0] < _DEPENDENT:
        correlation += 1e-3 * np.eye(len(gram))  # less would let T grow where nothing holds it
    upper = np.linalg.cholesky(correlation).T @ (size[:, None] * S)
    K = np.asarray(np.linalg.qr(upper[:, ::-1], mode="r"))[::-1, ::-1]
    K = K * np.where(np.diag(K) < 0, -1.0, 1.0)[:, None]
    return solve_triangular(K, np.eye(len(K)), lower=True)
