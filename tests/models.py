"""validation/models.json → data frames, fits (each made once per session) and lme4's references."""

from __future__ import annotations

import gzip
import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning

VALIDATION = Path(__file__).resolve().parent.parent / "validation"
_REGISTRY = json.loads((VALIDATION / "models.json").read_text(encoding="utf-8"))

DATASETS: dict[str, dict[str, Any]] = _REGISTRY["datasets"]
MODELS: dict[str, dict[str, Any]] = {model["name"]: model for model in _REGISTRY["models"]}


@cache
def frame(name: str) -> pd.DataFrame:
    """The data set `name`, factors as Categorical with the registry's levels. Do not modify."""
    file = DATASETS[name]["file"]
    if file is None:
        return as_declared(lmm.load_dataset(name), name)
    return as_declared(pd.read_csv(VALIDATION / file), name)


def as_declared(data: pd.DataFrame, name: str) -> pd.DataFrame:
    """A copy of `data` whose fixed-effects factors have the levels the registry states.

    Columns without stated levels only group; they stay as they are.
    """
    data = data.copy()
    for column, factor in DATASETS[name]["columns"].items():
        levels = factor["levels"]
        if levels is None or column not in data:
            continue
        # By way of text: "1" and 1 are the same label, whatever a reader made of the column.
        label = {str(level): level for level in levels}
        values = [label.get(str(value)) for value in data[column]]
        data[column] = pd.Categorical(values, categories=levels, ordered=factor["ordered"])
    return data


@cache
def fit(name: str) -> lmm.LinearMixedModel:
    """The registry's model `name`, fitted with default settings. Its warnings are not errors."""
    model = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(
            model["formula"],
            frame(model["data"]),
            reml=model["reml"],
            weights=model["weights"],
            offset=model["offset"],
        )


@cache
def reference(name: str) -> dict[str, Any]:
    """What lme4 found for the model `name`; `validation/README.md` says what is in it."""
    path = VALIDATION / "reference" / f"{name}.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        result: dict[str, Any] = json.load(file)
    return result
