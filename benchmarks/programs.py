"""One program, one model, one CSV file → seconds, criterion, memory, as JSON on the last line.

Run in a fresh process: python programs.py PROGRAM FORMULA FILE FACTORS REML|ML REPEATS
Only the program that is timed is imported.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd


def peak_mb() -> float | None:
    """Largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def lmmsparse(formula: str, frame: pd.DataFrame, reml: bool) -> tuple[float, int | None]:
    """Criterion and evaluations of lmmsparse."""
    model = importlib.import_module("lmmsparse").lmer(formula, frame, reml=reml)
    return (model.reml_criterion if reml else model.deviance), model.optimum.evaluations


def glmm(formula: str, frame: pd.DataFrame, reml: bool) -> tuple[float, int | None]:
    """Criterion of glmm (with its Satterthwaite step switched off)."""
    fit = importlib.import_module("glmm").fit(frame, formula, reml=reml, satterthwaite=False)
    return -2.0 * float(fit.loglik), None


def mixedlm(formula: str, frame: pd.DataFrame, reml: bool) -> tuple[float, int | None]:
    """Criterion of mixedlm."""
    fit = importlib.import_module("mixedlm").lmer(formula, frame, REML=reml)
    value = fit.logLik()
    return -2.0 * float(getattr(value, "value", value)), None


def statsmodels(formula: str, frame: pd.DataFrame, reml: bool) -> tuple[float, int | None]:
    """Criterion of MixedLM, for one grouping factor."""
    smf = importlib.import_module("statsmodels.formula.api")
    fixed, _, rest = formula.partition("(")
    bars = rest.rstrip(") ").split("|")
    if len(bars) != 2 or "/" in bars[1]:
        raise NotImplementedError("one grouping factor only")
    model = smf.mixedlm(
        fixed.rstrip(" +"), frame, groups=frame[bars[1].strip()], re_formula=f"~{bars[0]}"
    )
    fit = model.fit(reml=reml, method="lbfgs")
    return -2.0 * float(fit.llf), None


PROGRAMS: dict[str, Callable[[str, pd.DataFrame, bool], tuple[float, int | None]]] = {
    "lmmsparse": lmmsparse,
    "glmm": glmm,
    "mixedlm": mixedlm,
    "statsmodels": statsmodels,
}


def main() -> None:
    """Time one program."""
    program, formula, path, factors, criterion, repeats = sys.argv[1:]
    frame = pd.read_csv(path)
    for column in filter(None, factors.split(",")):
        frame[column] = pd.Categorical(frame[column])
        if program in ("glmm", "mixedlm"):  # they take text, not categories of numbers
            frame[column] = frame[column].astype(str)
    warnings.simplefilter("ignore")
    seconds = []
    for _ in range(int(repeats)):
        start = time.perf_counter()
        value, evaluations = PROGRAMS[program](formula, frame, criterion == "REML")
        seconds.append(time.perf_counter() - start)
    finite = value if math.isfinite(value) else None
    out: dict[str, Any] = {
        "criterion": finite,
        "evaluations": evaluations,
        "seconds": seconds,
        "peak_mb": peak_mb(),
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
