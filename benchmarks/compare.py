"""The same models fitted by lmmsparse and by lme4 → times, criteria, memory, and RESULTS.md.

Timed is the whole call of `lmer()` on a data frame in memory, with each program's defaults and one
BLAS thread. The programs take turns, each in a fresh process, so that a busy machine slows both.
Run: python benchmarks/compare.py [--only NAME ...] [--rounds N] [--no-write]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import threadpoolctl

import lmmsparse as lmm

HERE = Path(__file__).parent
ONE_THREAD = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}


@dataclass(frozen=True)
class Case:
    """A model to time."""

    name: str
    data: str
    formula: str
    reml: bool = True
    repeats: int = 25


CASES = (
    Case("sleepstudy", "sleepstudy", "Reaction ~ Days + (Days|Subject)"),
    Case("dietox-1", "dietox", "Weight ~ Time + (1|Pig)"),
    Case("dietox-2", "dietox", "Weight ~ Time + (1+Time|Pig)"),
    Case("dietox-3", "dietox", "Weight ~ Time + (1|Pig) + (0+Time|Pig)"),
    Case("Penicillin", "Penicillin", "diameter ~ 1 + (1|plate) + (1|sample)"),
    Case("Pastes", "Pastes", "strength ~ 1 + (1|batch/cask)"),
    Case("InstEval-3", "InstEval", "y ~ 1 + (1|s) + (1|d) + (1|dept)", repeats=3),
    Case(
        "InstEval-4",
        "InstEval",
        "y ~ service + (1|s) + (1|d) + (1|dept) + (1|dept:service)",
        reml=False,
        repeats=3,
    ),
    Case("slopes-80k", "slopes-80k", "y ~ x + (x|g)", repeats=3),
)


def load(name: str) -> pd.DataFrame:
    """A shipped data set, or the simulated one: 80,000 rows, 4,000 groups, random slopes."""
    if name != "slopes-80k":
        return lmm.load_dataset(name)
    rng = np.random.default_rng(20_150_107)
    groups, rows = 4_000, 80_000
    g = rng.integers(groups, size=rows)
    x = rng.normal(size=rows)
    effects = rng.normal(size=(groups, 2)) @ np.array([[1.0, 0.3], [0.0, 0.5]])
    y = 2.0 + 0.5 * x + effects[g, 0] + effects[g, 1] * x + rng.normal(size=rows)
    return pd.DataFrame({"y": y, "x": x, "g": pd.Categorical(g)})


def factors_of(frame: pd.DataFrame) -> list[str]:
    """The categorical columns."""
    return [c for c in frame.columns if isinstance(frame[c].dtype, pd.CategoricalDtype)]


def peak_mb() -> float | None:
    """Largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def measure(case: Case, path: Path) -> dict[str, Any]:
    """Fit `case` in this process."""
    frame = pd.read_csv(path)
    for column in factors_of(load(case.data)):
        frame[column] = pd.Categorical(frame[column])
    before = peak_mb()
    seconds = []
    for _ in range(case.repeats):
        start = time.perf_counter()
        model = lmm.lmer(case.formula, frame, reml=case.reml)
        seconds.append(time.perf_counter() - start)
    return {
        "criterion": model.reml_criterion if case.reml else model.deviance,
        "evaluations": model.optimum.evaluations,
        "seconds": seconds,
        "peak_mb": peak_mb(),
        "start_mb": before,
        "version": f"Python {platform.python_version()}, lmmsparse {lmm.__version__}, "
        + ", ".join(f"{p} {version(p)}" for p in ("numpy", "scipy", "scikit-sparse")),
        "blas": ", ".join(
            sorted(
                {
                    f"{info['internal_api']} {info['version']} ({Path(info['filepath']).name})"
                    for info in threadpoolctl.threadpool_info()
                    if info["user_api"] == "blas"
                }
            )
        ),
    }


def run(command: list[str]) -> dict[str, Any]:
    """Run a measuring process and read the JSON on the last line of its output."""
    return json.loads(run_text(command).splitlines()[-1])  # type: ignore[no-any-return]


def run_text(command: list[str]) -> str:
    """Run a process with one BLAS thread and return what it prints."""
    done = subprocess.run(
        command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def has_lme4() -> bool:
    """Whether Rscript and lme4 are there."""
    if shutil.which("Rscript") is None:
        return False
    probe = ["Rscript", "-e", "quit(status = !requireNamespace('lme4', quietly = TRUE))"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def compare(case: Case, folder: Path, rounds: int, with_lme4: bool) -> list[dict[str, Any]]:
    """Measure one case with both programs in turn; ours first."""
    path = folder / f"{case.data}.csv"
    frame = load(case.data)
    if not path.exists():
        frame.to_csv(path, index=False)
    commands = [[sys.executable, __file__, "--measure", case.name, str(path)]]
    if with_lme4:
        words = [case.formula, str(path), ",".join(factors_of(frame))]
        words += ["REML" if case.reml else "ML", str(case.repeats)]
        commands.append(["Rscript", str(HERE / "lme4_bench.R"), *words])
    measured = [[run(command) for command in commands] for _ in range(rounds)]
    return [merge(list(of_one_program)) for of_one_program in zip(*measured, strict=True)]


def merge(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The measurements of several processes as one."""
    seconds = [second for measured in rounds for second in measured["seconds"]]
    return rounds[0] | {"seconds": seconds}


HEADER = (
    "| model | criterion | − lme4's | evaluations | lme4's | median, ms | lme4's "
    "| **lme4's / ours** | fastest calls | peak, MiB | lme4's |\n" + "|---" * 11 + "|"
)


def row(case: Case, ours: dict[str, Any], theirs: dict[str, Any] | None) -> str:
    """One line of the table."""

    def both(show: Callable[[dict[str, Any]], str]) -> list[str]:
        return [show(ours), show(theirs) if theirs else ""]

    def ratio(typical: Callable[[list[float]], float]) -> str:
        return f"{typical(theirs['seconds']) / typical(ours['seconds']):.1f}" if theirs else ""

    formula = case.formula.replace("|", "\\|")
    gap = f"{ours['criterion'] - theirs['criterion']:+.0e}" if theirs else ""
    cells = [
        f"{case.data}, {'REML' if case.reml else 'ML'}: `{formula}`",
        f"{ours['criterion']:.6f}",
        gap,
        *both(lambda measured: str(measured["evaluations"])),
        *both(lambda measured: f"{1e3 * statistics.median(measured['seconds']):.1f}"),
        f"**{ratio(statistics.median)}**",
        ratio(min),
        *both(lambda measured: f"{measured['peak_mb'] or 0:.0f}"),
    ]
    return "| " + " | ".join(cells) + " |"


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes per program")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md as it is")
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, path = options.measure
        case = next(case for case in CASES if case.name == name)
        print(json.dumps(measure(case, Path(path))))
        return

    with_lme4 = has_lme4()
    if not with_lme4:
        print("Rscript with lme4 was not found: only lmmsparse is timed.", file=sys.stderr)
    lines = [HEADER]
    print(HEADER)
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if options.only and case.name not in options.only:
                continue
            measured = compare(case, Path(folder), options.rounds, with_lme4)
            lines.append(row(case, measured[0], measured[1] if with_lme4 else None))
            print(lines[-1], flush=True)
    about = [f"- {cpu()}; {platform.system()} {platform.release()}; {date.today().isoformat()}"]
    about += [f"- {program['version']}; BLAS: {program['blas']}" for program in measured]
    print("\n".join(about))
    if options.only:
        return
    by_rows = run_text([sys.executable, str(HERE / "rows.py")]).strip()
    print(f"\n{by_rows}")
    if options.no_write:
        return
    text = (
        "# lmmsparse and lme4, side by side\n\n"
        "Written by `make bench`. Times of whole `lmer()` calls with each program's defaults, one "
        "BLAS thread, the programs taking turns in fresh processes: "
        f"{options.rounds} rounds of 25 calls each, of 3 for InstEval and the simulated model "
        "(80,000 rows, 4,000 groups, random slopes). *Fastest calls* is the ratio of the shortest "
        "times, which a busy machine disturbs least. Peak is the largest resident memory of the "
        "process, interpreter and data included.\n\n"
    )
    text += "\n".join(lines) + "\n\n" + "\n".join(about) + "\n\n"
    text += (
        "## The number of rows\n\n"
        "500 crossed with 100 random intercepts, the same 10,000 pairs of levels each time "
        "(`benchmarks/rows.py`).\n\n"
    )
    text += by_rows + "\n"
    (HERE / "RESULTS.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
