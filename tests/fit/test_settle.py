"""Refits: at their optimum, or searched again, or said not to be there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from models import VALIDATION

import lmmsparse as lmm
from lmmsparse.common.errors import ConvergenceWarning, LmmWarning
from lmmsparse.design.reduced import reductions_of
from lmmsparse.fit import settle as module
from lmmsparse.fit.least_squares import least_squares
from lmmsparse.fit.refit import reduced_fit
from lmmsparse.fit.settle import Settled, also_from, carried, settle
from lmmsparse.fit.verdict import judge
from lmmsparse.inference.hypotheses.bootstrap_lrt import _statistics
from lmmsparse.inference.intervals.profile import search as profile_search

EARLY = lmm.TrustRegion(max_eval=1)
MAXIMAL = "current ~ voltage + I(voltage**2) + (voltage | Wafer) + (voltage | Wafer:Site)"


@cache
def wafer() -> pd.DataFrame:
    return pd.read_csv(VALIDATION / "search_data" / "Wafer.csv.gz")


@cache
def sleepstudy() -> pd.DataFrame:
    return lmm.load_dataset("sleepstudy")


def quiet(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return call(*arguments, **options)


@cache
def uneven() -> pd.DataFrame:
    """Where all subjects have the same days, moments are nearly estimates."""
    return sleepstudy().drop(index=range(3, 180, 7))


@cache
def slopes(reml: bool = True, early: bool = False) -> lmm.LinearMixedModel:
    optimizer = EARLY if early else None
    formula = "Reaction ~ Days + (Days | Subject)"
    return quiet(lmm.lmer, formula, uneven(), reml=reml, optimizer=optimizer)


@cache
def small(reml: bool = True, early: bool = False) -> lmm.LinearMixedModel:
    optimizer = EARLY if early else None
    formula = "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)"
    return quiet(lmm.lmer, formula, uneven(), reml=reml, optimizer=optimizer)


# -- what is wrong is searched again ---------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("optimizer", [None, EARLY, lmm.Bobyqa(max_eval=20)])
def test_deletions_of_wafer(reml: bool, optimizer: Any) -> None:
    """The lowest deviances of lme4 1.1-31: −332.119481, −264.793005 and 421.454653."""
    m = quiet(lmm.lmer, MAXIMAL, wafer(), reml=reml, optimizer=optimizer)
    table = quiet(m.drop1)
    np.testing.assert_allclose(table["LRT"].iloc[1:], [67.32648, 753.57413], atol=2e-5)
    assert table["AIC"].iloc[0] == pytest.approx(-332.119481 + 20, abs=1e-5)


@pytest.mark.parametrize("optimizer", [None, EARLY, lmm.NelderMead(max_eval=5)])
def test_reductions_of_wafer(optimizer: Any) -> None:
    """lmerTest 3.1-3, `ranova`: REML criterion −316.8790265."""
    m = quiet(lmm.lmer, MAXIMAL, wafer(), optimizer=optimizer)
    table = quiet(m.ranova)
    assert table["logLik"].iloc[0] == pytest.approx(158.43951, abs=1e-5)
    np.testing.assert_allclose(table["LRT"].iloc[1:], [69.693230, 73.731276], atol=1e-5)


def test_the_start_that_is_named_leads_to_the_better_optimum() -> None:
    m = slopes(early=True)
    text = str(quiet(m.ranova))
    start = [float(x) for x in text.partition("start=[")[2].partition("]")[0].split(", ")]
    again = lmm.lmer("Reaction ~ Days + (Days | Subject)", uneven(), start=start)
    assert again.fit.criterion == pytest.approx(slopes().fit.criterion, abs=1e-8)
    assert again.fit.optimum.evaluations <= 3


@pytest.mark.long
@pytest.mark.parametrize("reml", [True, False])
def test_comparisons_of_wafer(reml: bool) -> None:
    terms = ("(voltage | Wafer) + (1 | Wafer:Site)", "(voltage | Wafer) + (voltage | Wafer:Site)")
    fits = [
        quiet(lmm.lmer, f"current ~ {fixed} + {random}", wafer(), reml=reml)
        for fixed, random in [
            ("I(voltage**2)", terms[0]),
            ("I(voltage**2)", terms[1]),
            ("voltage + I(voltage**2)", terms[1]),
        ]
    ]
    table = quiet(lmm.anova, *fits)
    np.testing.assert_allclose(table["deviance"].iloc[1:], [-264.793005, -332.119481], atol=1e-5)
    assert (table["Chisq"].iloc[1:] > 0).all()


@pytest.mark.parametrize("reml", [True, False])
def test_early_searches_change_no_table(reml: bool) -> None:
    """Tables of a model whose own search stopped early are those of the optimum, and say so."""
    m, early = slopes(reml), slopes(reml, early=True)
    assert not early.convergence.converged
    for right, call in (
        (m.drop1(), early.drop1),
        (m.ranova(), early.ranova),
        (lmm.anova(small(reml), m), lambda: lmm.anova(small(reml, True), early)),
    ):
        if reml and ("deletions" in right.title or "deviance" in right.columns):
            found = call()
            assert "Searched more than once" in str(found)
        else:
            with pytest.warns(ConvergenceWarning, match="was found than that of"):
                found = call()
            assert "Fit again with start=" in str(found)
        np.testing.assert_allclose(
            found.to_frame().to_numpy(), right.to_frame().to_numpy(), rtol=1e-5, atol=1e-6
        )
    with pytest.warns(ConvergenceWarning, match="was found than that of the fit"):
        step = early.step()
    expected = m.step()
    assert step.formula == expected.formula
    np.testing.assert_allclose(step.model.theta, expected.model.theta, rtol=1e-4)
    np.testing.assert_allclose(
        step.random.to_frame().to_numpy(), expected.random.to_frame().to_numpy(), rtol=1e-5
    )


def test_early_searches_change_no_refit() -> None:
    m, early = slopes(), slopes(early=True)
    Y = m.simulate(4, rng=1)
    # From θ of the fit, one evaluation leads nowhere near the optimum of other responses.
    early = type(m)(replace(m.fit, optimizer=EARLY))
    pd.testing.assert_frame_equal(early.refit_many(1e3 * Y), m.refit_many(1e3 * Y), rtol=1e-4)
    assert early.refit(Y["sim_1"]).convergence.converged
    right, found = m.influence("Subject"), early.influence("Subject")
    np.testing.assert_allclose(found.dfbeta, right.dfbeta, rtol=1e-3, atol=1e-4)
    assert not found.problems
    assert not found.findings
    a, b = (quiet(one.bootstrap, 5, rng=3).to_frame() for one in (m, early))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_profile_of_an_early_search() -> None:
    found = slopes(early=True).profile("sigma")
    np.testing.assert_allclose(found.confint(), slopes().profile("sigma").confint(), rtol=1e-6)
    with pytest.warns(ConvergenceWarning, match="lower deviance"):
        found = slopes(False, early=True).profile("sigma")
    np.testing.assert_allclose(found.confint(), slopes().profile("sigma").confint(), rtol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.influence(),
        lambda m: m.influence("Subject"),
        lambda m: m.bootstrap(3, rng=1),
        lambda m: m.bootstrap(3, rng=1, statistic=lambda m: m.fixef),
    ],
)
def test_a_fit_that_others_are_compared_with_is_looked_at_too(call: Callable[..., Any]) -> None:
    decrease = slopes(early=True).convergence.expected_decrease
    with pytest.warns(ConvergenceWarning, match="The fit itself is not at its optimum"):
        found = call(slopes(early=True))
    (finding,) = found.findings
    assert f"fall by another {decrease:.2g}" in finding.message
    assert finding.message in repr(found)
    assert not call(slopes()).findings


def at(m: lmm.LinearMixedModel, theta: Any) -> lmm.LinearMixedModel:
    """A model that claims to have its optimum somewhere else."""
    theta = np.asarray(theta, dtype=np.float64)
    optimum = replace(m.fit.optimum, x=theta, value=m.fit.objective(theta), expected_decrease=0.0)
    return type(m)(replace(m.fit, optimum=optimum))


def test_a_larger_model_is_never_above_a_smaller_one() -> None:
    m = slopes(False)
    wrong = at(m, [1.0, 0.0, 0.0])
    assert wrong.fit.criterion > small(False).fit.criterion
    with pytest.warns(ConvergenceWarning, match="that of m2"):
        found = lmm.anova(small(False), wrong)
    right = lmm.anova(small(False), m)
    np.testing.assert_allclose(found.to_frame(), right.to_frame(), rtol=1e-6, atol=1e-6)
    with pytest.warns(ConvergenceWarning, match="that of the fit"):
        found = wrong.ranova()
    np.testing.assert_allclose(found.to_frame(), m.ranova().to_frame(), rtol=1e-6, atol=1e-6)
    with pytest.warns(ConvergenceWarning, match="that of the fit"):
        found = wrong.drop1()
    np.testing.assert_allclose(found.to_frame(), m.drop1().to_frame(), rtol=1e-6, atol=1e-6)


def test_a_smaller_model_is_no_higher_than_the_larger_allows() -> None:
    m = slopes(False)
    with pytest.warns(ConvergenceWarning, match="that of m1"):
        found = lmm.anova(at(small(False), [0.0, 0.01]), m)
    np.testing.assert_allclose(
        found.to_frame(), lmm.anova(small(False), m).to_frame(), rtol=1e-6, atol=1e-6
    )


def test_a_local_minimum_is_left_for_a_lower_start() -> None:
    """Slopes that have to carry a mean: one minimum at no variance, another at a large one."""
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(12), 8)
    x = rng.uniform(4.0, 6.0, len(g))
    data = pd.DataFrame({"g": g, "x": x})
    data["y"] = (10.0 + 0.5 * rng.normal(size=12))[g] * x + rng.normal(size=len(g))
    m = quiet(lmm.lmer, "y ~ 1 + (0 + x | g)", data)
    scaled = m.fit.objective
    grid = np.geomspace(1e-3, 1e3, 300)
    values = np.array([scaled(np.array([theta])) for theta in grid])
    best = grid[values.argmin()]
    for start in (0.0, 1e-3, 1e3):
        found = settle(at(m, [start]).fit, [np.array([best])])
        assert found.fit.criterion <= values.min() + 1e-9
        assert found.again
        assert not found.trouble


def test_a_reduction_with_several_minima_is_searched_from_the_larger_model_too() -> None:
    """Neither singular nor seen by a bound: the minima are at 16320.49, 16310.79 and 16304.49."""
    data = pd.read_csv(VALIDATION / "search_data" / "hard_5213_star.csv.gz")
    m = quiet(lmm.lmer, "tch ~ 1 + (1 | math) + (sch | math:gr)", data)
    table = quiet(m.ranova)
    assert table["logLik"].loc["(1 | math)"] == pytest.approx(-16304.487620 / 2, abs=1e-5)


# -- θ of one model for another --------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("(1 | Subject)", "(Days | Subject)"),
        ("(0 + Days | Subject)", "(Days | Subject)"),
        ("(1 | Subject) + (0 + Days | Subject)", "(Days | Subject)"),
        ("diag(Days | Subject)", "(Days | Subject)"),
        ("(1 | Subject)", "(1 | Subject) + (0 + Days | Subject)"),
        ("(1 | Subject)", "(Days + I(Days**2) | Subject) + (1 | week)"),
        ("(0 + Days | Subject)", "(0 + Days + I(Days**2) | Subject)"),
        ("(1 | week)", "(Days | Subject) + (Days | week)"),
        ("cs(Days | Subject)", "cs(Days | Subject) + (1 | week)"),
    ],
)
def test_a_smaller_model_stands_for_itself_within_a_larger_one(less: str, more: str) -> None:
    data = sleepstudy().assign(week=np.arange(180) % 7)
    a, b = (quiet(lmm.lmer, f"Reaction ~ Days + {random}", data).fit for random in (less, more))
    lifted = carried(a, b)
    assert b.objective(lifted) == pytest.approx(a.criterion, abs=1e-8)
    assert np.all(lifted >= b.template.lower)
    # And back: what is left of the larger one.
    back = carried(b, a)
    np.testing.assert_allclose(carried(a, a), a.theta)
    S, T = (fit.template.factors(fit.theta)[0] for fit in (b, a))
    if less == "(1 | Subject)" and b.design.blocks[0].names[0] == "Intercept":
        assert back[0] == pytest.approx(np.linalg.norm(S[0]))
    assert back.shape == (a.template.n_theta,)
    assert T.shape[0] == a.design.blocks[0].k


def test_what_is_held_stays() -> None:
    held = {"Subject.Days.Intercept": 0.1}
    a = lmm.lmer("Reaction ~ Days + (1 | Subject)", sleepstudy()).fit
    b = quiet(lmm.lmer, "Reaction ~ Days + (Days | Subject)", sleepstudy(), fixed=held).fit
    assert carried(a, b)[1] == 0.1
    assert settle(b, [carried(a, b)]).fit.theta[1] == 0.1


# -- what remains is said --------------------------------------------------------------------------


@pytest.fixture
def hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No search of a refit is ever called converged."""

    def never(*arguments: Any) -> Any:
        return replace(judge(*arguments), converged=False, expected_decrease=0.25)

    monkeypatch.setattr(module, "judge", never)
    monkeypatch.setattr(profile_search, "_arrived", lambda *arguments: False)


TABLES: dict[str, tuple[Callable[[], Any], str]] = {
    "drop1": (lambda: slopes().drop1(), "Days"),
    "drop1 of ML": (lambda: slopes(False).drop1(), "Days"),
    "ranova": (lambda: slopes().ranova(), "Days in (Days | Subject)"),
    "anova": (lambda: lmm.anova(small(), slopes()), "m1"),
    "anova without refits": (lambda: lmm.anova(small(), slopes(), refit=False), "m2"),
    "step": (lambda: slopes().step(), "Days in (Days | Subject)"),
    "step, fixed": (
        lambda: lmm.lmer("Reaction ~ Days + I(Days**2) + (Days | Subject)", sleepstudy()).step(),
        "the model without I(Days ** 2)",
    ),
    "influence": (lambda: slopes().influence("Subject"), "308"),
    "profile of a fixed effect": (lambda: slopes().profile("Days"), "Days at"),
    "profile of a deviation": (
        lambda: slopes().profile("sd_Days|Subject"),
        "sd_Days|Subject at",
    ),
    "profile of a correlation": (
        lambda: slopes().profile("cor_Days.Intercept|Subject"),
        "cor_Days.Intercept|Subject at",
    ),
    "bootstrap of a statistic": (
        lambda: slopes().bootstrap(3, rng=1, statistic=lambda m: m.fixef),
        "3 of 3 refits did not reach their optimum",
    ),
    "bootstrap": (
        lambda: type(slopes())(
            replace(slopes().fit, optimizer=lmm.TrustRegion(max_eval=1))
        ).bootstrap(3, rng=1),
        "3 of 3 refits did not reach their optimum",
    ),
    "bootstrap_lrt": (
        lambda: lmm.bootstrap_lrt(
            *(
                type(m)(replace(m.fit, optimizer=lmm.TrustRegion(max_eval=1)))
                for m in (small(False), slopes(False))
            ),
            3,
            rng=1,
        ),
        "3 of 3 refits did not reach their optimum",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.usefixtures("hopeless")
def test_what_has_not_converged_is_in_the_table_and_warned_of(name: str) -> None:
    call, who = TABLES[name]
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        found = call()
    text = repr(found)
    assert who in text
    assert "optimum" in text or "lowest deviance" in text
    told = [w for w in given if issubclass(w.category, ConvergenceWarning)]
    assert any(who in str(w.message) for w in told)
    # At the line of the caller.
    assert {w.filename for w in told} == {__file__}


@pytest.mark.usefixtures("hopeless")
def test_refits_that_remain_are_marked() -> None:
    m = type(slopes())(replace(slopes().fit, optimizer=lmm.TrustRegion(max_eval=1)))
    Y = m.simulate(3, rng=1)
    table = m.refit_many(Y)
    assert not table["converged"].any()
    assert table["problem"].str.contains("has not reached the optimum").all()
    assert table["criterion"].notna().all()
    found = quiet(m.bootstrap, 3, rng=1)
    assert found.unconverged == (0, 1, 2)
    assert found.n_failed == 0
    influence = quiet(m.influence, "Subject")
    assert list(influence.problems) == list(influence.unconverged)
    assert list(influence.problems) == list(influence.cooks_distance.index)
    assert influence.dfbeta.notna().all().all()


def test_nothing_is_said_of_what_has_converged() -> None:
    m = slopes()
    assert m.drop1().notes == ["REML fits were refitted by maximum likelihood."]
    for table in (m.ranova(), m.step().fixed, m.influence("Subject"), m.profile("sigma")):
        assert "optimum" not in repr(table)
    found = m.bootstrap(5, rng=1)
    assert not found.findings
    assert not found.unconverged


def test_an_exact_fit_is_said() -> None:
    m = slopes()
    exact = replace(judge(m.fit), findings=(lmm.errors.Finding("exact-fit", "warning", "x"),))
    settled = Settled(m.fit, exact)
    assert "exactly" in settled.trouble
    assert also_from(settled, [np.zeros(3)]) is settled


def test_many_names_are_cut_short() -> None:
    m = slopes()
    off = Settled(m.fit, replace(judge(m.fit), converged=False, expected_decrease=1.0))
    (finding,) = module.findings_about([(f"row {i}", off) for i in range(9)])
    assert "row 4" in finding.message
    assert "row 5" not in finding.message
    assert "and 4 more" in finding.message


# -- refits are refits of the same model -----------------------------------------------------------


@pytest.mark.parametrize("weights", [None, "w"])
def test_no_random_effect_left_by_maximum_likelihood(weights: str | None) -> None:
    data = sleepstudy().assign(w=1.0 + np.arange(180) % 3)
    m = lmm.lmer("Reaction ~ Days + (1 | Subject)", data, reml=False, weights=weights)
    w = np.ones(180) if weights is None else data["w"].to_numpy()
    X = np.column_stack([np.ones(180), data["Days"]])
    y = data["Reaction"].to_numpy()
    beta = np.linalg.solve(X.T @ (w[:, None] * X), X.T @ (w * y))
    s2 = np.sum(w * (y - X @ beta) ** 2) / 180
    deviance = 180 * np.log(2 * np.pi * s2) + 180 - np.log(w).sum()
    table = m.ranova()
    assert table["logLik"].iloc[1] == pytest.approx(-deviance / 2, rel=1e-12)
    assert table["LRT"].iloc[1] == pytest.approx(deviance - m.fit.criterion, rel=1e-9)
    linear = least_squares(m.fit.design)
    assert linear.criterion(False) == pytest.approx(deviance, rel=1e-12)
    np.testing.assert_allclose(linear.beta, beta, rtol=1e-11)
    covariance = linear.squares / 178 * np.linalg.inv(X.T @ (w[:, None] * X))
    np.testing.assert_allclose(linear.covariance(), covariance, rtol=1e-10)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("fixed", [None, {"Subject.Days": 0.3}, {"sigma": 30.0}])
def test_refits_without_a_group_keep_what_is_fixed(reml: bool, fixed: Any) -> None:
    formula = "Reaction ~ Days + (Days | Subject)"
    m = lmm.lmer(formula, sleepstudy(), reml=reml, fixed=fixed)
    found = m.influence("Subject")
    data = sleepstudy()
    for subject in ("308", "335"):
        left = lmm.lmer(
            formula, data[data["Subject"].astype(str) != subject], reml=reml, fixed=fixed
        )
        row = found.dfbeta[found.dfbeta.index.astype(str) == subject]
        np.testing.assert_allclose(row.to_numpy()[0], left.fixef - m.fixef, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fixed", [{"Subject.Days": 0.3}, {"sigma": 30.0}])
def test_comparison_refits_keep_what_is_fixed(fixed: dict[str, float]) -> None:
    random = "(1 | Subject) + (0 + Days | Subject)"
    formulas = (f"Reaction ~ 1 + {random}", f"Reaction ~ Days + {random}")
    models = [lmm.lmer(text, sleepstudy(), fixed=fixed) for text in formulas]
    right = [
        lmm.lmer(text, sleepstudy(), fixed=fixed, reml=False).fit.criterion for text in formulas
    ]
    table = lmm.anova(*models)
    np.testing.assert_allclose(table["deviance"], right, rtol=1e-9)
    assert table["npar"].tolist() == [3.0, 4.0]
    drop = models[1].drop1()
    assert drop["LRT"].iloc[1] == pytest.approx(right[0] - right[1], abs=1e-5)


@pytest.mark.parametrize("reml", [True, False])
def test_reductions_keep_what_is_fixed_in_later_terms(reml: bool) -> None:
    """A held element of a later term moves when an earlier one loses parameters."""
    data = sleepstudy().assign(week=np.arange(180) % 7)
    m = quiet(
        lmm.lmer,
        "Reaction ~ Days + (Days | Subject) + (1 | week)",
        data,
        reml=reml,
        fixed={"week.Intercept": 0.4},
    )
    reduction = reductions_of(m.fit.design, 0)[0]
    small_fit = reduced_fit(m.fit, reduction)
    right = lmm.lmer(
        "Reaction ~ Days + (1 | Subject) + (1 | week)",
        data,
        reml=reml,
        fixed={"week.Intercept": 0.4},
    )
    assert small_fit.theta[-1] == 0.4
    assert small_fit.criterion == pytest.approx(right.fit.criterion, abs=1e-6)
    table = quiet(m.ranova)
    assert table["LRT"].iloc[1] == pytest.approx(right.fit.criterion - m.fit.criterion, abs=1e-5)


# -- bootstrap -------------------------------------------------------------------------------------


def test_a_bootstrap_table_is_what_it_says() -> None:
    found = slopes().bootstrap(7, rng=5)
    values, table = found.to_frame(), found._moments()
    bias = values.to_numpy().mean(axis=0) - found.original.to_numpy()
    np.testing.assert_allclose(table["Bias"], bias, rtol=1e-12)
    spread = np.sqrt(((values - values.mean()) ** 2).sum() / 6)
    np.testing.assert_allclose(table["Std. Error"], spread, rtol=1e-12)
    np.testing.assert_allclose(table["Estimate"], found.original)


def test_percentiles_are_those_of_davison_and_hinkley() -> None:
    """The (R + 1) p-th of R ordered replicates; basic limits are mirrored at the estimate."""
    found = slopes().bootstrap(19, rng=5)
    ordered = np.sort(found.to_frame().to_numpy(), axis=0)
    limits = found.confint(0.9)
    np.testing.assert_allclose(limits["lower"], ordered[0], rtol=1e-12)
    np.testing.assert_allclose(limits["upper"], ordered[18], rtol=1e-12)
    limits = found.confint(0.8)
    np.testing.assert_allclose(limits["lower"], ordered[1], rtol=1e-12)
    center = found.original.to_numpy()
    basic = found.confint(0.8, kind="basic")
    np.testing.assert_allclose(basic["lower"], 2 * center - ordered[17], rtol=1e-12)
    np.testing.assert_allclose(basic["upper"], 2 * center - ordered[1], rtol=1e-12)


def test_a_statistic_of_zero_has_p_one() -> None:
    data = lmm.load_dataset("Dyestuff2").assign(x=np.tile(np.arange(5.0), 6))
    with pytest.warns(lmm.SingularFitWarning):
        large = lmm.lmer("Yield ~ x + (1 | Batch) + (0 + x | Batch)", data, reml=False)
    with pytest.warns(lmm.SingularFitWarning):
        less = lmm.lmer("Yield ~ x + (1 | Batch)", data, reml=False)
    table = quiet(lmm.bootstrap_lrt, less, large, 20, rng=1)
    if table["Chisq"].iloc[0] < 1e-8:
        assert table["Pr(>Chisq)"].iloc[1] == 1.0
    else:
        pytest.fail("the data were chosen for a statistic of zero")


def test_bootstrapped_statistics_are_never_of_a_search_that_failed() -> None:
    """Searches of one evaluation: both refits are made again, and every statistic is the same."""
    a, b = small(False).fit, slopes(False).fit
    seeds = np.random.SeedSequence(4).spawn(4)
    right, off = _statistics(a, b, seeds)
    assert not off.any()
    one = lmm.TrustRegion(max_eval=1)
    found, off = _statistics(replace(a, optimizer=one), replace(b, optimizer=one), seeds)
    np.testing.assert_allclose(found, right, atol=1e-5)
    assert not off.any()
