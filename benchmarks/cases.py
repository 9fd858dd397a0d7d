"""Name → model and data frame: what is timed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import lmmsparse as lmm

VALIDATION = Path(__file__).parent.parent / "validation"


@dataclass(frozen=True)
class Case:
    """A model to time.

    `rounds` fresh processes per program make `repeats` calls each, of which the first is the cold
    one; `skip` names programs that would take longer than anybody waits.
    """

    name: str
    group: str
    data: str
    formula: str
    reml: bool = True
    repeats: int = 25
    rounds: int = 3
    skip: tuple[str, ...] = ()


SLOW = ("statsmodels",)
HOURS = ("statsmodels", "lme4", "mixedlm")  # minutes to hours, or not enough memory
CHEM97 = "score ~ gcsecnt + (gcsecnt|school) + (1|lea)"
EGSINGLE = "math ~ year * size + female + (year|childid) + (year|schoolid)"
INSTEVAL = "y ~ service + (1|s) + (1|d) + (1|dept) + (1|dept:service)"
MAXIMAL = "y ~ A + B + AB + (A + B + AB|s) + (A + B + AB|i)"
FACTORS = "rt ~ congruency * task + (congruency|person)"
NINE = "y ~ A + B + C + AB + AC + BC + ABC + (A + B|s) + (C|i)"
STAR = "math ~ gr + cltype + sx + (1|id) + (1|tch) + (1|sch)"
CASES = (
    Case("sleepstudy", "small", "sleepstudy", "Reaction ~ Days + (Days|Subject)"),
    Case("dietox 1", "small", "dietox", "Weight ~ Time + (1|Pig)"),
    Case("dietox 2", "small", "dietox", "Weight ~ Time + (1+Time|Pig)"),
    Case("dietox 3", "small", "dietox", "Weight ~ Time + (1|Pig) + (0+Time|Pig)"),
    Case("Machines", "small", "Machines", "score ~ Machine + (Machine|Worker)"),
    Case("Penicillin", "small", "Penicillin", "diameter ~ 1 + (1|plate) + (1|sample)"),
    Case("Pastes", "small", "Pastes", "strength ~ 1 + (1|batch/cask)"),
    Case("Exam", "small", "Exam", "normexam ~ standLRT + (standLRT|school)"),
    Case("ScotsSec", "small", "ScotsSec", "attain ~ verbal * sex + (1|primary) + (1|second)"),
    Case("InstEval", "large", "InstEval", "y ~ 1 + (1|s) + (1|d) + (1|dept)", True, 3, 2, SLOW),
    Case("InstEval ML", "large", "InstEval", INSTEVAL, False, 2, 2, SLOW),
    Case("Chem97", "large", "Chem97", CHEM97, True, 4, 2, SLOW),
    Case("egsingle", "large", "egsingle", EGSINGLE, True, 4, 2, SLOW),
    Case("star", "large", "star", STAR, True, 3, 2, SLOW),
    Case("slopes 80,000", "large", "slopes-80k", "y ~ x + (x|g)", True, 4, 2, SLOW),
    Case("factors 80,000", "large", "factors-80k", FACTORS, True, 4, 2, SLOW),
    Case("few of many", "large", "few-60k", "y ~ x + (1|a) + (1|b)", True, 3, 2, SLOW),
    Case("crossed 60,000", "large", "crossed-60k", "y ~ x + (1|a) + (1|b)", True, 3, 2, SLOW),
    Case("maximal, 20 θ", "maximal", "maximal-20", MAXIMAL, True, 3, 2, SLOW),
    Case("crossed, 9 θ, p = 8", "maximal", "maximal-9", NINE, True, 2, 2, SLOW),
    Case("a million rows", "a million", "million", "y ~ x + (x|g)", True, 3, 1, SLOW),
    Case("crossed core", "crossed core", "ratings", "y ~ 1 + (1|u) + (1|i)", True, 2, 1, HOURS),
    Case("wide X", "wide X", "wide", "y ~ f + (1|s)", True, 2, 1, HOURS),
)


def _slopes(rows: int, groups: int) -> pd.DataFrame:
    rng = np.random.default_rng(20_150_107)
    g = np.repeat(np.arange(groups), rows // groups)
    x = rng.normal(size=rows)
    effects = rng.normal(size=(groups, 2)) @ np.array([[1.0, 0.3], [0.0, 0.5]])
    y = 2.0 + 0.5 * x + effects[g, 0] + effects[g, 1] * x + rng.normal(size=rows)
    return pd.DataFrame({"y": y, "x": x, "g": pd.Categorical(g)})


def _crossed(rows: int, a: int, b: int) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    i, j = rng.integers(a, size=rows), rng.integers(b, size=rows)
    x = rng.normal(size=rows)
    y = 1.0 + 0.5 * x + rng.normal(size=a)[i] + 0.7 * rng.normal(size=b)[j] + rng.normal(size=rows)
    return pd.DataFrame({"y": y, "x": x, "a": pd.Categorical(i), "b": pd.Categorical(j)})


def _few_of_many() -> pd.DataFrame:
    """60,000 rows, 8,000 levels crossed with 1,200, of which a few are met much more often."""
    rng = np.random.default_rng(12)
    popularity = 1.0 / (np.arange(1_200) + 10.0) ** 1.6
    i = rng.integers(8_000, size=60_000)
    j = rng.choice(1_200, size=60_000, p=popularity / popularity.sum())
    x = rng.normal(size=60_000)
    y = 1.0 + 0.5 * x + rng.normal(size=8_000)[i] + 0.7 * rng.normal(size=1_200)[j]
    y += rng.normal(size=60_000)
    return pd.DataFrame({"y": y, "x": x, "a": pd.Categorical(i), "b": pd.Categorical(j)})


def _factors(rows: int, people: int) -> pd.DataFrame:
    """Reaction times in two factors of three levels; each person has done one of three tasks."""
    rng = np.random.default_rng(3)
    person, congruency = rng.integers(people, size=rows), rng.integers(3, size=rows)
    task = person % 3
    own = rng.normal(size=(people, 3)) * [50.0, 20.0, 15.0]
    rt = 600.0 + own[person, 0] + np.where(congruency > 0, own[person, congruency], 0.0)
    rt += 20.0 * congruency + 10.0 * task + 5.0 * congruency * task + 120.0 * rng.normal(size=rows)
    return pd.DataFrame(
        {
            "rt": rt,
            "congruency": pd.Categorical(np.array(["equal", "neutral", "other"])[congruency]),
            "task": pd.Categorical(np.array(["colour", "flanker", "simon"])[task]),
            "person": pd.Categorical([f"p{number:03d}" for number in person]),
        }
    )


def _maximal(subjects: int, items: int, keep: float, three: bool) -> pd.DataFrame:
    rng = np.random.default_rng(11)
    s, i = np.divmod(np.arange(subjects * items), items)
    kept = rng.random(len(s)) < keep
    s, i = s[kept], i[kept]
    A, B = (s + i) % 2 - 0.5, (s // 2 + i // 2) % 2 - 0.5
    C = (s // 4 + i // 4) % 2 - 0.5
    ones = np.ones(len(s))
    left = np.column_stack([ones, A, B] if three else [ones, A, B, A * B])
    right = np.column_stack([ones, C]) if three else left

    def effects(n: int, k: int) -> np.ndarray:
        return rng.normal(size=(n, k)) @ (np.tril(rng.normal(size=(k, k))) * 0.4).T

    y = 5.0 + 0.3 * A + 0.2 * B + rng.normal(size=len(s))
    y += (left * effects(subjects, left.shape[1])[s]).sum(axis=1)
    y += (right * effects(items, right.shape[1])[i]).sum(axis=1)
    frame = pd.DataFrame({"y": y, "A": A, "B": B, "C": C})
    frame = frame.assign(AB=A * B, AC=A * C, BC=B * C, ABC=A * B * C)
    return frame.assign(s=pd.Categorical(s), i=pd.Categorical(i))


def _ratings() -> pd.DataFrame:
    """A million ratings of 3,706 films by 6,040 people, some of both far more often than others."""
    rng = np.random.default_rng(99)
    n, people, films = 1_000_000, 6040, 3706

    def drawn(levels: int, head: float, power: float) -> np.ndarray:
        popularity = 1.0 / (np.arange(levels) + head) ** power
        popularity /= popularity.sum()
        every = np.arange(levels)
        return np.concatenate([every, rng.choice(levels, size=n - levels, p=popularity)])

    u, i = drawn(people, 30.0, 0.9), rng.permutation(drawn(films, 20.0, 1.0))
    y = 3.5 + 0.4 * rng.normal(size=people)[u] + 0.6 * rng.normal(size=films)[i]
    y += rng.normal(size=n)
    return pd.DataFrame({"y": y, "u": pd.Categorical(u), "i": pd.Categorical(i)})


def _wide() -> pd.DataFrame:
    """20,000 rows, a factor of 1,500 levels among the fixed effects, 300 groups."""
    rng = np.random.default_rng(5)
    n, levels, groups = 20_000, 1500, 300
    f = np.concatenate([np.arange(levels), rng.integers(levels, size=n - levels)])
    s = rng.integers(groups, size=n)
    y = rng.normal(size=levels)[f] + rng.normal(size=groups)[s] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "f": pd.Categorical(f), "s": pd.Categorical(s)})


SIMULATED: dict[str, Callable[[], pd.DataFrame]] = {
    "slopes-80k": lambda: _slopes(80_000, 20_000),
    "million": lambda: _slopes(1_000_000, 100_000),
    "factors-80k": lambda: _factors(80_000, 337),
    "few-60k": _few_of_many,
    "crossed-60k": lambda: _crossed(60_000, 8_000, 1_200),
    "ratings": _ratings,
    "wide": _wide,
    "maximal-20": lambda: _maximal(60, 60, 0.5, three=False),
    "maximal-9": lambda: _maximal(120, 108, 1.0, three=True),
}


def load(name: str) -> pd.DataFrame:
    """A shipped data set, one of the validation's, or a simulated one."""
    if name in SIMULATED:
        return SIMULATED[name]()
    registry = json.loads((VALIDATION / "models.json").read_text(encoding="utf-8"))["datasets"]
    entry = registry.get(name)
    if entry is None or entry["file"] is None:
        return lmm.load_dataset(name)
    frame = pd.read_csv(VALIDATION / entry["file"])
    for column, info in entry["columns"].items():
        levels = info.get("levels")
        values = frame[column] if levels is None else frame[column].astype(str)
        frame[column] = pd.Categorical(
            values, categories=None if levels is None else map(str, levels)
        )
    return frame


def factors_of(frame: pd.DataFrame) -> list[str]:
    """The categorical columns."""
    return [c for c in frame.columns if isinstance(frame[c].dtype, pd.CategoricalDtype)]
