"""A thousand parametric refits of sleepstudy → seconds here, in lme4, and their ratio.

lme4's `refit` runs on the first hundred of the same responses and is scaled up; criteria are
compared with those of `lmer` itself, since `refit` of lme4 1.1-31 takes p for 1 in the REML
criterion. One BLAS thread.
Run: python benchmarks/refits.py [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import threadpoolctl

import lmmsparse as lmm

FORMULA = "Reaction ~ Days + (Days | Subject)"
REFITS, IN_R, CHECKED = 1000, 100, 20
ONE_THREAD = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
R_SCRIPT = """
suppressPackageStartupMessages(library(lme4))
files <- commandArgs(trailingOnly = TRUE)
data <- read.csv(files[1])
data$Subject <- factor(data$Subject)
Y <- as.matrix(read.csv(files[2]))
fit <- lmer(Reaction ~ Days + (Days | Subject), data)
quiet <- function(x) suppressMessages(suppressWarnings(x))
seconds <- system.time(for (j in seq_len(ncol(Y))) quiet(refit(fit, Y[, j])))[["elapsed"]]
criteria <- apply(Y[, seq_len(as.integer(files[3]))], 2, function(y) {
  data$Reaction <- y
  REMLcrit(quiet(lmer(Reaction ~ Days + (Days | Subject), data)))
})
cat(sprintf('{"seconds": %.6f, "criteria": [%s]}', seconds,
            paste(sprintf("%.10f", criteria), collapse = ",")))
"""


def in_lme4(frame: pd.DataFrame, Y: pd.DataFrame) -> dict[str, Any] | None:
    """Seconds and criteria of lme4's refits; None if R or lme4 are not there."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        data, responses, script = (Path(folder) / name for name in ("d.csv", "y.csv", "refit.R"))
        frame.to_csv(data, index=False)
        Y.to_csv(responses, index=False)
        script.write_text(R_SCRIPT, encoding="utf-8")
        done = subprocess.run(
            ["Rscript", str(script), str(data), str(responses), str(CHECKED)],
            env=os.environ | ONE_THREAD,
            capture_output=True,
            text=True,
            check=False,
        )
    return json.loads(done.stdout) if done.returncode == 0 else None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="repetitions here")
    options = parser.parse_args()
    frame = lmm.load_dataset("sleepstudy")
    model = lmm.lmer(FORMULA, frame)
    seconds = []
    with threadpoolctl.threadpool_limits(1):
        for _ in range(options.rounds):
            start = time.perf_counter()
            Y = model.simulate(REFITS, rng=1)
            table = model.refit_many(Y)
            seconds.append(time.perf_counter() - start)
    ours = statistics.median(seconds)
    print(f"{REFITS} refits of {FORMULA}, simulation included")
    print(
        f"lmmsparse: {ours:.3f} s (fastest {min(seconds):.3f}), "
        f"{int(table['converged'].sum())} converged, {int(table['singular'].sum())} singular"
    )
    theirs = in_lme4(frame, Y.iloc[:, :IN_R])
    if theirs is None:
        print("Rscript with lme4 was not found: only lmmsparse is timed.")
        return
    scaled = theirs["seconds"] * REFITS / IN_R
    gap = table["criterion"].to_numpy()[:CHECKED] - np.array(theirs["criteria"])
    print(f"lme4:      {scaled:.1f} s ({IN_R} refits, scaled up)")
    print(f"ratio:     {scaled / ours:.0f}")
    print(f"criterion minus lme4's: {gap.min():.1e} to {gap.max():.1e}")


if __name__ == "__main__":
    main()
