"""Made-up animals, lattices and matrices, and models with known covariances as dense matrices."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.linalg as sla

import lmmsparse as lmm

Array = npt.NDArray[np.float64]


def relationships(pedigree: pd.DataFrame) -> pd.DataFrame:
    """A by the tabular method; parents stand before their offspring."""
    ids = pedigree["id"].tolist()
    A = np.zeros((len(ids), len(ids)))
    at = {label: i for i, label in enumerate(ids)}
    for i, (sire, dam) in enumerate(zip(pedigree["sire"], pedigree["dam"], strict=True)):
        parents = [at[p] for p in (sire, dam) if p in at]
        if parents:
            A[i] = A[:, i] = 0.5 * A[parents].sum(axis=0)
        A[i, i] = 1.0 + (0.5 * A[parents[0], parents[1]] if len(parents) == 2 else 0.0)
    return pd.DataFrame(A, index=ids, columns=ids)


@cache
def pedigree(n: int = 60, per: int = 12, seed: int = 4) -> pd.DataFrame:
    """Generations of `per` animals, parents before offspring, some unknown; with inbreeding."""
    rng = np.random.default_rng(seed)
    sire, dam = np.full(n, None, dtype=object), np.full(n, None, dtype=object)
    for i in range(per, n):
        first = max(0, (i // per - 2) * per)
        before = np.arange(first, i // per * per)
        if rng.uniform() < 0.9:
            sire[i] = f"a{rng.choice(before[before % 4 == 0])}"
        if rng.uniform() < 0.9:
            dam[i] = f"a{rng.choice(before[before % 4 != 0])}"
    return pd.DataFrame({"id": [f"a{i}" for i in range(n)], "sire": sire, "dam": dam})


@cache
def lattice(rows: int = 5, columns: int = 6) -> tuple[Array, list[str]]:
    """The precision of a conditional autoregression, and the names of its cells."""
    cells = [(i, j) for i in range(rows) for j in range(columns)]
    W = np.array([[float(abs(i - k) + abs(j - m) == 1) for k, m in cells] for i, j in cells])
    return np.diag(W.sum(axis=0)) - 0.9 * W, [f"r{i}c{j}" for i, j in cells]


@cache
def kernel(n: int = 8) -> pd.DataFrame:
    """A covariance that falls with distance, of unequal variances."""
    at, labels = np.arange(n), [f"s{i}" for i in range(n)]
    sd = 1.0 + 0.2 * (at % 3)
    A = sd[:, None] * np.exp(-np.abs(at[:, None] - at) / 3.0) * sd
    return pd.DataFrame(A, index=labels, columns=labels)


@cache
def data(n: int = 150) -> pd.DataFrame:
    """Records of some animals, several of some and none of others."""
    rng = np.random.default_rng(11)
    animals = pedigree()
    A = relationships(animals)
    recorded = np.concatenate([np.arange(5, 60), rng.choice(np.arange(20, 50), n - 55)])
    ids = animals["id"].to_numpy()[recorded]
    Q, cells = lattice()
    cell = np.array(cells)[rng.integers(0, 28, n)]
    site = np.array([f"s{i}" for i in rng.integers(0, 7, n)])
    x = rng.normal(size=n)
    L = np.linalg.cholesky(A.to_numpy())
    u, v = L @ rng.normal(size=60), L @ rng.normal(size=60)
    herd = rng.integers(0, 6, n)
    y = 2.0 + x + 1.2 * u[recorded] + 0.6 * v[recorded] * x + rng.normal(size=6)[herd]
    c = np.linalg.solve(np.linalg.cholesky(Q).T, rng.normal(size=30))
    y = y + c[[cells.index(each) for each in cell]] + rng.normal(size=n)
    return pd.DataFrame(
        {
            "y": y,
            "x": x,
            "id": ids,
            "pe": ids,
            "dam": np.array([f"a{i}" for i in rng.integers(0, 30, n)]),
            "herd": herd,
            "cell": cell,
            "site": site,
            "w": rng.uniform(0.5, 2.0, n),
        }
    )


@cache
def all_known() -> dict[str, Any]:
    """What is known of every factor of `data`."""
    animals = lmm.Pedigree.from_frame(pedigree().sample(frac=1.0, random_state=1))
    Q, cells = lattice()
    return {
        "id": animals,
        "dam": animals,
        "cell": lmm.Precision(Q, labels=cells),
        "site": kernel(),
    }


# Name → formula, weights, REML.
MODELS: dict[str, tuple[str, str | None, bool]] = {
    "animal": ("y ~ x + (1 | id)", None, True),
    "animal, ML": ("y ~ x + (1 | id)", None, False),
    "herd": ("y ~ x + (1 | id) + (1 | herd)", "w", True),
    "repeatability": ("y ~ x + (1 | id) + (1 | pe)", None, True),
    "maternal": ("y ~ x + (1 | id) + (1 | dam)", None, True),
    "random regression": ("y ~ x + (1 + x | id) + (1 | herd)", None, True),
    "split": ("y ~ x + (1 + x || id) + (1 | pe)", "w", False),
    "lattice": ("y ~ x + (1 | cell)", None, True),
    "lattice and animals": ("y ~ x + (x | cell) + (1 | id)", "w", True),
    "kernel": ("y ~ x + (1 | site)", None, True),
    "kernel beside a larger factor": ("y ~ x + (x | site) + (1 | pe)", None, True),
    "three": ("y ~ x + (1 | id) + (1 | cell) + (x | site) + (1 | herd)", "w", True),
    "no fixed effects": ("y ~ 0 + (1 | id) + (1 | site)", None, True),
}


def known_of(formula: str) -> dict[str, Any]:
    """What is known of the factors of a formula."""
    groups = set(re.findall(r"\| (\w+)\)", formula))
    return {name: each for name, each in all_known().items() if name in groups}


@cache
def design(name: str) -> lmm.Design:
    formula, weights, _ = MODELS[name]
    known = known_of(formula)
    return lmm.build_design(formula, data(), weights=weights, known=known)


@cache
def _reordered(labels: tuple[str, ...]) -> Array:
    A = relationships(pedigree())
    return np.asarray(A.loc[list(labels), list(labels)], dtype=np.float64)


def covariance_of_levels(block: Any) -> Array:
    """A of a block as the tabular method, an inverse or the matrix itself gives it."""
    if block.group in ("id", "dam"):
        return _reordered(tuple(block.levels))
    if block.group == "cell":
        Q, cells = lattice()
        at = [cells.index(label) for label in block.levels]
        return np.asarray(np.linalg.inv(Q)[np.ix_(at, at)])
    if block.group == "site":
        return np.asarray(kernel().loc[block.levels, block.levels], dtype=np.float64)
    return np.eye(block.n_levels)


def covariance_of_effects(design: lmm.Design, theta: Array) -> Array:
    """Cov(b) / σ², dense."""
    parts, at = [], 0
    for block in design.blocks:
        T = block.structure.factor(theta[at : at + block.structure.n_par])
        at += block.structure.n_par
        parts.append(np.kron(covariance_of_levels(block), T @ T.T))
    return np.asarray(sla.block_diag(*parts))


def criterion(design: lmm.Design, reml: bool, theta: Array, sigma: float | None = None) -> float:
    """The deviance or REML criterion by the n × n covariance of the response."""
    X, Z, n = design.X, design.Z.toarray(), design.n
    V = np.diag(1.0 / design.weights_or_one) + Z @ covariance_of_effects(design, theta) @ Z.T
    L = np.linalg.cholesky(V)
    WX, Wy = np.linalg.solve(L, X), np.linalg.solve(L, design.y)
    beta = np.linalg.lstsq(WX, Wy, rcond=None)[0]
    r2 = float(np.sum((Wy - WX @ beta) ** 2))
    df = n - design.p if reml else n
    s2 = r2 / df if sigma is None else sigma**2
    value = 2.0 * np.log(np.diag(L)).sum() + df * np.log(2.0 * np.pi * s2) + r2 / s2
    if reml and design.p:
        value += np.linalg.slogdet(WX.T @ WX)[1]
    return float(value)
