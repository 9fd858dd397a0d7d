"""Cases of tests of terms: lmerTest's, pbkrtest's and emmeans' stored answers, and our fits."""

from __future__ import annotations

import gzip
import json
import warnings
from functools import cache
from typing import Any

import models
import pandas as pd

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning

with gzip.open(models.VALIDATION / "reference_tests.json.gz", "rt", encoding="utf-8") as _file:
    CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in json.load(_file)}

# Denominator df are ratios of second derivatives, which R takes numerically: 1e-5 is reached.
TIGHT = 1e-4


@cache
def data_of(name: str) -> pd.DataFrame:
    case = CASES[name]
    path = models.VALIDATION / "data" / f"{case['data']}.csv.gz"
    data = pd.read_csv(path) if path.exists() else lmm.load_dataset(case["data"])
    data = data.copy()
    for column, levels in (case["levels"] or {}).items():
        values = [f"{v:g}" if isinstance(v, float) else str(v) for v in data[column]]
        data[column] = pd.Categorical(values, categories=levels)
    return data


def fit_of(name: str, **options: Any) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(CASES[name]["formula"], data_of(name), reml=CASES[name]["reml"], **options)


@cache
def model_of(name: str) -> lmm.LinearMixedModel:
    return fit_of(name)


def label_of(text: str) -> str:
    text = text.replace("**", "^").replace(" ", "")
    if "|" not in text:
        return text
    effects, group = text.rstrip(")").split("|")
    return f"{effects}|{':'.join(sorted(group.split(':')))})"
