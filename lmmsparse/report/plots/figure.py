"""Axes from the user or new ones, in the house style; matplotlib is imported here, on first use.

Style is set on the artists; matplotlib's global settings (rcParams) are never touched.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray, ObjectArray
from lmmsparse.common.errors import MissingPackageError, OptionError
from lmmsparse.common.options import array_of

# An object of matplotlib, which may be absent while annotations are read.
Axes = Any

INK = "#1f4e79"
ACCENT = "#b3471d"
GREY = "#8c8c8c"
PALE = "#d8d8d8"
BAND = "#dfe7ef"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d")
_LINES = "#555555"


def pyplot() -> Any:
    """The module `matplotlib.pyplot`."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingPackageError(
            "Plots need matplotlib, which is not installed. Run `pip install matplotlib`, or "
            "install lmmsparse with its extra: `pip install 'lmmsparse[plot]'`."
        ) from error
    return plt


def panels(
    count: int,
    ax: Any = None,
    size: tuple[float, float] = (4.2, 3.4),
    columns: int = 3,
    sharey: bool = False,
) -> ObjectArray:
    """The axes to draw on.

    Parameters
    ----------
    count : int
        How many panels there are.
    ax : Axes or sequence of Axes, optional
        The user's own, one per panel; a new figure if not given.
    size : (width, height)
        Of a panel of a new figure, in inches.
    columns : int
        The most panels of a new figure that stand side by side.

    Returns
    -------
    (count,) array of Axes
    """
    plt = pyplot()
    if ax is not None:
        given = np.atleast_1d(ax if hasattr(ax, "transAxes") else array_of("ax", ax)).ravel()
        strange = [each for each in given if not hasattr(each, "transAxes")]
        if strange:
            raise OptionError(
                f"ax must be axes of matplotlib, not {type(strange[0]).__name__}. Pass some, for "
                "example from `figure, ax = plt.subplots()`."
            )
        if len(given) != count:
            raise OptionError(
                f"ax= holds {len(given)} axes, but the plot has {count} "
                f"panel{'s' if count != 1 else ''}. Pass {count}, for example from "
                f"plt.subplots(1, {count}), or leave ax= out."
            )
        return given
    columns = min(columns, count)
    if count == 1:
        size = max(size[0], 4.6), max(size[1], 3.6)
    rows = -(-count // columns)
    _, axes = plt.subplots(
        rows,
        columns,
        figsize=(size[0] * columns, size[1] * rows),
        layout="constrained",
        squeeze=False,
        sharey=sharey,
    )
    flat: ObjectArray = axes.ravel()
    for each in flat[count:]:
        each.remove()
    return flat[:count]


def one_or_all(axes: ObjectArray) -> Any:
    """A single axes as itself, several as an array."""
    return axes[0] if len(axes) == 1 else axes


def dress(ax: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Put labels on axes and the house style."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(_LINES)
    ax.tick_params(colors=_LINES, labelcolor="#333333", labelsize=9)
    if x:
        ax.set_xlabel(plain(x), fontsize=10)
    if y:
        ax.set_ylabel(plain(y), fontsize=10)
    if title:
        ax.set_title(plain(title), fontsize=10)


def few_ticks(ax: Axes, axis: str = "x", most: int = 5) -> None:
    """Ticks so few that long numbers do not touch."""
    ax.locator_params(axis=axis, nbins=most)


def wrapped(label: str, width: int) -> str:
    """A label on several lines, the group of a parameter on the last."""
    if len(label) <= width:
        return label
    head, bar, group = label.partition(" | ")
    lines = [""]
    for piece in re.findall(r"[^\s:]+:*\s*|[\s:]+", head):  # interactions break after their colons
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    lines = [part for line in lines for part in textwrap.wrap(line, width)]
    return "\n".join([*lines, f"| {group}"] if bar else lines)


def plain(text: str) -> str:
    """Text of the user's, in which a dollar sign does not start a formula; without backquotes."""
    return str(text).replace("`", "").replace("$", r"\$")


def say(ax: Axes, text: str) -> None:
    """A sentence where there is nothing to draw."""
    ax.text(
        0.5, 0.5, plain(text), transform=ax.transAxes, ha="center", va="center", fontsize=9,
        color=_LINES, wrap=True,
    )  # fmt: skip
    ax.set_xticks([])
    ax.set_yticks([])


def legend(ax: Axes, title: str = "", beside: bool = False, crowded: bool = False) -> None:
    """A legend without a box, where there is room or beside the axes; in a corner of a crowd."""
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if beside else {}
    if crowded:  # to look for room would take seconds
        place = {"loc": "upper left"}
    box = ax.legend(frameon=False, fontsize=9, title=plain(title) or None, **place)
    box.get_title().set_fontsize(9)
    for handle in box.legend_handles:
        if hasattr(handle, "set_sizes"):  # small dots of a large cloud
            handle.set_sizes([18])


def points(ax: Axes, x: FloatArray, y: FloatArray) -> None:
    """A cloud of points that stays legible, and small in a vector file, when there are many."""
    n = len(x)
    size, alpha = next(
        (size, alpha)
        for limit, size, alpha in (
            (300, 16, 0.8), (2_000, 10, 0.5), (20_000, 6, 0.25), (np.inf, 3, 0.08)
        )
        if n <= limit
    )  # fmt: skip
    ax.scatter(x, y, s=size, color=INK, alpha=alpha, linewidths=0, rasterized=n > 2_000, zorder=2)


def scale_of(response: str, effect: str) -> str:
    """The scale of an effect in words: the response, or the response per unit of a variable.

    Parameters
    ----------
    response, effect : str
        Name of the response; name of a column of X or Z.
    """
    if effect == "Intercept" or "[" in effect:
        return response
    return f"{response} per unit of {effect}"


def listed_levels(levels: Iterable[Any]) -> list[str]:
    """Labels of levels as text for an axis."""
    return [plain(str(level)) for level in levels]
