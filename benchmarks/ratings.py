"""Crossed ratings by `Krylov` → CPU seconds, memory, Monte Carlo errors, and errors beside exact.

Users and items of log-normal activity and popularity, most ratings within clusters of taste. The
data are made in a process of their own, so that the peak of memory is the fit's.

Run: python benchmarks/ratings.py 1e6 6040 3706 [--slope] [--exact] [--seeds 20]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import lmmsparse as lmm
from lmmsparse.fit.coordinates import StandardizedObjective

CLUSTERS = 20
STANDARD = ((1e5, 943, 1682), (1e6, 6040, 3706), (7.2e6, 69_878, 10_677))


def ratings(n: int, users: int, items: int, slope: bool, within: float = 0.7) -> pd.DataFrame:
    """At most n different pairs of user and item, each with a rating."""
    r = np.random.default_rng(0)
    active, popular = np.exp(1.1 * r.normal(size=users)), np.exp(2.2 * r.normal(size=items))
    of_user, of_item = r.integers(0, CLUSTERS, users), r.integers(0, CLUSTERS, items)
    u = np.append(np.arange(users), r.choice(users, int(1.5 * n), p=active / active.sum()))
    i = r.choice(items, len(u), p=popular / popular.sum())
    own = r.random(len(u)) < within
    for c in range(CLUSTERS):
        near, at = np.flatnonzero(of_item == c), np.flatnonzero(own & (of_user[u] == c))
        i[at] = r.choice(near, len(at), p=popular[near] / popular[near].sum())
    key = np.unique(u * np.int64(items) + i)
    key = r.choice(key, n, replace=False) if len(key) > n else key
    u, i = (np.unique(part, return_inverse=True)[1] for part in np.divmod(key, items))
    d = pd.DataFrame({"x": r.normal(size=len(u)), "u": u.astype(np.int32), "i": i.astype(np.int32)})
    d["y"] = 3.5 + 0.1 * d["x"] + 0.85 * r.normal(size=len(d))
    d["y"] += (0.45 * r.normal(size=users))[u] + (0.6 * r.normal(size=items))[i]
    if slope:
        d["y"] += (0.25 * r.normal(size=users))[u] * d["x"]
    return d


def fit(design: lmm.Design, solver: object) -> tuple[lmm.Fit, float]:
    """A fit with all that belongs to its solution, and CPU seconds."""
    start = time.process_time()
    found = lmm.fit_design(design, solver=solver)
    _ = found.criterion, found.vcov
    return found, time.process_time() - start


def beside(fits: list[lmm.Fit], exact: lmm.Fit) -> None:
    """Errors of several seeds, in standard errors and in Monte Carlo standard deviations."""
    scaled = StandardizedObjective(exact.objective)
    errors = np.array([scaled.to_internal(f.theta) - scaled.to_internal(exact.theta) for f in fits])
    sd = np.array([np.sqrt(np.diag(f.monte_carlo.spread)) for f in fits])
    se = np.sqrt(np.diag(fits[0].monte_carlo.asymptotic))
    of_criterion = np.array([f.criterion - exact.criterion for f in fits])
    known = np.array([f.monte_carlo.criterion for f in fits])
    print(f"  largest error of theta {np.abs(errors / se).max():.1e} standard errors")
    print(f"  largest error of the criterion {np.abs(of_criterion).max():.3f}")
    own = np.sqrt(np.diag(exact.vcov))
    of_beta = max(float(np.abs((f.beta - exact.beta) / own).max()) for f in fits)
    print(f"  largest error of beta {of_beta:.1e} standard errors")
    if len(fits) > 1:
        ratio = np.sqrt(np.mean(errors**2, axis=0) / np.mean(sd**2, axis=0))
        both = np.sqrt(np.mean(of_criterion**2) / np.mean(known**2))
        print(f"  errors over reported sd: theta {np.round(ratio, 2)}, criterion {both:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=float, metavar="rows users items")
    parser.add_argument("--slope", action="store_true", help="users differ in their slopes too")
    parser.add_argument("--exact", action="store_true", help="fit with Blocked as well")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--make", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = [tuple(given.sizes)] if given.sizes else STANDARD
    for n, users, items in sizes:
        if given.make:
            ratings(int(n), int(users), int(items), given.slope).to_parquet(given.make)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ratings.parquet"
            more = ["--slope"] if given.slope else []
            script = [sys.executable, __file__, str(n), str(users), str(items), *more]
            subprocess.run([*script, "--make", str(path)], check=True)
            data = pd.read_parquet(path)
        formula = "y ~ x + (x | u) + (1 | i)" if given.slope else "y ~ x + (1 | u) + (1 | i)"
        start = time.process_time()
        design = lmm.build_design(lmm.parse_formula(formula), data)
        print(f"{formula}, {len(data):,} rows; design {time.process_time() - start:.1f} CPU s")
        fits = []
        for seed in range(given.seeds):
            found, seconds = fit(design, lmm.Krylov(seed=seed))
            fits.append(found)
            if not seed:
                error = found.monte_carlo
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(f"  {found.solver!r}: {seconds:.1f} CPU s, peak {peak:,.0f} MiB")
                evaluations = found.optimum.evaluations
                print(f"  {evaluations} evaluations; {found.objective.system.describe()}")
                print(f"  Monte Carlo: {error.ratio:.1e} standard errors, ± {error.criterion:.3f}")
        if given.exact:
            exact, seconds = fit(design, lmm.Blocked())
            print(f"  {exact.solver!r}: {seconds:.1f} CPU s")
            beside(fits, exact)


if __name__ == "__main__":
    main()
