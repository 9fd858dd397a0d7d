"""Memory that runs out at any step: a sentence on what would need less, and the model as before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import gc, pickle, resource
import numpy as np, pandas as pd
import lmmsparse as lmm
from shared_models import ByCvxopt

r = np.random.default_rng(1)
a, b, x = r.integers(0, 900, 4000), r.integers(0, 800, 4000), r.normal(size=4000)
y = x + r.normal(size=900)[a] + r.normal(size=800)[b] + r.normal(size=4000)
data = pd.DataFrame({{"y": y, "x": x, "a": a, "b": b, "hit": (y > 0).astype(int)}})
solver = {solver}
if {generalized}:
    kept = pickle.dumps(lmm.glmer("hit ~ x + (1 | a) + (1 | b)", data, "binomial", solver=solver))
    step = lambda m: m.criterion_at(m.fixef, m.theta * 1.07)
else:
    kept = pickle.dumps(lmm.lmer("y ~ x + (1 | a) + (1 | b)", data, solver=solver))
    step = lambda m: m.fit.objective(np.array(m.theta) * 1.07)
right = step(pickle.loads(kept))
unlimited = resource.RLIM_INFINITY
for megabytes in (0, 2, 6, 300):
    m = pickle.loads(kept)
    m.fit.objective
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (megabytes << 20), unlimited))
    try:
        said = "same" if np.isclose(step(m), right, rtol=1e-9) else "WRONG"
    except MemoryError as error:
        said = f"MemoryError: {{error}}"
    resource.setrlimit(resource.RLIMIT_AS, (unlimited, unlimited))
    print(said, np.isclose(step(m), right, rtol=1e-9), flush=True)
"""
SOLVERS = (
    'lmm.Cholmod(mode="simplicial")',
    'lmm.Cholmod(mode="supernodal")',
    "ByCvxopt()",
    'ByCvxopt(mode="supernodal")',
    "lmm.SuperLU()",
    "lmm.Blocked()",
    "lmm.Dense()",
)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="its limits are what is set")
@pytest.mark.parametrize("generalized", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
def test_memory_that_runs_out_is_said(solver: str, generalized: bool) -> None:
    if "Cvxopt" in solver:
        pytest.importorskip("cvxopt")
    # What is freed goes back at once, so that limits are met.
    thrifty = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            SCRIPT.format(solver=solver, generalized=generalized),
        ],
        env={**os.environ, **thrifty, "MALLOC_ARENA_MAX": "1", "PYTHONPATH": _paths()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    lines = [line for line in done.stdout.splitlines() if line.endswith(("True", "False"))]
    assert len(lines) == 4
    assert lines[-1] == "same True"
    for line in lines:
        assert line == "same True" or line.endswith("a machine with more memory. True"), line


def _paths() -> str:
    return os.pathsep.join(path for path in sys.path if path)
