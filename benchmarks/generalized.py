"""Generalized models: this package, glmm, glmer and glmmTMB on the same files → RESULTS.md.

Run: python benchmarks/generalized.py [names of cases]
Every program fits in a process of its own, one after the other within a case, rounds in turn, on
one thread; grouping factors and categories are text. Only a run of all cases writes the section
"Generalized models" of RESULTS.md. PEERS_PYTHON names a Python that has glmm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results import write_section

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "validation" / "generalized_data"
ONE_THREAD = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
ONE_THREAD |= {"RAYON_NUM_THREADS": "1"}
PROGRAMS = ("lmmsparse", "glmm", "glmer", "glmmTMB")
TIMEOUT = 240
TITLE = "Generalized models"


@dataclass(frozen=True)
class Case:
    """A model that all programs fit by Laplace's approximation with a canonical or log link."""

    data: str
    formula: str
    family: str
    offset: str = ""
    repeats: int = 3


CASES = {
    "cbpp": Case("cbpp", "cbind(incidence, failures) ~ period + (1 | herd)", "binomial", "", 9),
    "epil, slope": Case(
        "epil", "y ~ Base * trt + Age + Visit + (Visit | subject)", "poisson", "", 5
    ),
    "epil, negative binomial": Case(
        "epil", "y ~ Base * trt + Age + Visit + (1 | subject)", "negative_binomial"
    ),
    "toenail": Case("toenail", "y ~ treatment * time + (1 | patientID)", "binomial", "", 5),
    "contraception, slope": Case(
        "contraception", "use ~ age + urban + livch + (urban | district)", "binomial"
    ),
    "dietox, gamma": Case("dietox", "Weight ~ Time + Evit + Cu + (1 | Pig)", "gamma"),
    "grouseticks": Case(
        "grouseticks",
        "TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)",
        "poisson",
    ),
    "mmmec": Case("mmmec", "deaths ~ uvb + (1 | nation / region)", "poisson", "log(expected)"),
    "verbagg": Case(
        "verbagg", "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)", "binomial"
    ),
    "crossed, 100,000 rows": Case("crossed", "y ~ x + (1 | i) + (1 | j)", "binomial", "", 1),
}


def table_of(name: str) -> pd.DataFrame:
    """The data of a case, categories as text."""
    if name != "crossed":
        return pd.read_csv(DATA / f"{name}.csv.gz")
    rng = np.random.default_rng(1)
    n, a, b = 100_000, 2_000, 200
    i, j, x = rng.integers(0, a, n), rng.integers(0, b, n), rng.standard_normal(n)
    eta = -0.5 + 0.7 * x + rng.standard_normal(a)[i] + 0.6 * rng.standard_normal(b)[j]
    y = (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
    names = {"i": [f"i{k}" for k in i], "j": [f"j{k}" for k in j]}
    return pd.DataFrame({"y": y, "x": x.round(6), **names})


def one(program: str, case: Case, path: str, repeats: int) -> dict[str, Any]:
    """Time a Python program in this process."""
    frame = pd.read_csv(path)
    for column in frame.select_dtypes("bool"):
        frame[column] = frame[column].astype(int)
    warnings.simplefilter("ignore")
    if program == "lmmsparse":
        sys.path.insert(0, str(HERE.parent))
        import lmmsparse as lmm

        def fit() -> tuple[float, int | None]:
            offset = case.offset or None
            model = lmm.glmer(case.formula, frame, case.family, offset=offset)
            return model.minus2loglik, model.optimum.evaluations

        version = lmm.__version__
    else:
        import glmm

        family = case.family.replace("_", "")
        log = case.offset.removeprefix("log(").removesuffix(")")
        offset = np.log(frame[log].to_numpy()) if case.offset else None
        response = case.formula.partition("~")[0].strip()
        own = frame
        if response in own and not pd.api.types.is_numeric_dtype(own[response].dtype):
            own = own.assign(**{response: (own[response] == own[response].max()).astype(int)})

        def fit() -> tuple[float, int | None]:
            link = "log" if case.family == "gamma" else None
            model = glmm.fit(own, case.formula, family, link=link, offset=offset)
            return -2.0 * float(model.loglik), None

        version = getattr(glmm, "__version__", "")
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        value, evaluations = fit()
        seconds.append(time.process_time() - start)
    return {
        "criterion": value, "evaluations": evaluations, "seconds": seconds,
        "version": f"{program} {version}",
    }  # fmt: skip


def measure(program: str, name: str, path: Path) -> dict[str, Any] | None:
    """Run a program in a process of its own; None where it cannot fit."""
    case = CASES[name]
    repeats = case.repeats if program in ("lmmsparse", "glmm") else min(case.repeats, 2)
    if program in ("glmer", "glmmTMB"):
        script = str(HERE / "generalized.R")
        command = ["Rscript", script, program, case.formula, str(path), case.family, case.offset]
        command.append(str(repeats))
    else:
        python = sys.executable
        if program == "glmm":
            python = os.environ.get("PEERS_PYTHON", python)
        command = [python, str(HERE / "generalized.py"), "--one", program, name, str(path)]
        command.append(str(repeats))
    try:
        done = subprocess.run(
            command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False,
            timeout=TIMEOUT,
        )  # fmt: skip
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        print(f"  {program}: {type(error).__name__}", file=sys.stderr)
        return None
    if done.returncode:
        print(f"  {program}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def row(name: str, found: dict[str, dict[str, Any] | None]) -> str:
    """A line of the table: our criterion and time, and of others the excess and the ratio."""
    ours = found["lmmsparse"]
    assert ours is not None
    mine, case = min(ours["seconds"]), CASES[name]
    formula = case.formula.replace("|", "\\|")
    cells = [f"{name}: `{formula}`", f"{ours['criterion']:.5f}", str(ours["evaluations"])]
    cells.append(f"{1e3 * mine:.0f}")
    for program in PROGRAMS[1:]:
        other = found[program]
        if other is None:
            cells.append("–")
            continue
        ratio = min(other["seconds"]) / mine
        excess = other["criterion"] - ours["criterion"]
        text = f"{1e3 * min(other['seconds']):.0f} (**{ratio:.2g}**)"
        cells.append(text + (f", {excess:+.2g}" if abs(excess) > 1e-4 else ""))
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure and report."""
    if sys.argv[1:2] == ["--one"]:
        _, _, program, name, path, repeats = sys.argv
        print(json.dumps(one(program, CASES[name], path, int(repeats))))
        return
    names = sys.argv[1:] or list(CASES)
    lines = [
        "| model | −2 log L | evaluations | ms | glmm, ms (ratio) | glmer | glmmTMB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    before, versions = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder) / f"{CASES[name].data}.csv"
            table_of(CASES[name].data).to_csv(path, index=False)
            found = {program: measure(program, name, path) for program in PROGRAMS}
            versions |= {p: f["version"] for p, f in found.items() if f is not None}
            lines.append(row(name, found))
            print(lines[-1], flush=True)
    if sys.argv[1:]:
        return
    section = [
        "Whole calls by Laplace's approximation, text columns, the best of several calls in one "
        "process per program, in processor time of one thread, which a busy machine does not count "
        "(`benchmarks/generalized.py`). In bold the ratio to our time, then by how much −2 log L "
        "differs from ours where it does: glmer's likelihood of a gamma response is not that of "
        "any parameter value, and that of a negative binomial another approximation. R's programs "
        "are measured without their start-up.",
        "",
        *lines,
        "",
        f"- {datetime.now(UTC):%Y-%m-%d}; load of the machine {before:.1f} before, "
        f"{os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores; {', '.join(versions.values())}",
        "",
    ]
    write_section(TITLE, section)


if __name__ == "__main__":
    main()
