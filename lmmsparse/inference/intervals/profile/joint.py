"""The ML criterion of a model whose residuals have parameters, with θ and φ in one vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray, frozen
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.criterion import ProfiledDeviance, rounding_error
from lmmsparse.engine.residual.criterion import JointDeviance
from lmmsparse.engine.solvers.base import PLSSolution, PLSSystem
from lmmsparse.fit.coordinates import standardizing_map
from lmmsparse.optimize import Derivatives

_STEP = 1e-4
_FRESH = 60  # evaluations


@dataclass(frozen=True, eq=False)
class JointTemplate(LambdaTemplate):
    """The pattern of Λ with elements of φ after those of θ.

    Attributes
    ----------
    phi : (n_phi,) array
        A point, at which what is held stays.
    free_phi : (n_phi,) bool array
    """

    phi: FloatArray = field(default_factory=lambda: np.zeros(0), kw_only=True)
    free_phi: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool), kw_only=True)

    @property
    def d(self) -> int:
        """Elements of θ."""
        return super().n_theta

    @property
    def n_theta(self) -> int:
        return self.d + len(self.phi)

    @cached_property
    def free(self) -> BoolArray:
        out = np.ones(self.d, dtype=bool)
        out[[i for i, _ in self.held]] = False
        return frozen(np.append(out, self.free_phi))

    def with_held(self, theta: FloatArray) -> FloatArray:
        out = super().with_held(theta)
        if len(out) > self.d:
            out[self.d :] = np.where(self.free_phi, out[self.d :], self.phi)
        return out

    def _more(self, own: FloatArray, value: float) -> FloatArray:
        return np.append(own, np.where(self.free_phi, value, self.phi))

    @cached_property
    def start(self) -> FloatArray:
        return frozen(np.append(super().start, self.phi))

    @cached_property
    def lower(self) -> FloatArray:
        return frozen(self._more(super().lower, -np.inf))

    @cached_property
    def upper(self) -> FloatArray:
        return frozen(self._more(super().upper, np.inf))


@dataclass(frozen=True, eq=False)
class Column:
    """A fixed effect that is held at a value, in internal columns of X.

    Attributes
    ----------
    rest, unit : (p, p − 1) and (p,) arrays
        Directions of the other columns, and that of this one.
    triangle : (p − 1, p − 1) array
        Of the others' basis.
    kappa : float
        How far along `unit` the value moves the response.
    beta0 : (p − 1,) array
    system : PLSSystem
        Of the other columns.
    """

    rest: FloatArray
    unit: FloatArray
    triangle: FloatArray
    kappa: float
    beta0: FloatArray
    system: PLSSystem

    def moved(self, full: ProfiledDeviance) -> ProfiledDeviance:
        """The criterion without the column."""
        products, old, unit, rest = full.products, full.response, self.unit, self.rest
        logdet = float(2 * np.log(np.abs(np.diag(self.triangle))).sum())
        smaller = replace(
            products,
            ZtX=products.ZtX @ rest,
            XtX=rest.T @ products.XtX @ rest,
            basis=replace(products.basis, R=self.triangle, logdet=logdet),
        )
        along = products.XtX @ unit
        response = replace(
            old,
            Zty=old.Zty + self.kappa * (products.ZtX @ unit),
            Xty=rest.T @ (old.Xty + self.kappa * along),
            yty=old.yty
            + self.kappa**2 * float(unit @ along)
            + 2 * self.kappa * float(unit @ old.Xty),
            beta0=self.beta0,
        )
        system = self.system.with_products(smaller)
        return replace(full, system=system, products=smaller, response=response)


class Curvature:
    """Second derivatives along a curve: made once, then kept up by what gradients say.

    They only guide steps, and differ little from point to point.
    """

    def __init__(self) -> None:
        self._point: tuple[FloatArray, FloatArray, float] | None = None
        self._H = np.zeros((0, 0))
        self._age = 0

    def at(
        self, x: FloatArray, g: FloatArray, key: float, fresh: Callable[[], FloatArray]
    ) -> FloatArray:
        """Those at x, where the gradient is g.

        Parameters
        ----------
        key : float
            Gradients of different keys are those of different functions.
        """
        last, self._point = self._point, (x.copy(), g.copy(), key)
        self._age += 1
        if last is None or self._age > _FRESH:
            self._H, self._age = fresh(), 0
        elif last[2] == key:
            step = x - last[0]
            missed = g - last[1] - self._H @ step
            along = float(missed @ step)
            if abs(along) > 1e-6 * float(np.linalg.norm(missed) * np.linalg.norm(step)):
                self._H = self._H + np.outer(missed, missed) / along
        return self._H


@dataclass(frozen=True, eq=False)
class JointCriterion(ProfiledDeviance):
    """An ML criterion as a function of (θ, φ) in one vector.

    Attributes
    ----------
    joint : JointDeviance
    column : Column, optional
        A fixed effect that is held.
    curvature : Curvature
        Shared by all points of a curve.
    """

    joint: JointDeviance = field(kw_only=True)
    column: Column | None = field(default=None, kw_only=True)
    curvature: Curvature = field(default_factory=Curvature, kw_only=True)

    @property
    def _d(self) -> int:
        return self.joint.template.n_theta

    def at(self, phi: FloatArray) -> ProfiledDeviance:
        """The criterion as a function of θ alone."""
        full = self.joint.at(phi)
        return full if self.column is None else self.column.moved(full)

    def solution(self, theta: FloatArray) -> PLSSolution:
        return self.at(theta[self._d :]).solution(theta[: self._d])

    def __call__(self, theta: FloatArray) -> float:
        return self.at(theta[self._d :])(theta[: self._d])

    def joint_value(self, theta: FloatArray, sigma: float) -> float:
        return self.at(theta[self._d :]).joint_value(theta[: self._d], sigma)

    def _both(self, both: FloatArray, sigma2: float | None = None) -> FloatArray:
        """The gradient by θ and φ."""
        theta, phi = both[: self._d], both[self._d :]
        at = self.at(phi)
        shift = None
        if self.column is not None:
            shift = self.column.rest, -self.column.kappa * self.column.unit
        slope = self.joint.slope(at, theta, phi, sigma2, shift)
        own = at.gradient(theta, sigma2) if self._d else np.zeros(0)
        return np.concatenate([own, slope])

    def _second(self, both: FloatArray, g: FloatArray, sigma2: float | None = None) -> FloatArray:
        """Second derivatives by θ and φ, in units of the search."""
        key = sigma2 if self.column is None or sigma2 is not None else self.column.kappa
        unit = self.steps
        scaled = self.curvature.at(
            both / unit,
            g * unit,
            np.inf if key is None else key,
            lambda: self._by_differences(both, g, sigma2) * np.outer(unit, unit),
        )
        return np.asarray(scaled / np.outer(unit, unit))

    def _by_differences(self, both: FloatArray, g: FloatArray, sigma2: float | None) -> FloatArray:
        out = np.empty((len(both), len(both)))
        for i, h in enumerate(_STEP * self.steps):
            there = both.copy()
            h = -h if there[i] + h > self.template.upper[i] else h
            there[i] += h
            out[i] = (self._both(there, sigma2) - g) / h
        return np.asarray(0.5 * (out + out.T))

    @cached_property
    def steps(self) -> FloatArray:
        """The unit of every element."""
        structure = self.joint.sets.structure
        unit = np.ones(structure.n_phi)
        unit[structure.n_correlation :] = 1.0 / structure.scales
        own = np.diag(standardizing_map(self.joint.template, self.products))
        return np.concatenate([own, unit])

    def derivatives(self, theta: FloatArray, directions: object = None) -> Derivatives:
        gradient = self._both(theta)
        noise = float(rounding_error(self.df, 1e-2))
        value, hessian = self(theta), self._second(theta, gradient)
        return Derivatives(value, gradient, hessian, noise=noise)

    def joint_derivatives(self, theta: FloatArray, sigma: float) -> Derivatives:
        s2, d = sigma * sigma, len(theta)
        at = self.at(theta[self._d :])
        r2 = at.solution(theta[: self._d]).pwrss
        gradient = self._both(theta, s2)
        slope = 2.0 * s2 * (gradient - self._both(theta, 2.0 * s2))
        hessian = np.empty((d + 1, d + 1))
        hessian[:d, :d] = self._second(theta, gradient, s2)
        hessian[:d, d] = hessian[d, :d] = -2.0 * slope / s2
        hessian[d, d] = 4.0 * r2 / s2
        gradient = np.append(gradient, 2.0 * (self.df - r2 / s2))
        return Derivatives(at.joint_value(theta[: self._d], sigma), gradient, hessian)
