"""`Fit` whose log-determinant is estimated → what is said about it, and a fit with more probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmmsparse.common.errors import Finding, OptionError
from lmmsparse.common.options import whole_number
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.solvers.krylov.solver import Krylov
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.precision import LARGEST_RATIO, LARGEST_SD, carried_on


def require_exact(fit: Fit, what: str, instead: str) -> None:
    """Refuse what needs more of the inverse of the system than there are estimates of."""
    if fit.estimated:
        raise OptionError(
            f"{what} exact linear algebra, and the model was fitted with solver=lmm.Krylov(). "
            f"{instead}, or fit with an exact solver such as lmm.Blocked()."
        )


def monte_carlo_findings(fit: Fit) -> list[Finding]:
    """That the criterion is estimated, and how well."""
    error = fit.monte_carlo
    if error is None:
        return []
    solver = fit.solver
    assert isinstance(solver, Krylov)
    text = (
        f"The core, which is left when the largest grouping factor is eliminated, has "
        f"{fit.products.core:,} random effects. With solver=lmm.Krylov() its log-determinant is "
        f"estimated, by {solver.probes} probes. Monte Carlo error: covariance parameters "
        f"± {error.ratio:.1g} standard errors at most, criterion ± {error.criterion:.1g} "
        "(m.monte_carlo)."
    )
    if error.is_small:
        return [Finding("monte-carlo", "info", text)]
    more = max(2 * solver.probes, 512)
    text += (
        f" That is more than {LARGEST_RATIO:g} standard errors or {LARGEST_SD:g} of the criterion: "
        f"m.more_probes({more}) makes it smaller."
    )
    return [Finding("monte-carlo", "warning", text)]


def decimals_known(fit: Fit, usual: int) -> int:
    """Decimals of the criterion that its Monte Carlo error leaves, at most the usual number."""
    error = fit.monte_carlo
    if error is None or not error.criterion > 0:
        return usual
    return int(np.clip(np.ceil(-np.log10(error.criterion)), 0, usual))


@one_thread
def more_probes(fit: Fit, n: Any) -> Fit:
    """The same fit with n probes in all.

    Parameters
    ----------
    n : int
        More than there were.
    """
    solver = fit.solver
    if not isinstance(solver, Krylov) or not fit.estimated:
        raise OptionError(
            "more_probes() makes the Monte Carlo error of a fit smaller, and this one has none: "
            "its linear algebra is exact. Nothing is left to do."
        )
    n = whole_number("n", n)
    if n <= solver.probes:
        raise OptionError(
            f"n={n} is the number of probes in all, and the fit has {solver.probes} already. Ask "
            f"for more, for example m.more_probes({4 * solver.probes})."
        )
    known = solver.near or tuple(float(v) for v in fit.theta)
    better = replace(solver, probes=n, near=known)
    problem, optimum = carried_on(fit.problem, better, fit.optimum, fit.optimizer)
    return Fit(problem, optimum, fit.optimizer)


def with_same_probes(fits: Sequence[Fit]) -> list[Fit]:
    """The fits, those with the same random effects with the same probes.

    Their Monte Carlo errors then cancel in differences of criteria.
    """
    out = list(fits)
    for i, fit in enumerate(fits):
        alike = [other for other in fits if _alike(fit, other)]
        if len({other.solver for other in alike}) < 2:
            continue
        best = max((other.solver for other in alike), key=_effort)
        if fit.solver != best:
            assert isinstance(best, Krylov)
            problem, optimum = carried_on(fit.problem, best, fit.optimum, fit.optimizer)
            out[i] = Fit(problem, optimum, fit.optimizer)
    return out


def _effort(solver: Any) -> tuple[int, int]:
    return solver.probes, solver.vectors


def _alike(a: Fit, b: Fit) -> bool:
    """Whether two fits have the same random effects, and estimate their log-determinants."""
    return (
        a.estimated
        and b.estimated
        and a.template.n_levels == b.template.n_levels
        and a.template.structures == b.template.structures
        and all(
            np.array_equal(x.codes, y.codes) and np.array_equal(x.columns, y.columns)
            for x, y in zip(a.design.blocks, b.design.blocks, strict=True)
        )
    )


def monte_carlo_note(fits: Sequence[Fit]) -> list[str]:
    """What a table of several criteria has to say."""
    errors = [fit.monte_carlo for fit in fits]
    known = [error.criterion for error in errors if error is not None]
    if not known:
        return []
    return [
        f"Criteria are estimated, with the same probes where the random effects are the same: "
        f"Monte Carlo sd at most {max(known):.1g} each."
    ]
