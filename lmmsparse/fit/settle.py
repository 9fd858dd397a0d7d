"""A model that was fitted for a test or a table → the same at its optimum, or said not to be there.

Nobody looks at the verdict on a refit. So every refit passes through `settle`: where it has not
reached its optimum, or is seen to end too high, it is searched again, and what remains is reported
by `findings_about`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import Finding, NumericalError
from lmmsparse.common.threads import one_thread
from lmmsparse.design import RandomBlock
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.search import other_searches
from lmmsparse.fit.verdict import Convergence, judge
from lmmsparse.optimize import Optimizer, TrustRegion

OWN = "the fit (<none>)"  # in tables of deletions

_LOWER = 1e-6
_ROUNDING = 1e-12
_ROUNDS = 3
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Settled:
    """A fit that was looked at, and searched again if need be.

    Attributes
    ----------
    again : bool
        Whether it is another optimum than that of the first search.
    """

    fit: Fit
    verdict: Convergence
    again: bool = False

    @property
    def exact(self) -> bool:
        """Whether the model fits the response exactly, so that its criterion means nothing."""
        return any(finding.code == "exact-fit" for finding in self.verdict.findings)

    @property
    def trouble(self) -> str:
        """Why the criterion is not that of the optimum; empty if it is."""
        if self.exact:
            return "the response is fitted exactly, and the criterion has no minimum"
        if not self.verdict.converged:
            decrease = self.verdict.expected_decrease
            return f"its criterion can be expected to fall by another {decrease:.2g}"
        return ""


@one_thread
def settle(fit: Fit, starts: Sequence[FloatArray] = (), warm: bool = False) -> Settled:
    """The fit itself if it is at its optimum, otherwise the best that other searches find.

    Parameters
    ----------
    starts : sequence of (n_theta,) arrays
        θ of models that contain this one or are contained in it. The search is made from there too:
        what it has found from its own start values can be a local minimum.
    warm : bool
        Whether the fit was started from θ of another one, so that its own start values have not
        been tried. They are where the fit is singular, which a local minimum often is.
    """
    best = also_from(Settled(fit, judge(fit)), starts)
    if _done(best, starts):
        others: list[FloatArray | None] = [off_zero(fit.objective, theta) for theta in starts]
        if warm and best.verdict.singular:
            others.append(None)
        for start in () if best.exact else others:
            best = _better(best, start, TrustRegion())
        return best
    best = _better(best, None, TrustRegion())
    for optimizer in other_searches(fit.template.n_theta):
        if _done(best, starts):
            break
        best = _better(best, best.fit.theta, optimizer)
    return best


@one_thread
def also_from(found: Settled, starts: Sequence[FloatArray]) -> Settled:
    """The same, searched again from those θ at which the criterion is lower.

    Parameters
    ----------
    found : Settled
        If it is not at an optimum, the search is tried again from all θ.
    starts : sequence of (n_theta,) arrays
        In which what is held has its value.
    """
    if _done(found, starts):
        return found
    best, lower = found, _lower(found.fit, starts)
    moved = [off_zero(found.fit.objective, theta) for theta in (*lower, *starts)]
    for start in (*moved, *lower):
        best = _better(best, start, TrustRegion())
        if _done(best, starts):
            break
    return best


def _done(found: Settled, known: Sequence[FloatArray]) -> bool:
    return found.exact or (found.verdict.converged and not _lower(found.fit, known))


def _better(before: Settled, start: FloatArray | None, optimizer: Optimizer) -> Settled:
    """What a search from `start` finds, if that is lower or an optimum of the same height."""
    try:
        found = _searched(before.fit, start, optimizer)
        verdict = judge(found)
    except (NumericalError, np.linalg.LinAlgError):
        return before
    gain, margin = before.fit.criterion - found.criterion, _margin(before.fit)
    arrived = verdict.converged and not before.verdict.converged
    if gain > margin or (arrived and gain >= -margin):
        return Settled(found, verdict, again=True)
    return before


def nested(
    whole: Settled, parts: Sequence[Settled], least: Sequence[FloatArray] = ()
) -> tuple[Settled, list[Settled]]:
    """A model and others nested in it, the large one nowhere above what the smaller ones allow.

    Parameters
    ----------
    parts : sequence of Settled
        Settled with θ of the large model as a start.
    least : sequence of (n_theta,) arrays
        θ of the large model that stand for smaller models without a fit.
    """
    parts = list(parts)
    for _ in range(_ROUNDS):
        found = also_from(whole, [*(carried(part.fit, whole.fit) for part in parts), *least])
        if found is whole:
            break
        whole = found
        parts = [also_from(part, [carried(whole.fit, part.fit)]) for part in parts]
    return whole, parts


def carried(source: Fit, target: Fit) -> FloatArray:
    """θ of one model for another: the covariance of the effects they share, zero for the others.

    Parameters
    ----------
    source, target : Fit
        Effects are matched by their names and those of their groups.
    """
    blocks, template = source.design.blocks, target.template
    factors = source.template.factors(source.theta)
    theta, taken = np.zeros(template.n_theta), set[tuple[str, str]]()
    for block, part in zip(target.design.blocks, template.slices, strict=True):
        same = [t for t, other in enumerate(blocks) if _same(block, other)]
        if same and (block.group, block.names[0]) not in taken:
            theta[part] = source.theta[source.template.slices[same[0]]]
        else:
            rows = [
                (other.names, T)
                for other, T in zip(blocks, factors, strict=True)
                if other.group == block.group
            ]
            theta[part] = _parameters(block, rows, taken)
        taken |= {(block.group, name) for name in block.names}
    theta = np.clip(theta, template.lower, template.upper)
    return template.with_held(theta)


def _same(block: RandomBlock, other: RandomBlock) -> bool:
    return (
        other.group == block.group
        and other.names == block.names
        and other.structure == block.structure
    )


def _parameters(
    block: RandomBlock,
    rows: Sequence[tuple[tuple[str, ...], FloatArray]],
    taken: set[tuple[str, str]],
) -> FloatArray:
    """The parameters of a block from the rows of other blocks' factors."""
    R = np.zeros((block.k, sum(len(names) for names, _ in rows)))
    at = 0
    for names, T in rows:
        for i, name in enumerate(block.names):
            if name in names and (block.group, name) not in taken:
                R[i, at : at + len(names)] = T[names.index(name)]
        at += len(names)
    structure = block.structure
    if structure.closed:
        padded = np.zeros((max(R.shape[1], block.k), block.k))
        padded[: R.shape[1]] = R.T
        triangle = np.asarray(np.linalg.qr(padded, mode="r"))
        L = triangle.T * np.where(np.diag(triangle) < 0, -1.0, 1.0)
        return np.concatenate([L[c:, c] for c in range(block.k)])
    sizes = np.linalg.norm(R, axis=1)
    out = structure.start()
    deviations = [i for i, (row, column) in enumerate(structure.entries) if row == column]
    common = len(deviations) < block.k
    out[deviations] = np.sqrt(np.mean(sizes**2)) if common else sizes
    return np.asarray(out)


def off_zero(objective: ProfiledDeviance, theta: FloatArray) -> FloatArray:
    """θ moved off zero, so that effects without variance are no trap for a search.

    Parameters
    ----------
    theta : (n_theta,) array
    """
    scaled, template = StandardizedObjective(objective), objective.template
    x = scaled.to_internal(theta)
    largest = float(np.abs(x).max(initial=0.0))
    free = template.free & (template.start > 0) & np.isinf(template.upper)
    x[free & (x <= 1e-2 * largest)] = 0.1 * max(largest, 1.0)
    return scaled.to_theta(x)


def findings_about(
    refits: Sequence[tuple[str, Settled]], own: Sequence[tuple[str, Fit, Settled]] = ()
) -> tuple[Finding, ...]:
    """What is to be said about refits.

    Parameters
    ----------
    refits : sequence of (str, Settled)
        With the names of their rows.
    own : sequence of (str, Fit, Settled)
        The user's models, which were not fitted for the table: name, as given and as used.
    """
    out = [
        better_optimum(name, given.criterion, used.fit) for name, given, used in own if used.again
    ]
    again = dict.fromkeys(name for name, each in refits if each.again and not each.trouble)
    if again:
        text = f"Searched more than once until the optimum was reached: {_some(list(again))}."
        out.append(Finding("searched-again", "info", text))
    everything = [*((name, used) for name, _, used in own), *refits]
    off = {name: each.trouble for name, each in everything if each.trouble}
    if off:
        out.append(
            Finding(
                "not-converged",
                "warning",
                "Not at the optimum, whatever search was tried: "
                + _some([f"{name} ({why})" for name, why in off.items()])
                + ". What is computed from these fits may be off. Fit them by themselves, or "
                "simplify their random effects.",
            )
        )
    return tuple(out)


def _some(texts: list[str]) -> str:
    """A list that stays readable."""
    more = len(texts) - _SHOWN
    return "; ".join(texts[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def about_given(fit: Fit) -> tuple[Finding, ...]:
    """Say that a fit whose estimates others are compared with is not at its optimum.

    Parameters
    ----------
    fit : Fit
        The user's own, which is used as it is.
    """
    trouble = Settled(fit, judge(fit)).trouble
    if not trouble:
        return ()
    text = (
        f"The fit itself is not at its optimum: {trouble}. Everything here is about it or compared "
        "with it. Fit the model again, for example from start=m.theta."
    )
    return (Finding("not-converged", "warning", text),)


def better_optimum(name: str, former: float, used: Fit) -> Finding:
    """Say that a model has a lower criterion than the one that was found for it.

    Parameters
    ----------
    former : float
        The criterion that was found first.
    """
    criterion = "REML criterion" if used.reml else "deviance"
    theta = ", ".join(f"{value:.4g}" for value in used.theta)
    return Finding(
        "better-optimum",
        "warning",
        f"A lower {criterion} ({used.criterion:.6f}) was found than that of {name} "
        f"({former:.6f}), which is no optimum or a local one. Everything here is about the better "
        f"one. Fit again with start=[{theta}].",
    )


def _margin(fit: Fit) -> float:
    """Differences of the criterion that mean nothing."""
    left = 0.0 if fit.monte_carlo is None else fit.monte_carlo.criterion
    return max(_LOWER, _ROUNDING * abs(fit.criterion), left)


def _lower(fit: Fit, thetas: Sequence[FloatArray]) -> list[FloatArray]:
    """Those θ at which the criterion is lower than at the fit's."""
    bound = fit.criterion - _margin(fit)
    return [theta for theta in thetas if _value(fit, theta) < bound]


def _value(fit: Fit, theta: FloatArray) -> float:
    try:
        return fit.objective(theta)
    except (NumericalError, np.linalg.LinAlgError):
        return np.inf


def _searched(fit: Fit, start: FloatArray | None, optimizer: Optimizer) -> Fit:
    """The fit by another search, with all evaluations counted."""
    found = fit.problem.search(start, optimizer)
    optimum = replace(
        found,
        evaluations=fit.optimum.evaluations + found.evaluations,
        trace=np.concatenate([fit.optimum.trace, found.trace]),
    )
    return replace(fit, optimum=optimum)
