"""Calls as users of lme4, statsmodels, pymer4 and bambi write them: what is to be written here."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import DesignWarning, LmmError, LmmWarning

F = "Reaction ~ Days + (Days | Subject)"
COUNTS = "incidence ~ period + (1 | herd)"


@cache
def names() -> dict[str, Any]:
    sleep, cbpp = lmm.load_dataset("sleepstudy"), lmm.load_dataset("cbpp")
    cake = lmm.load_dataset("cake")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return {
            "lmm": lmm,
            "np": np,
            "s": sleep,
            "c": cbpp,
            "F": F,
            "N": COUNTS,
            "m": lmm.lmer(F, sleep),
            "k": lmm.lmer("angle ~ recipe + temp + (1 | recipe:replicate)", cake),
            "g": lmm.glmer(
                "cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp, "binomial"
            ),
        }


SAID = {
    # lme4
    "lmm.glmer_nb(N, c)": "lmm.glmer(formula, data, 'negative_binomial')",
    "lmm.lmerControl()": "optimizer=",
    "lmm.glmmTMB(N, c)": "lmm.lmer(formula, data)",
    "lmm.glmer(N, c, 'poisson', ziformula='~1')": "Zero inflation",
    "lmm.glmer(N, c, 'poisson', REML=False)": "maximum likelihood",
    "lmm.glmer(N, c, 'poisson', link='sqrt')": "family=",
    "lmm.glmer(N, c, 'poison')": "Did you mean 'poisson'?",
    "lmm.glmer(N, c, 'nbinom1')": "proportional to the mean",
    "lmm.glmer(N, 'poisson', c)": "The data come second",
    "lmm.glmer(c, N, 'poisson')": "must be a string",
    "lmm.lmer(F, 'sleepstudy')": "lmm.load_dataset('sleepstudy')",
    "lmm.lmer(F, s, method='ML')": "reml=False",
    "lmm.lmer(F, s, verbose=1)": "progress=True",
    "lmm.lmer(F, s, known={'Subject': s})": "lmm.Pedigree.from_frame",
    "lmm.families.Binom": "Did you mean 'Binomial'?",
    "lmm.families.quasipoisson": "no likelihood",
    "lmm.binomial()": "lmm.families.Binomial()",
    "lmm.glmer('y ~ period + (1 | herd)', c, 'binomial')": "The columns are herd, incidence",
    "lmm.glmer('cbind(y, 2) ~ period + (1 | herd)', c, 'binomial')": "The columns are herd",
    "lmm.lmer(F, df=s)": "data=",
    "lmm.lmer(F, s, maxiter=9)": "max_eval=",
    "lmm.anova(m, m, test='LRT')": "likelihood ratios",
    "m.anova()": "lmm.anova(m)",
    "g.anova(g)": "lmm.anova(m1, m2)",
    "m.confint('prime')": "m.confint(which='prime')",
    "m.confint(['Days'])": "m.confint(which=['Days'])",
    "m.confint(0.9)": "m.confint(level=0.9)",
    "m.confint('wald', 'Days')": "m.confint(which='Days')",
    "m.confint('Days', method='wald')": "which=",
    "g.confint('period')": "m.confint(which='period')",
    "m.predict(s, random='NA')": "random=False",
    "m.predict(s, type='prob')": "'link' or 'response'",
    "m.varcorr.sdcor": "to_frame()['sdcor']",
    "m.ranef.Subject": "['Subject']",
    "m.ranef['subject']": "Did you mean 'Subject'?",
    "m(s)": "m.predict(newdata)",
    "m.icc(se=True)": "m.bootstrap(500, rng=1",
    "g.summary(ddf='KR')": "z tests",
    # emmeans
    "k.emmeans('recipee')": "Did you mean 'recipe'?",
    "k.emmeans('recipe', by='tempp')": "Did you mean 'temp'?",
    "k.emmeans('recipe', contrasts='pairwize')": "Did you mean 'pairwise'?",
    "k.emmeans('recipe', contrasts='revpairwise')": "reverse=True",
    "k.emmeans('recipe', contrasts='dunnett')": "Write contrasts='trt.vs.ctrl'",
    "k.emmeans('recipe', transform='response')": "regrid='response'",
    "k.emmeans('recipe').pairs()": "pairwise=True",
    "k.emmeans('recipe').emmean": "table['emmean']",
    "k.emmeans('recipe')['emmeen']": "Did you mean 'emmean'?",
    "k.emmeans('recipe')['A']": "to_frame().loc['A']",
    "k.emmeans()": "m.emmeans('factor')",
    "k.emtrends('temp')": "m.emtrends('factor', 'x')",
    # statsmodels
    "lmm.lmer('Reaction ~ Days', s, random='~ 1 | Subject')": "(x | group)",
    "lmm.lmer('Reaction ~ Days', s, groups='Subject')": "(1 | group)",
    "lmm.lmer('Reaction ~ Days', s, vc_formula={'a': '0 + x'})": "(1 | a) + (1 | b)",
    "lmm.lmer(F, s, missing='drop')": "na_action=",
    "lmm.ols('y ~ x', s)": "statsmodels",
    "lmm.lmer(F, s).fit()": "has fitted the model already",
    "m.get_prediction(s)": "m.predict(newdata, se=True)",
    "m.summary().tables": "m.coef_table()",
    "m.predict(exog=s)": "newdata=",
    # pymer4
    "lmm.Lmer(F, s)": "lmm.lmer(formula, data)",
    "m.post_hoc('Days')": "pairwise=True",
    "m.result_fit": "m.tidy()",
    "m.predict(s, use_rfx=False)": "random=False",
    # bambi
    "lmm.Model(F, s)": "lmm.lmer(formula, data)",
    "lmm.lmer(F, s, priors={})": "bambi",
    "m.posterior": "bambi",
}


@pytest.mark.parametrize("call", SAID)
def test_what_to_write_is_said(call: str) -> None:
    with pytest.raises((LmmError, AttributeError)) as caught:
        eval(call, dict(names()))
    assert SAID[call] in str(caught.value)


ALIKE = [
    ("lmm.families.binomial('probit')", "lmm.families.Binomial('probit')"),
    ("lmm.families.poisson()", "lmm.families.Poisson()"),
    ("lmm.families.nbinom2()", "lmm.families.NegativeBinomial()"),
    ("lmm.glmer(N, c, 'poisson(sqrt)').family", "lmm.families.Poisson('sqrt')"),
    ("""lmm.glmer(N, c, 'poisson(link = "sqrt")').family""", "lmm.families.Poisson('sqrt')"),
    ("lmm.glmer(N, c, lmm.families.poisson).family", "lmm.families.Poisson()"),
    ("lmm.glmer(N, c, 'nb').family.name", "'negative binomial'"),
    ("str(k.emmeans('recipe', weights='prop'))",
     "str(k.emmeans('recipe', weights='proportional'))"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "meant"), ALIKE)
def test_other_names_for_the_same(written: str, meant: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        assert eval(written, dict(names())) == eval(meant, dict(names()))


def test_every_family_is_made_again_from_its_text() -> None:
    from lmmsparse.engine.families import family_named

    for kind in (lmm.families.Binomial, lmm.families.Poisson, lmm.families.Gamma):
        for link in kind.links:
            assert family_named(str(kind(link))) == kind(link)


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("Reaction ~ Days^2 + (1 | Subject)", r"Days\^2 is Days, .*I\(Days\*\*2\)"),
        ("Reaction ~ Days + Days**2 + (1 | Subject)", r"Days\*\*2 is Days"),
        ("Reaction ~ Days + (Days^3 | Subject)", r"Days\^3 is Days"),
        ("Reaction ~ Days*Days + (1 | Subject)", r"Days\*Days is Days"),
        ("Reaction ~ np.sqrt(Days)^2 + (1 | Subject)", r"I\(np.sqrt\(Days\)\*\*2\)"),
    ],
)
def test_a_power_that_is_none_is_said_once(formula: str, said: str) -> None:
    data = lmm.load_dataset("sleepstudy")
    with pytest.warns(DesignWarning, match=said) as caught:
        m = lmm.lmer(formula, data)
    assert len(caught) == 1
    assert [f.code for f in m.convergence.findings] == ["idle-power"]
    assert " ".join(str(m.summary()).split()).count("as in R") == 1


@pytest.mark.parametrize(
    "formula",
    ["y ~ (a + b)^2 + (1 | g)", "y ~ a^1 + I(a^2) + (1 | g)", "y ~ a * b + a:b + (a | g:h)"],
)
def test_powers_that_are_some_are_not_spoken_of(formula: str) -> None:
    assert lmm.parse_formula(formula).idle == ()


def test_a_power_in_the_residual_sd_is_refused() -> None:
    with pytest.raises(LmmError, match=r"Write I\(Days\*\*2\)"):
        lmm.lmer(F, lmm.load_dataset("sleepstudy"), residual_sd="~ Days^2")


def test_the_covariance_of_a_group_is_a_matrix() -> None:
    m = names()["m"]
    found = m.varcorr["Subject"]
    np.testing.assert_array_equal(found, m.varcorr.terms[0].covariance)
    assert list(found.columns) == ["Intercept", "Days"]
    split = lmm.lmer("Reaction ~ Days + (Days || Subject)", names()["s"])
    assert split.varcorr["Subject"].to_numpy()[0, 1] == 0.0
    with pytest.raises(LmmError, match="grouping factor"):
        m.varcorr["Subjects"]


def test_values_by_group_are_printed_as_tables() -> None:
    text = str(names()["m"].ranef)
    assert text.splitlines()[0] == "Subject"
    assert "308" in text
    assert "9.1990" in text
    long = lmm.lmer("Weight ~ Time + (1 | Pig)", lmm.load_dataset("dietox"))
    assert str(long.ranef).endswith("… (72 rows)")
