"""The text of a documentation page → its Python blocks, run in one namespace, and what they say.

A block opens with ```python and may carry options on the same line:

    hide            run it, do not show it
    warns           it must give a warning, which is shown; other blocks must give none
    raises          it must raise, which is shown; other blocks must not
    table           show a data frame or table as HTML, not as text
    alt="..."       what its figure shows, in words; a block that draws must have it
    needs=name      a package it imports that the tests can do without: the test leaves the block
                    out where that is not installed; the site cannot

The site (`tools/docs_hooks.py`) and the tests (`tests/whole/test_docs.py`) both run pages with this
module, so that a page cannot show what the test did not see.

    python tools/pages.py README.md     put the outputs that README shows (```text) up to date
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import re
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

_FENCE = re.compile(r"^```python(?P<options>[^\n]*)\n(?P<code>.*?)^```[ \t]*$", re.M | re.S)
_OPTIONS = {"hide", "warns", "raises", "table"}
_NOT_FOR_USERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning)


class PageError(Exception):
    """A block of a page did not do what the page says."""


@dataclass(frozen=True)
class Block:
    """One Python block: where it stands in the text, its code and options."""

    start: int
    end: int
    line: int
    code: str
    options: frozenset[str]
    alt: str
    needs: str = ""


@dataclass(frozen=True)
class Output:
    """What a block said: warnings or its error; text; its value as HTML; its figures as SVG."""

    message: str = ""
    text: str = ""
    html: str = ""
    figures: list[str] = field(default_factory=list)


def blocks(text: str) -> Iterator[Block]:
    """The Python blocks of a page, in order."""
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        options, alt, needs = set(), "", ""
        for word in shlex.split(match["options"]):
            if word.startswith("alt="):
                alt = word[4:]
            elif word.startswith("needs="):
                needs = word[6:]
            elif word in _OPTIONS:
                options.add(word)
            else:
                raise PageError(f"line {line - 1}: a block has no option {word!r}")
        where = match.start(), match.end(), line
        yield Block(*where, match["code"], frozenset(options), alt, needs)


def run(
    text: str, name: str, namespace: dict[str, Any] | None = None, draw: bool = True
) -> list[tuple[Block, Output]]:
    """Run all blocks of a page in one namespace and an empty working directory.

    Parameters
    ----------
    text, name : str
        The page, and what to call it in messages.
    namespace : dict, optional
        Where the page's names end up.
    draw : bool
        False: figures are made, but not drawn; their text is empty. Blocks that need a package
        which is not installed are left out.

    Returns
    -------
    list of (Block, Output)

    Raises
    ------
    PageError
        If a block raises or warns without saying so, or does not where it says so.
    """
    namespace = {} if namespace is None else namespace
    namespace["__name__"] = "__main__"
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.chdir(directory),
        _figures_in_memory(),
        pd.option_context("display.width", 96, "display.max_columns", 20),
    ):
        return [(block, _run(block, namespace, name, draw)) for block in blocks(text)]


def _run(block: Block, namespace: dict[str, Any], name: str, draw: bool) -> Output:
    where = f"{name}, line {block.line}"
    if block.needs and not draw and importlib.util.find_spec(block.needs) is None:
        return Output()
    printed, html, raised = io.StringIO(), "", ""
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.resetwarnings()
        warnings.simplefilter("always")
        for category in _NOT_FOR_USERS:
            warnings.simplefilter("ignore", category)
        try:
            value = _value_of(block, namespace, name)
            if "table" in block.options:
                html = value._repr_html_()
            elif value is not None:
                print(value if hasattr(value, "_repr_html_") else repr(value))
        except Exception as error:
            if "raises" not in block.options:
                raise PageError(f"{where}: {traceback.format_exc(limit=-2)}") from error
            raised = f"{type(error).__name__}: {error}\n"
    said = [f"{w.category.__name__}: {w.message}\n" for w in caught]
    if said and "warns" not in block.options:
        raise PageError(f"{where}: this block gives a warning without saying so:\n{''.join(said)}")
    if not said and "warns" in block.options:
        raise PageError(f"{where}: this block says that it warns, and does not")
    if not raised and "raises" in block.options:
        raise PageError(f"{where}: this block says that it raises, and does not")
    figures = _take_figures(draw)
    if figures and not block.alt:
        raise PageError(f'{where}: this block draws; say with alt="..." what is to be seen')
    message = "".join([*dict.fromkeys(said), raised])
    text = _without_trailing_blanks(printed.getvalue())
    return Output(_without_trailing_blanks(message), text, html, figures)


def _value_of(block: Block, namespace: dict[str, Any], name: str) -> Any:
    """Run the code; the value of its last line if that is an expression without a semicolon."""
    # Line numbers of the page, so that an error points there.
    tree = ast.increment_lineno(ast.parse(block.code), block.line - 1)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or block.code.rstrip().endswith(";"):
        exec(compile(tree, name, "exec"), namespace)
        return None
    tree.body.pop()
    exec(compile(tree, name, "exec"), namespace)
    value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
    return None if _draws(value) else value


def _draws(value: Any) -> bool:
    """Whether a value is a figure, axes, or what a plotting call returns: shown as a picture."""
    first = value
    while isinstance(first, (list, tuple)) and len(first):
        first = first[0]
    if hasattr(first, "flat") and str(getattr(first, "dtype", "")) == "object":
        first = next(iter(first.flat), None)
    return type(first).__module__.startswith("matplotlib.")


def _without_trailing_blanks(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


@contextlib.contextmanager
def _figures_in_memory() -> Iterator[None]:
    try:
        import matplotlib
        import matplotlib.pyplot as plt
    except ImportError:  # pages without figures run all the same
        yield
        return
    matplotlib.use("agg")
    plt.close("all")  # figures of anybody else's are not the page's
    settings = {
        "figure.figsize": (7.2, 3.6),
        "figure.constrained_layout.use": True,
        "svg.hashsalt": "pages",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings):
        yield


def _take_figures(draw: bool) -> list[str]:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return []
    out = []
    for number in plt.get_fignums():
        target = io.StringIO()
        if draw:
            plt.figure(number).savefig(target, format="svg", metadata={"Date": None})
        out.append(target.getvalue())
    plt.close("all")
    return out


def calls(text: str, column: str = "lmmsparse") -> Iterator[tuple[int, str]]:
    """The code in one column of a page's tables, with the line it stands on."""
    at: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("|"):
            at = None
            continue
        cells = _cells(line)
        if at is None:
            at = cells.index(column) if column in cells else -1
        elif at >= 0:
            yield from ((number, code) for code in re.findall(r"`([^`]+)`", cells[at]))


def _cells(row: str) -> list[str]:
    """The cells of a table row; a bar inside code separates nothing."""
    parts = re.split(r"((?:`[^`]*`|[^|`])*)\|", row.strip().removeprefix("|"))
    return [part.strip() for part in parts[1::2]]


_SHOWN = re.compile(r"\n```text\n(?P<text>.*?)\n```", re.S)


def refreshed(text: str, name: str) -> str:
    """The page with every ```text block that follows a Python block replaced by its output."""
    out, position = [], 0
    for block, output in run(text, name):
        following = _SHOWN.match(text, block.end)
        if following:
            out += [text[position : following.start("text")], output.text]
            position = following.end("text")
    return "".join([*out, text[position:]])


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(refreshed(path.read_text(encoding="utf-8"), path.name), encoding="utf-8")
