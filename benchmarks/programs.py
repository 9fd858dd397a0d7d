"""One program, one model, one CSV file → seconds, criterion, memory, as JSON on the last line.

Run in a fresh process: python programs.py PROGRAM FORMULA FILE FACTORS REML|ML REPEATS
Only the program that is timed is imported, before the clock starts. The first call is the cold one.
"""

from __future__ import annotations

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


Fit = Callable[[str, pd.DataFrame, bool], tuple[float, int | None]]


def lmmsparse() -> Fit:
    """Criterion and evaluations of lmmsparse."""
    import lmmsparse as lmm

    def fit(formula: str, frame: pd.DataFrame, reml: bool) -> tuple[float, int | None]:
        model = lmm.lmer(formula, frame, reml=reml)
        return (model.reml_criterion if reml else model.deviance), model.optimum.evaluations

    return fit


def glmm() -> Fit:
    """Criterion of glmm (with its Satterthwaite step switched off)."""
    import glmm

    def fit(formula: str, frame: pd.DataFrame, reml: bool) -> tuple[float, int | None]:
        model = glmm.fit(frame, formula, reml=reml, satterthwaite=False)
        return -2.0 * float(model.loglik), None

    return fit


def mixedlm() -> Fit:
    """Criterion of mixedlm."""
    import mixedlm

    def fit(formula: str, frame: pd.DataFrame, reml: bool) -> tuple[float, int | None]:
        value = mixedlm.lmer(formula, frame, REML=reml).logLik()
        return -2.0 * float(getattr(value, "value", value)), None

    return fit


def statsmodels() -> Fit:
    """Criterion of MixedLM, for one grouping factor."""
    import statsmodels.formula.api as smf

    def fit(formula: str, frame: pd.DataFrame, reml: bool) -> tuple[float, int | None]:
        fixed, _, rest = formula.partition("(")
        bars = rest.rstrip(") ").split("|")
        if len(bars) != 2 or "/" in bars[1]:
            raise NotImplementedError("one grouping factor only")
        model = smf.mixedlm(
            fixed.rstrip(" +"), frame, groups=frame[bars[1].strip()], re_formula=f"~{bars[0]}"
        )
        return -2.0 * float(model.fit(reml=reml, method="lbfgs").llf), None

    return fit


PROGRAMS: dict[str, Callable[[], Fit]] = {
    "lmmsparse": lmmsparse,
    "glmm": glmm,
    "mixedlm": mixedlm,
    "statsmodels": statsmodels,
}


def main() -> None:
    """Time one program."""
    program, formula, path, factors, criterion, repeats = sys.argv[1:]
    # Factors are text, as in the tables that people read from files.
    frame = pd.read_csv(path, dtype=dict.fromkeys(filter(None, factors.split(",")), str))
    warnings.simplefilter("ignore")
    fit, seconds = PROGRAMS[program](), []
    for _ in range(int(repeats)):
        start = time.process_time()
        value, evaluations = fit(formula, frame, criterion == "REML")
        seconds.append(time.process_time() - start)
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
