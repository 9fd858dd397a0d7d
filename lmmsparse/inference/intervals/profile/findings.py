"""What a profile has met on its way → findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lmmsparse.common.errors import Finding
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.settle import Settled, better_optimum, findings_about
from lmmsparse.inference.intervals.profile.curve import Curve


def interrupted(done: list[str], wanted: Sequence[str]) -> Finding:
    """Say which parameters were followed before Ctrl-C."""
    return Finding(
        "interrupted",
        "warning",
        f"The profile was interrupted after {len(done)} of {len(wanted)} parameters. The result "
        f"holds {', '.join(done)}. Profile the others with which=.",
    )


def about_fit(fit: Fit, settled: Settled, former: float) -> tuple[Finding, ...]:
    """What is to be said of the optimum that the curves start from."""
    if np.isfinite(former):
        found = findings_about([("the fit", replace(settled, again=False))])
        return (better_optimum("the fit", former, settled.fit), *found)
    if fit.reml:
        return findings_about([("the refit by maximum likelihood", settled)])
    return findings_about([], [("the fit", fit, settled)])


def about_curves(curves: Mapping[str, Curve]) -> tuple[Finding, ...]:
    """Where the search with a parameter held did not reach its optimum."""
    off = {
        name: [point.value for point in curve.points if not point.converged]
        for name, curve in curves.items()
    }
    where = [
        f"{name} at {len(values)} of {len(curves[name].points)} values between {min(values):.4g} "
        f"and {max(values):.4g}"
        for name, values in off.items()
        if values
    ]
    if not where:
        return ()
    return (
        Finding(
            "not-converged",
            "warning",
            "With the parameter held, the search did not reach the lowest deviance for "
            f"{'; '.join(where)}. The curve is too high there, and intervals that end there are "
            "too short. Simplify the random effects, or use method='boot'.",
        ),
    )
