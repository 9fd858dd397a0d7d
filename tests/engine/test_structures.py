"""Structured covariances: exact derivatives, identities with other models, published figures."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.engine.covariance.correlated import AR1, CompoundSymmetry
from lmmsparse.engine.covariance.structures import (
    CovarianceStructure,
    Diagonal,
    Unstructured,
    make_structure,
    resized,
)
from lmmsparse.fit.coordinates import StandardizedObjective

DATA = models.VALIDATION / "data"

STRUCTURES: list[CovarianceStructure] = [
    Unstructured(3),
    Diagonal(3),
    Diagonal(3, hom=True),
    CompoundSymmetry(2),
    CompoundSymmetry(4),
    CompoundSymmetry(4, hom=True),
    AR1(2),
    AR1(4),
    AR1(4, hom=False),
]
CORRELATED = [s for s in STRUCTURES if isinstance(s, CompoundSymmetry | AR1)]


def parameters(structure: CovarianceStructure, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    par = rng.uniform(0.5, 2.0, structure.n_par)
    if isinstance(structure, CompoundSymmetry | AR1):
        par[-1] = rng.uniform(0.9 * structure.lower()[-1], 0.9)
    return par


def numeric(function, par: np.ndarray, h: float = 1e-5) -> np.ndarray:
    return np.array(
        [(function(par + h * e) - function(par - h * e)) / (2 * h) for e in np.eye(len(par))]
    )


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_derivatives(structure: CovarianceStructure) -> None:
    par = parameters(structure)
    np.testing.assert_allclose(structure.derivative(par), numeric(structure.factor, par), atol=1e-8)
    F = np.random.default_rng(1).normal(size=(structure.k, structure.k))
    F = F + F.T

    def slope(at: np.ndarray) -> np.ndarray:
        FT = F @ structure.factor(at)
        return np.array([2.0 * np.sum(D * FT) for D in structure.derivative(at)])

    np.testing.assert_allclose(structure.curvature(par, F), numeric(slope, par), atol=1e-7)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_what_spans_a_covariance(structure: CovarianceStructure) -> None:
    """Changes of TT' along θ are combinations of it; if linear, so is TT' itself, everywhere."""
    par = parameters(structure)
    spans = structure.spans(par).reshape(-1, structure.k**2)
    assert np.linalg.matrix_rank(spans) == len(spans) == structure.n_par

    def covariance(at: np.ndarray) -> np.ndarray:
        T = structure.factor(at)
        return (T @ T.T).ravel()

    def off(rows: np.ndarray) -> float:
        along = np.linalg.lstsq(spans.T, rows.T, rcond=None)[0]
        return float(np.abs(spans.T @ along - rows.T).max())

    assert off(numeric(covariance, par)) < 1e-8
    elsewhere = parameters(structure, 1)
    if structure.linear:
        assert off(covariance(elsewhere)[None]) < 1e-13
        np.testing.assert_array_equal(structure.spans(elsewhere), structure.spans(par))
    elif structure.hom and structure.tag == "cs":
        assert off(covariance(elsewhere)[None]) < 1e-13  # but within limits of ρ
    elif structure.k > 2:
        assert off(covariance(elsewhere)[None]) > 1e-3


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_what_a_structure_says_of_itself(structure: CovarianceStructure) -> None:
    made = make_structure(structure.tag, structure.k, structure.hom)
    assert (made.tag, made.hom, made.k) == (structure.tag, structure.hom, structure.k)
    assert type(made) is type(structure)
    assert structure.closed == isinstance(structure, Unstructured)
    smaller = resized(structure, 2)
    assert (smaller.k, smaller.correlated) == (2, structure.tag != "diag")
    assert resized(structure, 1) == Unstructured(1)


@pytest.mark.parametrize("structure", CORRELATED, ids=str)
def test_the_factor_makes_the_covariance(structure: CompoundSymmetry | AR1) -> None:
    k = structure.k
    steps = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    for rho in (structure.lower()[-1], -0.2, 0.0, 0.7, 1.0):
        par = parameters(structure)
        par[-1] = rho
        T = structure.factor(par)
        power = steps if isinstance(structure, AR1) else np.minimum(steps, 1)
        C = np.where(steps == 0, 1.0, np.sign(rho) ** power * np.abs(rho) ** power)
        sd = np.broadcast_to(par[:-1], k)
        np.testing.assert_allclose(T @ T.T, C * np.outer(sd, sd), atol=1e-10)
        np.testing.assert_array_equal(np.triu(T, 1), 0.0)
        assert np.isfinite(structure.derivative(par)).all()


@pytest.mark.parametrize("structure", CORRELATED, ids=str)
def test_the_slope_of_the_covariance_is_right_at_the_bounds(
    structure: CompoundSymmetry | AR1,
) -> None:
    par = parameters(structure)
    for bound, inward in ((structure.lower()[-1], 1e-6), (1.0, -1e-6)):
        par[-1] = bound
        T, D = structure.factor(par), structure.derivative(par)[-1]
        par[-1] = bound + inward
        near = structure.factor(par)
        expected = (near @ near.T - T @ T.T) / inward
        np.testing.assert_allclose(D @ T.T + T @ D.T, expected, atol=1e-4)


@pytest.fixture(scope="module")
def machines() -> pd.DataFrame:
    data = pd.read_csv(DATA / "Machines.csv.gz")
    return data.astype({"Worker": "category", "Machine": "category"})


@pytest.fixture(scope="module")
def sleepstudy() -> pd.DataFrame:
    return lmm.load_dataset("sleepstudy")


@pytest.mark.parametrize("optimizer", [lmm.TrustRegion(), lmm.Bobyqa()], ids=str)
def test_homogeneous_cs_is_nested_intercepts(
    machines: pd.DataFrame, optimizer: lmm.TrustRegion | lmm.Bobyqa
) -> None:
    m = lmm.lmer(
        "score ~ Machine + cs(0 + Machine | Worker, hom=TRUE)", machines, optimizer=optimizer
    )
    nested = lmm.lmer("score ~ Machine + (1 | Worker/Machine)", machines)
    assert m.reml_criterion == pytest.approx(215.687568, abs=1e-6)
    assert m.npar == nested.npar
    np.testing.assert_allclose(m.se, nested.se, rtol=1e-5)
    frame = m.varcorr.to_frame()
    np.testing.assert_allclose(frame["sdcor"].iloc[:3], 6.063654103, rtol=1e-5)
    np.testing.assert_allclose(frame["sdcor"].iloc[3:6], 0.622, atol=5e-4)
    for ddf in ("satterthwaite", "kenward-roger"):
        np.testing.assert_allclose(
            m.coef_table(ddf).to_frame(), nested.coef_table(ddf).to_frame(), rtol=1e-3
        )
    np.testing.assert_allclose(m.fitted, nested.fitted, rtol=1e-5)
    assert m.convergence.converged


def test_homogeneous_cs_is_a_split_plot() -> None:
    oats = pd.read_csv(DATA / "Oats.csv.gz")
    m = lmm.lmer("yield ~ nitro * Variety + cs(0 + Variety | Block, hom=TRUE)", oats)
    assert m.reml_criterion == pytest.approx(563.2371973, abs=1e-6)
    frame = m.varcorr.to_frame()
    assert frame["sdcor"].iloc[0] == pytest.approx(17.96171209, rel=1e-5)
    assert frame["sdcor"].iloc[3] == pytest.approx(0.665, abs=5e-4)


def test_autoregression(sleepstudy: pd.DataFrame) -> None:
    m = lmm.lmer("Reaction ~ C(Days) + ar1(0 + C(Days) | Subject)", sleepstudy, reml=False)
    assert m.deviance == pytest.approx(1736.576161, abs=2e-6)
    assert m.sigma == pytest.approx(14.57154817, rel=1e-4)
    assert m.npar == 13
    assert list(m.theta.index) == ["Subject.sd", "Subject.rho"]
    assert m.theta["Subject.sd"] * m.sigma == pytest.approx(46.1205665, rel=1e-5)
    assert m.theta["Subject.rho"] == pytest.approx(0.8802568982, rel=1e-5)


def test_homogeneous_figures(sleepstudy: pd.DataFrame) -> None:
    def fit(term: str) -> lmm.LinearMixedModel:
        return lmm.lmer(f"Reaction ~ Days + {term}", sleepstudy)

    diagonal = fit("diag(Days | Subject, hom=TRUE)")
    assert diagonal.reml_criterion == pytest.approx(1759.1499, abs=1e-4)
    assert diagonal.sigma == pytest.approx(27.374473, rel=1e-5)
    symmetric = fit("cs(Days | Subject, hom=TRUE)")
    assert symmetric.reml_criterion == pytest.approx(1757.774308, abs=1e-6)
    assert symmetric.sigma == pytest.approx(27.834741, rel=1e-5)
    assert symmetric.theta.iloc[0] * symmetric.sigma == pytest.approx(7.227656548, rel=1e-4)
    assert symmetric.theta.iloc[1] == pytest.approx(0.593, abs=5e-4)


def test_two_columns_are_unstructured(sleepstudy: pd.DataFrame) -> None:
    free = lmm.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
    for tag in ("cs(Days | Subject)", "ar1(Days | Subject, hom=FALSE)"):
        m = lmm.lmer(f"Reaction ~ Days + {tag}", sleepstudy)
        assert m.reml_criterion == pytest.approx(free.reml_criterion, abs=1e-8)
        np.testing.assert_allclose(
            m.varcorr.to_frame()["sdcor"], free.varcorr.to_frame()["sdcor"], rtol=1e-4
        )


@pytest.mark.parametrize("term", ["cs(0 + f | g)", "ar1(0 + f | g)", "ar1(0 + f | g, hom=FALSE)"])
def test_the_gradient_of_the_criterion_is_exact(term: str) -> None:
    m = lmm.lmer(f"y ~ x + {term} + (1 | h)", simulated(np.eye(3), seed=5))
    objective = StandardizedObjective(m.fit.objective)
    x = objective.to_internal(m.fit.theta) + np.linspace(0.1, 0.2, len(m.theta))
    np.testing.assert_allclose(
        objective.derivatives(x).gradient, numeric(objective, x), rtol=1e-5, atol=1e-5
    )


def simulated(C: np.ndarray, seed: int, sd: float = 1.0, groups: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    k = len(C)
    g, f = np.repeat(np.arange(groups), 2 * k), np.tile(np.repeat(np.arange(k), 2), groups)
    b = sd * rng.multivariate_normal(np.zeros(k), C, size=groups)
    data = pd.DataFrame({"g": g, "f": pd.Categorical(f), "h": rng.integers(0, 9, len(g))})
    data["x"] = rng.normal(size=len(g))
    return data.assign(y=b[g, f] + rng.normal(size=len(g)))


@pytest.mark.filterwarnings("ignore::lmmsparse.errors.SingularFitWarning")
def test_correlations_stop_at_their_bounds() -> None:
    negative = 4 / 3 * np.eye(4) - np.ones((4, 4)) / 3
    m = lmm.lmer("y ~ x + cs(0 + f | g)", simulated(negative, seed=0))
    assert m.theta["g.rho"] == pytest.approx(-1 / 3, abs=0.02)
    steps = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    m = lmm.lmer("y ~ x + ar1(0 + f | g, hom=FALSE)", simulated((-1.0) ** steps, seed=0))
    assert -1.0 <= m.theta["g.rho"] < -0.97
    for seed in range(6):
        data = simulated(np.ones((3, 3)), seed)
        m = lmm.lmer("y ~ x + cs(0 + f | g, hom=TRUE)", data)
        by_bounds = lmm.lmer("y ~ x + cs(0 + f | g, hom=TRUE)", data, optimizer=lmm.Bobyqa())
        assert m.reml_criterion == pytest.approx(by_bounds.reml_criterion, abs=1e-5)
        assert m.convergence.converged
        assert by_bounds.convergence.converged
        assert m.theta["g.rho"] <= 1.0
        if m.theta["g.rho"] == 1.0:
            assert m.is_singular()


def test_a_correlation_near_its_bound_is_singular() -> None:
    m = lmm.lmer("y ~ x + cs(0 + f | g, hom=TRUE)", simulated(0.8 + 0.2 * np.eye(3), seed=2))
    assert not m.is_singular()
    assert m.is_singular(tol=1.0 - m.theta["g.rho"] + 1e-3)


@pytest.mark.filterwarnings("ignore::lmmsparse.errors.SingularFitWarning")
def test_several_minima_are_searched() -> None:
    data = simulated(np.eye(4), seed=2, sd=0.0)
    found = [
        lmm.lmer("y ~ f + cs(0 + f | g)", data, optimizer=optimizer).reml_criterion
        for optimizer in (lmm.TrustRegion(), lmm.Bobyqa())
    ]
    starts = [[0.3, 0.01, 0.3, 0.4, rho] for rho in (-0.3, 0.0, 0.5, 0.95)]
    others = [lmm.lmer("y ~ f + cs(0 + f | g)", data, start=s).reml_criterion for s in starts]
    assert max(found) <= min(others) + 1e-5


def test_units_do_not_matter(sleepstudy: pd.DataFrame) -> None:
    small = sleepstudy.assign(Days=sleepstudy["Days"] * 1e-4)
    m = lmm.lmer("Reaction ~ Days + cs(Days | Subject)", sleepstudy, reml=False)
    scaled = lmm.lmer("Reaction ~ Days + cs(Days | Subject)", small, reml=False)
    assert scaled.deviance == pytest.approx(m.deviance, abs=1e-7)
    assert scaled.theta.iloc[1] == pytest.approx(1e4 * m.theta.iloc[1], rel=1e-4)


def test_what_follows_a_fit_works(machines: pd.DataFrame, tmp_path: Path) -> None:
    for tag in ("cs(0 + Machine | Worker)", "ar1(0 + Machine | Worker)"):
        m = lmm.lmer(f"score ~ Machine + {tag}", machines)
        m.save(tmp_path / "model.lmm")
        again = lmm.load(tmp_path / "model.lmm")
        pd.testing.assert_series_equal(again.theta, m.theta)
        pd.testing.assert_frame_equal(again.ranef["Worker"], m.ranef["Worker"])
        assert "rho|Worker" in m.confint("wald").index
        assert "cor__Machine[A].Machine[B]" in set(m.tidy("ran_pars")["term"])
        for each in (m, again):
            predicted = each.predict(machines, se=True)
            np.testing.assert_allclose(predicted["fit"], m.fitted, rtol=1e-10)
            np.testing.assert_allclose(predicted["se"], m.predict(se=True)["se"], rtol=1e-8)
        many = m.refit_many(np.column_stack([machines["score"], machines["score"] * 2.0]))
        np.testing.assert_allclose(many["criterion"].iloc[0], m.reml_criterion, atol=1e-6)
        assert m.all_fit().to_frame()["criterion"].std() < 1e-5


def test_names_of_shared_parameters(machines: pd.DataFrame) -> None:
    m = lmm.lmer("score ~ Machine + cs(0 + Machine | Worker, hom=TRUE)", machines)
    assert list(m.confint("wald").index[:3]) == ["sd|Worker", "rho|Worker", "sigma"]
    m = lmm.lmer("score ~ Machine + diag(0 + Machine | Worker, hom=TRUE)", machines)
    assert list(m.confint("wald").index[:2]) == ["sd|Worker", "sigma"]


def test_messages(sleepstudy: pd.DataFrame) -> None:
    with pytest.raises(lmm.OptionError, match=r"ar1\(0 \+ C\(x\) \| g\)"):
        lmm.lmer("Reaction ~ Days + ar1(0 + Days | Subject)", sleepstudy)
    with pytest.raises(lmm.NotIdentifiableError, match="cannot be told apart"):
        lmm.lmer("Reaction ~ Days + cs(0 + C(Days) | Subject, hom=TRUE)", sleepstudy)
