"""Twenty crossed designs → which linear algebra is chosen, and what the choice loses.

Each shape is fitted by `Blocked()`, by `Cholmod()` and by what is chosen, in turns. The loss of the
choice is the time of the third, which includes choosing, over that of the faster of the two. Times
are processor times of one thread.

Run: python benchmarks/solvers.py [--only NAME ...] [--repeats N]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from results import write_section

import lmmsparse as lmm
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.solvers.choose import choose_solver

ABOUT = (
    "Simulated crossed designs with text columns, processor times of fits of a ready design "
    "(`benchmarks/solvers.py`). *Chosen* is without `solver=`, with the time that choosing takes; "
    "the loss is its time over that of the faster of the two."
)
Columns = dict[str, np.ndarray]
Random = np.random.Generator


def weights_of(levels: int, power: float) -> np.ndarray:
    """Probabilities that fall with a power of the rank."""
    weight = (np.arange(levels) + 5.0) ** -power
    return np.asarray(weight / weight.sum())


def even(rng: Random, rows: int, *levels: int) -> Columns:
    """Factors drawn independently and evenly."""
    return {f: rng.integers(n, size=rows) for f, n in zip("abcd", levels, strict=False)}


def uneven(rng: Random, rows: int, a: int, b: int, power: float) -> Columns:
    """Both factors have levels that are met far more often than others."""
    return {
        "a": rng.choice(a, size=rows, p=weights_of(a, power)),
        "b": rng.choice(b, size=rows, p=weights_of(b, power)),
    }


def near(rng: Random, rows: int, a: int, b: int, width: float) -> Columns:
    """Levels of b lie along a line, and a level of a meets those near it."""
    i = rng.integers(a, size=rows)
    j = np.floor(b * i / a + width * rng.normal(size=rows)).astype(int)
    return {"a": i, "b": np.clip(j, 0, b - 1)}


def islands(rng: Random, rows: int, a: int, b: int, groups: int, leave: float) -> Columns:
    """a and b fall into groups that are seldom left."""
    i = rng.integers(a, size=rows)
    at = np.where(rng.random(rows) < leave, rng.integers(groups, size=rows), i % groups)
    size = b // groups
    return {"a": i, "b": at * size + rng.integers(size, size=rows)}


def moved(rng: Random, people: int, times: int, classes: int, schools: int, move: float) -> Columns:
    """Pupils over years, each year in another class of their school, which some leave."""
    pupil = np.repeat(np.arange(people), times)
    school = rng.integers(schools, size=people)[pupil]
    school = np.where(rng.random(len(pupil)) < move, rng.integers(schools, size=len(pupil)), school)
    per_school = classes // schools
    return {"a": pupil, "b": school * per_school + rng.integers(per_school, size=len(pupil))}


def dyads(rng: Random, rows: int, actors: int) -> Columns:
    """A sender and a receiver, both out of the same actors' numbers."""
    return {"a": rng.integers(actors, size=rows), "b": rng.integers(actors, size=rows)}


TWO, THREE = "y ~ x + (1|a) + (1|b)", "y ~ x + (1|a) + (1|b) + (1|c)"
SLOPES = "y ~ x + (x|a) + (x|b)"
SHAPES: dict[str, tuple[str, Callable[[Random], Columns]]] = {
    "even 9,000 × 500": (TWO, lambda rng: even(rng, 45_000, 9_000, 500)),
    "even 3,000 × 2,000": (TWO, lambda rng: even(rng, 9_000, 3_000, 2_000)),
    "even 20,000 × 2,500": (TWO, lambda rng: even(rng, 50_000, 20_000, 2_500)),
    "even 2,000 × 1,500, many rows": (TWO, lambda rng: even(rng, 90_000, 2_000, 1_500)),
    "slopes 1,500 × 400": (SLOPES, lambda rng: even(rng, 15_000, 1_500, 400)),
    "slopes 4,000 × 900": (SLOPES, lambda rng: even(rng, 12_000, 4_000, 900)),
    "three 5,000 × 700 × 300": (THREE, lambda rng: even(rng, 25_000, 5_000, 700, 300)),
    "three 8,000 × 1,200 × 40": (THREE, lambda rng: even(rng, 16_000, 8_000, 1_200, 40)),
    "uneven 6,000 × 1,000, 0.8": (TWO, lambda rng: uneven(rng, 30_000, 6_000, 1_000, 0.8)),
    "uneven 15,000 × 3,000, 1.2": (TWO, lambda rng: uneven(rng, 40_000, 15_000, 3_000, 1.2)),
    "uneven 5,000 × 4,000, 1.6": (TWO, lambda rng: uneven(rng, 20_000, 5_000, 4_000, 1.6)),
    "near 10,000 × 1,000, 3": (TWO, lambda rng: near(rng, 40_000, 10_000, 1_000, 3.0)),
    "near 10,000 × 1,000, 80": (TWO, lambda rng: near(rng, 40_000, 10_000, 1_000, 80.0)),
    "near 6,000 × 3,000, 20": (TWO, lambda rng: near(rng, 24_000, 6_000, 3_000, 20.0)),
    "islands 12,000 × 1,500, 1 %": (TWO, lambda rng: islands(rng, 48_000, 12_000, 1_500, 30, 0.01)),
    "islands 5,000 × 1,000, 10 %": (TWO, lambda rng: islands(rng, 20_000, 5_000, 1_000, 20, 0.1)),
    "pupils 8,000 × 900, 2 %": (TWO, lambda rng: moved(rng, 8_000, 4, 900, 90, 0.02)),
    "pupils 20,000 × 2,400, 20 %": (TWO, lambda rng: moved(rng, 20_000, 3, 2_400, 120, 0.2)),
    "dyads 700": (TWO, lambda rng: dyads(rng, 14_000, 700)),
    "dyads 3,000, sparse": (TWO, lambda rng: dyads(rng, 9_000, 3_000)),
}


def table_of(name: str) -> tuple[str, pd.DataFrame]:
    """The formula of a shape and its data."""
    formula, draw = SHAPES[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    columns = draw(rng)
    n = len(columns["a"])
    x = rng.normal(size=n)
    y = 1.0 + 0.5 * x + rng.normal(size=n)
    for levels in columns.values():
        effects = rng.normal(size=(levels.max() + 1, 2)) * [0.8, 0.4]
        y += effects[levels, 0] + (effects[levels, 1] * x if formula is SLOPES else 0.0)
    text = {f: np.char.add(f, levels.astype(str)) for f, levels in columns.items()}
    return formula, pd.DataFrame({"y": y, "x": x, **text})


@one_thread
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = ["| shape | rows | core | Blocked, ms | Cholmod, ms | chosen, ms | | loss |"]
    lines += ["|---|--:|--:|--:|--:|--:|---|--:|"]
    print("\n".join(lines))
    losses, choices = [], []
    for name in options.only or SHAPES:
        formula, frame = table_of(name)
        design = lmm.build_design(formula, frame)
        ways = {"Blocked": lmm.Blocked(), "Cholmod": lmm.Cholmod(), "chosen": None}
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.repeats):
            for way, solver in ways.items():
                start = time.process_time()
                fit = lmm.fit_design(design, solver=solver)
                times[way].append(time.process_time() - start)
        ms = {way: 1e3 * min(seconds) for way, seconds in times.items()}
        chosen = type(choose_solver(fit.products)).__name__
        faster = min(ms["Blocked"], ms["Cholmod"])
        losses.append(max(1.0, ms["chosen"] / faster))
        choices.append(ms[chosen] / faster)
        lines.append(
            f"| {name} | {len(frame):,} | {fit.products.core:,} | {ms['Blocked']:.0f} "
            f"| {ms['Cholmod']:.0f} | {ms['chosen']:.0f} | {chosen} | {losses[-1]:.3f} |"
        )
        print(lines[-1], flush=True)
    total = (
        f"{sum(choice > 1.05 for choice in choices)} of {len(choices)} choices are slower by more "
        f"than 5 %; mean loss {statistics.fmean(losses):.3f}, worst {max(losses):.2f}; without the "
        f"time of choosing and its noise {statistics.fmean(choices):.3f}."
    )
    print(total)
    if not options.only:
        write_section("The choice of linear algebra", [ABOUT, "", *lines, "", total])


if __name__ == "__main__":
    main()
