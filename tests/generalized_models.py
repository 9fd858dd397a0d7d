"""validation/generalized.json → data frames, fits (made once per session) and R's references."""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import pandas as pd
from models import VALIDATION

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning

_REGISTRY = json.loads((VALIDATION / "generalized.json").read_text(encoding="utf-8"))

_REFERENCES = VALIDATION / "generalized_reference"

# Those that R has fitted: a new entry counts from then on.
MODELS: dict[str, dict[str, Any]] = {
    model["name"]: model
    for model in _REGISTRY["models"]
    if (_REFERENCES / f"{model['name']}.json").exists()
}

_FAMILIES = {
    "binomial": lmm.families.Binomial,
    "poisson": lmm.families.Poisson,
    "negative_binomial": lmm.families.NegativeBinomial,
    "gamma": lmm.families.Gamma,
    "inverse_gaussian": lmm.families.InverseGaussian,
    "gaussian": lmm.families.Gaussian,
}


def family(model: dict[str, Any]) -> Any:
    """Distribution and link of an entry of the registry."""
    held = {"theta": float(model["size"])} if "size" in model else {}
    return _FAMILIES[model["family"]](link=model["link"], **held)


@cache
def frame(name: str) -> pd.DataFrame:
    """The table `name`, with the levels that the registry states. Do not modify."""
    return as_declared(pd.read_csv(VALIDATION / "generalized_data" / f"{name}.csv.gz"), name)


def as_declared(data: pd.DataFrame, name: str) -> pd.DataFrame:
    """A copy of `data` with the registry's order of levels."""
    data = data.copy()
    for column, levels in _REGISTRY["levels"].get(name, {}).items():
        if column in data:
            data[column] = pd.Categorical(data[column], categories=levels)
    return data


@cache
def fit(name: str) -> Any:
    """The registry's model `name`, fitted with default settings. Its warnings are not errors."""
    model = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.glmer(
            model["formula"],
            frame(model["data"]),
            family(model),
            weights=model.get("weights"),
            offset=model.get("offset"),
            n_agq=model.get("n_agq", 1),
            information=model.get("information", "observed"),
        )


@cache
def reference(name: str) -> dict[str, Any]:
    """What R found for the model `name`; `validation/README.md` says what is in it."""
    result: dict[str, Any] = json.loads((_REFERENCES / f"{name}.json").read_text(encoding="utf-8"))
    return result
