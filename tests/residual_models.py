"""Small models with structured residuals, and what their definition says with n × n matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg as sla

import lmmsparse as lmm
from lmmsparse.engine.columns import orthonormal
from lmmsparse.engine.covariance.structures import make_structure
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.pairs import TermColumns, pair_patterns
from lmmsparse.engine.residual.base import Correlation, Groups
from lmmsparse.engine.residual.criterion import JointDeviance
from lmmsparse.engine.residual.exchangeable import Exchangeable, Independent
from lmmsparse.engine.residual.markov import Autoregressive
from lmmsparse.engine.residual.sets import CrossSets
from lmmsparse.engine.residual.structure import ResidualStructure
from lmmsparse.engine.residual.unstructured import Unstructured
from lmmsparse.engine.solvers.base import PLSSolver
from lmmsparse.engine.solvers.none import NoEffects

Array = np.ndarray[Any, Any]
KINDS = ("none", "ar1", "car1", "cs", "us")
DEVIATIONS = ("none", "strata", "covariate")


@dataclass(frozen=True, eq=False)
class Case:
    """A model in arrays."""

    structure: ResidualStructure
    joint: JointDeviance
    theta: Array
    phi: Array
    X: Array
    y: Array
    Z: Array

    def R(self, phi: Array) -> Array:
        """By its definition, group by group."""
        structure, groups = self.structure, self.structure.correlation.groups
        own, gamma = structure.split(phi)
        out = np.zeros((structure.n, structure.n))
        for group in range(groups.n_groups):
            rows = np.flatnonzero(groups.codes == group)
            out[np.ix_(rows, rows)] = _correlation(structure.correlation, own, groups.times[rows])
        scale = np.exp(structure.columns @ gamma)
        if structure.weights is not None:
            scale = scale / np.sqrt(structure.weights)
        return out * np.outer(scale, scale)

    def criterion(self, theta: Array, phi: Array) -> float:
        """−2 log (restricted) likelihood with σ profiled out."""
        X, y = self.X, self.y
        L = self.joint.template.Lambda(theta).toarray()
        V = self.R(phi) + self.Z @ L @ L.T @ self.Z.T
        W = np.linalg.inv(V)
        A = X.T @ W @ X
        r = y - X @ np.linalg.solve(A, X.T @ W @ y)
        df = len(y) - (X.shape[1] if self.joint.reml else 0)
        value = np.linalg.slogdet(V)[1] + df * (1.0 + np.log(2.0 * np.pi * (r @ W @ r) / df))
        return float(value + (np.linalg.slogdet(A)[1] if self.joint.reml else 0.0))


def _correlation(law: Correlation, phi: Array, times: Array) -> Array:
    """Of rows of one group, from the natural parameters."""
    values = law.natural(phi)
    gaps = np.abs(np.subtract.outer(times, times))
    if isinstance(law, Autoregressive):
        return np.where(gaps == 0, 1.0, values[0] ** np.where(gaps == 0, 1.0, gaps))
    if isinstance(law, Exchangeable):
        return np.where(np.eye(len(times), dtype=bool), 1.0, values[0])
    if isinstance(law, Independent):
        return np.eye(len(times))
    assert isinstance(law, Unstructured)
    sd = np.concatenate([[1.0], values[: law.v - 1]])
    C = np.eye(law.v)
    places = [(i, j) for j in range(law.v) for i in range(j + 1, law.v)]
    for (i, j), value in zip(places, values[law.v - 1 :], strict=True):
        C[i, j] = C[j, i] = value
    at = times.astype(int)
    return (C * np.outer(sd, sd))[np.ix_(at, at)]


def case(
    kind: str,
    deviation: str = "none",
    random: str = "ab",
    weights: bool = False,
    reml: bool = True,
    solver: PLSSolver | None = None,
    seed: int = 0,
    groups: int = 12,
) -> Case:
    """A random model; `random` names its terms: a slope within groups, intercepts above them."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 6, groups)
    sizes[0] = 1
    codes = np.repeat(np.arange(groups), sizes)
    n = len(codes)
    times = np.concatenate([np.sort(rng.choice(7, m, replace=False)) for m in sizes]).astype(float)
    if kind == "car1":
        times = times + 0.5 * rng.random(n)
    order = rng.permutation(n)
    codes, times = codes[order], times[order]
    rows = Groups(codes, times, groups)
    law: Correlation = {
        "none": lambda: Independent.of(n),
        "ar1": lambda: Autoregressive(rows),
        "car1": lambda: Autoregressive(rows, continuous=True),
        "cs": lambda: Exchangeable(rows),
        "us": lambda: Unstructured(rows, tuple("abcdefg")),
    }[kind]()
    columns = {
        "none": np.zeros((n, 0)),
        "strata": rng.integers(0, 2, (n, 1)).astype(float),
        "covariate": rng.normal(size=(n, 1)),
    }[deviation]
    w = rng.uniform(0.5, 2.0, n) if weights else None
    structure = ResidualStructure(law, columns, w)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    y = rng.normal(size=n)
    terms = []
    if "a" in random:
        terms.append(TermColumns(codes, np.column_stack([np.ones(n), rng.normal(size=n)]), groups))
    if "b" in random:
        terms.append(TermColumns(codes // 3, np.ones((n, 1)), (groups + 2) // 3))
    Q, basis = orthonormal(X, w)
    beta0 = Q.transposed_times(y if w is None else w * y)
    sets = CrossSets(
        structure, Q.X, y - Q.times(beta0), beta0, basis, terms, list(pair_patterns(terms))
    )
    template = LambdaTemplate(
        tuple(make_structure("us", t.columns.shape[1], None) for t in terms),
        tuple(t.n_levels for t in terms),
    )
    chosen = solver if terms and solver is not None else (lmm.Blocked() if terms else NoEffects())
    joint = JointDeviance.of(sets, chosen, template, reml)
    theta = template.start + 0.3 * rng.normal(size=template.n_theta)
    phi = structure.starts[0] + 0.4 * rng.normal(size=structure.n_phi)
    Z = [_dense(t) for t in terms]
    return Case(structure, joint, theta, phi, X, y, np.hstack([np.zeros((n, 0)), *Z]))


def _dense(term: TermColumns) -> Array:
    n, k = term.columns.shape
    out = np.zeros((n, term.n_levels * k))
    for j in range(k):
        out[np.arange(n), term.codes * k + j] = term.columns[:, j]
    return out


def teeth() -> pd.DataFrame:
    """Four visits of 27 children, some of them missed."""
    rng = np.random.default_rng(5)
    child = np.repeat(np.arange(27), 4)
    visit = np.tile(np.arange(1, 5), 27)
    boy = np.repeat(np.arange(27) < 16, 4)
    R = 0.6 ** np.abs(np.subtract.outer(range(4), range(4)))
    noise = rng.multivariate_normal(np.zeros(4), R, 27).ravel() * np.where(boy, 1.6, 0.8)
    level = np.repeat(rng.normal(size=27), 4)
    frame = pd.DataFrame(
        {
            "y": 20 + 0.6 * visit + 0.4 * boy * visit + level + noise,
            "visit": visit,
            "age": 6 + 2 * visit + np.tile([0.0, 0.3, 0.1, 0.5], 27),
            "child": [f"c{i:02d}" for i in child],
            "sex": np.where(boy, "male", "female"),
        }
    )
    return frame.drop(index=[2, 9, 30, 41, 42, 77]).reset_index(drop=True)


def covariance(m: Any) -> tuple[Array, Array, Array]:
    """V of the response, R of the residuals, and Z, at the estimates."""
    fit = m.fit
    Z = fit.design.Z.toarray()
    L = fit.Lambda.toarray()
    R = fit.sigma2 * fit.structure.block(fit.phi, np.arange(fit.design.n))
    return R + fit.sigma2 * Z @ L @ L.T @ Z.T, R, Z


def definition(m: Any) -> Any:
    """Criterion with σ free, and Cov(β̂), as functions of (θ, φ, σ)."""
    fit, design = m.fit, m.fit.design
    X, y = design.X, design.y - design.offset_or_zero
    Z, d = design.Z.toarray(), fit.template.n_theta
    rows = np.arange(design.n)

    def V(x: Array) -> Array:
        L = fit.template.Lambda(x[:d]).toarray() if d else np.zeros((0, 0))
        R = fit.structure.block(x[d:-1], rows)
        return np.asarray(x[-1] ** 2 * (R + Z @ L @ L.T @ Z.T))

    def criterion(x: Array) -> float:
        S = V(x)
        W = np.linalg.inv(S)
        A = X.T @ W @ X
        r = y - X @ np.linalg.solve(A, X.T @ W @ y)
        value = np.linalg.slogdet(S)[1] + r @ W @ r
        return float(value + (np.linalg.slogdet(A)[1] if fit.reml else 0.0))

    return V, criterion, np.concatenate([fit.theta, fit.phi, [fit.sigma]])


def whitener(R: Array) -> Array:
    """L⁻¹ of a covariance matrix."""
    return np.asarray(sla.solve_triangular(np.linalg.cholesky(R), np.eye(len(R)), lower=True))
