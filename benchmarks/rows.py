"""The same 600 random effects under 10⁴, 10⁵ and 10⁶ rows → the time of one evaluation.

The levels (500 crossed with 100) and the pairs that occur are the same each time; only the
number of rows per pair grows. An evaluation must cost the same.
Run: python benchmarks/rows.py
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pandas as pd

import lmmsparse as lmm

ROWS = (10_000, 100_000, 1_000_000)
PAIRS = 10_000
EVALUATIONS = 300


def simulate(rows: int) -> pd.DataFrame:
    """Crossed random intercepts on `rows` rows, the same pairs of levels whatever `rows` is."""
    rng = np.random.default_rng(1)
    cells = rng.permutation(500 * 100)[:PAIRS]
    a, b = np.divmod(np.tile(cells, rows // PAIRS), 100)
    x = rng.normal(size=rows)
    y = 1 + 0.5 * x + rng.normal(size=500)[a] + 0.5 * rng.normal(size=100)[b]
    return pd.DataFrame({"y": y + rng.normal(size=rows), "x": x, "a": a, "b": b})


def table() -> str:
    """Fit, then time evaluations at slightly different θ, the models taking turns."""
    models = {}
    fit_seconds = {}
    for rows in ROWS:
        frame = simulate(rows)
        start = time.perf_counter()
        models[rows] = lmm.lmer("y ~ x + (1|a) + (1|b)", frame)
        fit_seconds[rows] = time.perf_counter() - start
    seconds: dict[int, list[float]] = {rows: [] for rows in ROWS}
    for k in range(EVALUATIONS):
        for rows, model in models.items():
            at = model.theta.to_numpy() * (1 + 1e-3 * (k + 1) / EVALUATIONS)
            start = time.perf_counter()
            model.fit.objective(at)
            seconds[rows].append(time.perf_counter() - start)
    lines = ["| rows | whole fit, s | one evaluation, ms |", "|---|---|---|"]
    for rows in ROWS:
        typical = 1e3 * statistics.median(seconds[rows])
        lines.append(f"| {rows:,} | {fit_seconds[rows]:.2f} | {typical:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
