"""The same models fitted by lmmsparse, lme4, glmm, mixedlm, statsmodels → RESULTS.md, times.png.

Timed is the whole fitting call on a data frame in memory whose factors are columns of text, with
each program's defaults and one BLAS thread. The programs take turns, each in a fresh process, and
processor time is counted, so that a busy machine matters little.
Run: python benchmarks/compare.py [--only NAME ...] [--rounds N] [--no-write]
Programs that are not installed are left out; PEERS_PYTHON may name an interpreter that has them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import threadpoolctl
from cases import CASES, Case, factors_of, load
from pictures import draw_times
from results import write_beginning, write_section

import lmmsparse as lmm

HERE = Path(__file__).parent
ONE_THREAD = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
ONE_THREAD |= {"RAYON_NUM_THREADS": "1"}
PEERS = ("glmm", "mixedlm", "statsmodels")
TIMEOUT = 400


def run(command: list[str]) -> dict[str, Any] | None:
    """Run a measuring process and read the JSON on its last line; None if it cannot fit."""
    try:
        done = subprocess.run(
            command,
            env=os.environ | ONE_THREAD,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        print(f"  {command[1:3]}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def available() -> dict[str, str]:
    """Programs that are there and their versions."""
    found = {"lmmsparse": lmm.__version__}
    probe = "cat(as.character(packageVersion('lme4')))"
    if shutil.which("Rscript"):
        done = subprocess.run(["Rscript", "-e", probe], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found["lme4"] = done.stdout
    for name in PEERS:
        code = f"from importlib.metadata import version; print(version('{name}'))"
        done = subprocess.run(
            [peers_python(), "-c", code], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            found[name] = done.stdout.strip()
    return found


def peers_python() -> str:
    """The interpreter that has the peers."""
    return os.environ.get("PEERS_PYTHON", sys.executable)


def command_of(program: str, case: Case, path: Path, factors: list[str]) -> list[str]:
    """The process that times one program on one case."""
    words = [case.formula, str(path), ",".join(factors), "REML" if case.reml else "ML"]
    words.append(str(case.repeats))
    if program == "lme4":
        return ["Rscript", str(HERE / "lme4_bench.R"), *words]
    python = sys.executable if program == "lmmsparse" else peers_python()
    return [python, str(HERE / "programs.py"), program, *words]


def measure(case: Case, folder: Path, programs: list[str], rounds: int) -> dict[str, Any]:
    """All programs in turn, `rounds` times; first calls and later calls pooled apart."""
    path = folder / f"{case.data}.csv"
    frame = load(case.data)
    if not path.exists():
        frame.to_csv(path, index=False)
    out: dict[str, Any] = {}
    for _ in range(rounds):
        for program in programs:
            if program in case.skip or out.get(program, 1) is None:
                continue
            result = run(command_of(program, case, path, factors_of(frame)))
            if result is None:
                out[program] = None
                continue
            cold, *warm = result.pop("seconds")
            entry = out.setdefault(program, {**result, "cold": [], "warm": []})
            entry["cold"].append(cold)
            entry["warm"] += warm
    return out


def table(measured: dict[str, dict[str, Any]], programs: list[str]) -> list[str]:
    """Times and ratios, one line per model."""
    others = [p for p in programs if p != "lmmsparse"]
    head = ["model", "criterion", "above the best", "evaluations", "cold, ms", "lmmsparse, ms"]
    head += [f"{p}, ms (ratio)" for p in others] + ["peak, MiB"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for case in CASES:
        results = measured.get(case.name)
        if not results or not results.get("lmmsparse"):
            continue
        ours = results["lmmsparse"]
        mine = statistics.median(ours["warm"])
        values = [r["criterion"] for r in results.values() if r and r["criterion"] is not None]
        cells = [
            f"{case.name}: `{case.formula.replace('|', chr(92) + '|')}`",
            f"{ours['criterion']:.6f}",
            f"{max(0.0, ours['criterion'] - min(values)):.0e}",
            str(ours["evaluations"]),
            _milliseconds(statistics.median(ours["cold"])),
            _milliseconds(mine),
        ]
        for program in others:
            theirs = results.get(program)
            if not theirs:
                cells.append("–")
                continue
            seconds = statistics.median(theirs["warm"])
            excess = (theirs["criterion"] or math.inf) - min(values)
            worse = "" if excess < 1e-3 else f", {excess:.2g} above"
            cells.append(f"{_milliseconds(seconds)} (**{_ratio(seconds / mine)}**{worse})")
        peaks = [f"{results[p]['peak_mb']:.0f}" if results.get(p) else "–" for p in programs[:2]]
        cells.append(" / ".join(peaks))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"


def _ratio(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def means(measured: dict[str, dict[str, Any]], programs: list[str]) -> list[str]:
    """Geometric mean ratios by group."""
    lines = []
    for group in dict.fromkeys(case.group for case in CASES):
        parts = []
        for program in programs[1:]:
            logs = [
                math.log(statistics.median(r[program]["warm"]))
                - math.log(statistics.median(r["lmmsparse"]["warm"]))
                for case in CASES
                if case.group == group and (r := measured.get(case.name)) and r.get(program)
            ]
            if logs:
                ratio = math.exp(statistics.mean(logs))
                parts.append(f"{program} {_ratio(ratio)} × our time ({len(logs)} models)")
        if parts:
            lines.append(f"- {group}: " + ", ".join(parts))
    return lines


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def about(found: dict[str, str]) -> list[str]:
    """Machine and versions."""
    blas = sorted(
        {
            f"{info['internal_api']} {info['version']}"
            for info in threadpoolctl.threadpool_info()
            if info["user_api"] == "blas"
        }
    )
    packages = ", ".join(f"{p} {version(p)}" for p in ("numpy", "scipy", "scikit-sparse"))
    return [
        f"- {cpu()}; {platform.system()} {platform.release()}; {date.today().isoformat()}",
        f"- Python {platform.python_version()}, {packages}; BLAS: {', '.join(blas)}",
        "- " + ", ".join(f"{name} {number}" for name, number in found.items()),
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--rounds", type=int, help="fresh processes per program")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md as it is")
    options = parser.parse_args()
    found = available()
    programs = list(found)
    print("programs:", ", ".join(f"{k} {v}" for k, v in found.items()), flush=True)
    measured: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if options.only and case.name not in options.only:
                continue
            rounds = options.rounds or case.rounds
            measured[case.name] = measure(case, Path(folder), programs, rounds)
            print("\n".join(table({case.name: measured[case.name]}, programs)[2:]), flush=True)
    text = [*table(measured, programs), "", "Geometric means of the ratios:", ""]
    text += [*means(measured, programs), "", *about(found)]
    print("\n".join(text))
    if options.only or options.no_write:
        return
    seconds = {
        name: {program: statistics.median(r["warm"]) for program, r in results.items() if r}
        for name, results in measured.items()
    }
    draw_times(seconds, HERE / "times.png")
    rows = subprocess.run(
        [sys.executable, str(HERE / "rows.py")],
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    page = [
        "# lmmsparse beside its peers",
        "",
        "Written by `make bench`. Processor times of whole fitting calls on tables whose factors "
        "are text, with each program's defaults, one BLAS thread, the programs taking turns in "
        "fresh processes; medians of the calls after the first, which is lmmsparse's *cold* "
        "column (imports are never counted). The ratio is the "
        "other program's time over ours: above one, we are faster. *Above the best* is the "
        "criterion minus the lowest any program reached; where another program stops more than "
        "0.001 above the best, its cell says so. A dash: the program cannot fit the model, or "
        "was not asked to. Peak is the largest resident memory (lmmsparse / lme4), interpreter "
        "and data included.",
        "",
        "![Times of all programs on all models](times.png)",
        "",
        *text,
    ]
    write_beginning(page)
    about_rows = (
        "500 crossed with 100 random intercepts, the same 10,000 pairs of levels each time "
        "(`benchmarks/rows.py`)."
    )
    write_section("The number of rows", [about_rows, "", rows.strip()])


if __name__ == "__main__":
    main()
