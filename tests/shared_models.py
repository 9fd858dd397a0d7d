"""Models of every kind and every public member of them, for tests of what threads share.

A model is made by a function of no arguments; a member is asked for with arguments that keep it
short, and its answer made plain, so that two answers can be compared digit by digit.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import lmmsparse as lmm
from lmmsparse.engine.solvers import cvxopt, libraries

SLOPES = "y ~ x + f + (x | a) + (1 | b)"
SCALARS = "y ~ x + f + (1 | a) + (1 | b)"


@cache
def crossed() -> pd.DataFrame:
    """Rows of two crossed factors that are not balanced, with responses for every family."""
    rng = np.random.default_rng(4)
    n = 400
    a, b, x = rng.integers(0, 40, n), rng.integers(0, 35, n), rng.normal(size=n)
    f = np.array(["u", "v", "w"])[rng.integers(0, 3, n)]
    y = x + rng.normal(size=40)[a] + 0.5 * rng.normal(size=40)[a] * x + rng.normal(size=35)[b]
    eta = 0.4 * x + 0.5 * rng.normal(size=40)[a] + 0.4 * rng.normal(size=35)[b]
    mu = np.exp(1.0 + 0.5 * eta)
    return pd.DataFrame(
        {
            "y": y + rng.normal(size=n),
            "x": x,
            "f": f,
            "a": a,
            "b": b,
            "c": a % 12,
            "d": b % 9,
            "t": pd.Series(a).groupby(a).cumcount(),
            "count": rng.poisson(mu),
            "many": rng.negative_binomial(3, 3 / (3 + mu)),
            "hit": (rng.random(n) < 1 / (1 + np.exp(-2 * eta))).astype(int),
            "positive": rng.gamma(4, mu / 4),
            "wald": rng.wald(mu, 8.0),
            "share": mu + 0.3 * rng.normal(size=n),
        }
    )


def _known() -> dict[str, lmm.Precision]:
    Q = 2.0 * np.eye(40) - 0.4 * (np.eye(40, k=1) + np.eye(40, k=-1))
    return {"a": lmm.Precision(Q, labels=range(40))}


class ByCvxopt(lmm.Cholmod):
    """CHOLMOD of cvxopt, whether or not there is scikit-sparse's."""

    def analyze(self, lower: Any, several: bool = True) -> Any:
        factor = cvxopt.analyze(lower, "amd", self.mode)
        return factor, f"CHOLMOD (cvxopt, {self.mode})"


def _lmer(formula: str, solver: Any = None, **options: Any) -> Callable[[], Any]:
    return lambda: lmm.lmer(formula, crossed(), solver=solver, **options)


def _glmer(formula: str, family: Any, solver: Any = None, **options: Any) -> Callable[[], Any]:
    return lambda: lmm.glmer(formula, crossed(), family, solver=solver, **options)


def _in_chunks() -> Any:
    return lmm.lmer(
        SLOPES,
        lmm.Batches(lambda: iter([crossed().iloc[:250], crossed().iloc[250:]])),
        chunks=lmm.Chunks(rows=100, processes=1),
    )


def _of_products() -> Any:
    return lmm.lmer(SCALARS, lmm.cross_products(SCALARS, crossed()))


def _of_arrays() -> Any:
    data = crossed()
    X = np.column_stack([np.ones(len(data)), data["x"]])
    return lmm.fit_arrays(data["y"], X, [(data["a"], X), (data["b"], None)])


MODELS: dict[str, Callable[[], Any]] = {
    "CHOLMOD": _lmer(SLOPES, lmm.Cholmod()),
    "simplicial": _lmer(SLOPES, lmm.Cholmod(mode="simplicial")),
    "supernodal": _lmer(SLOPES, lmm.Cholmod(mode="supernodal")),
    "cvxopt": _lmer(SLOPES, ByCvxopt()),
    "supernodal of cvxopt": _lmer(SLOPES, ByCvxopt(mode="supernodal")),
    "SuperLU": _lmer(SLOPES, lmm.SuperLU()),
    "blocked": _lmer(SLOPES, lmm.Blocked()),
    "bordered": _lmer(SCALARS, lmm.Blocked()),
    "scalars": _lmer("y ~ x + f + (1 | c) + (1 | d)", lmm.Blocked()),
    "small": _lmer("y ~ x + f + (x | c) + (1 | d)", lmm.Blocked()),
    "levels": _lmer("y ~ x + f + (x | a)"),
    "ML": _lmer("y ~ x + f + (x || a)", reml=False),
    "dense": _lmer(SCALARS, lmm.Dense()),
    "Krylov": _lmer(SCALARS, lmm.Krylov()),
    "held": _lmer(SLOPES, fixed={"sigma": 1.1}),
    "weighted": lambda: lmm.lmer(SLOPES, crossed(), weights=1.0 + crossed()["t"] % 3),
    "known": _lmer(SLOPES, lmm.Cholmod(), known=_known()),
    "known, blocked": _lmer(SLOPES, lmm.Blocked(), known=_known()),
    "ar1": _lmer("y ~ x + f + (x | c)", residual="ar1(t | a)"),
    "car1, sd": _lmer("y ~ x + f", residual="car1(t | a)", residual_sd="~ f"),
    "cs, nested": _lmer("y ~ x + f + (x | c)", lmm.Cholmod(), residual="cs(t | a)"),
    "sd": _lmer(SLOPES, residual_sd="~ f"),
    "chunks": _in_chunks,
    "products": _of_products,
    "arrays": _of_arrays,
    "binomial, levels": _glmer("hit ~ x + f + (1 | a)", "binomial"),
    "binomial, slopes": _glmer("hit ~ x + (x | a)", "binomial"),
    "binomial, crossed": _glmer("hit ~ x + f + (1 | a) + (1 | b)", "binomial", lmm.Cholmod()),
    "binomial, cvxopt": _glmer("hit ~ x + f + (1 | a) + (1 | b)", "binomial", ByCvxopt()),
    "binomial, SuperLU": _glmer("hit ~ x + f + (1 | a) + (1 | b)", "binomial", lmm.SuperLU()),
    "binomial, blocked": _glmer("hit ~ x + f + (x | a) + (1 | b)", "binomial", lmm.Blocked()),
    "binomial, dense": _glmer("hit ~ x + (1 | a) + (1 | b)", "binomial", lmm.Dense()),
    "binomial, quadrature": _glmer("hit ~ x + f + (1 | a)", "binomial", n_agq=7),
    "binomial, known": _glmer("hit ~ x + (1 | a) + (1 | b)", "binomial", known=_known()),
    "poisson, crossed": _glmer("count ~ x + f + (1 | a) + (1 | b)", "poisson", lmm.Cholmod()),
    "poisson, quadrature": _glmer("count ~ x + f + (1 | a)", "poisson", n_agq=5),
    "nbinom": _glmer("many ~ x + (1 | a)", "negative_binomial"),
    "nbinom, crossed": _glmer("many ~ x + (1 | a) + (1 | b)", "negative_binomial", lmm.Cholmod()),
    "gamma": _glmer("positive ~ x + f + (1 | a)", lmm.families.Gamma(link="log")),
    "gamma, crossed": _glmer(
        "positive ~ x + (1 | a) + (1 | b)", lmm.families.Gamma(link="log"), lmm.Cholmod()
    ),
    "gamma, quadrature": _glmer("positive ~ x + (1 | a)", lmm.families.Gamma("log"), n_agq=5),
    "inverse gaussian": _glmer("wald ~ x + (1 | a)", lmm.families.InverseGaussian(link="log")),
    "gaussian": _glmer("share ~ x + (1 | a)", lmm.families.Gaussian(link="log")),
    "gaussian, crossed": _glmer(
        "share ~ x + (1 | a) + (1 | b)", lmm.families.Gaussian(link="log"), lmm.Blocked()
    ),
}
if not libraries.library():
    MODELS = {name: make for name, make in MODELS.items() if "CHOLMOD" not in name}
if not find_spec("cvxopt"):  # which is loaded when it is first used
    MODELS = {name: make for name, make in MODELS.items() if "cvxopt" not in name}


def _drawn(plot: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
    """What a plot draws, in numbers; on a figure of its own, as pyplot's are for one thread."""
    for count in range(1, 10):
        try:
            axes = plot(
                *arguments, **options, ax=list(Figure().subplots(1, count, squeeze=False)[0])
            )
        except lmm.OptionError as error:
            if "panel" not in str(error):
                raise
        else:
            break
    out = []
    for ax in np.atleast_1d(np.asarray(axes, dtype=object)).ravel():
        out += [np.asarray(line.get_xydata(), dtype=float) for line in ax.lines]
        out += [np.asarray(each.get_offsets(), dtype=float) for each in ax.collections]
    return out


def _response(m: Any) -> pd.Series:
    return m.simulate(1, rng=11).iloc[:, 0]


def _saved(m: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        m.save(Path(folder) / "m.lmm")
        return lmm.load(Path(folder) / "m.lmm").coef_table().to_frame()


def _written(m: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        files = m.write_predictions(crossed(), Path(folder) / "out")
        return [pd.read_parquet(file).to_numpy().tolist() for file in files]


def _first_group(m: Any) -> str:
    return next(iter(m.n_groups), "a")


_GENERALIZED = lmm.GeneralizedLinearMixedModel


def _influence(m: Any) -> Any:
    return m.influence(_first_group(m)).to_frame()


# What is asked of every model; those that it does not have are left out.
CALLS: dict[str, Callable[[Any], Any]] = {
    "all_fit": lambda m: m.all_fit().to_frame().drop(columns=["seconds"]),
    "anova": lambda m: m.anova() if isinstance(m, _GENERALIZED) else lmm.anova(m),
    "augment": lambda m: m.augment(crossed()),
    "bootstrap": lambda m: m.bootstrap(3, rng=3, progress=False).to_frame(),
    "check": lambda m: _drawn(m.check, rng=1),
    "check_dispersion": lambda m: m.check_dispersion(20, rng=1),
    "coef_table": lambda m: m.coef_table(),
    "coef_table kr": lambda m: m.coef_table("kenward-roger"),
    "coef_table robust": lambda m: m.coef_table(robust="CR2"),
    "compare": lambda m: lmm.compare(m, m).to_frame(),
    "confint wald": lambda m: m.confint("wald"),
    "confint profile": lambda m: m.confint("profile", which=m.fixef.index[-1]),
    "confint boot": lambda m: m.confint("boot", n=4, rng=2, kind="basic"),
    "contrast": lambda m: m.contrast([0, 1] + [0] * (len(m.fixef) - 2)),
    "criterion_at": lambda m: m.criterion_at(m.fixef * 1.01, m.theta * 1.1, m.dispersion),
    "criterion elsewhere": lambda m: m.fit.objective(np.array(m.theta) * 1.05),
    "drop1": lambda m: m.drop1(),
    "emmeans": lambda m: m.emmeans("f", pairwise=True),
    "emtrends": lambda m: m.emtrends(None, "x"),
    "glance": lambda m: m.glance(),
    "icc": lambda m: m.icc(),
    "influence": _influence,
    "influence of rows": lambda m: m.influence().to_frame(),
    "is_singular": lambda m: m.is_singular(),
    "joint_tests": lambda m: m.joint_tests(),
    "more_probes": lambda m: m.more_probes(48).coef_table(),
    "plot caterpillar": lambda m: _drawn(m.plot.caterpillar, "a"),
    "plot residuals": lambda m: _drawn(m.plot.residuals),
    "plot qq": lambda m: _drawn(m.plot.qq),
    "plot effects": lambda m: _drawn(m.plot.effects, "x"),
    "plot shrinkage": lambda m: _drawn(m.plot.shrinkage, "a"),
    "pool": lambda m: lmm.pool([m, m.refit(_response(m))]),
    "power": lambda m: m.power("x", rng=1, n_sim=3).to_frame(),
    "predict": lambda m: m.predict(),
    "predict se": lambda m: m.predict(crossed().head(50), se=True),
    "predict interval": lambda m: m.predict(interval="prediction"),
    "predict draws": lambda m: m.predict(crossed().head(9), se=True, theta_draws=5, rng=1),
    "predict marginal": lambda m: m.predict(crossed().head(9), marginal=True),
    "predict_batches": lambda m: list(m.predict_batches(crossed())),
    "profile": lambda m: m.profile("theta_").to_frame(),
    "r2": lambda m: m.r2(),
    "rank_pca": lambda m: list(m.rank_pca().values()),
    "ranova": lambda m: m.ranova(),
    "refit": lambda m: m.refit(_response(m)).coef_table(),
    "refit_many": lambda m: m.refit_many(m.simulate(3, rng=2)),
    "residual_batches": lambda m: list(m.residual_batches(crossed())),
    "residuals": lambda m: m.residuals() if isinstance(m, _GENERALIZED) else m.residuals,
    "residuals_of": lambda m: m.residuals_of("pearson"),
    "quantile residuals": lambda m: m.residuals_of("quantile", rng=4),
    "save": _saved,
    "simulate": lambda m: m.simulate(2, rng=1),
    "simulate_batches": lambda m: list(m.simulate_batches(crossed(), rng=5)),
    "step": lambda m: m.step(),
    "summary": lambda m: m.summary(),
    "tidy": lambda m: m.tidy(conf_int=True),
    "tidy of levels": lambda m: m.tidy("ran_vals"),
    "update": lambda m: m.update("~ . - x", crossed()).coef_table(),
    "vcov_robust": lambda m: m.vcov_robust(),
    "cluster_sums": lambda m: m.cluster_sums(crossed(), chunks=lmm.Chunks(processes=1)).scores,
    "vcov_varcorr": lambda m: m.vcov_varcorr(),
    "write_predictions": _written,
    "fit": lambda m: repr(m.fit),
}
_NEITHER = ("fit", "plot", "residuals")
PROPERTIES = sorted(
    {
        name
        for kind in (lmm.LinearMixedModel, lmm.GeneralizedLinearMixedModel)
        for name in dir(kind)
        if not name.startswith("_") and name not in _NEITHER and not callable(getattr(kind, name))
    }
)
CALLS |= {name: lambda m, name=name: getattr(m, name) for name in PROPERTIES}


def plain(value: Any) -> Any:
    """An answer in a form that compares by every digit."""
    if hasattr(value, "to_frame") and not isinstance(value, (pd.Series, pd.Index)):
        return plain(value.to_frame())
    if hasattr(value, "to_numpy"):
        return value.to_numpy().tolist()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict) or hasattr(value, "items"):
        return [(str(key), plain(each)) for key, each in value.items()]
    if isinstance(value, (list, tuple, Iterator)):
        return [plain(each) for each in value]
    return value if isinstance(value, (int, float, bool)) else str(value)


def answer(model: Any, name: str) -> str:
    """What a member says: also that it refuses, and why."""
    try:
        return repr(plain(CALLS[name](model)))
    except lmm.LmmError as error:
        return f"{type(error).__name__}: {error}"
    except AttributeError as error:
        return f"{type(error).__name__}: {error}"


_NUMBER = re.compile(r"[-+]?(?:\d+\.\d+|\d+)(?:e[-+]?\d+)?")


def alike(found: str, expected: str, rtol: float = 1e-9) -> bool:
    """The same but for rounding: a BLAS with more threads, of a call nearby, adds otherwise."""
    if found == expected:
        return True
    numbers = [np.array(_NUMBER.findall(text), dtype=float) for text in (found, expected)]
    texts = [_NUMBER.sub("#", text) for text in (found, expected)]
    return texts[0] == texts[1] and bool(np.allclose(*numbers, rtol=rtol, atol=1e-12))
