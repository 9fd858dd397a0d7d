"""Findings → Python warnings, at the user's own line."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from lmmsparse.common.errors import (
    ConvergenceWarning,
    DesignWarning,
    Finding,
    InterruptedWarning,
    SingularFitWarning,
)

_WARNINGS: dict[str, type[Warning]] = {
    "singular": SingularFitWarning,
    "not-converged": ConvergenceWarning,
    "link-limit": ConvergenceWarning,
    "better-optimum": ConvergenceWarning,
    "interrupted": InterruptedWarning,
}
_PACKAGE = str(Path(__file__).parents[1]) + os.sep
# What may stand between two functions of the package, or between it and the user.
_BETWEEN = ("functools", "contextlib", "joblib", "threadpoolctl", "sklearn", "marginaleffects")


def warn(message: str, kind: type[Warning]) -> None:
    """Give a warning at the line that called the package.

    That is the first frame outside, whatever decorators and modules of the package lie between.
    """
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, kind, stacklevel=depth)


def _is_ours(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__"))
    return frame.f_code.co_filename.startswith(_PACKAGE) or module.partition(".")[0] in _BETWEEN


def announce(findings: Iterable[Finding], told: Iterable[Finding] = ()) -> None:
    """Give the findings of level "warning" as warnings.

    Parameters
    ----------
    told : iterable of Finding
        Those that were given before, when the design was first fitted.
    """
    before = {finding.message for finding in told}
    for finding in findings:
        if finding.level == "warning" and finding.message not in before:
            warn(finding.message, _WARNINGS.get(finding.code, DesignWarning))
