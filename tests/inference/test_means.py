"""Marginal means, slopes and joint tests against emmeans, and what they are by definition.

Estimates and standard errors are compared at R's own coefficients and covariance matrix, where they
are the same to rounding; degrees of freedom and what rests on them at our fit.
"""

from __future__ import annotations

import json
import warnings
from functools import cache
from types import SimpleNamespace
from typing import Any

import models
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.errors import LmmWarning
from lmmsparse.inference.df.methods import Constant
from lmmsparse.inference.generalized.means import generalized_basis
from lmmsparse.inference.means.basis import Basis
from lmmsparse.inference.means.scale import response_scale
from lmmsparse.inference.means.tables import Wanted, emmeans_table, emtrends_table

CASES: dict[str, dict[str, Any]] = {
    case["name"]: case
    for case in json.loads((models.VALIDATION / "reference_means.json").read_text("utf-8"))
}
QUESTIONS = [(name, i) for name, case in CASES.items() for i in range(len(case["questions"]))]
# emmeans calls them by other names.
NAMES = {
    "asymp.LCL": "lower.CL", "asymp.UCL": "upper.CL", "prob": "response", "rate": "response",
}  # fmt: skip
EXACT = {"emmean", "response", "estimate", "ratio", "odds.ratio", "SE", "temp.trend", "Age.trend"}


@cache
def data_of(name: str) -> pd.DataFrame:
    case = CASES[name]
    path = models.VALIDATION / "data" / f"{case['data']}.csv.gz"
    data = pd.read_csv(path) if path.exists() else lmm.load_dataset(case["data"])
    data = data.copy()
    for column, levels in case["levels"].items():
        values = [f"{v:g}" if isinstance(v, float) else str(v) for v in data[column]]
        data[column] = pd.Categorical(values, categories=[str(level) for level in levels])
    if case.get("weights"):
        data["w"] = 1 + (np.arange(1, len(data) + 1) % 3) / 2
    return data


@cache
def model_of(name: str) -> Any:
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        if case.get("family"):
            return lmm.glmer(case["python"], data_of(name), case["family"])
        return lmm.lmer(case["python"], data_of(name), weights=case.get("weights"))


def options_of(question: dict[str, Any]) -> dict[str, Any]:
    skipped = ("kind", "specs", "answer", "var", "type", "ddf")
    out = {key: value for key, value in question.items() if key not in skipped}
    if "ref" in out:
        out["ref"] -= 1
    if isinstance(out.get("at"), dict):
        out["at"] = {name: np.atleast_1d(values).tolist() for name, values in out["at"].items()}
    return out


def asked(name: str, question: dict[str, Any]) -> pd.DataFrame:
    m, extra = model_of(name), {k: question[k] for k in ("ddf",) if k in question}
    if question["kind"] == "joint_tests":
        return m.joint_tests(question.get("by"), **extra).to_frame()
    specs = question["specs"] or None
    if question["kind"] == "emtrends":
        return m.emtrends(specs, question["var"], **options_of(question), **extra).to_frame()
    kind = question.get("type", "link")
    return m.emmeans(specs, type=kind, **options_of(question), **extra).to_frame()


def at_their_estimates(name: str, question: dict[str, Any]) -> pd.DataFrame:
    """What we make of the coefficients and covariance matrix that R has found."""
    m, case = model_of(name), CASES[name]
    beta, V = np.array(case["beta"]), np.array(case["vcov"])
    fit = SimpleNamespace(design=m.fit.design, beta=beta)
    own = generalized_basis(m.fit) if case.get("family") else None
    scale = own.scale if own else response_scale(m.fit.design)
    z = own is not None
    basis = Basis(fit, Constant(V, np.inf), "", scale, z, z)  # type: ignore[arg-type]
    wanted, specs = Wanted(**options_of(question)), question["specs"] or None
    if question["kind"] == "emtrends":
        return emtrends_table(basis, specs, question["var"], wanted).to_frame()
    return emmeans_table(basis, specs, wanted, question.get("type", "link")).to_frame()


def numbers(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    out = {}
    for name, values in answer.items():
        values = np.atleast_1d(np.array(values, dtype=object))
        if name in ("null", "1", "note") or any(isinstance(v, str) for v in values):
            continue
        out[NAMES.get(name, name)] = np.array(values, dtype=np.float64)
    return out


@pytest.mark.parametrize(("name", "i"), QUESTIONS)
def test_against_emmeans(name: str, i: int) -> None:
    question = CASES[name]["questions"][i]
    ours, theirs = asked(name, question), numbers(question["answer"])
    joint = question["kind"] == "joint_tests"
    # Their F and its second df are rounded, the latter the least of single ones: ours is that of
    # the joint test, as in anova(). Satterthwaite's df are by numerical derivatives in R.
    regrid = "regrid" in question and not CASES[name].get("family")
    # Their slopes on the response are difference quotients of first order.
    rough = "regrid" in question and question["kind"] == "emtrends"
    if rough:
        theirs = {n: v for n, v in theirs.items() if n not in ("z.ratio", "p.value")}
    if regrid:  # their df are the least of those of the cells, ours those of the linear function
        for rest in ("df", "lower.CL", "upper.CL", "p.value"):
            theirs.pop(rest, None)
    tolerance = {"df": 1e-4, "df2": np.inf, "F.ratio": 1e-3, "p.value": 2e-3 if joint else 1e-4}
    general = 3e-3 if rough else 1e-5 if CASES[name].get("family") else 2e-6
    compared = 0
    for column, values in theirs.items():
        if column not in ours:
            assert column in (*CASES[name]["levels"], "df", "temp", "Age", "null"), column
            continue
        rtol = max(tolerance.get(column, general), general)
        if np.isfinite(rtol) and (column in tolerance or ours[column].dtype.kind == "f"):
            atol = 2e-3 if column == "F.ratio" else 1e-4 if joint else 1e-6
            atol = 3e-5 if rough else atol
            found = ours[column].to_numpy(dtype=np.float64)
            np.testing.assert_allclose(found, values, rtol=rtol, atol=atol, err_msg=column)
            compared += 1
    assert compared >= (2 if regrid else 3)


@pytest.mark.parametrize(
    ("name", "i"),
    [
        (name, i)
        for name, i in QUESTIONS
        if CASES[name]["questions"][i]["kind"] != "joint_tests"
        and CASES[name]["questions"][i].get("ddf") != "kenward-roger"
        and name not in ("nested",)  # R leaves out other columns of X
        and not {"var", "regrid"} <= set(CASES[name]["questions"][i])
    ],
)
def test_estimates_to_the_last_digits(name: str, i: int) -> None:
    question = CASES[name]["questions"][i]
    ours, theirs = at_their_estimates(name, question), numbers(question["answer"])
    compared = EXACT & set(theirs)
    if CASES[name].get("family"):
        compared |= {"lower.CL", "upper.CL", "z.ratio", "p.value"} & set(theirs)
    assert len(compared) >= 2
    for column in compared:
        np.testing.assert_allclose(
            ours[column].to_numpy(), theirs[column], rtol=1e-6, atol=1e-9, err_msg=column
        )


def test_rows_are_labelled_as_theirs() -> None:
    for name in ("cake", "machines", "three_way", "nested", "binomial"):
        for question in CASES[name]["questions"]:
            ours = asked(name, question)
            for column, values in question["answer"].items():
                if column in CASES[name]["levels"] and column in ours:
                    assert [str(v) for v in ours[column]] == [str(v) for v in values]
                if column == "contrast" and len(question["specs"]) == 1:
                    (own,) = question["specs"]  # R writes a factor's name before numbers
                    plain = [v.replace(own, "") for v in np.atleast_1d(values)]
                    assert ours["contrast"].tolist() == plain


# By definition ------------------------------------------------------------------------------------


def cake(formula: str = "angle ~ recipe * temp + (1 | recipe:replicate)") -> lmm.LinearMixedModel:
    return lmm.lmer(formula, lmm.load_dataset("cake"))


def test_groups_are_the_means_at_each_level() -> None:
    m = cake("angle ~ recipe * temperature + (1 | recipe:replicate)")
    whole = m.emmeans("recipe", by="temperature", pairwise=True).to_frame()
    for level, part in whole.groupby("temperature"):
        alone = m.emmeans("recipe", pairwise=True, at={"temperature": level}).to_frame()
        for column in ("estimate", "SE", "df", "lower.CL", "upper.CL", "t.ratio", "p.value"):
            np.testing.assert_allclose(part[column], alone[column], rtol=1e-10)


def test_limits_agree_with_tests() -> None:
    """A limit is zero where the adjusted p-value is 1 − level."""
    m = cake("angle ~ recipe * temperature + (1 | recipe:replicate)")
    levels = m.emmeans("temperature").to_frame()["temperature"].iloc[:3].tolist()
    for adjust in ("tukey", "sidak", "bonferroni", "none"):
        told = {"pairwise": True, "adjust": adjust, "at": {"temperature": levels}}
        p = m.emmeans("temperature", **told).to_frame()["p.value"].iloc[0]
        limits = m.emmeans("temperature", **told, level=1.0 - p).to_frame().iloc[0]
        assert min(abs(limits["lower.CL"]), abs(limits["upper.CL"])) < 1e-7


def test_weights_of_levels() -> None:
    m = cake("angle ~ recipe * temperature + (1 | recipe:replicate)")
    cells = m.emmeans(["recipe", "temperature"]).to_frame().set_index(["recipe", "temperature"])
    w = dict(zip(("175", "185", "195", "205", "215", "225"), (1, 2, 3, 4, 5, 0), strict=True))
    levels = cells.index.levels[1]
    given = {level: w[str(level)] for level in levels}
    found = m.emmeans("recipe", weights={"temperature": given}).to_frame()["emmean"]
    for recipe in "ABC":
        want = sum(cells.loc[(recipe, level), "emmean"] * given[level] for level in levels) / 15
        assert found[recipe] == pytest.approx(want, rel=1e-12)
    equal = m.emmeans("recipe", weights={"temperature": [1.0] * 6}).to_frame()["emmean"]
    np.testing.assert_allclose(equal, m.emmeans("recipe").to_frame()["emmean"], rtol=1e-12)


@pytest.mark.parametrize("formula", ["y ~ f + x:g + (1 | k)", "y ~ f * g + x + (1 | k)"])
def test_proportional_weights_are_the_rows_of_the_levels(formula: str) -> None:
    rng = np.random.default_rng(4)
    d = pd.DataFrame({"k": np.repeat(range(12), 15), "x": rng.normal(size=180)})
    d["f"], d["g"] = rng.choice(list("abc"), 180, p=[0.6, 0.3, 0.1]), rng.choice(list("uv"), 180)
    d["y"] = rng.normal(size=180)
    m = lmm.lmer(formula, d)
    share = d["f"].value_counts(normalize=True)
    proportional = m.emmeans("g", weights="proportional").to_frame()
    given = m.emmeans("g", weights={"f": share.to_dict()}).to_frame()
    np.testing.assert_allclose(proportional.loc[:, "emmean":], given.loc[:, "emmean":], rtol=1e-10)


@pytest.mark.parametrize(
    ("left", "forth"),
    [
        ("np.log(angle)", np.log),
        ("np.log10(angle)", np.log10),
        ("log(angle + 3)", lambda y: np.log(y + 3)),
        ("np.sqrt(angle)", np.sqrt),
        ("2 * np.sqrt(angle - 1)", lambda y: 2 * np.sqrt(y - 1)),
        ("np.log(share / (1 - share))", lambda y: np.log(y / (1 - y))),
        ("np.arcsin(np.sqrt(share))", lambda y: np.arcsin(np.sqrt(y))),
        ("I(1 / angle)", lambda y: 1 / y),
        ("I(angle ** 0.3)", lambda y: y**0.3),
        ("-100 / angle", lambda y: -100 / y),
    ],
)
def test_the_way_back_is_the_inverse(left: str, forth: Any) -> None:
    d = lmm.load_dataset("cake").assign(share=lambda d: d["angle"] / 100)
    m = lmm.lmer(f"{left} ~ recipe + (1 | recipe:replicate)", d)
    plain, back = (m.emmeans("recipe", type=t).to_frame() for t in ("link", "response"))
    np.testing.assert_allclose(forth(back["response"]), plain["emmean"], rtol=1e-9)
    ends = np.sort(forth(back[["lower.CL", "upper.CL"]].to_numpy()), axis=1)
    np.testing.assert_allclose(ends, plain[["lower.CL", "upper.CL"]], rtol=1e-9)
    step = 1e-6
    slope = (forth(back["response"] + step) - forth(back["response"] - step)) / (2 * step)
    np.testing.assert_allclose(back["SE"] * np.abs(slope), plain["SE"], rtol=1e-5)


def test_a_response_without_a_way_back_says_so() -> None:
    m = lmm.lmer("double(angle) ~ recipe + (1 | recipe:replicate)", lmm.load_dataset("cake"),
                 context={"double": lambda y: 2 * y})  # fmt: skip
    table = m.emmeans("recipe", type="response")
    assert "emmean" in table.to_frame()
    assert "double(angle), whose way back is not known" in str(table)
    assert "emmean" in cake().emmeans("recipe", type="response").to_frame()


def test_slopes_are_differences_of_means() -> None:
    m = cake("angle ~ recipe * temp + I(temp ** 2) + (1 | recipe:replicate)")
    trend = m.emtrends("recipe", "temp", at={"temp": 190}).to_frame()["temp.trend"]
    h = 0.5
    ends = m.emmeans(["recipe", "temp"], at={"temp": [190 - h, 190 + h]}).to_frame()
    values = ends["emmean"].to_numpy().reshape(2, 3)
    np.testing.assert_allclose(trend, (values[1] - values[0]) / (2 * h), rtol=1e-7)
    over_all = m.emtrends(None, "temp", at={"temp": 190}).to_frame()
    assert over_all["temp.trend"].item() == pytest.approx(trend.mean(), rel=1e-9)
    assert over_all.index.tolist() == ["overall"]


@cache
def risen() -> lmm.GeneralizedLinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        formula = "I(angle > 32) ~ recipe * temp + (1 | recipe:replicate)"
        return lmm.glmer(formula, lmm.load_dataset("cake"), "binomial")


def test_probabilities_are_averaged_after_they_are_mapped() -> None:
    g = risen()
    at = {"temp": [175.0, 190.0, 225.0]}
    grid = pd.DataFrame({"recipe": list("AAABBBCCC"), "temp": at["temp"] * 3})
    each = g.predict(grid, random=False).to_numpy().reshape(3, 3)
    means = g.emmeans("recipe", at=at, regrid="response")
    np.testing.assert_allclose(means["response"], each.mean(axis=1), rtol=1e-12)
    pairs = g.emmeans("recipe", at=at, regrid=True, pairwise=True, adjust="none")
    differences = [each[i].mean() - each[j].mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(pairs["estimate"], differences, rtol=1e-10)
    own = np.array([0.2, 0.3, 0.5])
    weighted = g.emmeans("recipe", at=at, weights={"temp": own.tolist()}, regrid="response")
    np.testing.assert_allclose(weighted["response"], each @ own, rtol=1e-12)
    assert "before averaging" in str(means)
    # One cell per mean: no average, and the same as mapping afterwards.
    kind = g.emmeans("recipe", type="response")
    same = g.emmeans("recipe", regrid="response")
    np.testing.assert_allclose(same["response"], kind["response"], rtol=1e-12)
    np.testing.assert_allclose(same["SE"], kind["SE"], rtol=1e-10)


def test_errors_on_the_response_are_those_of_the_derivatives() -> None:
    g = risen()
    recipe = g.fit.design.recipe
    assert recipe is not None
    b, V = g.fixef.to_numpy(), g.vcov.to_numpy()

    def p(beta: np.ndarray, kind: str, temp: float) -> float:
        row = pd.DataFrame({"recipe": [kind], "temp": [temp]})
        return float(1.0 / (1.0 + np.exp(-(recipe.fixed(row)[0] @ beta)[0])))

    def difference(beta: np.ndarray) -> float:
        return np.mean([p(beta, "A", t) - p(beta, "C", t) for t in (180.0, 220.0)])

    def slope(beta: np.ndarray) -> float:
        return (p(beta, "B", 200.01) - p(beta, "B", 199.99)) / 0.02

    at = {"temp": [180.0, 220.0]}
    pairs = g.emmeans("recipe", at=at, regrid="response", contrasts={"ends": [1, 0, -1]})
    trend = g.emtrends("recipe", "temp", regrid="response").to_frame().loc["B"]
    for value, found in (
        (difference, (pairs["estimate"].iloc[0], pairs["SE"].iloc[0])),
        (slope, (trend["temp.trend"], trend["SE"])),
    ):
        steps = 1e-5 * np.sqrt(np.diag(V))
        J = [(value(b + s) - value(b - s)) / (2 * s[i]) for i, s in enumerate(np.diag(steps))]
        assert found[0] == pytest.approx(value(b), rel=1e-6)
        assert found[1] == pytest.approx(np.sqrt(J @ V @ J), rel=1e-4)


def test_rates_on_the_response() -> None:
    formula = "incidence ~ period + offset(log(size)) + (1 | herd)"
    g = lmm.glmer(formula, lmm.load_dataset("cbpp"), "poisson")
    mapped = g.emmeans("period", type="response").to_frame()
    own = g.emmeans("period", regrid="response").to_frame()
    np.testing.assert_allclose(own["response"], mapped["response"], rtol=1e-12)
    pairs = g.emmeans("period", regrid="response", contrasts="consec")["estimate"]
    np.testing.assert_allclose(pairs, np.diff(mapped["response"]), rtol=1e-10)


def test_a_mean_that_is_not_determined_has_none_on_the_response() -> None:
    data = lmm.load_dataset("cake")
    data = data[~((data["recipe"] == "A") & (data["temperature"] == 175))]
    formula = "np.log(angle) ~ recipe * temperature + (1 | recipe:replicate)"
    with pytest.warns(lmm.DesignWarning, match="dependent"):
        m = lmm.lmer(formula, data)
    found = m.emmeans("recipe", regrid="response").to_frame()["response"]
    assert found.isna().tolist() == [True, False, False]
    pairs = m.emmeans("recipe", regrid="response", pairwise=True).to_frame()["estimate"]
    assert pairs.isna().tolist() == [True, True, False]


def test_what_regrid_may_be() -> None:
    m = cake()
    plain = m.emmeans("recipe").to_frame()
    pd.testing.assert_frame_equal(m.emmeans("recipe", regrid="response").to_frame(), plain)
    with pytest.raises(lmm.OptionError, match="'response' or None"):
        m.emmeans("recipe", regrid="prob")
    own = lmm.lmer("f(angle) ~ recipe + (1 | replicate)", lmm.load_dataset("cake"),
                   context={"f": np.log})  # fmt: skip
    with pytest.raises(lmm.OptionError, match="way back"):
        own.emmeans("recipe", regrid="response")


def test_joint_tests_of_balanced_data_are_type_3() -> None:
    m = cake("angle ~ recipe * temperature + (1 | recipe:replicate)")
    ours, theirs = m.joint_tests().to_frame(), lmm.anova(m).to_frame()
    assert ours["model term"].tolist() == theirs.index.tolist()
    for mine, other in (("df1", "NumDF"), ("df2", "DenDF"), ("F.ratio", "F value")):
        np.testing.assert_allclose(ours[mine], theirs[other], rtol=1e-6)


def test_a_nested_factor_is_averaged_over_what_occurs() -> None:
    m = model_of("nested")
    cells = m.emmeans("route").to_frame()
    drug = m.emmeans("drug").to_frame()["emmean"]
    by_drug = cells.groupby("drug")["emmean"].mean()
    np.testing.assert_allclose(drug, by_drug.loc[drug.index], rtol=1e-10)
    assert cells["drug"].tolist() == list("aabbb")
    assert "route: its levels within drug" in str(m.emmeans("drug"))


def test_what_is_said() -> None:
    m = cake("angle ~ recipe * temperature + (1 | recipe:replicate)")
    assert "Averages over an interaction: recipe" in str(m.emmeans("recipe"))
    assert "interaction" not in str(m.emmeans("recipe", by="temperature"))
    two = m.emmeans("recipe", pairwise=True, at={"recipe": ["A", "B"]})
    assert "adjusted" not in str(two)
    control = str(m.emmeans("recipe", contrasts="trt.vs.ctrl", ref="B"))
    assert "A - B" in control
    assert "Tukey's method is for all pairs only" in control
    assert "log transformation" in str(
        cake("log(angle) ~ recipe + (1 | replicate)").emmeans("recipe")
    )


def test_names_of_comparisons() -> None:
    m = cake()
    told = {
        ("pairwise", False): ["A - B", "A - C", "B - C"],
        ("pairwise", True): ["B - A", "C - A", "C - B"],
        ("consec", False): ["B - A", "C - B"],
        ("consec", True): ["A - B", "B - C"],
        ("trt.vs.ctrl", False): ["B - A", "C - A"],
        ("trt.vs.ctrl", True): ["A - B", "A - C"],
    }
    for (kind, reverse), names in told.items():
        table = m.emmeans("recipe", contrasts=kind, reverse=reverse).to_frame()
        assert table["contrast"].tolist() == names
        assert table.index.tolist() == names
    own = m.emmeans("recipe", contrasts={"A or B": {"A": 0.5, "B": 0.5}, "gap": [1, 0, -1]})
    assert own.to_frame()["contrast"].tolist() == ["A or B", "gap"]
    means = m.emmeans("recipe").to_frame()["emmean"]
    assert own["estimate"].iloc[0] == pytest.approx(means.iloc[:2].mean())


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"by": "recipe"}, "in specs and in by"),
        ({"contrasts": "dunnett"}, "'trt.vs.ctrl'"),
        ({"contrasts": "consec", "pairwise": True}, "two different sets"),
        ({"contrasts": {"a": {"Z": 1}}}, "'Z'"),
        ({"contrasts": {"a": [1, 2]}}, "3 numbers"),
        ({"contrasts": {}}, "empty"),
        ({"contrasts": "trt.vs.ctrl", "ref": "Z"}, "ref must be"),
        ({"ref": "A"}, "trt.vs.ctrl"),
        ({"weights": "cells"}, "'proportional'"),
        ({"weights": {"recipe": [1, 1, 1]}}, "not averaged over"),
        ({"adjust": "scheffe"}, "'sidak'"),
        ({"type": "prob"}, "'response'"),
        ({"by": "nobody"}, "'nobody'"),
    ],
)
def test_options_are_explained(told: dict[str, Any], said: str) -> None:
    with pytest.raises(lmm.OptionError, match=said):
        cake().emmeans("recipe", **told)
    with pytest.raises(lmm.OptionError, match="not a covariate"):
        cake().emtrends("recipe", "recipe")


def test_saved_models_answer_alike(tmp_path: Any) -> None:
    for name in ("nested", "proportional"):
        m = model_of(name)
        m.save(tmp_path / name)
        again = lmm.load(tmp_path / name)
        for question in CASES[name]["questions"]:
            options = options_of(question)
            assert str(again.emmeans(question["specs"], **options)) == str(
                m.emmeans(question["specs"], **options)
            )


def test_terms_stand_for_their_coefficients() -> None:
    m = cake()
    rows = m.confint("wald", which="recipe").index.tolist()
    assert rows == ["recipe[T.B]", "recipe[T.C]"]
    assert m.confint("wald", which="temp:recipe").index.tolist() == [f"{r}:temp" for r in rows]
    with pytest.raises(lmm.OptionError, match="a term of 2 coefficients"):
        m.contrast({"recipe": 1})
    two = lmm.lmer("angle ~ half + temp + (1 | replicate)",
                   lmm.load_dataset("cake").assign(half=lambda d: d["recipe"].eq("A").map({True: "A", False: "B"})))  # fmt: skip # noqa: E501
    row = two.contrast({"half": 1}, level=0.9).to_frame().iloc[0]
    want = two.coef_table().to_frame().loc["half[T.B]"]
    assert row["Estimate"] == pytest.approx(want["Estimate"])
    limits = two.emmeans("half", pairwise=True, reverse=True, level=0.9).to_frame().iloc[0]
    assert row["lower.CL"] == pytest.approx(limits["lower.CL"])
    assert row["upper.CL"] == pytest.approx(limits["upper.CL"])


def test_effects_of_nested_factors_are_those_that_occur() -> None:
    with pytest.warns(lmm.DesignWarning, match="5 of 10 means"):
        ax = model_of("nested").plot.effects("route", by="drug")
    drawn = np.concatenate([line.get_ydata() for line in ax.get_lines()])
    means = model_of("nested").emmeans("route").to_frame()["emmean"]
    np.testing.assert_allclose(np.sort(drawn[~np.isnan(drawn)]), np.sort(means), rtol=1e-10)
