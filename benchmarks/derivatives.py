"""What derivatives cost: value, value + gradient, and value + gradient + Hessian, as ratios.

Run: python benchmarks/derivatives.py. One BLAS thread; every evaluation is at a new θ.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from cases import load

import lmmsparse as lmm
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.solvers.choose import choose_solver
from lmmsparse.fit.problem import make_objective, products_of


def crossed(rows: int, a: int, b: int) -> pd.DataFrame:
    """Two crossed factors, pairs drawn at random."""
    rng = np.random.default_rng(a)
    i, j = rng.integers(a, size=rows), rng.integers(b, size=rows)
    y = rng.normal(size=a)[i] + rng.normal(size=b)[j] + rng.normal(size=rows)
    return pd.DataFrame({"y": y, "a": i, "b": j})


DESIGNS: dict[str, tuple[str, Callable[[], pd.DataFrame]]] = {
    "InstEval": ("y ~ 1 + (1|s) + (1|d) + (1|dept)", lambda: load("InstEval")),
    "crossed 6,040 × 3,706": ("y ~ 1 + (1|u) + (1|i)", lambda: load("ratings")),
    "crossed 80,000 × 800": ("y ~ 1 + (1|a) + (1|b)", lambda: crossed(400_000, 80_000, 800)),
    "80,000 rows, 20,000 slopes": ("y ~ x + (x|g)", lambda: load("slopes-80k")),
    "star": ("math ~ gr + cltype + sx + (1|id) + (1|tch) + (1|sch)", lambda: load("star")),
}


@one_thread
def main() -> None:
    """Measure and print."""
    print("| design | solver | value, ms | + gradient | + Hessian |")
    print("|---|---|--:|--:|--:|")
    for name, (formula, make) in DESIGNS.items():
        design = lmm.build_design(formula, make())
        products, response = products_of(design)
        solver = choose_solver(products)
        objective = make_objective(design, True, solver, products, response)
        theta = np.full(objective.template.n_theta, 0.5)
        ways = (objective, objective.gradient, objective.derivatives)
        times: list[list[float]] = [[], [], []]
        for i in range(7):
            for way, into in zip(ways, times, strict=True):
                theta = theta * 1.001
                start = time.perf_counter()
                way(theta)
                into.append(time.perf_counter() - start)
            if i and sum(map(sum, times)) > 60:
                break
        value, gradient, hessian = (statistics.median(t[1:]) for t in times)
        print(
            f"| {name} | {type(solver).__name__} | {1e3 * value:.3g} | {gradient / value:.2f} × "
            f"| {hessian / value:.2f} × |",
            flush=True,
        )


if __name__ == "__main__":
    main()
