"""Tests of terms and marginal means against lmerTest, pbkrtest and emmeans; invariances."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import models
import numpy as np
import pandas as pd
import pytest
from lmertest import CASES, TIGHT, data_of, fit_of, label_of, model_of

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning, OptionError

every_case = pytest.mark.parametrize("name", [n for n, case in CASES.items() if case["terms"]])
case_with = {
    key: pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.get(key)])
    for key in ("anova_kr", "drop1", "ranova", "means")
}


def _compare(ours: lmm.Table, theirs: dict[str, Any], columns: dict[str, float]) -> None:
    frame = ours.to_frame()
    frame.index = pd.Index([label_of(str(label)) for label in frame.index])
    assert len(frame) >= len(theirs["rows"])
    for j, row in enumerate(theirs["rows"]):
        for column, tolerance in columns.items():
            expected = theirs["columns"][column]
            expected = expected[j] if isinstance(expected, list) else expected
            if expected is None:
                continue
            value = frame.loc[label_of(row), column]
            assert value == pytest.approx(expected, rel=tolerance, abs=1e-7), (row, column)


F_COLUMNS = {
    "Sum Sq": TIGHT,
    "Mean Sq": TIGHT,
    "NumDF": 1e-12,
    "DenDF": TIGHT,
    "F value": TIGHT,
    "Pr(>F)": 1e-3,
}


COEFFICIENTS = {
    "Estimate": TIGHT,
    "Std. Error": TIGHT,
    "df": TIGHT,
    "t value": TIGHT,
    "Pr(>|t|)": 1e-3,
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_coefficients(name: str, ddf: str) -> None:
    theirs = CASES[name].get("coefficients" if ddf == "satterthwaite" else "coefficients_kr")
    if theirs is None:  # Kenward–Roger of an ML fit, or of a large one
        assert ddf == "kenward-roger"
        assert not CASES[name]["kr"]
        return
    ours = model_of(name).coef_table(ddf).to_frame()
    assert len(ours) == len(theirs["rows"])
    # The order of interactions, and their names, are formulaic's: rows are matched by estimate.
    order = np.argsort(np.round(theirs["columns"]["Estimate"], 6), kind="stable")
    ours = ours.iloc[np.argsort(np.round(ours["Estimate"], 6), kind="stable")]
    for column, tolerance in COEFFICIENTS.items():
        expected = np.atleast_1d(theirs["columns"][column]).astype(float)[order]
        np.testing.assert_allclose(
            ours[column], expected, rtol=tolerance, atol=1e-7, err_msg=column
        )


@every_case
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_satterthwaite_F_tests(name: str, kind: int) -> None:
    ours = lmm.anova(model_of(name), type=kind)
    theirs = CASES[name]["anova"][str(kind)]
    assert [label_of(str(t)) for t in ours.index] == [label_of(t) for t in theirs["rows"]]
    _compare(ours, theirs, F_COLUMNS)


@case_with["anova_kr"]
@pytest.mark.parametrize("kind", [2, 3])
def test_kenward_roger_F_tests(name: str, kind: int) -> None:
    theirs = CASES[name]["anova_kr" if kind == 3 else "anova_kr2"]
    _compare(lmm.anova(model_of(name), type=kind, ddf="kenward-roger"), theirs, F_COLUMNS)


@every_case
def test_deletions_by_F(name: str) -> None:
    ours = model_of(name).drop1("F")
    theirs = CASES[name]["drop1_F"]
    assert ours.index[0] == "<none>"
    assert [label_of(str(t)) for t in ours.index[1:]] == [label_of(t) for t in theirs["rows"]]
    _compare(ours, theirs, {c: F_COLUMNS[c] for c in ("NumDF", "DenDF", "F value", "Pr(>F)")})


@case_with["drop1"]
def test_deletions_by_likelihood(name: str) -> None:
    ours = model_of(name).drop1()
    theirs = dict(CASES[name]["drop1"])
    columns = {"npar": "npar", "AIC": "AIC", "LRT": "LRT", "Pr(Chi)": "Pr(>Chisq)"}
    theirs["columns"] = {columns[name]: values for name, values in theirs["columns"].items()}
    assert [label_of(str(t)) for t in ours.index] == [label_of(t) for t in theirs["rows"]]
    _compare(ours, theirs, {"npar": 0.0, "AIC": 1e-6, "LRT": TIGHT, "Pr(>Chisq)": 1e-3})


@case_with["ranova"]
def test_random_effects(name: str) -> None:
    ours = model_of(name).ranova()
    theirs = CASES[name]["ranova"]
    if name == "sleepstudy_square":  # lmerTest turns (0 + Days | Subject) into a second intercept
        theirs = {"rows": theirs["rows"][:2], "columns": theirs["columns"]}
    _compare(
        ours,
        theirs,
        {"npar": 0.0, "logLik": 1e-6, "AIC": 1e-6, "LRT": TIGHT, "Df": 0.0, "Pr(>Chisq)": 1e-3},
    )


@case_with["means"]
def test_marginal_means(name: str) -> None:
    case = CASES[name]
    for entry in case["means"]:
        at = case["at"] or None
        for ddf, key in (("satterthwaite", "satterthwaite"), ("kenward-roger", "kenward_roger")):
            if key not in entry:
                continue
            ours = model_of(name).emmeans(entry["specs"], ddf=ddf, at=at).to_frame()
            _columns_agree(ours, entry[key])
        for adjust in ("tukey", "holm"):
            ours = model_of(name).emmeans(entry["specs"], at=at, pairwise=True, adjust=adjust)
            theirs = dict(entry[adjust])
            if None in np.atleast_1d(theirs["estimate"]):
                del theirs["p.value"]  # emmeans counts means that cannot be estimated
            _columns_agree(ours.to_frame(), theirs)


def _columns_agree(ours: pd.DataFrame, theirs: dict[str, Any]) -> None:
    assert [column for column in ours if column in theirs] == list(theirs)
    for column, values in theirs.items():
        expected = np.array(np.atleast_1d(values), dtype=np.float64)
        tolerance = {"p.value": 1e-3, "df": TIGHT}.get(column, TIGHT)
        np.testing.assert_allclose(
            ours[column].to_numpy(), expected, rtol=tolerance, atol=1e-6, err_msg=column
        )


DDF = ("satterthwaite", "kenward-roger")
CODINGS = (
    {"Variety": "sum", "nitro": "helmert"},
    {"Variety": "helmert", "nitro": "sum"},
    {"Variety": "poly", "nitro": "diff"},
)


@pytest.mark.parametrize("contrasts", CODINGS)
@pytest.mark.parametrize("name", ["oats_unbalanced", "oats_missing_cell"])
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_hypotheses_do_not_depend_on_the_coding(
    name: str, kind: int, contrasts: dict[str, str]
) -> None:
    ours = lmm.anova(fit_of(name, contrasts=contrasts), type=kind).to_frame()
    reference = lmm.anova(model_of(name), type=kind).to_frame()
    columns = list(ours) if kind == 3 else ["Sum Sq", "NumDF", "F value"]
    np.testing.assert_allclose(ours[columns], reference[columns], rtol=1e-5)


@pytest.mark.parametrize("same", ["Variety + Variety:nitro", "nitro + Variety:nitro + Variety"])
def test_main_effects_of_a_nested_model(same: str) -> None:
    data = data_of("oats_unbalanced")
    nested = lmm.lmer(f"yield ~ {same} + (1 | Block/Variety)", data)
    # Type III compares means of equally weighted cells, whichever terms span them.
    expected = lmm.anova(model_of("oats_unbalanced")).to_frame().loc["Variety"]
    np.testing.assert_allclose(lmm.anova(nested).to_frame().loc["Variety"], expected, rtol=1e-4)


def test_the_last_term_is_the_same_in_all_types() -> None:
    data = data_of("oats_unbalanced")
    model = lmm.lmer("yield ~ Block + Variety:nitro + (1 | Block:Variety)", data)
    F = [lmm.anova(model, type=kind).to_frame()["F value"].iloc[-1] for kind in (1, 2, 3)]
    np.testing.assert_allclose(F, F[0], rtol=1e-7)


def test_marginal_means_do_not_depend_on_the_coding() -> None:
    other = fit_of("oats_missing_cell", contrasts=CODINGS[0])
    for specs in ("Variety", "nitro", ["Variety", "nitro"]):
        np.testing.assert_allclose(
            other.emmeans(specs).to_frame().loc[:, "emmean":],
            model_of("oats_missing_cell").emmeans(specs).to_frame().loc[:, "emmean":],
            rtol=1e-5,
        )


def test_published_figures() -> None:
    unbalanced = model_of("oats_unbalanced")
    first = lmm.anova(unbalanced, type=1).to_frame().loc["Variety"]
    second = lmm.anova(unbalanced, type=2).to_frame().loc["Variety"]
    third = lmm.anova(unbalanced).to_frame()
    adjusted = lmm.anova(unbalanced, ddf="kenward-roger").to_frame()
    assert first[["F value", "DenDF"]].tolist() == pytest.approx([2.18380, 9.75087], rel=1e-4)
    assert second[["F value", "DenDF"]].tolist() == pytest.approx([1.64025, 9.79736], rel=1e-4)
    assert third["F value"].tolist() == pytest.approx([1.68274, 31.39713, 0.14285], rel=1e-4)
    assert third["DenDF"].tolist() == pytest.approx([9.86703, 40.37711, 40.30927], rel=1e-4)
    assert adjusted["F value"].tolist() == pytest.approx([1.68058, 31.29519, 0.14260], rel=1e-4)
    assert adjusted["DenDF"].tolist() == pytest.approx([10.00604, 40.60210, 40.53360], rel=1e-4)
    means = model_of("oats").emmeans("nitro").to_frame()
    assert means["emmean"].tolist() == pytest.approx(
        [79.388889, 98.888889, 114.222222, 123.388889], rel=1e-7
    )
    assert means["SE"].tolist() == pytest.approx([7.174754] * 4, rel=1e-5)
    assert means["df"].tolist() == pytest.approx([6.7957] * 4, rel=1e-3)
    penicillin = [model_of("penicillin").coef_table(ddf).to_frame()["df"].item() for ddf in DDF]
    # lme4's default optimum gives 5.4866 and 5.4871; at the minimum, with exact derivatives:
    assert penicillin == pytest.approx([5.4866, 5.4871], rel=1e-4)
    assert penicillin == pytest.approx([5.4870925, 5.4870923], rel=1e-7)
    beets = lmm.anova(model_of("beets"), ddf="kenward-roger").to_frame()
    assert beets.loc["harvest", "F value"] == pytest.approx(15.21053, rel=1e-5)
    assert beets.loc["harvest", "Pr(>F)"] == pytest.approx(0.059898, rel=1e-4)
    carrots = lmm.lmer("Preference ~ sens2 + Homesize + (1 + sens2 | Consumer)", data_of("carrots"))
    df = carrots.coef_table().to_frame()["df"].tolist()
    assert df == pytest.approx([101.3368, 102.0160, 100.9539], rel=1e-3)
    sleep = model_of("sleepstudy").ranova().to_frame()
    assert sleep.loc["Days in (Days | Subject)", "LRT"] == pytest.approx(42.83681, rel=1e-6)
    assert sleep.loc["Days in (Days | Subject)", "Df"] == 2


def test_missing_cells_are_named() -> None:
    table = lmm.anova(model_of("oats_missing_cell"))
    assert "Variety[Victory]:nitro[0.2]" in str(table)
    assert "Missing cells" not in str(lmm.anova(model_of("oats_unbalanced")))
    means = model_of("oats_missing_cell").emmeans("Variety")
    assert means.to_frame()["emmean"].isna().tolist() == [False, False, True]
    assert "NaN" in means.notes[-1]


def test_one_model_keeps_its_tests_when_stored(tmp_path: Path) -> None:
    for name in ("oats_missing_cell", "cake_square"):
        model = model_of(name)
        model.save(tmp_path / name)
        for copy in (lmm.load(tmp_path / name), pickle.loads(pickle.dumps(model))):
            assert str(lmm.anova(copy)) == str(lmm.anova(model))
            assert str(copy.drop1()) == str(model.drop1())
            assert str(copy.ranova()) == str(model.ranova())
            specs = "Variety" if name == "oats_missing_cell" else "recipe"
            assert str(copy.emmeans(specs)) == str(model.emmeans(specs))


def test_type_3_of_single_coefficients_is_the_t_test() -> None:
    model = model_of("sleepstudy_square")
    t = model.coef_table().to_frame().iloc[1:]
    F = lmm.anova(model).to_frame()
    np.testing.assert_allclose(F["F value"], t["t value"] ** 2, rtol=1e-8)
    np.testing.assert_allclose(F["DenDF"], t["df"], rtol=1e-8)
    np.testing.assert_allclose(F["Pr(>F)"], t["Pr(>|t|)"], rtol=1e-7)


def test_a_model_made_from_arrays_tests_every_column() -> None:
    data = lmm.load_dataset("sleepstudy")
    X = pd.DataFrame({"one": 1.0, "Days": data["Days"], "square": data["Days"] ** 2})
    model = lmm.fit_arrays(data["Reaction"], X, [(data["Subject"], None)])
    table = lmm.anova(model).to_frame()
    assert table.index.tolist() == ["Days", "square"]
    t = model.coef_table().to_frame()["t value"].iloc[1:]
    np.testing.assert_allclose(table["F value"], t**2, rtol=1e-8)
    assert model.drop1().to_frame().index.tolist() == ["<none>", "Days", "square"]
    assert len(model.ranova().index) == 2
    with pytest.raises(OptionError, match="made from arrays"):
        model.emmeans("Days")


def test_a_term_whose_columns_others_repeat() -> None:
    data = data_of("sleepstudy").assign(twice=lambda d: 2.0 * d["Days"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        model = lmm.lmer("Reaction ~ Days + twice + (1 | Subject)", data)
    assert lmm.anova(model, type=1).to_frame()["NumDF"].tolist() == [1.0, 0.0]
    deleted = model.drop1().to_frame()
    assert deleted["npar"].iloc[1:].tolist() == [0.0, 0.0]
    assert np.allclose(deleted["LRT"].iloc[1:], 0.0, atol=1e-6)
    assert model.drop1("F").to_frame()["NumDF"].iloc[1:].tolist() == [0.0, 0.0]


def test_weights_and_offsets_reach_the_reduced_models() -> None:
    data = data_of("oats_unbalanced").assign(
        w=np.linspace(0.5, 2.0, len(data_of("oats_unbalanced"))), off=3.0
    )
    full = lmm.lmer("yield ~ Variety + nitro + (1 | Block)", data, weights="w", offset="off")
    small = lmm.lmer("yield ~ nitro + (1 | Block)", data, weights="w", offset="off", reml=False)
    by_hand = lmm.anova(full, small).to_frame().iloc[1]
    row = full.drop1().to_frame().loc["Variety"]
    assert row["LRT"] == pytest.approx(by_hand["Chisq"], rel=1e-6)
    assert row["AIC"] == pytest.approx(small.aic, rel=1e-8)
    # No random effect left: the likelihood of weighted least squares.
    X, y, w = full.fit.design.X, full.fit.design.y - 3.0, data["w"].to_numpy()
    n, p = X.shape
    XtWX = X.T @ (w[:, None] * X)
    residual = y - X @ np.linalg.solve(XtWX, X.T @ (w * y))
    squares = float(np.sum(w * residual**2))
    value = (n - p) * (1 + np.log(2 * np.pi * squares / (n - p))) - np.sum(np.log(w))
    value += np.linalg.slogdet(XtWX)[1]
    assert full.ranova().to_frame()["logLik"].iloc[1] == pytest.approx(-value / 2, rel=1e-10)


def test_options_are_checked() -> None:
    model = model_of("oats")
    for call in (
        lambda: lmm.anova(model, type=4),
        lambda: lmm.anova(model, ddf="exact"),
        lambda: lmm.anova(),
        lambda: lmm.anova(model_of("oats_unbalanced_ml"), ddf="kenward-roger"),
        lambda: model.drop1("t"),
        lambda: model.emmeans("Block"),
        lambda: model.emmeans([]),
        lambda: model.emmeans("Variety", adjust="scheffe"),
        lambda: model.emmeans("Variety", at={"nitrogen": 1}),
        lambda: model.emmeans("Variety", pairwise=True, at={"Variety": "Victory"}),
    ):
        with pytest.raises(OptionError):
            call()
    assert list(lmm.anova(model, ddf="none").to_frame()) == [
        "Sum Sq",
        "Mean Sq",
        "NumDF",
        "F value",
    ]


def test_factors_made_in_the_formula() -> None:
    data = models.frame("Oats_unbalanced")
    inside = lmm.lmer("yield ~ Variety * C(nitro) + (1 | Block/Variety)", data)
    np.testing.assert_allclose(
        lmm.anova(inside).to_frame(), lmm.anova(model_of("oats_unbalanced")).to_frame(), rtol=1e-5
    )
    np.testing.assert_allclose(
        inside.emmeans("nitro").to_frame().loc[:, "emmean":],
        model_of("oats_unbalanced").emmeans("nitro").to_frame().loc[:, "emmean":],
        rtol=1e-5,
    )


def test_transformed_covariates() -> None:
    data = lmm.load_dataset("sleepstudy")
    basis = lmm.lmer("Reaction ~ poly(Days, degree=2) + (1 | Subject)", data)
    table = lmm.anova(basis).to_frame()
    assert table["NumDF"].tolist() == [2.0]
    joint = basis.contrast(np.eye(3)[1:]).to_frame()
    assert table["F value"].iloc[0] == pytest.approx(joint["F value"].iloc[0], rel=1e-8)
    at = basis.emmeans("Days", at={"Days": [0, 9]}).to_frame()["emmean"]
    expected = basis.predict(pd.DataFrame({"Days": [0.0, 9.0]}), random=False)
    np.testing.assert_allclose(at, expected)


def test_effects_shared_by_fixed_and_random_parts() -> None:
    data = models.frame("Oats").copy()
    model = _quiet("yield ~ C(nitro) + (C(nitro) | Block)", data)
    np.testing.assert_allclose(model.predict(data), model.fitted, rtol=1e-8)
    labels = model.ranova().to_frame().index.tolist()
    assert labels == ["<none>", "C(nitro) in (C(nitro) | Block)"]
    crossed = _quiet("yield ~ Variety + (Variety * nitro | Block)", data)
    labels = crossed.ranova().to_frame().index.tolist()
    assert labels[1:] == ["Variety:nitro in (Variety * nitro | Block)"]


def test_splines_and_computed_factors() -> None:
    data = lmm.load_dataset("sleepstudy").assign(half=lambda d: (d["Days"] > 4).astype(str))
    spline = lmm.lmer("Reaction ~ bs(Days, df=4) + (1 | Subject)", data)
    assert lmm.anova(spline).to_frame()["NumDF"].tolist() == [4.0]
    np.testing.assert_allclose(spline.predict(data), spline.fitted, rtol=1e-8)
    computed = lmm.lmer("Reaction ~ C(Days > 4) * Days + (1 | Subject)", data)
    column = lmm.lmer("Reaction ~ half * Days + (1 | Subject)", data)
    np.testing.assert_allclose(
        lmm.anova(computed).to_frame(), lmm.anova(column).to_frame(), rtol=1e-5
    )


def _quiet(formula: str, data: pd.DataFrame) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(formula, data)
