"""The published comparison of lmer and statsmodels, with lmmsparse beside them → COMPARISON.md.

Run: python validation/comparison.py   (needs statsmodels; R is not needed)
lmer's figures come from the stored references: estimates at the polished optimum; messages, seconds
and the criterion of a plain `lmer()` call as recorded when the references were made.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

try:
    import statsmodels
    from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams
except ImportError:
    sys.exit(
        "The comparison needs statsmodels, which is not installed here. "
        "Install it into the same environment: python -m pip install statsmodels"
    )

import naming  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from models import reference  # noqa: E402
from scipy.stats import chi2  # noqa: E402

import lmmsparse as lmm  # noqa: E402


@dataclass(frozen=True)
class Case:
    """One model of the published comparison."""

    title: str
    reference: str
    data: str
    formula: str
    response: str
    group: str
    effects: tuple[str, ...]  # columns of the random part
    correlated: bool = True


CASES = (
    Case("Pigs, random intercept", "dietox_intercept_reml", "dietox",
         "Weight ~ Time + (1|Pig)", "Weight", "Pig", ("Intercept",)),
    Case("Pigs, correlated intercept and slope", "dietox_slope_reml", "dietox",
         "Weight ~ Time + (1+Time|Pig)", "Weight", "Pig", ("Intercept", "Time")),
    Case("Pigs, independent intercept and slope", "dietox_independent_reml", "dietox",
         "Weight ~ Time + (1|Pig) + (0+Time|Pig)", "Weight", "Pig", ("Intercept", "Time"),
         correlated=False),
    Case("Sitka spruce, random intercept", "sitka_intercept_reml", "Sitka",
         "size ~ Time + (1|tree)", "size", "tree", ("Intercept",)),
    Case("Sitka spruce, correlated intercept and slope", "sitka_slope_reml", "Sitka",
         "size ~ Time + (1+Time|tree)", "size", "tree", ("Intercept", "Time")),
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What one program says about one model."""

    criterion: float
    beta: dict[str, float]
    se: dict[str, float]
    covariance: dict[frozenset[str], float]
    sigma2: float
    said: list[str]
    seconds: float

    @property
    def loglik(self) -> float:
        return -self.criterion / 2


def timed(call: Callable[[], Any]) -> tuple[Any, list[str], float]:
    """Result, warnings without repetition, and median seconds of five calls after a first one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    said = list(dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught))
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(5):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return result, said, statistics.median(seconds)


def from_lmer(case: Case) -> Answer:
    ref = reference(case.reference)
    names = [naming.effect(name) for name in ref["fixef"]["names"]]
    table, covariance = ref["varcorr"], {}
    for var1, var2, value in zip(table["var1"], table["var2"], table["vcov"], strict=True):
        key = frozenset(naming.effect(v) for v in (var1, var2) if v is not None)
        if key:
            covariance[key] = value
    said = [*ref["default_fit"]["warnings"], *ref["default_fit"]["messages"]]
    return Answer(
        criterion=ref["criterion"],
        beta=dict(zip(names, ref["fixef"]["values"], strict=True)),
        se=dict(zip(names, ref["fixef"]["se"], strict=True)),
        covariance=covariance,
        sigma2=ref["sigma"] ** 2,
        said=said,
        seconds=ref["default_fit"]["seconds"],
    )


def from_statsmodels(case: Case, data: pd.DataFrame) -> Answer:
    data = data.assign(Intercept=1.0)
    k = len(case.effects)
    options: dict[str, Any] = {"reml": True, "method": ["lbfgs"]}
    if not case.correlated:
        options["free"] = MixedLMParams.from_components(np.ones(2), np.eye(k))

    def run() -> Any:
        model = MixedLM(
            data[case.response],
            data[["Intercept", "Time"]],
            groups=data[case.group],
            exog_re=data[list(case.effects)],
        )
        return model.fit(**options)

    result, said, seconds = timed(run)
    cov = np.asarray(result.cov_re)
    covariance = {
        frozenset({case.effects[i], case.effects[j]}): float(cov[i, j])
        for i in range(k)
        for j in range(i + 1)
        if case.correlated or i == j
    }
    return Answer(
        criterion=-2 * float(result.llf),
        beta={name: float(value) for name, value in result.fe_params.items()},
        se={name: float(value) for name, value in result.bse_fe.items()},
        covariance=covariance,
        sigma2=float(result.scale),
        said=said,
        seconds=seconds,
    )


def from_lmmsparse(case: Case, data: pd.DataFrame) -> tuple[Answer, lmm.LinearMixedModel]:
    model, said, seconds = timed(lambda: lmm.lmer(case.formula, data))
    return answer_of(model, said, seconds), model


def answer_of(model: lmm.LinearMixedModel, said: list[str], seconds: float) -> Answer:
    covariance = {}
    for row in model.varcorr.to_frame().itertuples():
        key = frozenset(v for v in (row.var1, row.var2) if isinstance(v, str))
        if key:
            covariance[key] = float(row.vcov)
    return Answer(
        criterion=model.reml_criterion,
        beta={str(name): float(value) for name, value in model.fixef.items()},
        se={str(name): float(value) for name, value in model.se.items()},
        covariance=covariance,
        sigma2=model.sigma**2,
        said=said,
        seconds=seconds,
    )


def section(case: Case, answers: dict[str, Answer]) -> list[str]:
    """One model's table and what the programs said."""
    first = next(iter(answers.values()))
    rows: list[tuple[str, Callable[[Answer], str]]] = [
        ("REML criterion", lambda a: f"{a.criterion:.6f}"),
        ("log-likelihood (REML)", lambda a: f"{a.loglik:.4f}"),
    ]
    for name in first.beta:
        rows.append((f"{name} (se)", lambda a, n=name: f"{a.beta[n]:.6f} ({a.se[n]:.4g})"))
    for key in first.covariance:
        names = sorted(key)
        label = (
            f"variance of {names[0]}" if len(names) == 1 else f"covariance of {' and '.join(names)}"
        )
        rows.append((label, lambda a, k=key: f"{a.covariance[k]:.6g}"))
    rows += [
        ("σ²", lambda a: f"{a.sigma2:.6g}"),
        ("seconds", lambda a: f"{a.seconds:.3f}"),
        ("warnings", lambda a: str(len(a.said)) if a.said else "none"),
    ]
    lines = [
        f"## {case.title}",
        "",
        f"`{case.formula}`, {case.data}",
        "",
        f"| | {' | '.join(answers)} |",
        "|---|" + "--:|" * len(answers),
        *(f"| {label} | {' | '.join(show(a) for a in answers.values())} |" for label, show in rows),
        "",
    ]
    default = reference(case.reference)["default_fit"]["criterion"]
    if default - first.criterion > 1e-4:
        lines += [
            f"A plain `lmer()` of this version stops at {default:.6f}, "
            f"{default - first.criterion:.3f} above the optimum; lmer's column holds its best, "
            "from several optimizers and starts.",
            "",
        ]
    for program, answer in answers.items():
        lines += [f"- {program} says: {' '.join(text.split())}" for text in answer.said]
    return [*lines, ""] if any(a.said for a in answers.values()) else lines


def pigs(correlated: lmm.LinearMixedModel, independent: lmm.LinearMixedModel) -> list[str]:
    """Do intercepts and slopes of the pigs correlate?"""
    lmer2, lmer3 = reference("dietox_slope_reml"), reference("dietox_independent_reml")
    ml2, ml3 = reference("dietox_slope_ml"), reference("dietox_independent_ml")
    rows = correlated.varcorr.to_frame()
    ours = float(
        rows.loc[(rows["var1"] == "Intercept") & (rows["var2"] == "Time"), "sdcor"].iloc[0]
    )
    at = lmer2["varcorr"]["var2"].index("Time")
    reml = independent.reml_criterion - correlated.reml_criterion
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.errors.LmmWarning)
        test = lmm.anova(independent, correlated).to_frame().iloc[-1]
    return [
        "## Do the pigs' intercepts and slopes correlate?",
        "",
        "| | lmer | lmmsparse |",
        "|---|--:|--:|",
        f"| difference of the REML criteria, 1 df "
        f"| {lmer3['criterion'] - lmer2['criterion']:.6f} | {reml:.6f} |",
        f"| likelihood ratio, both refitted by ML, 1 df "
        f"| {ml3['criterion'] - ml2['criterion']:.6f} | {test['Chisq']:.6f} |",
        f"| its p-value | {chi2.sf(ml3['criterion'] - ml2['criterion'], 1):.6f} "
        f"| {test['Pr(>Chisq)']:.6f} |",
        f"| estimated correlation | {lmer2['varcorr']['sdcor'][at]:.6f} | {ours:.6f} |",
        "",
    ]


def sitka_from_arrays(by_formula: Answer, data: pd.DataFrame) -> list[str]:
    """The Sitka intercept model without a formula."""
    X = np.column_stack([np.ones(len(data)), data["Time"]])
    model, said, seconds = timed(
        lambda: lmm.fit_arrays(data["size"].to_numpy(), X, [(data["tree"].to_numpy(), None)])
    )
    beta, se = model.fixef.to_numpy(), model.se.to_numpy()
    variance = float(model.varcorr.to_frame()["vcov"].iloc[0])
    names = list(by_formula.beta)
    pairs = [
        ("REML criterion", by_formula.criterion, model.reml_criterion),
        *((n, by_formula.beta[n], beta[i]) for i, n in enumerate(names)),
        *((f"se of {n}", by_formula.se[n], se[i]) for i, n in enumerate(names)),
        ("variance of Intercept", next(iter(by_formula.covariance.values())), variance),
        ("σ²", by_formula.sigma2, model.sigma**2),
        ("seconds", round(by_formula.seconds, 3), round(seconds, 3)),
    ]
    lines = [
        "## Sitka, random intercept, from arrays",
        "",
        "`fit_arrays(y, X, [(tree, None)])`",
        "",
    ]
    lines += ["| | lmer() | fit_arrays() |", "|---|--:|--:|"]
    lines += [f"| {label} | {a:.9g} | {b:.9g} |" for label, a, b in pairs]
    return [*lines, "", *(f"- it says: {text}" for text in said), ""]


def main() -> int:
    lines, fitted, answered = [], {}, {}
    for case in CASES:
        data = lmm.load_dataset(case.data)
        ours, model = from_lmmsparse(case, data)
        answers = {
            "lmer": from_lmer(case),
            "statsmodels": from_statsmodels(case, data),
            "lmmsparse": ours,
        }
        fitted[case.reference], answered[case.reference] = model, ours
        lines += section(case, answers)
    lines += pigs(fitted["dietox_slope_reml"], fitted["dietox_independent_reml"])
    lines += sitka_from_arrays(answered["sitka_intercept_reml"], lmm.load_dataset("Sitka"))
    versions = reference(CASES[0].reference)
    head = [
        "# lmer, statsmodels and lmmsparse on five models",
        "",
        "Written by `python validation/comparison.py`; do not edit.",
        "",
        f"All by REML. lme4 {versions['lme4']}, statsmodels {statsmodels.__version__} "
        f"(MixedLM, L-BFGS as in its published comparison), lmmsparse {lmm.__version__}, "
        f"Python {platform.python_version()}. Seconds: median of five calls from data frame to "
        "fitted model; lmer's were taken when its results were stored. What a program says when "
        "it fits is listed under each table.",
        "",
    ]
    (HERE / "COMPARISON.md").write_text("\n".join([*head, *lines]), encoding="utf-8")
    print(f"written: {HERE / 'COMPARISON.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
