"""Every bad input gets the package's own error: what (in the user's words), why, what to do."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import (
    DataError,
    DesignWarning,
    FormulaError,
    LmmError,
    NotFittedByError,
    NotIdentifiableError,
    OptionError,
    StorageError,
    UnknownGroupError,
)

N = 60


@cache
def data() -> pd.DataFrame:
    """Ten groups of six rows with names a user might choose. Do not modify."""
    rng = np.random.default_rng(20240501)
    group = np.repeat(np.arange(10), 6)
    frame = pd.DataFrame(
        {
            "score": rng.normal(size=N) + 2 * rng.normal(size=10)[group],
            "dose": rng.normal(size=N),
            "site": group,
            "arm": np.tile(["high", "low", "none"], 20),
            "half": np.tile([0, 1], 30),
            "row": [f"r{i}" for i in range(N)],
            "size": rng.uniform(0.5, 2.0, N),
            "shift": rng.normal(size=N),
        }
    )
    frame["score"] += frame["dose"] * (1 + rng.normal(size=10)[group])
    return frame


@cache
def model(**options: Any) -> lmm.LinearMixedModel:
    return lmm.lmer("score ~ dose + arm + (dose | site)", data(), **options)


def first_row(value: Any, column: str = "score") -> dict[str, Any]:
    """The column with another value in its first row."""
    return {column: [value, *data()[column].tolist()[1:]]}


@dataclass(frozen=True)
class Case:
    """A fit that cannot be made: the error and what its message has to mention."""

    name: str
    formula: Any
    says: tuple[str, ...]
    error: type[LmmError] = DataError
    change: Mapping[str, Any] = field(default_factory=dict)
    data: Callable[[pd.DataFrame], Any] = lambda frame: frame
    options: Mapping[str, Any] = field(default_factory=dict)


PLAIN = "score ~ dose + (1 | site)"
DATES = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(N), "D")

FITS = [
    # Names
    Case("unknown column", "score ~ dosis + (1|site)", ("'dosis'", "Did you mean 'dose'", "shift")),
    Case("unknown response", "scores ~ dose + (1|site)", ("'scores'", "Did you mean 'score'")),
    Case("unknown group", "score ~ dose + (1|sites)", ("'sites'", "Did you mean 'site'")),
    Case("unknown slope", "score ~ dose + (weight|site)", ("'weight'", "not a column")),
    Case("case of a name", "score ~ Dose + (1|site)", ("'Dose'", "Did you mean 'dose'")),
    Case("unknown inside a call", "score ~ log(doze) + (1|site)", ("'doze'", "'dose'")),
    Case("unknown inside an offset", "score ~ offset(shft) + (1|site)", ("'shft'", "'shift'")),
    Case("unknown in a nested group", "score ~ 1 + (1|site/sub)", ("'sub'", "not a column")),
    Case("unknown function", "score ~ lgo(dose) + (1|site)", ("lgo()", "'log'", "context=")),
    Case("Q()", "score ~ Q('dose') + (1|site)", ("Q('dose')", "backquotes"), FormulaError),
    # Formula
    Case("not a text", 3, ("type int", "quotation marks"), FormulaError),
    Case("empty", "", ("empty", "(1|group)"), FormulaError),
    Case("one-sided", "~ dose + (1|site)", ("left of", "response"), FormulaError),
    Case("no right side", "score ~ ", ("right of",), FormulaError),
    Case("no tilde", "score = dose + (1|site)", ('no "~"',), FormulaError),
    Case("two tildes", "score ~ dose ~ (1|site)", ("second",), FormulaError),
    Case("no random term", "score ~ dose", ("'score ~ dose'", "(1 | group)"), FormulaError),
    Case("subtracted", "score ~ dose - (1|site)", ("(1|site)", "subtracted"), FormulaError),
    Case("multiplied", "score ~ dose * (1|site)", ("(1|site)", "multiplied"), FormulaError),
    Case("bar outside", "score ~ dose + 1|site", ("dose + (1|site)",), FormulaError),
    Case("empty left side", "score ~ dose + (|site)", ("^",), FormulaError),
    Case("empty group", "score ~ dose + (1|)", ("^",), FormulaError),
    Case("no effects", "score ~ dose + (0|site)", ("(0|site)", "no effects"), FormulaError),
    Case("unbalanced", "score ~ dose + (1|site", ("never closed",), FormulaError),
    Case("number as a group", "score ~ dose + (1|1)", ('"1"', "grouping"), FormulaError),
    # Response
    Case("text response", "arm ~ dose + (1|site)", ("'arm'", "'high'", "numeric column")),
    Case("date response", PLAIN, ("'score'", "datetime64"), change={"score": DATES}),
    Case("complex response", PLAIN, ("'score'", "complex"), change={"score": np.ones(N) * 1j}),
    Case("constant response", PLAIN, ("'score'", "(3)", "60 rows"), change={"score": 3.0}),
    Case("infinite response", PLAIN, ("'score'", "not finite"), change=first_row(np.inf)),
    Case("matrix response", "poly(score, 2) ~ dose + (1|site)", ("poly(score, 2)", "2 columns")),
    Case("all-NA response", PLAIN, ("60 rows", "score: 60"), change={"score": np.nan}),
    Case(
        "undefined response",
        "log(score) ~ dose + (1|site)",
        ("60 of 60", "log(score)", "No row is left"),
        change={"score": -1.0 - np.arange(N)},
    ),
    Case(
        "constant up to the offset",
        PLAIN,
        ("'score'", "offset"),
        change={"score": data()["shift"]},
        options={"offset": "shift"},
    ),
    Case(
        "exact function",
        PLAIN,
        ("exactly", "response"),
        change={"score": 2 * data()["dose"] + 1},
    ),
    # Predictors
    Case("infinite predictor", PLAIN, ("'dose'", "not finite"), change=first_row(np.inf, "dose")),
    Case(
        "infinite slope",
        "score ~ 1 + (dose|site)",
        ("'dose'", "(dose|site)", "not finite"),
        change=first_row(-np.inf, "dose"),
    ),
    Case(
        "division by zero",
        "score ~ I(1/half) + (1|site)",
        ("'I(1 / half)'", "30 values", "divisions by zero"),
    ),
    Case("all-NA predictor", PLAIN, ("dose: 60", "60 rows"), change={"dose": None}),
    Case("date predictor", PLAIN, ("'dose'", "datetime64", "days"), change={"dose": DATES}),
    Case(
        "date with time zone",
        PLAIN,
        ("'dose'", "datetime64", "days"),
        change={"dose": DATES.tz_localize("UTC")},
    ),
    Case("complex predictor", PLAIN, ("'dose'", "complex128"), change={"dose": np.ones(N) * 1j}),
    Case("one-level factor", "score ~ arm + (1|site)", ("'arm'", "(high)"), change={"arm": "high"}),
    Case("text as a number", "score ~ row + (1|site)", ("'row'", "60 different", "(1 | row)")),
    Case(
        "mixed factor",
        "score ~ arm + (1|site)",
        ("'arm'", "int and str", ".astype(str)"),
        change={"arm": ["high", 1] * 30},
    ),
    Case(
        "no column",
        "score ~ 1 + (0 + dose|site)",
        ("'dose'", "zero in every row"),
        NotIdentifiableError,
        change={"dose": 0.0},
    ),
    Case(
        "wrong arguments",
        "score ~ bs(dose, knots='a') + (1|site)",
        ("bs(dose", "could not be"),
        FormulaError,
    ),
    # Grouping factors
    Case("all-NA group", PLAIN, ("site: 60", "60 rows"), change={"site": None}),
    Case("one level", PLAIN, ("'site'", "(7)"), NotIdentifiableError, change={"site": 7}),
    Case(
        "one level is left",
        PLAIN,
        ("'site'", "(0)"),
        NotIdentifiableError,
        change={"dose": data()["dose"].where(data()["site"] == 0)},
    ),
    Case(
        "a level per row",
        "score ~ dose + (1|row)",
        ("'row'", "60 levels", "60 rows"),
        NotIdentifiableError,
    ),
    Case(
        "a combination per row",
        "score ~ dose + (1|site:place)",
        ("'site:place'", "60 levels"),
        NotIdentifiableError,
        change={"place": np.tile(np.arange(6), 10)},
    ),
    Case(
        "an effect per row",
        "score ~ dose + (dose|site:place)",
        ("(dose|site:place)", "60 random effects", "30 levels", "60 rows"),
        NotIdentifiableError,
        change={"place": np.tile(np.arange(3), 20)},
    ),
    Case(
        "the same term twice",
        "score ~ dose + (1|site) + (1|site)",
        ("Intercept", "'site'", "(1|site)"),
        NotIdentifiableError,
    ),
    Case(
        "an effect in two terms",
        "score ~ dose + (dose|site) + (1|site)",
        ("Intercept", "(dose|site)", "(1|site)"),
        NotIdentifiableError,
    ),
    Case(
        "mixed group",
        PLAIN,
        ("'site'", "int and str", ".astype(str)"),
        change={"site": [1, "a"] * 30},
    ),
    Case("lists as labels", PLAIN, ("'site'", "list"), change={"site": [[1], [2]] * 30}),
    Case(
        "learning group",
        "score ~ dose + (1|scale(dose))",
        ("scale", "Compute the column"),
        FormulaError,
    ),
    Case(
        "group of one value",
        "score ~ dose + (1|np.max(dose))",
        ("np.max(dose)", "single value"),
        FormulaError,
    ),
    Case(
        "unknown structure",
        "score ~ dose + toep(dose|site)",
        ("toep",),
        FormulaError,
    ),
    # Weights and offset
    Case(
        "negative weights",
        PLAIN,
        ("weights", "60 negative"),
        options={"weights": np.full(N, -1.0)},
    ),
    Case(
        "weights of another length",
        PLAIN,
        ("weights", "(5,)", "60 rows"),
        options={"weights": np.ones(5)},
    ),
    Case("one weight", PLAIN, ("weights", "60 rows"), options={"weights": 2.0}),
    Case("matrix of weights", PLAIN, ("weights", "(60, 2)"), options={"weights": np.ones((N, 2))}),
    Case("unknown weights", PLAIN, ("weights='siez'", "'size'"), options={"weights": "siez"}),
    Case("text weights", PLAIN, ("weights='arm'", "numbers"), options={"weights": "arm"}),
    Case(
        "infinite weights",
        PLAIN,
        ("weights", "infinite"),
        options={"weights": [np.inf] + [1.0] * (N - 1)},
    ),
    Case("zero weights", PLAIN, ("weights", "zero"), options={"weights": np.zeros(N)}),
    Case("missing weights", PLAIN, ("weights: 60",), options={"weights": np.full(N, np.nan)}),
    Case(
        "weights of other rows",
        PLAIN,
        ("weights", "row labels", "0 is not among them", "to_numpy"),
        options={"weights": data()["size"].set_axis(range(3, N + 3))},
    ),
    Case("offset of another length", PLAIN, ("offset", "(5,)"), options={"offset": np.ones(5)}),
    Case(
        "numbers with a word among them",
        "log(half) ~ dose + (1|site)",
        ("'half'", "All but 'timeout'", "errors='coerce'"),
        FormulaError,
        change={"half": [*map(str, range(1, N)), "timeout"]},
    ),
    Case(
        "measurements as text",
        "score ~ half + (1|site)",
        ("'half'", "60 different values", "to_numeric", "C(half)"),
        change={"half": [f"{i / 4}" for i in range(N)]},
    ),
    Case(
        "a name with a space in a call",
        "log(reading time) ~ dose + (1|site)",
        ("two names side by side", "`reading time`"),
        FormulaError,
    ),
    Case("a coding that is not called", "score ~ C(arm, Sum) + (1|site)", ("'Sum'", "Sum()")),
    Case("data that are a path", PLAIN, ("'x.csv'", "read_csv"), data=lambda _: Path("x.csv")),
    Case(
        "numbers that are text in a random term",
        "score ~ 1 + (dose|site)",
        ("Each level of dose",),
        NotIdentifiableError,
        change={"dose": [str(i % 20) for i in range(N)], "site": [i // 20 for i in range(N)]},
    ),
    Case(
        "a column called 1",
        "score ~ `1` + (1|site)",
        ("'1'", "intercept", "rename"),
        change={"1": np.arange(N)},
    ),
    Case(
        "a column called 1 among all others",
        "score ~ . + (1|site)",
        ("'1'", "intercept"),
        data=lambda frame: frame[["score", "site"]].assign(**{"1": np.arange(N)}),
    ),
    Case(
        "a column called Intercept",
        "score ~ Intercept + (1|site)",
        ("'Intercept'", "Rename"),
        change={"Intercept": np.arange(N)},
    ),
    Case("one offset", PLAIN, ("offset", "60 rows"), options={"offset": 1.0}),
    Case("unknown offset", PLAIN, ("offset='shft'", "'shift'"), options={"offset": "shft"}),
    Case("text offset", "score ~ offset(arm) + (1|site)", ("offset(arm)", "numbers")),
    Case("infinite offset", "score ~ offset(log(half)) + (1|site)", ("offset", "infinite", "log")),
    # Options
    Case(
        "na_action",
        PLAIN,
        ("'drop'", "'omit'", "'exclude'", "'raise'"),
        OptionError,
        options={"na_action": "drop"},
    ),
    Case(
        "missing values refused",
        PLAIN,
        ("1 of 60", "dose: 1", "na_action='raise'"),
        change=first_row(np.nan, "dose"),
        options={"na_action": "raise"},
    ),
    Case(
        "undefined values refused",
        "score ~ log(dose) + (1|site)",
        ("log(dose)", "na_action"),
        options={"na_action": "raise"},
    ),
    Case(
        "infeasible start",
        PLAIN,
        ("start[0]", "not -1", "0 and inf"),
        OptionError,
        options={"start": [-1.0]},
    ),
    Case(
        "start of another length",
        PLAIN,
        ("start", "2 values", "1 covariance"),
        OptionError,
        options={"start": [1.0, 1.0]},
    ),
    Case(
        "start without numbers",
        PLAIN,
        ("start=", "'theta'", "m.theta"),
        OptionError,
        options={"start": {"theta": [1.0]}},
    ),
    Case(
        "start of text",
        PLAIN,
        ("start must be numbers", "'one'"),
        OptionError,
        options={"start": "one"},
    ),
    Case("missing start", PLAIN, ("start", "finite"), OptionError, options={"start": [np.nan]}),
    Case(
        "optimizer by name",
        PLAIN,
        ("'bobyqa'", "lmm.Bobyqa()"),
        OptionError,
        options={"optimizer": "bobyqa"},
    ),
    Case(
        "optimizer class",
        PLAIN,
        ("Bobyqa", "lmm.Bobyqa()"),
        OptionError,
        options={"optimizer": lmm.Bobyqa},
    ),
    Case(
        "solver by name",
        PLAIN,
        ("'dense'", "lmm.Dense()"),
        OptionError,
        options={"solver": "dense"},
    ),
    Case(
        "solver class", PLAIN, ("Dense", "lmm.Dense()"), OptionError, options={"solver": lmm.Dense}
    ),
    Case(
        "reml by name",
        PLAIN,
        ("reml must be True (REML) or", "not 'ML'"),
        OptionError,
        options={"reml": "ML"},
    ),
    Case(
        "contrasts of nothing", PLAIN, ("'arms'", "'arm'"), options={"contrasts": {"arms": "sum"}}
    ),
    Case(
        "unknown contrasts",
        "score ~ arm + (1|site)",
        ("'sums'", "'sum'"),
        OptionError,
        options={"contrasts": {"arm": "sums"}},
    ),
    Case(
        "contrasts by number",
        "score ~ arm + (1|site)",
        ("'arm'", "3", "'helmert'"),
        OptionError,
        options={"contrasts": {"arm": 3}},
    ),
    Case(
        "contrasts for no column",
        "score ~ arm + (1|site)",
        ("'sum'", "mapping"),
        OptionError,
        options={"contrasts": "sum"},
    ),
    Case(
        "contrasts of another size",
        "score ~ arm + (1|site)",
        ("'arm'", "4 rows", "3 levels", "high, low, none"),
        OptionError,
        options={"contrasts": {"arm": np.eye(4)}},
    ),
    Case(
        "context",
        PLAIN,
        ("context must be a mapping, not [1]",),
        OptionError,
        options={"context": [1]},
    ),
    # Tables
    Case("no data", PLAIN, ("NoneType", "DataFrame"), data=lambda frame: None),
    Case("an array", PLAIN, ("ndarray", "DataFrame"), data=lambda frame: np.ones((3, 3))),
    Case("a path", PLAIN, ("scores.csv", "read_csv"), data=lambda frame: "scores.csv"),
    Case("no rows", PLAIN, ("no rows",), data=lambda frame: frame.iloc[:0]),
    Case("an empty mapping", PLAIN, ("no rows",), data=lambda frame: {}),
    Case(
        "repeated columns",
        PLAIN,
        ("'dose'", "more than one"),
        data=lambda frame: pd.concat([frame, frame[["dose"]]], axis=1),
    ),
    Case(
        "MultiIndex columns",
        PLAIN,
        ("MultiIndex", "Flatten"),
        data=lambda frame: frame.set_axis(pd.MultiIndex.from_product([frame.columns, [0]]), axis=1),
    ),
    Case(
        "arrays of different lengths",
        PLAIN,
        ("score: 60", "dose: 2"),
        data=lambda frame: {"score": frame["score"], "dose": [1, 2], "site": frame["site"]},
    ),
    Case(
        "a matrix as a column",
        PLAIN,
        ("'score'", "2 dimensions"),
        data=lambda frame: {"score": np.ones((N, 2)), "dose": frame["dose"]},
    ),
    Case(
        "Series of different indexes",
        PLAIN,
        ("different indexes",),
        data=lambda frame: {"score": frame["score"].iloc[::-1], "dose": frame["dose"]},
    ),
    Case("a formula as data", data(), ("DataFrame", "quotation marks"), FormulaError, data=str),
    Case(
        "group in the index",
        PLAIN,
        ("'site'", "index", "reset_index()"),
        data=lambda frame: frame.set_index("site"),
    ),
    Case(
        "group in one level of the index",
        PLAIN,
        ("'site'", "index", "reset_index()"),
        data=lambda frame: frame.set_index(["arm", "site"]),
    ),
    # Sizes
    Case("huge response", PLAIN, ("'score'", "e+200"), change={"score": data()["score"] * 1e200}),
    Case("tiny response", PLAIN, ("'score'", "e-200"), change={"score": data()["score"] * 1e-200}),
    Case("huge predictor", PLAIN, ("'dose'", "e+200"), change={"dose": data()["dose"] * 1e200}),
    Case(
        "huge slope",
        "score ~ 1 + (dose|site)",
        ("'dose'", "(dose|site)", "e+200"),
        change={"dose": data()["dose"] * 1e200},
    ),
    Case(
        "as many effects as rows",
        "score ~ C(site) * C(place) + (1|site)",
        ("60 fixed effects", "60 rows"),
        NotIdentifiableError,
        change={"place": np.tile(np.arange(6), 10)},
    ),
    # Habits
    Case(
        "decimal comma",
        PLAIN,
        ("'score'", "comma", "decimal=','"),
        change={"score": [f"{v:.3f}".replace(".", ",") for v in data()["score"]]},
    ),
    Case(
        "response as predictor",
        "score ~ dose + score + (1|site)",
        ("'score'", "fixed effects", "among the predictors"),
        FormulaError,
    ),
    Case(
        "response as slope",
        "score ~ dose + (score|site)",
        ("'score'", "(score|site)", "among the predictors"),
        FormulaError,
    ),
    Case("square brackets", "score ~ dose + [1|site]", ('"["', "round", "^"), FormulaError),
    Case("braces", "score ~ dose + {1|site}", ('"{"', "round", "^"), FormulaError),
    Case("two responses", "cbind(score, dose) ~ 1 + (1|site)", ("cbind()", "m.refit_many(Y)")),
    Case("a smooth term", "score ~ s(dose) + (1|site)", ("s()", "bs(x, df=5)")),
    Case("relevel", "score ~ relevel(arm) + (1|site)", ("relevel()", "Treatment('level')")),
    Case(
        "contrasts of a measurement",
        "score ~ dose + (1|site)",
        ("'dose'", "60 different", "60 rows"),
        OptionError,
        options={"contrasts": {"dose": "sum"}},
    ),
    Case("a single row", PLAIN, ("'score'", "1 rows"), data=lambda frame: frame.iloc[:1]),
]

EVIL = [
    "__import__('os').system('touch {0}')",
    "I(__import__('os').system('touch {0}'))",
    "eval('1')",
    "open('{0}', 'w')",
    "np.load('{0}')",
    "np.savetxt('{0}', dose)",
    "np.lib.npyio.DataSource('{0}')",
    "dose.to_csv('{0}')",
    "dose.values.tofile('{0}')",
    "I(dose.to_pickle('{0}'))",
    "log(dose.to_json('{0}'))",
    "I(dose.__class__)",
    "I((lambda: dose)())",
    "I([v for v in dose])",
    "I((dose := 1))",
    "I(f'{{dose}}')",
    "I(getattr(dose, 'to_csv')('{0}'))",
    "I(exec('1'))",
]
PLACES = ["score ~ {} + (1|site)", "score ~ ({}|site)", "score ~ dose + (1|{})",
          "score ~ offset({}) + (1|site)", "{} ~ dose + (1|site)"]  # fmt: skip


def says(error: pytest.ExceptionInfo[BaseException], *fragments: str) -> None:
    """The message mentions what it should, and what to do: by itself, or as what must be."""
    text = str(error.value)
    missing = [fragment for fragment in fragments if fragment not in text]
    assert not missing, f"{missing} not in: {text}"
    sentences = re.findall(r"[.:?](?=\s|$)", text.split("\n")[0])
    assert len(sentences) >= 2 or "must be" in text, f"not what and what to do: {text}"


@pytest.mark.parametrize("case", FITS, ids=lambda case: case.name)
def test_fit_is_refused(case: Case) -> None:
    frame = case.data(data().assign(**case.change))
    with pytest.raises(case.error) as error:
        lmm.lmer(case.formula, frame, **case.options)
    assert type(error.value) is case.error
    says(error, *case.says)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", EVIL)
def test_formulas_reach_nothing_but_the_data(text: str, place: str, tmp_path: Path) -> None:
    target = tmp_path / "written"
    with pytest.raises(LmmError):
        lmm.lmer(place.format(text.format(target)), data())
    assert not target.exists()


def test_missing_weight_drops_its_row() -> None:
    weights = np.ones(N)
    weights[3] = np.nan
    m = lmm.lmer(PLAIN, data(), weights=weights)
    assert m.nobs == N - 1
    assert 3 not in m.fitted.index
    (finding,) = (f for f in m.convergence.findings if f.code == "missing-rows")
    assert "1 of 60" in finding.message
    assert "weights: 1" in finding.message


WARNINGS = {
    "dependent columns": ("score ~ dose + I(2*dose) + (1|site)", {}, "I(2 * dose)"),
    "zero column": (PLAIN, {"dose": 0.0}, "dose"),
    "zero weights": (PLAIN, {}, "1 rows have weight zero"),
    "undefined rows": ("score ~ log(dose) + (1|site)", {}, "log(dose)"),
    "split factor": ("score ~ dose + (arm||site)", {}, "(arm||site)"),
    "constant slope": ("score ~ 1 + (dose|site)", {"dose": 2.0}, "(dose|site)"),
    "far from zero": ("score ~ 1 + (dose|site)", {"dose": 2.4e8 + np.arange(N) % 7}, "center(x)"),
    "same grouping": ("score ~ 1 + (1|site) + (1|copy)", {"copy": data()["site"] + 5}, "'copy'"),
    "misspelt level": (
        "score ~ group + (1|site)",
        {"group": ["plain", "Plain ", "other"] * 20},
        "'Plain ', 'plain'",
    ),
    "misspelt group": (
        "score ~ 1 + (1|group)",
        {"group": ["a", "a ", "A", "b", "c", "d"] * 10},
        "'a', 'a '.",
    ),
    "lag": ("score ~ lag(dose) + (1|site)", {}, "data.groupby(...)[...].shift()"),
    "no residuals": (PLAIN, {"score": 1.0 * data()["site"]}, "'score'"),
}


@pytest.mark.filterwarnings("ignore::lmmsparse.errors.SingularFitWarning")
@pytest.mark.parametrize("name", WARNINGS)
def test_doubtful_fit_is_named(name: str) -> None:
    formula, change, fragment = WARNINGS[name]
    weights = np.r_[0.0, np.ones(N - 1)] if name == "zero weights" else None
    with pytest.warns(DesignWarning) as caught:
        m = lmm.lmer(formula, data().assign(**change), weights=weights)
    message = next(str(w.message) for w in caught if issubclass(w.category, DesignWarning))
    assert fragment in message
    assert message in [finding.message for finding in m.convergence.findings]


# What is asked of a fitted model ------------------------------------------------------------------


def new(**change: Any) -> pd.DataFrame:
    return data().head(4).assign(**change)


@cache
def with_offset(kind: str) -> lmm.LinearMixedModel:
    if kind == "formula":
        return lmm.lmer("score ~ dose + offset(shift) + (1|site)", data())
    offset = "shift" if kind == "column" else data()["shift"].to_numpy()
    return lmm.lmer(PLAIN, data(), offset=offset)


@cache
def by_arrays() -> lmm.LinearMixedModel:
    return lmm.fit_arrays(data()["score"], data()[["dose"]], [(data()["site"], None)])


def without(column: str) -> pd.DataFrame:
    return new().drop(columns=column)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: model().fixed, "'fixef'"),
        (lambda: model().random, "m.ranef"),
        (lambda: model().plot.residual, "'residuals'"),
        (lambda: lmm.nlmer, "nlme"),  # type: ignore[attr-defined]
        (lambda: lmm.fixef, "m.fixef"),  # type: ignore[attr-defined]
    ],
)
def test_a_member_that_does_not_exist_is_guessed(call: Callable[[], Any], hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        call()


@cache
def weighted() -> lmm.LinearMixedModel:
    return lmm.lmer(PLAIN, data(), weights="size")


QUESTIONS: dict[str, tuple[Callable[[], Any], type[LmmError], tuple[str, ...]]] = {
    "weights missing in new data": (
        lambda: weighted().predict(without("size"), interval="prediction"),
        DataError,
        ("new data", "'size'"),
    ),
    "weights of new data that are zero": (
        lambda: weighted().predict(new(size=[0, 1, 1, 1]), interval="prediction"),
        DataError,
        ("new data", "'size'", "1 values"),
    ),
    "group of other letters": (
        lambda: model().ranef["Site"],
        UnknownGroupError,
        ("'Site'", "'site'"),
    ),
    "option of the bootstrap": (
        lambda: model().confint(n=100),
        OptionError,
        ("n=100", "method='boot'"),
    ),
    "hypothesis as text": (
        lambda: model().contrast("dose = 0"),
        OptionError,
        ("contrast({'dose': 1})", "rhs="),
    ),
    "model as start": (
        lambda: lmm.lmer(PLAIN, data(), start=model()),
        OptionError,
        ("start must be numbers, not a LinearMixedModel", "m.theta"),
    ),
    "type by position": (lambda: lmm.anova(model(), "III"), OptionError, ("by name", "type=3")),
    "search by name": (lambda: model().all_fit("bobyqa"), OptionError, ("progress=",)),
    "new level": (
        lambda: model().predict(new(site=99)),
        DataError,
        ("'site'", "99", "new_levels='population'"),
    ),
    "many new levels": (
        lambda: model().predict(data().assign(site=np.arange(N) + 100)),
        DataError,
        ("60 in all",),
    ),
    "missing group": (
        lambda: model().predict(new(site=[0, np.nan, 1, 2])),
        DataError,
        ("'site'", "1 rows", "'nan'"),
    ),
    "group of another type": (
        lambda: model().predict(new(site="0")),
        DataError,
        ("'site'", "'0' (str)", "0 (int)", "convert the column"),
    ),
    "unknown group": (
        lambda: model().predict(random="~(1|plot)"),
        FormulaError,
        ("'plot'", "site", "^"),
    ),
    "unknown effect": (
        lambda: model().predict(random="~(arm|site)"),
        FormulaError,
        ("'arm", "'site'", "dose", "^"),
    ),
    "unknown effect column": (
        lambda: model().predict(random="~(size|site)"),
        FormulaError,
        ("size", "'site'", "dose", "^"),
    ),
    "random without tilde": (lambda: model().predict(random="site"), FormulaError, ("~",)),
    "random with response": (
        lambda: model().predict(random="score ~ (1|site)"),
        FormulaError,
        ('"score"',),
    ),
    "random with fixed part": (
        lambda: model().predict(random="~dose + (1|site)"),
        FormulaError,
        ('"dose"',),
    ),
    "random by number": (
        lambda: model().predict(random=3),
        OptionError,
        ("random must be", "True", "3"),
    ),
    "new level of a factor": (
        lambda: model().predict(new(arm="medium")),
        DataError,
        ("'arm'", "'medium'", "'high', 'low', 'none'"),
    ),
    "missing column": (lambda: model().predict(without("dose")), DataError, ("'dose'", "new data")),
    "missing group column": (
        lambda: model().predict(without("site")),
        DataError,
        ("'site'", "new data"),
    ),
    "text for numbers": (
        lambda: model().predict(new(dose="much")),
        DataError,
        ("'dose'", "'much'"),
    ),
    "new_levels": (
        lambda: model().predict(new(), new_levels="skip"),
        OptionError,
        ("'skip'", "'population'"),
    ),
    "no rows": (lambda: model().predict(new().iloc[:0]), DataError, ("no rows",)),
    "offset was an array": (
        lambda: with_offset("array").predict(new()),
        DataError,
        ("offset", "predict(..., offset=...)"),
    ),
    "offset column is missing": (
        lambda: with_offset("column").predict(without("shift")),
        DataError,
        ("offset='shift'",),
    ),
    "offset of the formula is missing": (
        lambda: with_offset("formula").predict(without("shift")),
        DataError,
        ("'shift'",),
    ),
    "offset of another length": (
        lambda: with_offset("array").predict(new(), offset=[1.0]),
        DataError,
        ("offset", "4 rows"),
    ),
    "offset without data": (
        lambda: model().predict(offset=[1.0]),
        OptionError,
        ("offset=", "newdata="),
    ),
    "a table for arrays": (lambda: by_arrays().predict(new()), OptionError, ("arrays", "lmm.lmer")),
    "simulate without rng": (
        lambda: model().simulate(rng=None),
        OptionError,
        ("not None", "rng=1"),
    ),
    "simulate with a negative seed": (
        lambda: model().simulate(rng=-1),
        OptionError,
        ("rng must", "not -1"),
    ),
    "simulate nothing": (
        lambda: model().simulate(0, rng=1),
        OptionError,
        ("n must be a positive whole number, not 0",),
    ),
    "simulate with unknown random": (
        lambda: model().simulate(rng=1, random="old"),
        OptionError,
        ("'old'", "'keep'"),
    ),
    "simulate for a missing group": (
        lambda: model().simulate(rng=1, newdata=new(site=[0, np.nan, 1, 2])),
        DataError,
        ("'site'",),
    ),
    "simulate with array weights": (
        lambda: lmm.lmer(PLAIN, data(), weights=data()["size"]).simulate(rng=1, newdata=new()),
        DataError,
        ("weights", "array"),
    ),
    "refit to another length": (
        lambda: model().refit([1.0, 2.0]),
        DataError,
        ("2 values", "60 rows"),
    ),
    "refit to a constant": (
        lambda: model().refit(np.ones(N)),
        DataError,
        ("'score'", "same value"),
    ),
    "refit to infinity": (lambda: model().refit([np.inf, *range(N - 1)]), DataError, ("infinite",)),
    "refit to nothing": (lambda: model().refit(np.full(N, np.nan)), DataError, ("missing",)),
    "refit to text": (lambda: model().refit(["a"] * N), DataError, ("numbers",)),
    "refit to a matrix": (
        lambda: model().refit(np.ones((N, 2))),
        DataError,
        ("one dimension, not 2",),
    ),
    "refit with negative weights": (
        lambda: model().refit(data()["score"], weights=np.full(N, -1)),
        DataError,
        ("negative",),
    ),
    "refit with few weights": (
        lambda: model().refit(data()["score"], weights=[1]),
        DataError,
        ("weights", "1 values"),
    ),
    "refit leaves one level": (
        lambda: model().refit(data()["score"].where(data()["site"] == 3)),
        NotIdentifiableError,
        ("'site'", "(3)"),
    ),
    "deviance of a REML fit": (
        lambda: model().deviance,
        NotFittedByError,
        ("REML", "m.reml_criterion", "reml=False"),
    ),
    "REML criterion of an ML fit": (
        lambda: model(reml=False).reml_criterion,
        NotFittedByError,
        ("m.deviance", "reml=True"),
    ),
    "residuals": (lambda: model().residuals_of("raw"), OptionError, ("'raw'", "'pearson'")),
    "ddf": (lambda: model().coef_table(ddf="kw"), OptionError, ("'kw'", "'asymptotic'")),
    "ddf of the summary": (lambda: model().summary(ddf="kw"), OptionError, ("'kw'", "'none'")),
    "interval method": (lambda: model().confint(method="Wold"), OptionError, ("'Wold'", "'wald'")),
    "level in percent": (lambda: model().confint("wald", level=95), OptionError, ("95", "0.95")),
    "level as text": (lambda: model().confint("wald", level="95%"), OptionError, ("'95%'", "0.95")),
    "unknown parameter": (
        lambda: model().confint("wald", which="age"),
        OptionError,
        ("'age'", "dose", "'beta_'"),
    ),
    "parameter by number": (
        lambda: model().confint("wald", which=3),
        OptionError,
        ("which must be", "not 3", "sigma"),
    ),
    "anova of other rows": (
        lambda: lmm.anova(model(), lmm.lmer(PLAIN, data().head(54))),
        DataError,
        ("60 and 54",),
    ),
    "anova of another response": (
        lambda: lmm.anova(model(), lmm.lmer("dose ~ 1 + (score|site)", data())),
        DataError,
        ("different responses",),
    ),
    "anova of other weights": (
        lambda: lmm.anova(model(), lmm.lmer(PLAIN, data(), weights="size")),
        DataError,
        ("weights",),
    ),
    "anova of a table": (lambda: lmm.anova(model(), 3), OptionError, ("int", "lmm.lmer")),
    "anova of REML fits": (
        lambda: lmm.anova(model(), lmm.lmer(PLAIN, data()), refit=False),
        OptionError,
        ("REML",),
    ),
    "anova of REML and ML": (
        lambda: lmm.anova(model(), model(reml=False), refit=False),
        OptionError,
        ("REML", "ML"),
    ),
    "tolerance": (lambda: lmm.Bobyqa(ftol_abs=-1), OptionError, ("ftol_abs of Bobyqa", "not -1")),
    "tolerance of a simplex": (
        lambda: lmm.NelderMead(xtol_abs="small"),
        OptionError,
        ("xtol_abs of NelderMead", "not 'small'"),
    ),
    "limit of evaluations": (lambda: lmm.Bobyqa(max_eval=0), OptionError, ("max_eval", "not 0")),
    "half an evaluation": (
        lambda: lmm.TrustRegion(max_eval=2.5),
        OptionError,
        ("max_eval", "not 2.5"),
    ),
    "radius": (lambda: lmm.TrustRegion(radius=np.nan), OptionError, ("radius", "not nan")),
    "ordering": (lambda: lmm.Cholmod(ordering="best"), OptionError, ("'best'", "'metis'")),
    "mode": (lambda: lmm.Cholmod(mode="fast"), OptionError, ("'fast'", "'supernodal'")),
    "L without numbers": (
        lambda: model().contrast({"dose": "one"}),
        DataError,
        ("'dose'", "'one'"),
    ),
    "L with NaN": (lambda: model().contrast([0, np.nan, 0, 0]), DataError, ("missing", "0 for")),
    "L with NaN by name": (lambda: model().contrast({"dose": np.nan}), DataError, ("missing",)),
    "rhs of another length": (
        lambda: model().contrast(np.eye(4)[:2], rhs=[1, 2, 3]),
        DataError,
        ("(3,)", "2 rows"),
    ),
    "rhs with NaN": (
        lambda: model().contrast({"dose": 1}, rhs=np.nan),
        DataError,
        ("rhs", "missing"),
    ),
    "rhs of text": (
        lambda: model().contrast({"dose": 1}, rhs="a"),
        DataError,
        ("rhs must be numbers", "'a'"),
    ),
    "means of a formula": (
        lambda: model().emmeans("pairwise ~ arm"),
        OptionError,
        ("'pairwise ~ arm'", "pairwise=True"),
    ),
    "means of a number": (
        lambda: model().emmeans(3),
        OptionError,
        ("specs must", "not 3", "'arm'"),
    ),
    "means at a list": (
        lambda: model().emmeans("arm", at=[1]),
        OptionError,
        ("at must be a mapping, not [1]",),
    ),
    "means at NaN": (
        lambda: model().emmeans("arm", at={"dose": np.nan}),
        DataError,
        ("'dose'", "missing"),
    ),
    "predict infinity": (
        lambda: model().predict(new(dose=[np.inf, 1, 2, 3])),
        DataError,
        ("'dose'", "1 rows"),
    ),
    "refit to a name": (lambda: model().refit("dose"), DataError, ("'dose'", "data['dose']")),
    "anova with refit by name": (
        lambda: lmm.anova(model(), lmm.lmer(PLAIN, data()), refit="no"),
        OptionError,
        ("refit must be True or False, not 'no'",),
    ),
    "statistic by name": (
        lambda: model().bootstrap(2, rng=1, statistic="fixef"),
        OptionError,
        ("'fixef'", "lambda m"),
    ),
    "statistic of text": (
        lambda: model().bootstrap(2, rng=1, statistic=lambda m: "a"),
        OptionError,
        ("'a'", "must give numbers"),
    ),
    "matrix of groups": (
        lambda: model().influence(np.ones((N, 2))),
        DataError,
        ("groups", "one dimension, not 2"),
    ),
    "tolerance of singularity": (
        lambda: model().is_singular("a"),
        OptionError,
        ("tol must", "not 'a'"),
    ),
    "no path": (lambda: model().save(None), StorageError, ("None", "path")),
    "a directory": (lambda: lmm.load(Path()), StorageError, ("directory", "m.save(path)")),
    "a model of a formula": (
        lambda: lmm.LinearMixedModel(PLAIN),
        OptionError,
        ("str", "lmm.lmer(formula, data)"),
    ),
    "a model of formula and data": (
        lambda: lmm.LinearMixedModel(PLAIN, data()),
        OptionError,
        ("lmm.lmer(formula, data)",),
    ),
    "lmer without data": (lambda: lmm.lmer(PLAIN), OptionError, ("'data'", "lmer(formula, data)")),
    "an option by position": (
        lambda: lmm.lmer(PLAIN, data(), False),
        OptionError,
        ("formula, data", "reml="),
    ),
    "an argument twice": (
        lambda: lmm.lmer(PLAIN, data(), formula=PLAIN),
        OptionError,
        ("'formula'", "by position"),
    ),
    "an argument too many": (lambda: model().ranova(True), OptionError, ("ranova()", "takes none")),
    "bootstrap without rng": (lambda: model().bootstrap(9), OptionError, ("'rng'", "rng=1")),
    "R's name of an option": (
        lambda: lmm.bootstrap_lrt(model(), model(), nsim=9, rng=1),
        OptionError,
        ("'nsim'", "n="),
    ),
    "type of residuals": (
        lambda: model().residuals_of(type="pearson"),
        OptionError,
        ("'type'", "kind="),
    ),
    "data set without name": (lambda: lmm.load_dataset(), OptionError, ("'name'", "'sleepstudy'")),
    "data set": (
        lambda: lmm.load_dataset("sleepstdy"),
        OptionError,
        ("'sleepstdy'", "'sleepstudy'"),
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_question_is_refused(name: str) -> None:
    ask, kind, fragments = QUESTIONS[name]
    with pytest.raises(kind) as error:
        ask()
    says(error, *fragments)


@pytest.mark.parametrize("name", ["Satterthwaite", "Kenward-Roger", "NONE"])
def test_capitals_in_a_method_are_no_error(name: str) -> None:
    lower = name.lower()
    for ask in (
        lambda ddf: lmm.anova(model(), ddf=ddf),
        lambda ddf: model().emmeans("arm", ddf=ddf),
        lambda ddf: model().drop1("F", ddf=ddf),
        lambda ddf: model().coef_table(ddf=ddf),
    ):
        assert str(ask(name)) == str(ask(lower))


@pytest.mark.parametrize(
    ("member", "hint"), [("anova", "lmm.anova(m)"), ("params", "m.fixef"), ("AIC", "m.aic")]
)
def test_member_of_another_package_is_explained(member: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(hint)) as error:
        getattr(model(), member)
    assert error.value.name == member
    assert not hasattr(model(), "nonsense")
    assert pickle.loads(pickle.dumps(model())).nobs == N


ARRAYS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no term": ({"random": []}, ("random", "[(subject, None)]")),
    "no pairs": ({"random": [np.arange(N)]}, ("random", "pair")),
    "empty": ({"y": []}, ("y is empty",)),
    "rows of X": ({"X": np.ones((3, 1))}, ("X has 3 rows", "60")),
    "matrix response": ({"y": np.ones((N, 2))}, ("y has 2 dimensions",)),
    "text": ({"y": ["a"] * N}, ("y must be numbers",)),
    "missing": ({"y": np.full(N, np.nan)}, ("y holds", "missing")),
    "labels": ({"random": [([1, 2], None)]}, ("term 1", "2 labels", "60")),
    "missing labels": ({"random": [([None] * N, None)]}, ("term 1", "missing labels")),
    "matrix of labels": ({"random": [(np.ones((N, 2)), None)]}, ("term 1", "2 dimensions")),
    "mixed labels": ({"random": [([1, "a"] * 30, None)]}, ("'group1'", "int, str")),
    "no columns": ({"random": [(np.arange(N) % 7, np.ones((N, 0)))]}, ("Z of term 1", "None")),
    "rows of Z": ({"random": [(np.arange(N) % 7, np.ones(3))]}, ("Z of term 1", "3 rows")),
    "negative weights": ({"weights": np.full(N, -1.0)}, ("weights", "60 negative")),
    "zero weights": ({"weights": np.zeros(N)}, ("weights", "zero")),
    "length of weights": ({"weights": np.ones(3)}, ("weights has 3 rows",)),
    "other rows": (
        {"X": data()[["dose"]].set_axis(range(3, N + 3))},
        ("X", "0 is not among them"),
    ),
    "same name": (
        {"random": [(pd.Series(np.arange(N) % k, name="g"), None) for k in (5, 6)]},
        ("'g'", "Rename"),
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_refused(name: str) -> None:
    change, fragments = ARRAYS[name]
    good: dict[str, Any] = {"y": data()["score"], "X": np.ones((N, 1)),
                            "random": [(data()["site"], None)]}  # fmt: skip
    with pytest.raises(DataError) as error:
        lmm.fit_arrays(**{**good, **change})
    says(error, *fragments)


# Files --------------------------------------------------------------------------------------------


@cache
def saved(tmp: Path) -> bytes:
    model().save(tmp / "model.lmm")
    return (tmp / "model.lmm").read_bytes()


@pytest.fixture
def file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return saved(tmp_path_factory.getbasetemp())


def rewritten(content: bytes, change: Callable[[dict[str, Any], dict[str, bytes]], Any]) -> bytes:
    """A stored model with its JSON and its arrays changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(parts["model.json"])
    change(meta, parts)
    if "model.json" in parts:
        parts["model.json"] = signed(meta, parts)
        parts["model.json.sha256"] = hashlib.sha256(parts["model.json"]).hexdigest().encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return out.getvalue()


def signed(meta: dict[str, Any], parts: dict[str, bytes]) -> bytes:
    """The JSON with sums, types and shapes of the arrays as they are now."""
    found = {name[:-4]: part for name, part in parts.items() if name.endswith(".npy")}
    meta["arrays"] = {name: meta["arrays"].get(name, {}) for name in found}
    for name, part in found.items():
        header = io.BytesIO(part[8:])
        shape, _, dtype = np.lib.format.read_array_header_1_0(header)
        meta["arrays"][name] = {
            "dtype": dtype.str,
            "shape": list(shape),
            "sha256": hashlib.sha256(part).hexdigest(),
        }
    return json.dumps(meta).encode()


def array_bytes(array: Any, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


DAMAGES: dict[str, tuple[Callable[[dict[str, Any], dict[str, bytes]], Any], str]] = {
    "newer": (lambda meta, parts: meta.update(version=99), "newer version"),
    "version of another kind": (lambda meta, parts: meta.update(version="new"), "damaged"),
    "of another program": (lambda meta, parts: meta.update(format="other"), "not a model"),
    "an archive of something else": (lambda meta, parts: parts.pop("model.json"), "not a model"),
    "without response": (lambda meta, parts: parts.pop("y.npy"), "damaged"),
    "without design": (lambda meta, parts: meta.pop("design"), "damaged"),
    "a short array": (lambda meta, parts: parts.update({"y.npy": array_bytes([1.0])}), "damaged"),
    "levels out of range": (
        lambda meta, parts: parts.update({"group0.codes.npy": array_bytes(np.full(N, 99))}),
        "damaged",
    ),
    "too few parameters": (
        lambda meta, parts: parts.update({"optimum.x.npy": array_bytes([1.0])}),
        "damaged",
    ),
    "a pickle": (
        lambda meta, parts: parts.update(
            {"y.npy": array_bytes(np.array([Evil()], dtype=object), pickled=True)}
        ),
        "damaged",
    ),
    "an unknown optimizer": (
        lambda meta, parts: meta["optimizer"].update(name="os.system"),
        "damaged",
    ),
    "an unknown kind of value": (
        lambda meta, parts: meta["design"]["recipe"].update(transform_state={"eval": "1"}),
        "damaged",
    ),
    "undescribed columns": (
        lambda meta, parts: meta["design"]["recipe"]["variables"].update(fixed=["other"]),
        "damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_changed_file_is_refused(name: str, file: bytes, tmp_path: Path) -> None:
    change, fragment = DAMAGES[name]
    path = tmp_path / "changed.lmm"
    path.write_bytes(rewritten(file, change))
    with pytest.raises(StorageError) as error:
        lmm.load(path)
    says(error, str(path), fragment)
    assert not Path("evil").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", pickle.dumps([1])])
def test_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(StorageError) as error:
        lmm.load(path)
    says(error, str(path), "m.save(path)")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_truncated_file_is_refused(share: float, file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(file[: int(share * len(file))])
    with pytest.raises(StorageError):
        lmm.load(path)


def test_flipped_bytes_are_noticed_or_harmless(file: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / "flipped"
    want = model().fixef
    for position in rng.integers(0, len(file), 150).tolist():
        content = bytearray(file)
        content[position] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(content))
        try:
            loaded = lmm.load(path)
        except StorageError:
            continue
        pd.testing.assert_series_equal(loaded.fixef, want)


@pytest.mark.parametrize("where", ["directory", "missing directory"])
def test_unwritable_path_is_named(where: str, tmp_path: Path) -> None:
    path = tmp_path if where == "directory" else tmp_path / "nowhere" / "model.lmm"
    with pytest.raises(StorageError) as error:
        model().save(path)
    says(error, str(path))
    assert not list(tmp_path.parent.glob("*.part"))


def test_missing_file_is_the_usual_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lmm.load(tmp_path / "none")


def test_the_column_that_is_blamed_is_the_one_in_the_term() -> None:
    data = lmm.load_dataset("sleepstudy").assign(f="a", t=["1.5", "2", "x"] * 60)
    data.loc[::2, "f"] = "b"
    with pytest.raises(FormulaError) as error:
        lmm.lmer("Reaction ~ poly(t, 2) + f + (1 | Subject)", data)
    assert "The column 't' is not numeric" in str(error.value)
