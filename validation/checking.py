"""What `check.py` and `check_generalized.py` share: a run over models, cells of their tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def cell(errors: Mapping[str, float], quantity: str, tolerance: float) -> str:
    """An error as it stands in a table, bold if it is too large."""
    error = errors.get(quantity)
    if error is None:
        return "–"
    text = "0" if error == 0 else f"{error:.0e}"
    return text if error <= tolerance else f"**{text}**"


def run(
    names: Iterable[str],
    registry: str,
    check: Callable[[str], Any],
    line: Callable[[Any], str],
    report: Callable[[list[Any]], str],
    written: Path,
    verdict: str,
) -> int:
    """Check all models, or those that the command line names; the exit code.

    Parameters
    ----------
    registry : str
        Where names are looked up.
    check : callable
        Name → result, which has `problems`.
    line : callable
        Result → what is printed behind the word of its verdict.
    report : callable
        Results → Markdown, written to `written` after a run of all models.
    verdict : str
        The last line, with places for the numbers of right and of all models.
    """
    pattern = sys.argv[1] if len(sys.argv) > 1 else None
    chosen = [name for name in names if pattern is None or re.search(pattern, name)]
    if not chosen:
        print(f"No model's name matches {pattern!r}. See {registry}.", file=sys.stderr)
        return 2
    results = []
    for name in chosen:
        result = check(name)
        results.append(result)
        print(f"{'ok' if not result.problems else 'DIFFERS':<8}{line(result)}", flush=True)
        for problem in result.problems:
            print(f"        {problem}")
    if pattern is None:
        written.write_text(report(results), encoding="utf-8")
    failed = sum(1 for result in results if result.problems)
    print(verdict.format(len(results) - failed, len(results)))
    return 1 if failed else 0
