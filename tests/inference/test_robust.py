"""Cluster-robust covariances against clubSandwich and their definition by n × n matrices."""

from __future__ import annotations

import json
import warnings
from typing import Any

import models
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import DataError, DesignWarning, OptionError
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.inference.robust import adjustment, blocks

Array = np.ndarray[Any, Any]
KINDS = ("CR0", "CR1", "CR2", "CR3")
REFERENCES = json.loads((models.VALIDATION / "reference_robust.json").read_text("utf-8"))


def _roots(V: Array, N: Array) -> Array:
    """A = R'(RNR')^{+1/2}R with V = R'R, from the paper."""
    R = np.linalg.cholesky(V).T
    values, vectors = np.linalg.eigh(R @ N @ R.T)
    kept = values > 1e-11 * values.max()
    inner = (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T
    return R.T @ inner @ R


def _residual_covariance(m: lmm.LinearMixedModel) -> Array:
    """R: 1/w, or AR(1) with a standard deviation of exp(γx), from the parameters themselves."""
    fit, design = m.fit, m.fit.design
    R = np.diag(1.0 / design.weights_or_one)
    if not isinstance(fit, ResidualFit):
        return R
    assert design.residual is not None
    natural = dict(zip(fit.phi_names, fit.natural, strict=True))
    sd = np.sqrt(np.diag(R))
    for j, name in enumerate(design.residual.names):
        sd = sd * np.exp(natural[f"logsd.{name}"] * design.residual.columns[:, j])
    if design.residual.grouping is None:
        return np.diag(sd**2)
    codes, times = design.residual.grouping.codes, design.residual.times
    (rho,) = [value for name, value in natural.items() if not name.startswith("logsd")]
    C = rho ** np.abs(times[:, None] - times) * (codes[:, None] == codes)
    return sd[:, None] * C * sd


class _Definition:
    """Every quantity from V, X and e as whole matrices."""

    def __init__(self, m: lmm.LinearMixedModel, clusters: Any, kind: str) -> None:
        design = m.fit.design
        X, self.beta = design.X, m.fit.beta
        ZL = np.zeros((design.n, 0))
        if design.blocks:
            ZL = (design.Z @ m.fit.Lambda).toarray()
        V = m.sigma**2 * (ZL @ ZL.T + _residual_covariance(m))
        W = np.linalg.inv(V)
        M = np.linalg.inv(X.T @ W @ X)
        H = X @ M @ X.T @ W
        e = design.y - design.offset_or_zero - X @ self.beta
        labels = pd.unique(pd.Series(clusters))
        each, meat = [], np.zeros_like(M)
        for label in labels:
            i = np.flatnonzero(np.asarray(clusters) == label)
            Vi, left = V[np.ix_(i, i)], np.eye(len(i)) - H[np.ix_(i, i)]
            if kind == "CR2":
                A = _roots(Vi, Vi - X[i] @ M @ X[i].T)
            elif kind == "CR3":
                A = np.linalg.inv(left)
            else:
                A = np.eye(len(i)) * np.sqrt(
                    len(labels) / (len(labels) - 1) if kind == "CR1" else 1
                )
            E = X[i].T @ np.linalg.inv(Vi) @ A
            meat += np.outer(E @ e[i], E @ e[i])
            each.append(M @ E @ (np.eye(len(e)) - H)[i])  # β̂'s part, a (p, n) matrix
        self.covariance, self._each, self._V = M @ meat @ M, each, V

    def single(self, row: Array) -> float:
        p = np.array([row @ part for part in self._each])
        P = p @ self._V @ p.T
        return float(np.trace(P) ** 2 / np.trace(P @ P))

    def joint(self, L: Array) -> tuple[float, float]:
        """F and its denominator degrees of freedom."""
        q = len(L)
        u = np.array([L @ part for part in self._each])
        expected = np.einsum("jsn,nm,jtm->st", u, self._V, u)
        values, vectors = np.linalg.eigh(expected)
        u = np.einsum("st,jtn->jsn", (vectors / np.sqrt(values)) @ vectors.T, u)
        total = 0.0
        for s in range(q):
            for t in range(q):
                # d_st = y'Qy with the symmetric Q, of variance 2 tr(QVQV)
                Q = u[:, s].T @ u[:, t]
                QV = 0.5 * (Q + Q.T) @ self._V
                total += 2.0 * np.trace(QV @ QV)
        nu = q * (q + 1) / total
        b = L @ self.beta
        T2 = b @ np.linalg.solve(L @ self.covariance @ L.T, b)
        return float((nu - q + 1) / (nu * q) * T2), float(nu - q + 1)


def _data(seed: int = 1) -> pd.DataFrame:
    """Schools with classes, unbalanced, with covariates of rows and of schools."""
    rng = np.random.default_rng(seed)
    rows = []
    for school in range(14):
        for name in range(rng.integers(1, 4)):
            for _ in range(rng.integers(1, 9)):
                rows.append((f"s{school}", name, school % 2, 0.3 * school % 1.7))
    d = pd.DataFrame(rows, columns=["school", "name", "arm", "z"])
    d["klass"] = d["school"] + "-" + d["name"].astype(str)
    n = len(d)
    d["x"], d["w"] = rng.normal(size=n), rng.uniform(0.3, 3.0, n)
    d["f"] = rng.choice(["a", "b", "c"], n)
    effect = dict(zip(d["school"].unique(), rng.normal(size=14), strict=True))
    d["y"] = 1 + 0.5 * d["x"] + d["school"].map(effect) * (1 + d["x"])
    d["abs_x"] = d["x"].abs()
    d["y"] += rng.normal(size=n) * (1 + d["abs_x"])
    d["t"] = d.groupby("school").cumcount()
    return d


CASES = {
    "slopes": ("y ~ x * arm + z + (x | school)", {}),
    "nested": ("y ~ x + f + (1 | school / klass)", {}),
    "above": ("y ~ x + f + (1 | klass)", {}),
    "ml": ("y ~ x + z + (x || school) + (1 | klass)", {"reml": False}),
    "weights": ("y ~ x + f + (x | school) + (1 | klass)", {"weights": "w"}),
    "held": ("y ~ x + f + (1 | school)", {"weights": "w", "fixed": {"sigma": 0.8}}),
    "sd": ("y ~ x + f + (x | school)", {"residual_sd": "~ abs_x", "weights": "w"}),
    "ar1": ("y ~ x + f + (1 | school)", {"residual": "ar1(t | klass)"}),
    "both": ("y ~ x + (1 | school)", {"residual": "ar1(t | school)", "residual_sd": "~ x"}),
    "none": ("y ~ x + f", {"residual": "ar1(t | school)"}),
    "offset": ("y ~ x + offset(z) + (1 | school)", {"weights": "w"}),
}


def _fit(case: str) -> lmm.LinearMixedModel:
    formula, options = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lmm.lmer(formula, _data(), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_the_definition(case: str, kind: str) -> None:
    m, school = _fit(case), _data()["school"]
    right = _Definition(m, school, kind)
    np.testing.assert_allclose(
        m.vcov_robust(school, kind), right.covariance, rtol=1e-9, atol=1e-12 * m.vcov.max().max()
    )
    p = len(m.fixef)
    table = m.coef_table(robust=kind, cluster=school).to_frame()
    np.testing.assert_allclose(table["df"], [right.single(row) for row in np.eye(p)], rtol=1e-8)
    np.testing.assert_allclose(table["Std. Error"], np.sqrt(np.diag(right.covariance)), rtol=1e-8)
    L = np.random.default_rng(0).normal(size=(2, p))
    joint = m.contrast(L, robust=kind, cluster=school).to_frame().iloc[0]
    np.testing.assert_allclose(joint[["F value", "DenDF"]], right.joint(L), rtol=1e-7)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda r: r["name"])
def test_club_sandwich(reference: dict[str, Any]) -> None:
    try:
        data = lmm.load_dataset(reference["data"])
    except OptionError:
        data = pd.read_csv(models.VALIDATION / "data" / f"{reference['data']}.csv.gz")
    data = data.astype(dict.fromkeys(reference["factors"], str))
    if reference["rows"]:
        data = data.iloc[np.array(reference["rows"]) - 1]
    names = [name.replace("(Intercept)", "Intercept") for name in reference["names"]]
    names = [{"cask:batch": "batch:cask", "Variety:Block": "Block:Variety"}.get(
        name.rpartition(".")[0], name.rpartition(".")[0]) + "." + name.rpartition(".")[2]
        for name in names]  # fmt: skip
    theta = dict(zip(names, np.atleast_1d(reference["theta"]), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        formula = reference["formula"].replace("^", "**")
        m = lmm.lmer(formula, data, reml=reference["reml"], fixed=theta)
    beta = np.atleast_1d(reference["beta"])
    np.testing.assert_allclose(m.fixef, beta, rtol=1e-9)
    for kind, right in reference["kinds"].items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DesignWarning)
            V = m.vcov_robust(reference["cluster"], kind)
        scale = np.sqrt(np.outer(np.diag(V), np.diag(V)))
        assert np.abs(V.to_numpy() - np.array(right["vcov"])).max() < 1e-8 * scale.max()
        table = m.coef_table(robust=kind, cluster=reference["cluster"])
        np.testing.assert_allclose(table["df"], np.atleast_1d(right["df"]), rtol=1e-8)
        if "F" in right:
            joint = m.contrast(np.eye(len(beta))[1:], robust=kind, cluster=reference["cluster"])
            found = joint.to_frame().iloc[0][["F value", "DenDF"]].tolist()
            np.testing.assert_allclose(found, [right["F"], right["den"]], rtol=1e-7)


def test_sleepstudy() -> None:
    m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
    right = {
        "CR0": [43.987095644995, -1.370479277751, 2.256715350135],
        "CR1": [46.574571859406, -1.451095705854, 2.389463311908],
        "CR2": [46.574571859406, -1.451095705854, 2.389463311908],
        "CR3": [49.314252557018, -1.536454276787, 2.530019977314],
    }
    for kind, (a, b, c) in right.items():
        np.testing.assert_allclose(m.vcov_robust("Subject", kind), [[a, b], [b, c]], rtol=1e-6)
        df = m.coef_table(robust=kind, cluster="Subject")["df"]
        np.testing.assert_allclose(df, [17, 17], rtol=1e-6)


def test_all_ways_to_name_clusters() -> None:
    data = _data()
    m = _fit("above")
    right = m.vcov_robust(data["school"])
    shuffled = data["school"].sample(frac=1.0, random_state=1)
    for same in (data["school"].to_numpy(), list(data["school"]), shuffled, data[["school"]]):
        pd.testing.assert_frame_equal(m.vcov_robust(same), right)
    nested = _fit("nested")
    by_name = nested.vcov_robust("school")
    pd.testing.assert_frame_equal(nested.vcov_robust(), by_name)
    pd.testing.assert_frame_equal(nested.vcov_robust(data["school"]), by_name)
    only = lmm.lmer("y ~ x + (1 | school:name)", data)  # part of a name that was combined
    pd.testing.assert_frame_equal(only.vcov_robust("school"), only.vcov_robust(data["school"]))
    cake = lmm.load_dataset("sleepstudy")
    cake.loc[[3, 50], "Reaction"] = np.nan
    some = lmm.lmer("Reaction ~ Days + (1 | Subject)", cake)
    pd.testing.assert_frame_equal(some.vcov_robust(cake["Subject"]), some.vcov_robust("Subject"))
    kept = cake["Subject"].drop([3, 50])
    pd.testing.assert_frame_equal(some.vcov_robust(kept), some.vcov_robust("Subject"))


def test_tables_agree_with_one_another() -> None:
    m, school = _fit("nested"), _data()["school"]
    kind = {"robust": "CR2", "cluster": school}
    table = m.coef_table(**kind).to_frame()
    tidy = m.tidy(**kind, conf_int=True)
    np.testing.assert_allclose(tidy["std_error"], table["Std. Error"])
    np.testing.assert_allclose(tidy["df"], table["df"])
    shown = m.summary(**kind)
    pd.testing.assert_frame_equal(shown.coefficients.to_frame(), table)
    assert "CR2 standard errors by school" in str(shown)
    assert "Correlation of fixed effects" not in str(shown)
    one = m.contrast({"x": 1}, **kind).to_frame().iloc[0]
    np.testing.assert_allclose(one[["Std. Error", "df"]], table.loc["x", ["Std. Error", "df"]])
    assert one["lower.CL"] == pytest.approx(tidy["conf_low"][list(tidy["term"]).index("x")])
    # f has two coefficients: anova, joint tests and a contrast are the same Hotelling test
    f = [i for i, name in enumerate(m.fixef.index) if name.startswith("f[")]
    right = m.contrast(np.eye(len(m.fixef))[f], **kind).to_frame().iloc[0]
    of_anova = lmm.anova(m, **kind).to_frame()
    assert list(of_anova.columns) == ["NumDF", "DenDF", "F value", "Pr(>F)"]
    np.testing.assert_allclose(of_anova.loc["f", right.index], right, rtol=1e-8)
    joint = m.joint_tests(**kind).to_frame().set_index("model term").loc["f"]
    np.testing.assert_allclose(joint[["F.ratio", "df2"]].astype(float), right[["F value", "DenDF"]])
    means = m.emmeans("f", pairwise=True, adjust="none", **kind).to_frame()
    means = means.reset_index(drop=True)
    b = next(i for i, name in enumerate(means["contrast"]) if name == "a - b")
    np.testing.assert_allclose(means["SE"][b], table["Std. Error"].iloc[f[0]], rtol=1e-8)
    slope = m.emtrends(None, "x", **kind).to_frame().iloc[0]
    np.testing.assert_allclose(slope["SE"], table.loc["x", "Std. Error"])
    z = m.coef_table(ddf="asymptotic", **kind).to_frame()
    assert np.isinf(z["df"]).all()
    np.testing.assert_allclose(z["Std. Error"], table["Std. Error"])


def test_a_cluster_that_alone_tells_of_a_coefficient() -> None:
    """Without its residuals nothing is left: pseudo-inverses."""
    data = _data()
    data["only"] = (data["school"] == "s3").astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = lmm.lmer("y ~ x + only + (1 | school)", data)
    for kind in KINDS:
        V = m.vcov_robust("school", kind)
        assert np.isfinite(V).all().all()
        assert V.loc["x", "x"] > 0
    right = _Definition(m, data["school"], "CR2")
    np.testing.assert_allclose(m.vcov_robust("school"), right.covariance, rtol=1e-6, atol=1e-9)


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in ("slopes", "weights"):
        m, school = _fit(case), _data()["school"]
        right = m.vcov_robust(school)
        with monkeypatch.context() as patch:
            patch.setattr(adjustment, "_SPREAD", 0.0)  # by singular values
            np.testing.assert_allclose(m.vcov_robust(school), right, rtol=1e-9, atol=1e-13)
            patch.setattr(blocks, "_STEP", 4.0)  # padded to the largest
            np.testing.assert_allclose(m.vcov_robust(school), right, rtol=1e-9, atol=1e-13)
        with monkeypatch.context() as patch:
            patch.setattr(adjustment, "_WIDE", 0)  # by quadrature, and never
            np.testing.assert_allclose(m.vcov_robust(school), right, rtol=1e-9, atol=1e-13)
            patch.setattr(adjustment, "_WIDE", 1000)
            np.testing.assert_allclose(m.vcov_robust(school), right, rtol=1e-9, atol=1e-13)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_large_variances_keep_their_digits(kind: str) -> None:
    """The limit is the regression on deviations from the schools' means; 1/θ² from it."""
    found = []
    for theta in (1e3, 1e4, 1e5):
        m = lmm.lmer("y ~ x + (1 | school)", _data(), fixed={"school.Intercept": theta})
        found.append(m.coef_table(robust=kind).to_frame().loc["x", ["Std. Error", "df"]].tolist())
    np.testing.assert_allclose(found[0], found[2], rtol=1e-5)
    np.testing.assert_allclose(found[1], found[2], rtol=1e-7)


def test_few_clusters() -> None:
    data = lmm.load_dataset("oats")
    m = lmm.lmer("Y ~ N * V + (1 | B / V)", data)
    with pytest.warns(DesignWarning, match="6 clusters of 'B'"):
        m.vcov_robust("B")
    table = m.joint_tests(robust="CR2", cluster="B")
    left = table.to_frame().set_index("model term")
    assert np.isnan(left.loc["N:V", "F.ratio"])
    assert "too few clusters" in str(table)
    assert np.isfinite(left.loc["V", "F.ratio"])


def test_refusals() -> None:
    data = _data()
    m = _fit("nested")
    crossed = lmm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", lmm.load_dataset("Penicillin"))
    with pytest.raises(OptionError, match="'sample' cross the clusters of 'plate'"):
        crossed.vcov_robust("plate")
    with pytest.raises(OptionError, match="cluster= is needed"):
        crossed.coef_table(robust="CR2")
    with pytest.raises(OptionError, match="'school' cross the clusters of 'klass'"):
        m.vcov_robust(data["klass"])
    within = lmm.lmer("y ~ x", data, residual="ar1(t | school)")
    with pytest.raises(OptionError, match="correlated within 'school', which crosses"):
        within.vcov_robust(data["klass"])
    pd.testing.assert_frame_equal(within.vcov_robust("school"), within.vcov_robust())
    with pytest.raises(DataError, match="missing in 1 row"):
        m.vcov_robust(data["school"].where(data.index != 3))
    with pytest.raises(DataError, match="one label only"):
        m.vcov_robust(["a"] * len(data))
    with pytest.raises(DataError, match="has 5 labels"):
        m.vcov_robust(list("abcde"))
    with pytest.raises(DataError, match="one dimension"):
        m.vcov_robust(data[["school", "name"]])
    with pytest.raises(OptionError, match=r"not a grouping factor.*school"):
        m.vcov_robust("schol")
    with pytest.raises(OptionError, match=r"kind must be .*'CR3', not 'HC3'"):
        m.vcov_robust("school", "HC3")
    with pytest.raises(OptionError, match="goes with the model's standard errors"):
        m.coef_table("kenward-roger", robust="CR2")
    with pytest.raises(OptionError, match="Pass robust="):
        m.coef_table(cluster="school")
    with pytest.raises(OptionError, match="terms of one model"):
        lmm.anova(m, m, robust="CR2")


def test_known_covariances_correlate_clusters() -> None:
    data = _data()
    schools = sorted(data["school"].unique())
    A = pd.DataFrame(np.eye(14) + 0.3, index=schools, columns=schools)
    m = lmm.lmer("y ~ x + (1 | school)", data, known={"school": A})
    with pytest.raises(OptionError, match="known covariance of 'school'"):
        m.vcov_robust("school")


def test_too_large_for_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    m = _fit("weights")
    monkeypatch.setattr(blocks, "_LARGEST", 5)
    with pytest.raises(OptionError, match="CR2 needs matrices"):
        m.vcov_robust("school")
    m.vcov_robust("school", "CR3")


def test_names_in_any_case() -> None:
    m = _fit("nested")
    pd.testing.assert_frame_equal(m.vcov_robust("school", "cr2"), m.vcov_robust("school"))
