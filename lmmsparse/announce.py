"""Findings → Python warnings, at the user's own line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable

from lmmsparse.errors import (
    ConvergenceWarning,
    DesignWarning,
    Finding,
    InterruptedWarning,
    SingularFitWarning,
)

_WARNINGS: dict[str, type[Warning]] = {
    "singular": SingularFitWarning,
    "not-converged": ConvergenceWarning,
    "better-optimum": ConvergenceWarning,
    "interrupted": InterruptedWarning,
}


def announce(findings: Iterable[Finding], stacklevel: int, told: Iterable[Finding] = ()) -> None:
    """Give the findings of level "warning" as warnings.

    Parameters
    ----------
    findings : iterable of Finding
    stacklevel : int
        How many calls up the user's own line is, this one included.
    told : iterable of Finding
        Those that were given before, when the design was first fitted.
    """
    before = {finding.message for finding in told}
    for finding in findings:
        if finding.level == "warning" and finding.message not in before:
            kind = _WARNINGS.get(finding.code, DesignWarning)
            warnings.warn(finding.message, kind, stacklevel=stacklevel)


def tell(findings: Iterable[Finding]) -> None:
    """Give the findings of level "warning" as warnings at the first line outside this package.

    Parameters
    ----------
    findings : iterable of Finding
    """
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    announce(findings, level + 1)
