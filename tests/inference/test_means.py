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
from lmmsparse.inference.means.scale import response_scale
from lmmsparse.inference.means.tables import Basis, Wanted, emmeans_table, emtrends_table

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
    basis = Basis(fit, Constant(V, np.inf), "", scale, own is not None)  # type: ignore[arg-type]
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
    tolerance = {"df": 1e-4, "df2": np.inf, "F.ratio": 1e-3, "p.value": 2e-3 if joint else 1e-4}
    general = 2e-3 if CASES[name].get("family") else 2e-6
    compared = 0
    for column, values in theirs.items():
        if column not in ours:
            assert column in (*CASES[name]["levels"], "df", "temp", "Age", "null"), column
            continue
        rtol = max(tolerance.get(column, general), general)
        if np.isfinite(rtol) and (column in tolerance or ours[column].dtype.kind == "f"):
            atol = 2e-3 if column == "F.ratio" else 1e-4 if joint else 1e-6
            atol = max(atol, 1e-3) if CASES[name].get("family") else atol
            found = ours[column].to_numpy(dtype=np.float64)
            np.testing.assert_allclose(found, values, rtol=rtol, atol=atol, err_msg=column)
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize(
    ("name", "i"),
    [
        (name, i)
        for name, i in QUESTIONS
        if CASES[name]["questions"][i]["kind"] != "joint_tests"
        and CASES[name]["questions"][i].get("ddf") != "kenward-roger"
        and name not in ("nested",)  # R leaves out other columns of X
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
                    plain = [v.replace(name, "") for v in np.atleast_1d(values)]
                    assert ours["contrast"].tolist() == plain
