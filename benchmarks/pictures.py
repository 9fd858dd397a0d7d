"""Measured times → a plot: one line per model, one mark per program, on a logarithmic axis."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

COLOURS = {
    "lmmsparse": "#0072b2",
    "lme4": "#d55e00",
    "glmm": "#009e73",
    "mixedlm": "#cc79a7",
    "statsmodels": "#7f7f7f",
}
MARKS = {"lmmsparse": "o", "lme4": "s", "glmm": "^", "mixedlm": "v", "statsmodels": "D"}


def draw_times(times: dict[str, dict[str, float]], path: Path) -> None:
    """Draw seconds per model and program.

    Parameters
    ----------
    times : dict
        Model → program → seconds.
    path : Path
        Of the PNG.
    """
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(8.0, 0.6 + 0.3 * len(times)), layout="constrained")
    for line, own in enumerate(times.values()):
        ax.plot([min(own.values()), max(own.values())], [line, line], color="#d8d8d8", zorder=1)
    for program, colour in COLOURS.items():
        points = [(own[program], i) for i, own in enumerate(times.values()) if program in own]
        if points:
            x, y = zip(*points, strict=True)
            size = 52 if program == "lmmsparse" else 30
            ax.scatter(x, y, size, colour, MARKS[program], label=program, zorder=2)
    ax.set_xscale("log")
    ax.set_yticks(range(len(times)), list(times))
    ax.set_ylim(len(times) - 0.5, -0.5)
    ax.set_xlabel("whole call, seconds")
    ax.grid(axis="x", alpha=0.25)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=len(COLOURS), frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
