"""Tests of terms, marginal means and profile intervals of generalized models against R's."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import naming
import numpy as np
import numpy.typing as npt
import pytest
from generalized_models import MODELS, fit
from models import VALIDATION

Array = npt.NDArray[np.float64]


@cache
def stored() -> dict[str, Any]:
    """car's, emmeans' and glmmTMB's results by model."""
    path = VALIDATION / "generalized_tests.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


NAMES = [name for name in stored() if name in MODELS]
WITH_MEANS = [name for name in NAMES if stored()[name].get("means")]
WITH_PROFILE = [name for name in NAMES if stored()[name].get("profile")]


def close(ours: Any, theirs: Any, tolerance: float = 2e-4) -> None:
    theirs = np.asarray(theirs, float)
    np.testing.assert_allclose(np.asarray(ours, float), theirs, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("kind", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_wald_tests_of_terms(name: str, kind: int) -> None:
    if kind == 2 and name in ("epil", "owls"):
        pytest.skip("with interactions car's type II is another hypothesis than lmerTest's")
    theirs = stored()[name][f"type{kind}"]
    table = fit(name).anova(type=kind).to_frame()
    ours = {naming.effect(str(term)): row for term, row in table.iterrows()}
    for i, term in enumerate(theirs["term"]):
        if term == "(Intercept)":
            continue
        row = ours[naming.effect(term)]
        # Squares: a thousandth of z.
        close([row["Chisq"], row["Df"]], [theirs["chisq"][i], theirs["df"][i]], 2e-3)
        close(np.log(row["Pr(>Chisq)"]), np.log(theirs["p"][i]), 2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_deletions(name: str) -> None:
    theirs = stored()[name]["drop1"]
    table = fit(name).drop1().to_frame()
    ours = {naming.effect(str(term)): row for term, row in table.iterrows()}
    for i, term in enumerate(theirs["term"]):
        row = ours[naming.effect(term)]
        close([row["LRT"], row["npar"]], [theirs["lrt"][i], theirs["df"][i]])
        close(row["Pr(>Chisq)"], theirs["p"][i])
        close(row["AIC"], theirs["aic"][i + 1], 1e-6)


@pytest.mark.parametrize("name", WITH_MEANS)
def test_means_on_the_link(name: str) -> None:
    theirs = stored()[name]["means"]
    table = fit(name).emmeans(theirs["specs"]).to_frame()
    order = _rows(table, theirs)
    for column, key in (("emmean", "emmean"), ("SE", "SE"), ("lower.CL", "lower")):
        close(table[column].to_numpy()[order], theirs[key])


@pytest.mark.parametrize("name", WITH_MEANS)
def test_means_on_the_response(name: str) -> None:
    theirs = stored()[name]["means"]
    table = fit(name).emmeans(theirs["specs"], type="response").to_frame()
    order = _rows(table, theirs)
    for column, key in (
        ("response", "response"),
        ("SE", "response_SE"),
        ("upper.CL", "response_upper"),
    ):
        close(table[column].to_numpy()[order], theirs[key])


@pytest.mark.parametrize("name", WITH_MEANS)
def test_differences_of_means(name: str) -> None:
    theirs = stored()[name]["means"]
    if len(theirs["specs"]) > 1:
        pytest.skip("labels of combinations are each program's own")
    model, specs = fit(name), theirs["specs"]
    table = model.emmeans(specs, pairwise=True).to_frame()
    pairs = [_pair(label) for label in table.index]
    order = [pairs.index(_pair(label)) for label in theirs["contrast"]]
    close(table["estimate"].to_numpy()[order], theirs["estimate"])
    close(table["SE"].to_numpy()[order], theirs["estimate_SE"])
    close(table["p.value"].to_numpy()[order], theirs["p_tukey"], 2e-3)
    plain = model.emmeans(specs, pairwise=True, adjust="none", type="response").to_frame()
    close(plain["p.value"].to_numpy()[order], theirs["p_none"], 2e-3)
    if model.family.link != "probit":
        ratio = "odds.ratio" if model.family.link == "logit" else "ratio"
        close(plain[ratio].to_numpy()[order], theirs["ratio"])
        close(plain["SE"].to_numpy()[order], theirs["ratio_SE"])


@pytest.mark.parametrize("name", WITH_PROFILE)
def test_profile_intervals(name: str) -> None:
    theirs = stored()[name]["profile"]
    frame = fit(name).confint(method="profile")
    ours = {naming.effect(str(label)): row for label, row in frame.iterrows()}
    for i, label in enumerate(theirs["names"]):
        if label == "sd":
            (key,) = (k for k in ours if k.startswith("sd_"))
        else:
            key = naming.effect(label)
        close(ours[key][["lower", "upper"]], [theirs["lower"][i], theirs["upper"][i]], 1e-3)


def _rows(table: Any, theirs: dict[str, Any]) -> list[int]:
    """Positions of R's rows in our table, by the columns of the factors."""
    wanted = list(zip(*theirs["levels"].values(), strict=True))
    ours = [tuple(map(str, row)) for row in table[theirs["specs"]].itertuples(index=False)]
    return [ours.index(row) for row in wanted]


def _pair(label: object) -> tuple[str, ...]:
    return tuple(part.strip(" ()") for part in str(label).replace(" / ", " - ").split(" - "))
