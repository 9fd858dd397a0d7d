"""`Fit` → which directions of its random effects do not vary, and the simpler model it equals."""

from __future__ import annotations

import numpy as np
import scipy.linalg as sla

from lmmsparse._types import FloatArray
from lmmsparse.covariance import Diagonal, LambdaTemplate, Unstructured
from lmmsparse.design import RandomBlock, listed
from lmmsparse.errors import Finding
from lmmsparse.fit import Fit
from lmmsparse.varcorr import relative_contributions

_NOTHING = 2e-3


def null_directions(fit: Fit, tol: float = 1e-4) -> list[FloatArray]:
    """Per term, weights of its effects for which the weighted sum is zero in every level.

    Parameters
    ----------
    fit : Fit
    tol : float
        Standard deviation of a contribution to the response, over σ, below which it counts as zero.

    Returns
    -------
    list of (m, k) arrays
        Independent rows, simplest first, in the units of the effects; m is zero for a covariance
        of full rank.
    """
    found = relative_contributions(fit, fit.theta, tol)
    anywhere = [0] * len(found)
    if not fit.template.free.all():
        # What the user's own values leave without variance, whatever the others are, is no finding.
        generic = relative_contributions(fit, generic_theta(fit.template), tol)
        anywhere = [int(np.sum(s < tol)) for s, _, _ in generic]
    out = []
    for (s, U, size), unavoidable in zip(found, anywhere, strict=True):
        null = U[:, s < tol].T
        null = null if len(null) > unavoidable else null[:0]
        rows = _echelon(null) * size
        largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
        out.append(np.asarray(rows / np.where(largest > 0, largest, 1.0)))
    return out


def generic_theta(template: LambdaTemplate) -> FloatArray:
    """Some θ with all variances that what is held allows, (n_theta,)."""
    rest = np.random.default_rng(7).uniform(0.2, 0.8, template.n_theta)
    return template.with_held(rest)


def _echelon(rows: FloatArray) -> FloatArray:
    """Combinations of the rows with as many zeros as elimination with pivoting gives, (m, k)."""
    out = rows.copy()
    for i in range(len(out)):
        free = out[i:]
        r, c = np.unravel_index(int(np.argmax(np.abs(free))), free.shape)
        out[np.array([i, i + int(r)])] = out[np.array([i + int(r), i])]
        out[i] /= out[i, c]
        for other in range(len(out)):
            if other != i:
                out[other] -= out[other, c] * out[i]
    out[np.abs(out) < _NOTHING] = 0.0
    order = np.argsort([(row != 0).sum() for row in out], kind="stable")
    return out[order]


def is_singular(fit: Fit, tol: float = 1e-4) -> bool:
    """Whether any term's covariance is singular, whatever the units of its predictors.

    Parameters
    ----------
    fit : Fit
    tol : float
        A standard deviation (of a term's contribution to the response, in units of σ) below this
        counts as zero.
    """
    return any(len(null) for null in null_directions(fit, tol))


def singular_finding(fit: Fit) -> Finding:
    """Say what does not vary, and which model the fit equals."""
    parts, simpler = [], []
    for block, null in zip(fit.design.blocks, null_directions(fit), strict=True):
        if len(null):
            what, model = _said(block, null)
            parts.append(what)
            simpler.append(model)
    return Finding(
        "singular",
        "warning",
        f"The fit is singular: {'; '.join(parts)}. The data support fewer random effects than the "
        "model has. The optimum is a valid one; tests of the affected terms are conservative. It "
        f"equals the model {' and '.join(simpler)}.",
    )


def _said(block: RandomBlock, null: FloatArray) -> tuple[str, str]:
    """What does not vary in a term, and what could be written in its place."""
    names, source = block.names, block.source
    if len(null) == block.k:
        verb = "variance of" if block.k == 1 else "variances of"
        are = "is" if block.k == 1 else "are"
        what = f"the estimated {verb} {listed(names)} in {source} {are} zero"
        return what, f"without {listed(names)} in {source}"
    pure = (null != 0).sum(axis=1) == 1
    zero = [names[int(np.argmax(row != 0))] for row in null[pure]]
    combined = [_sum(row, names) for row in null[~pure]]
    pieces = []
    if zero:
        many = len(zero) > 1
        pieces.append(f"the variance{'s' * many} of {listed(zero)} {'are' if many else 'is'} zero")
    if combined:
        pieces.append(
            f"{listed(combined, 3)} {'are' if len(combined) > 1 else 'is'} zero in every "
            f"level of {block.group}"
        )
    if block.k == 2 and combined and block.structure.correlated:
        sign = "−1" if null[0].prod() > 0 else "+1"
        pieces.append(f"a correlation of {sign}")
    return f"in {source} {', '.join(pieces)}", _in_place(block, null, zero, bool(combined))


def _in_place(block: RandomBlock, null: FloatArray, zero: list[str], combined: bool) -> str:
    linear = isinstance(block.structure, Unstructured | Diagonal)
    if not linear:
        return f"with {block.k - len(null)} instead of {block.k} effects in {block.source}"
    if not combined:
        rest = [name for name in block.names if name not in zero]
        if all(map(_plain, rest)):
            return f"with {_term(rest, block)} in place of {block.source}"
        return f"without {listed(zero)} in {block.source}"
    if len(null) == block.k - 1 and all(map(_plain, block.names)):
        weights = sla.null_space(null)[:, 0]
        weights = (
            weights / weights[int(np.argmax(np.abs(weights) > _NOTHING * np.abs(weights).max()))]
        )
        column = _sum(weights, ["1" if n == "Intercept" else n for n in block.names], "*")
        return f"with (0 + I({column}) | {block.group}) in place of {block.source}"
    return f"with {block.k - len(null)} instead of {block.k} effects in {block.source}"


def _plain(name: str) -> bool:
    """Whether the name of an effect can be written in a formula as it is."""
    return name.isidentifier()


def _term(names: list[str], block: RandomBlock) -> str:
    tag = "diag" if isinstance(block.structure, Diagonal) and len(names) > 1 else ""
    rest = [name for name in names if name != "Intercept"]
    text = " + ".join(rest if len(rest) < len(names) and rest else ["0", *rest] if rest else ["1"])
    return f"{tag}({text} | {block.group})"


def _sum(weights: FloatArray, names: list[str] | tuple[str, ...], times: str = " ") -> str:
    """Weights and names as a sum, the largest weight first where the order is free."""
    order = range(len(names)) if times == "*" else np.argsort(-np.abs(weights), kind="stable")
    minus = "-" if times == "*" else "−"
    digits = 6 if times == "*" else 3
    text = ""
    first = next(j for j in order if weights[j] != 0)
    for j in order:
        value = weights[j] / (1.0 if times == "*" else weights[first])
        if abs(value) < 1e-12:
            continue
        size = f"{abs(value):.{digits}g}"
        named = names[j] if size == "1" else f"{size}{times}{names[j]}"
        piece = size if names[j] == "1" else named
        sign = minus if value < 0 else "+"
        text += f" {sign} {piece}" if text else (f"{minus}{piece}" if value < 0 else piece)
    return text
