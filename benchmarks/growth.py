"""Time of a whole fit against the number of rows, of levels and of parameters → GROWTH.md, plot.

One BLAS thread; each point is the median of a few calls in one process, imports and the making of
the data left out. Run: python benchmarks/growth.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

import lmmsparse as lmm

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Series:
    """One curve: sizes and how to make data and formula of a size."""

    name: str
    axis: str
    sizes: tuple[int, ...]
    make: Callable[[int], tuple[str, pd.DataFrame]]


def slopes(n: int) -> tuple[str, pd.DataFrame]:
    """n rows in n / 10 groups with correlated slopes."""
    return "y ~ x1 + (x1 | g)", _slopes(n, n // 10, 2)


def rows_only(n: int) -> tuple[str, pd.DataFrame]:
    """n rows in 1,000 groups with correlated slopes."""
    return "y ~ x1 + (x1 | g)", _slopes(n, 1000, 2)


def parameters(theta: int) -> tuple[str, pd.DataFrame]:
    """20,000 rows in 500 groups, as many correlated effects as make `theta` parameters."""
    k = int((np.sqrt(8 * theta + 1) - 1) / 2)
    names = [f"x{i}" for i in range(1, k)]
    return f"y ~ {' + '.join(['1', *names])} + ({' + '.join(['1', *names])} | g)", _slopes(
        20_000, 500, k
    )


def _slopes(n: int, groups: int, k: int) -> pd.DataFrame:
    rng = np.random.default_rng(n + k)
    g = rng.integers(groups, size=n)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, k - 1))])
    T = np.tril(rng.normal(size=(k, k))) * 0.3 + 0.5 * np.eye(k)
    effects = rng.normal(size=(groups, k)) @ T.T
    y = X.sum(axis=1) + np.einsum("nk,nk->n", X, effects[g]) + rng.normal(size=n)
    columns = {f"x{i}": X[:, i] for i in range(1, k)}
    return pd.DataFrame({"y": y, **columns, "g": g})


def one_factor(q: int) -> tuple[str, pd.DataFrame]:
    """Random intercepts of q groups of ten rows."""
    rng = np.random.default_rng(q)
    g = np.repeat(np.arange(q), 10)
    y = rng.normal(size=q)[g] + rng.normal(size=10 * q)
    return "y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": g})


def nested(q: int) -> tuple[str, pd.DataFrame]:
    """Random intercepts of classes within schools, q together, three rows per class."""
    rng = np.random.default_rng(q)
    schools = q // 11
    c = np.repeat(np.arange(10 * schools), 3)
    s = c // 10
    y = rng.normal(size=10 * schools)[c] + rng.normal(size=schools)[s] + rng.normal(size=len(c))
    return "y ~ 1 + (1 | school/klass)", pd.DataFrame({"y": y, "school": s, "klass": c})


def crossed(q: int) -> tuple[str, pd.DataFrame]:
    """Two crossed factors, 9 to 1, q random intercepts together, ten rows for each."""
    rng = np.random.default_rng(q)
    a, b = q - q // 10, q // 10
    i, j = rng.integers(a, size=10 * q), rng.integers(b, size=10 * q)
    y = rng.normal(size=a)[i] + rng.normal(size=b)[j] + rng.normal(size=10 * q)
    return "y ~ 1 + (1 | a) + (1 | b)", pd.DataFrame({"y": y, "a": i, "b": j})


SERIES = (
    Series("slopes, n/10 groups", "rows", (10**4, 10**5, 10**6, 10**7), slopes),
    Series("slopes, 1,000 groups", "rows", (10**4, 10**5, 10**6, 10**7), rows_only),
    Series("one factor", "levels", (10**2, 10**3, 10**4, 10**5, 10**6), one_factor),
    Series("nested", "levels", (110, 1100, 11_000, 110_000, 1_100_000), nested),
    Series("crossed at random", "levels", (100, 1000, 3000, 10_000, 30_000), crossed),
    Series("correlated slopes", "parameters", (1, 3, 6, 10, 15, 21, 28, 36), parameters),
)


def seconds(formula: str, frame: pd.DataFrame) -> tuple[float, int]:
    """The median time of a call, and its evaluations."""
    times: list[float] = []
    while not times or (len(times) < 5 and sum(times) < 5.0):
        start = time.perf_counter()
        model = lmm.lmer(formula, frame)
        times.append(time.perf_counter() - start)
    return statistics.median(times), model.optimum.evaluations


def exponent(sizes: list[int], times: list[float]) -> float:
    """The slope of log time against log size over the upper half of the sizes."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(times[half:]), 1)[0])


def plot(results: dict[str, tuple[list[int], list[float]]], path: Path) -> None:
    """Three panels, logarithmic axes."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    axes = {"rows": 0, "levels": 1, "parameters": 2}
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
    for series in SERIES:
        sizes, times = results[series.name]
        label = f"{series.name} (exponent {exponent(sizes, times):.2f})"
        panels[axes[series.axis]].loglog(sizes, times, "o-", markersize=4, label=label)
    labels = ("rows n", "random effects' levels q", "covariance parameters θ")
    corners = ("lower right", "lower right", "upper left")
    for panel, text, corner in zip(panels, labels, corners, strict=True):
        panel.set_xlabel(text)
        panel.legend(loc=corner, fontsize=7.5, frameon=False)
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("whole call, seconds")
    panels[0].set_ylim(4e-4, 10.0)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, plot, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the largest sizes")
    options = parser.parse_args()
    results: dict[str, tuple[list[int], list[float]]] = {}
    rows = []
    for series in SERIES:
        sizes = series.sizes[:-1] if options.quick else series.sizes
        times = []
        for size in sizes:
            formula, frame = series.make(size)
            took, evaluations = seconds(formula, frame)
            times.append(took)
            rows.append(f"| {series.name} | {size:,} | {took:.3g} | {evaluations} |")
            print(rows[-1], flush=True)
        results[series.name] = (list(sizes), times)
    exponents = [f"- {name}: time ∝ size^{exponent(*curve):.2f}" for name, curve in results.items()]
    print("\n".join(exponents))
    if options.quick:
        return
    plot(results, HERE / "growth.png")
    page = [
        "# How time grows",
        "",
        "Written by `python benchmarks/growth.py`: whole calls, one BLAS thread. The exponents are "
        "slopes of log time against log size over the larger half of the sizes. Rows and "
        "nested levels cost what they are; two factors crossed at random fill the factor of M with "
        "a dense block as large as the smaller one, whose square is memory and whose cube is time.",
        "",
        "![Time against rows, levels and parameters](growth.png)",
        "",
        *exponents,
        "",
        "| series | size | seconds | evaluations |",
        "|---|--:|--:|--:|",
        *rows,
        "",
    ]
    (HERE / "GROWTH.md").write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
