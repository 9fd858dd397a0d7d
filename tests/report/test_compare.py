"""Models side by side: what the table holds, what it says must not be compared, its formats."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from models import fit, frame
from numpy.testing import assert_allclose

import lmmsparse as lmm

SLEEP = frame("sleepstudy")
SMALL = lmm.lmer("Reaction ~ Days + (1 | Subject)", SLEEP)
LARGE = lmm.lmer("Reaction ~ Days + (Days | Subject)", SLEEP)
BENT = lmm.lmer("Reaction ~ Days + I(Days**2) + (Days || Subject)", SLEEP)
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


def counted() -> lmm.GeneralizedLinearMixedModel:
    return lmm.glmer(CBPP, lmm.load_dataset("cbpp"), "binomial")


def row(table: pd.DataFrame, part: str, term: str, statistic: str) -> list[float]:
    found = table[
        (table["part"] == part) & (table["term"] == term) & (table["statistic"] == statistic)
    ]
    assert len(found) == 1
    return [float(v) for v in found.iloc[0, 3:]]


def test_the_frame_holds_what_the_models_say() -> None:
    table = lmm.compare(SMALL, LARGE, BENT, names=["a", "b", "c"]).to_frame()
    assert list(table.columns) == ["part", "term", "statistic", "a", "b", "c"]
    models = (SMALL, LARGE, BENT)
    assert_allclose(row(table, "fixed", "Days", "estimate"), [m.fixef["Days"] for m in models])
    assert_allclose(row(table, "fixed", "Days", "std_error"), [m.se["Days"] for m in models])
    p = [m.coef_table().to_frame().loc["Days", "Pr(>|t|)"] for m in models]
    assert_allclose(row(table, "fixed", "Days", "p_value"), p)
    only = row(table, "fixed", "I(Days ** 2)", "estimate")
    assert_allclose(only, [np.nan, np.nan, BENT.fixef["I(Days ** 2)"]])
    sd = "SD Days | Subject"
    assert_allclose(row(table, "random", sd, "sd")[1], LARGE.varcorr.terms[0].sd[1])
    assert_allclose(row(table, "random", sd, "variance")[1], LARGE.varcorr.terms[0].sd[1] ** 2)
    assert np.isnan(row(table, "random", sd, "sd")[0])
    cor = row(table, "random", "Correlation Intercept and Days | Subject", "correlation")
    assert_allclose(cor, [np.nan, LARGE.varcorr.terms[0].correlation[0, 1], np.nan])
    assert_allclose(row(table, "random", "Residual SD", "sd"), [m.sigma for m in models])
    for statistic, values in {
        "nobs": [180] * 3,
        "npar": [m.npar for m in models],
        "logLik": [m.loglik for m in models],
        "AIC": [m.aic for m in models],
        "BIC": [m.bic for m in models],
        "r2_marginal": [m.r2()["marginal"] for m in models],
        "r2_conditional": [m.r2()["conditional"] for m in models],
    }.items():
        assert_allclose(row(table, "model", "", statistic), values)
    assert_allclose(row(table, "model", "Subject", "n_levels"), 18)


def test_limits_are_those_of_the_tests() -> None:
    table = lmm.compare(LARGE, counted(), level=0.9).to_frame()
    limits = LARGE.coef_table(level=0.9).to_frame().loc["Days", ["lower.CL", "upper.CL"]]
    own = [row(table, "fixed", "Days", name)[0] for name in ("conf_low", "conf_high")]
    assert_allclose(own, limits)
    wald = counted().confint("wald", level=0.9, which="beta_").loc["Intercept"]
    own = [row(table, "fixed", "Intercept", name)[1] for name in ("conf_low", "conf_high")]
    assert_allclose(own, wald)


def test_what_is_printed() -> None:
    text = str(lmm.compare(SMALL, LARGE, names=["lines", "slopes"]))
    lines = text.splitlines()
    assert lines[0].split() == ["lines", "slopes"]
    assert "251.41 (9.75)" in text
    assert "251.41 (6.82)" in text
    assert lines[-1] == "slopes: Reaction ~ Days + (Days | Subject)"
    assert "must" not in text
    assert "[7.21, 13.73]" in str(lmm.compare(LARGE, beside="interval"))
    assert "(<2e-16)" in str(lmm.compare(SMALL, beside="p"))
    assert "(" not in str(lmm.compare(SMALL, beside="none")).splitlines()[2]


def test_formats_hold_the_same_cells() -> None:
    table = lmm.compare(SMALL, BENT)
    for text in (table.to_html(), table.to_markdown()):
        assert "255.45 (7.57)" in text
    latex = table.to_latex(caption="Two models & more", label="tab:two")
    assert r"\begin{tabular}{lcc}" in latex
    assert r"\caption{Two models \& more}" in latex
    assert r"\label{tab:two}" in latex
    assert "255.45 (7.57)" in latex
    assert "reml=False" in latex
    assert "reml=False" not in table.to_latex()
    assert "$-893.2$" in latex
    text = table.to_csv()
    assert text is not None
    read = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])
    assert_allclose(read["m2"], table.to_frame()["m2"])


def notes(*models: lmm.LinearMixedModel | lmm.GeneralizedLinearMixedModel) -> str:
    return " ".join(lmm.compare(*models).notes)


def test_it_says_what_must_not_be_compared() -> None:
    by_ml = lmm.lmer("Reaction ~ Days + (1 | Subject)", SLEEP, reml=False)
    bent_by_ml = lmm.lmer("Reaction ~ Days + I(Days**2) + (1 | Subject)", SLEEP, reml=False)
    assert "must therefore not" not in notes(SMALL, LARGE)
    assert "must therefore not" not in notes(by_ml, bent_by_ml)
    assert "reml=False" in notes(SMALL, BENT)
    assert "m2 by REML" in notes(by_ml, LARGE)
    assert "100 rows (m2)" in notes(SMALL, lmm.lmer(SMALL.formula, SLEEP.iloc[:100]))
    logs = lmm.lmer("np.log(Reaction) ~ Days + (1 | Subject)", SLEEP)
    assert "np.log(Reaction) (m2)" in notes(SMALL, logs)
    # The order of the rows does not matter, another unit of a predictor does.
    again = lmm.lmer(SMALL.formula, SLEEP.sample(frac=1.0, random_state=1))
    assert "must therefore not" not in notes(SMALL, again)
    weeks = lmm.lmer(SMALL.formula, SLEEP.assign(Days=SLEEP["Days"] / 7))
    assert "other codings" in notes(SMALL, weeks)
    gamma = lmm.glmer(SMALL.formula, SLEEP, "gamma")
    assert "must therefore not" not in notes(by_ml, gamma)
    rounded = SLEEP.assign(Reaction=SLEEP["Reaction"].round())
    densities = lmm.lmer(SMALL.formula, rounded, reml=False)
    assert "probabilities of counts" in notes(
        densities, lmm.glmer(SMALL.formula, rounded, "poisson")
    )


def test_other_trials_are_other_data() -> None:
    cbpp = lmm.load_dataset("cbpp")
    twice = cbpp.assign(incidence=2 * cbpp["incidence"], size=2 * cbpp["size"])
    assert "same response" in notes(counted(), lmm.glmer(CBPP, twice, "binomial"))
    assert "must therefore not" not in notes(counted(), counted())


def test_singular_and_stopped_fits_are_named() -> None:
    assert "m2 is a singular fit" in notes(fit("dyestuff_reml"), fit("dyestuff2_reml"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        few = lmm.NelderMead(max_eval=12)
        stopped = lmm.lmer(LARGE.formula, SLEEP, optimizer=few)
    assert "m1 has not reached its optimum" in notes(stopped, LARGE)


def test_generalized_models_stand_beside_linear_ones() -> None:
    table = lmm.compare({"linear": LARGE, "binomial": counted()})
    text = str(table)
    assert "Laplace" in text
    assert "binomial(logit)" in text
    assert "SD Intercept | herd" in text
    own = lmm.glmer("Reaction ~ Days + (1 | Subject)", SLEEP, "gamma")
    frame = lmm.compare(own).to_frame()
    assert_allclose(row(frame, "random", "Dispersion", "estimate"), own.dispersion)
    assert "Family" not in str(lmm.compare(LARGE))


def test_scales_far_apart_have_digits_of_their_own() -> None:
    text = str(lmm.compare(LARGE, counted()))
    assert "251.41 (6.82)" in text
    assert "-1.399 (0.232)" in text


def test_rows_keep_the_order_of_the_models() -> None:
    other = lmm.lmer("Reaction ~ I(Days > 4) + Days + (1 | Subject)", SLEEP)
    table = lmm.compare(SMALL, counted(), other, BENT).to_frame()
    terms = {part: list(dict.fromkeys(rows["term"])) for part, rows in table.groupby("part")}
    assert terms["fixed"] == [
        "Intercept", "I(Days > 4)", "Days", "period[T.2]", "period[T.3]", "period[T.4]",
        "I(Days ** 2)",
    ]  # fmt: skip
    assert terms["random"] == [
        "SD Intercept | Subject", "SD Days | Subject", "SD Intercept | herd", "Residual SD"
    ]  # fmt: skip
    facts = table[table["part"] == "model"]
    assert list(facts["statistic"].head(4)) == ["nobs", "n_levels", "n_levels", "npar"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: lmm.compare(), "no model"),
        (lambda: lmm.compare(SMALL, 3), "given a int"),
        (lambda: lmm.compare(SMALL, names=["a", "b"]), "2 names for 1 model"),
        (lambda: lmm.compare(SMALL, LARGE, names=["a", "a"]), "must be different"),
        (lambda: lmm.compare(SMALL, names=["term"]), "columns of the table"),
        (lambda: lmm.compare(SMALL, beside="stars"), "'interval'"),
        (lambda: lmm.compare(SMALL, level=95), "between 0 and 1"),
    ],
)
def test_wrong_calls(call: object, says: str) -> None:
    with pytest.raises(lmm.OptionError, match=says):
        call()  # type: ignore[operator]


def test_a_model_without_fixed_effects() -> None:
    text = str(lmm.compare(fit("sleepstudy_no_fixed_part_ml")))
    assert "Fixed effects" not in text
    assert "Residual SD" in text
