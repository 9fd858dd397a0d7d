"""Findings → Python warnings, at the user's own line."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from lmmsparse.errors import ConvergenceWarning, DesignWarning, Finding, SingularFitWarning

_WARNINGS: dict[str, type[Warning]] = {
    "singular": SingularFitWarning,
    "not-converged": ConvergenceWarning,
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
