"""Models of every kind that is saved, and what a file that was tampered with turns out to be."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lmmsparse as lmm

SLOW = 5.0  # seconds of processor time for a file of a few kilobytes, thirty times what one takes
N = 72

Saved = lmm.LinearMixedModel | Any


@cache
def data() -> pd.DataFrame:
    """Columns of every kind."""
    rng = np.random.default_rng(11)
    g = np.repeat(np.arange(12), 6)
    frame = pd.DataFrame({"g": g, "x": rng.normal(size=N), "z": rng.uniform(1, 2, N)})
    frame["y"] = frame["x"] + rng.normal(size=12)[g] * (1 + frame["x"]) + rng.normal(size=N)
    frame["f"] = np.tile(["u", "v", "w"], N // 3)
    frame["k"] = np.where(g % 2 == 0, "even", "odd")
    frame["half"] = g // 2
    frame["b"] = frame["x"] > 0.2
    frame["o"], frame["w"] = rng.normal(size=N), rng.uniform(0.5, 2, N)
    frame["day"] = pd.Timestamp("2024-03-01") + pd.to_timedelta(g, "D")
    frame["t"] = np.tile(np.arange(6), 12)
    frame["pair"] = np.arange(N) // 3
    eta = 0.5 * frame["x"] + 0.7 * rng.normal(size=12)[g]
    chance = 1.0 / (1.0 + np.exp(-eta))
    frame["hit"] = np.where(rng.uniform(size=N) < chance, "yes", "no")
    frame["m"] = rng.integers(3, 9, N)
    frame["s"] = rng.binomial(frame["m"], chance)
    frame["left"], frame["share"] = frame["m"] - frame["s"], frame["s"] / frame["m"]
    frame["count"] = rng.negative_binomial(3, 3 / (3 + np.exp(1 + eta)))
    frame["size"] = rng.gamma(4, np.exp(eta) / 4)
    frame["animal"] = [f"a{i}" for i in rng.integers(4, 20, N)]
    return frame


def gaps() -> pd.DataFrame:
    """The same with rows that are left out, and text for labels."""
    frame = data().set_axis([f"row {i}" for i in range(N)])
    return frame.assign(x=frame["x"].where(np.arange(N) % 10 > 0))


@cache
def pedigree() -> lmm.Pedigree:
    """Twenty animals, some inbred."""
    rng = np.random.default_rng(3)
    sires = [None] * 4 + [f"a{2 * rng.integers(0, (i + 1) // 2)}" for i in range(4, 20)]
    dams = [None] * 4 + [f"a{2 * rng.integers(0, i // 2) + 1}" for i in range(4, 20)]
    return lmm.Pedigree([f"a{i}" for i in range(20)], sires, dams)


def of_animals() -> pd.DataFrame:
    """The data with effects of animals."""
    effects = np.random.default_rng(5).normal(size=20)
    return data().assign(y=lambda d: d["y"] + 2.0 * effects[d["animal"].str[1:].astype(int)])


def _walk(n: int) -> np.ndarray[Any, Any]:
    """The precision of neighbours in a row."""
    W = np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    return np.diag(W.sum(axis=0)) - 0.9 * W


def _kernel(n: int) -> np.ndarray[Any, Any]:
    return np.exp(-np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / 3.0)


_CHUNKS = lmm.Chunks(rows=30, processes=1)

MODELS: dict[str, Callable[[], Any]] = {
    "slope": lambda: lmm.lmer("y ~ x + (x | g)", data()),
    "weights": lambda: lmm.lmer("y ~ x + offset(o) + (1 | g)", data(), weights="w"),
    "offset": lambda: lmm.lmer("y ~ x + (1 | g)", data(), offset="o", reml=False),
    "gaps": lambda: lmm.lmer("y ~ x + f + (1 | g)", gaps(), na_action="exclude"),
    "bases": lambda: lmm.lmer("y ~ poly(x, 2) + bs(z, df=4) + scale(z):f + (1 | g)", data()),
    "codings": lambda: lmm.lmer(
        "y ~ f + b + C(t, contr.sum) + (1 | half:k)", data(), contrasts={"f": "helmert"}
    ),
    "matrix": lambda: lmm.lmer(
        "y ~ f + (1 | g)", data(), contrasts={"f": [[1.0, 0], [0, 1], [-1, -1]]}
    ),
    "dates": lambda: lmm.lmer(
        "y ~ x + (1 | day) + (1 | f)", data().set_axis(pd.date_range("2024", periods=N))
    ),
    "several": lambda: lmm.lmer(
        "y ~ x * f + (x || g) + (1 | half)",
        data().set_index(["g", "t"], drop=False).rename_axis(["i", "j"]),
        solver=lmm.Cholmod(),
    ),
    "patterns": lambda: lmm.lmer("y ~ x + cs(0 + f | g)", data(), optimizer=lmm.Bobyqa()),
    "held": lambda: lmm.lmer("y ~ x + (x | g)", data(), fixed={"g.x": 0.5, "sigma": 1.0}),
    "arrays": lambda: lmm.fit_arrays(
        data()["y"], data()[["x"]], [(data()["g"], data()[["x", "z"]])], weights=data()["w"]
    ),
    "many columns": lambda: lmm.lmer("y ~ 0 + x:factor(g) + (1 | half)", data()),
    # Known covariances of levels
    "pedigree": lambda: lmm.lmer(
        "y ~ x + (1 | animal) + (1 | g)", of_animals(), known={"animal": pedigree()}
    ),
    "precision": lambda: lmm.lmer(
        "y ~ x + (x | g)", data(), known={"g": lmm.Precision(_walk(12), labels=range(12))}
    ),
    "covariance": lambda: lmm.lmer(
        "y ~ x + (1 | g)", data(), known={"g": lmm.Covariance(_kernel(12), labels=range(12))}
    ),
    # Structures of residuals
    "ar1": lambda: lmm.lmer("y ~ x + (1 | half)", data(), residual="ar1(t | g)", weights="w"),
    "car1": lambda: lmm.lmer("y ~ x", data(), residual="car1(t | g)", residual_sd="~ k"),
    "cs": lambda: lmm.lmer("y ~ x", data(), residual="cs(1 | g)"),
    "us": lambda: lmm.lmer("y ~ x", data(), residual="us(f | pair)", reml=False),
    "strata": lambda: lmm.lmer("y ~ x + (1 | g)", gaps(), residual_sd="~ z + k"),
    "held residual": lambda: lmm.lmer(
        "y ~ x + (1 | half)", data(), residual="ar1(t | g)", fixed={"Phi": 0.3}
    ),
    # Generalized models
    "binary": lambda: lmm.glmer("hit ~ x + (1 | g)", data(), "binomial"),
    "two columns": lambda: lmm.glmer(
        "cbind(s, left) ~ x + (1 | g)", data(), lmm.families.Binomial(link="probit"), n_agq=9
    ),
    "proportions": lambda: lmm.glmer(
        "share ~ x + f + (x || g)", data(), "binomial", weights="m", n_agq=0
    ),
    "cloglog": lambda: lmm.glmer(
        "b ~ z + (1 | g) + (1 | f)", data(), lmm.families.Binomial(link="cloglog"),
        information="expected",
    ),
    "poisson": lambda: lmm.glmer(
        "count ~ x + offset(o) + (x | g)", gaps(), "poisson", na_action="exclude"
    ),
    "negative binomial": lambda: lmm.glmer(
        "count ~ x + (1 | g)", data(), "negative_binomial", n_agq=5
    ),
    "known size": lambda: lmm.glmer(
        "count ~ x + (1 | g)", data(), lmm.families.NegativeBinomial(theta=2.0), weights="w"
    ),
    "gamma": lambda: lmm.glmer(
        "size ~ x + (1 | g)", data(), lmm.families.Gamma(link="log"), fixed={"g.Intercept": 0.4}
    ),
    "inverse gaussian": lambda: lmm.glmer(
        "size ~ poly(z, 2) + (1 | g)", data(), lmm.families.InverseGaussian(link="log"), n_agq=0
    ),
    "log gaussian": lambda: lmm.glmer(
        "size ~ x + (1 | half)", data(), lmm.families.Gaussian(link="log"), offset="o"
    ),
    # Rows that are not kept
    "chunks": lambda: lmm.lmer("y ~ x * f + (x | g)", data(), chunks=_CHUNKS),
    "weighted chunks": lambda: lmm.lmer(
        "y ~ x + offset(o) + (1 | half) + (1 | f)", data(), weights="w", chunks=_CHUNKS
    ),
    "sums": lambda: lmm.cross_products("y ~ x * f + (x | g)", data(), chunks=_CHUNKS),
    "weighted sums": lambda: lmm.cross_products(
        "y ~ x + k + (1 | g) + (1 | f)", data(), weights="w", offset="o", chunks=_CHUNKS
    ),
}  # fmt: skip


@cache
def model(kind: str) -> Any:
    """What is saved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MODELS[kind]()


@cache
def saved(kind: str, folder: Path) -> bytes:
    """The file of it."""
    model(kind).save(path := folder / "whole")
    return path.read_bytes()


def is_sums(m: Any) -> bool:
    return not hasattr(m, "fit")


def numbers(m: Any) -> dict[str, Any]:
    """The estimates, without names."""
    if is_sums(m):
        facts, products = m.design.facts, m.design.facts.products
        return {
            "n": facts.n,
            "response": [facts.response.Zty, facts.response.yty, facts.response.beta0],
            "border": [products.ZtX, products.basis.R, products.sum_log_weights],
            "pairs": [np.column_stack([p.rows, p.cols, p.values.reshape(len(p.rows), -1)])
                      for p in products.pairs],
        }  # fmt: skip
    fit = m.fit
    found = {name: getattr(fit, name) for name in ("theta", "beta", "vcov")}
    if fit.design.facts is None:
        found["fitted"] = fit.fitted
    for name in ("delta", "hessian", "phi", "residual_sd"):
        if hasattr(fit, name):
            found[name] = getattr(fit, name)
    return {
        "criterion": fit.criterion,
        "sigma": fit.sigma,
        **{f"modes {i}": part for i, part in enumerate(fit.split(fit.b))},
        **found,
    }


def words(m: Any) -> dict[str, Any]:
    """What a model says, with names and labels, and what it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if is_sums(m):
            fitted = lmm.lmer(m.formula, m)
            return {"text": repr(m), "fit": numbers(fitted), **words(fitted)}
        design = m.fit.design
        out: dict[str, Any] = {
            "estimates": [m.theta, m.fixef, *m.ranef.values()],
            "text": f"{m.formula} {m.reml} {m.npar} {m.nobs} {design.dropped}",
            "summary": str(m.summary()),
            "verdict": str(m.convergence),
        }
        if design.facts is not None:
            return out
        out["fitted"] = m.fitted
        if m.reml or isinstance(m, lmm.LinearMixedModel):
            out["refit"] = m.refit(2.0 * design.y + design.offset_or_zero).fixef
        if design.recipe is not None:
            out["predict"] = m.predict(data().head(30), new_levels="population")
        return out


@cache
def original(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return numbers(model(kind)), words(model(kind))


def equal(one: Any, other: Any) -> bool:
    """The same values, but for rounding."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, (pd.Series, pd.DataFrame)):
        return one.index.equals(other.index) and equal(one.to_numpy(), other.to_numpy())
    if isinstance(one, (np.ndarray, float)):
        same = np.shape(one) == np.shape(other)
        return same and np.allclose(one, other, rtol=1e-5, atol=1e-7, equal_nan=True)
    return bool(one == other)


def outcome(kind: str, content: bytes, path: Path) -> str:
    """What a file is: refused, the model that was saved, or its numbers by other names.

    Sums whose rows are gone may be other sums: of those a model is fitted, or refused.
    """
    path.write_bytes(content)
    before = time.process_time()
    try:
        loaded = lmm.load(path)
    except lmm.StorageError:
        loaded = None
    assert time.process_time() - before < SLOW
    if loaded is None:
        return "refused"
    if is_sums(loaded) != is_sums(model(kind)):
        return "another model"
    same = equal(numbers(loaded), original(kind)[0])
    if not same and not is_sums(loaded):
        return "another model"
    before = time.process_time()
    try:
        said = words(loaded)
    except lmm.LmmError:  # of predictions for data with the names that it had
        return "other names" if same else "other sums"
    finally:
        assert time.process_time() - before < SLOW
    if not same:
        assert np.isfinite(said["fit"]["beta"]).all()
        return "other sums"
    return "the same" if equal(said, original(kind)[1]) else "other names"
