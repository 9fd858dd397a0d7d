"""`Fit` → which directions of its random effects do not vary, and the simpler model it equals."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import Finding
from lmmsparse.common.words import listed
from lmmsparse.design import Design
from lmmsparse.design.terms import INTERCEPT, formula_terms
from lmmsparse.fit.advice import effects_text, formula_with, term_text, written
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.identification import generic_theta

_NOTHING = 2e-3


def null_directions(fit: Fit, tol: float = 1e-4) -> list[FloatArray]:
    """Per term, weights of its effects for which the weighted sum is zero in every level.

    Parameters
    ----------
    tol : float
        Standard deviation of a contribution to the response, divided by σ, below which it is zero.

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
        if s[-1] >= tol:
            out.append(np.zeros((0, len(s))))
            continue
        null = U[:, s < tol].T
        null = null if len(null) > unavoidable else null[:0]
        rows = _echelon(null) * size
        largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
        out.append(np.asarray(rows / np.where(largest > 0, largest, 1.0)))
    return out


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
    tol : float
        A standard deviation (of a term's contribution to the response, in units of σ) below this
        counts as zero.
    """
    return any(len(null) for null in null_directions(fit, tol))


def singular_finding(fit: Fit, open_terms: Collection[int] = ()) -> Finding:
    """Say what does not vary, which model to try next, and which the fit equals.

    Parameters
    ----------
    open_terms : collection of int
        Positions of terms of which something is not determined: what they show is a choice.
    """
    design, nulls = fit.design, null_directions(fit)
    singular = [t for t, null in enumerate(nulls) if len(null) and t not in open_terms]
    if not singular:
        return Finding(
            "singular",
            "info",
            "The covariance that is shown is singular. It is one of many that fit equally well, "
            "and others of these may not be.",
        )
    parts = [_said(design, t, nulls[t]) for t in singular]
    equal = [_equal(design, t, nulls[t]) for t in singular]
    text = f"The fit is singular: {'; '.join(parts)}."
    written_out = any(way is None or "I(" in way for way in equal)
    if written_out:
        smaller = {t: _next(fit, t, nulls[t]) for t in singular}
        formula = None if None in smaller.values() else _whole(design, smaller)
        text += f" Next to try: {formula}." if formula else ""
    text += (
        " The data support fewer random effects than the model has. The optimum is a valid one; "
        "tests of the affected terms are conservative."
    )
    if all(way is not None for way in equal):
        formula = _whole(design, dict(zip(singular, equal, strict=True)))
        said = " and ".join(_in_place(design, t, w) for t, w in zip(singular, equal, strict=True))
        text += f" It equals the model {said}{f': {formula}' if formula else ''}."
    if written_out and any(len(nulls[t]) > 1 and design.blocks[t].k > 2 for t in singular):
        text += " m.rank_pca() has the directions."
    return Finding("singular", "warning", text)


def ranks(fit: Fit) -> str:
    """In how many dimensions the random effects of singular terms vary, in a few words."""
    parts = []
    for t, (block, null) in enumerate(zip(fit.design.blocks, null_directions(fit), strict=True)):
        if len(null) and block.k == 1:
            parts.append(f"{written(fit.design, t)} has no variance")
        elif len(null):
            left = block.k - len(null)
            parts.append(f"{written(fit.design, t)} varies in {left} of {block.k} dimensions")
    return "; ".join(parts)


def _whole(design: Design, ways: Mapping[int, str | None]) -> str | None:
    return formula_with(design, {t: way or "" for t, way in ways.items()})


def _said(design: Design, t: int, null: FloatArray) -> str:
    """What does not vary in a term."""
    block, source = design.blocks[t], written(design, t)
    names = block.names
    if len(null) == block.k:
        verb = "variance of" if block.k == 1 else "variances of"
        are = "is" if block.k == 1 else "are"
        return f"the estimated {verb} {listed(names)} in {source} {are} zero"
    pure = (null != 0).sum(axis=1) == 1
    zero = [names[int(np.argmax(row != 0))] for row in null[pure]]
    if not pure.all():
        left = block.k - len(null)
        text = f"in {source} the random effects vary in {left} of {block.k} dimensions"
        if block.k == 2 and block.structure.correlated:
            text += f", a correlation of {'−1' if null[0].prod() > 0 else '+1'}"
        return text
    many = len(zero) > 1
    return f"in {source} the variance{'s' * many} of {listed(zero)} {'are' if many else 'is'} zero"


def _equal(design: Design, t: int, null: FloatArray) -> str | None:
    """A term that makes the same fit, empty if none is needed; None if none can be written."""
    block = design.blocks[t]
    if len(null) == block.k:
        return ""
    if not block.structure.linear:
        return None
    pure = (null != 0).sum(axis=1) == 1
    if pure.all():
        zero = {int(np.argmax(row != 0)) for row in null}
        effects = effects_text(design, t, [j for j in range(block.k) if j not in zero])
        return None if effects is None else term_text(design, t, effects)
    if block.k > 2 or not all(map(_plain, block.names)):
        return None
    weights = sla.null_space(null)[:, 0]
    weights = weights / weights[int(np.argmax(np.abs(weights) > _NOTHING * np.abs(weights).max()))]
    column = _sum(weights, ["1" if n == "Intercept" else n for n in block.names])
    return term_text(design, t, f"0 + I({column})")


def _in_place(design: Design, t: int, way: str | None) -> str:
    if way:
        return f"with {way} in place of {written(design, t)}"
    return f"without {listed(design.blocks[t].names)} in {written(design, t)}"


def _next(fit: Fit, t: int, null: FloatArray) -> str | None:
    """A smaller term, without the effects of highest order that vary least."""
    design = fit.design
    equal = _equal(design, t, null)
    if equal is not None and "I(" not in equal:
        return equal
    block = design.blocks[t]
    covariance = fit.template.factors(fit.theta)[t]
    share = design.squares(t) * np.sum(covariance**2, axis=1)
    ways = []
    for columns in _droppable(design, t):
        keep = [j for j in range(block.k) if j not in columns]
        effects = effects_text(design, t, keep) if keep else None
        if effects is not None:
            ways.append((float(share[columns].sum()), effects))
    if ways:
        return term_text(design, t, min(ways)[1])
    whole = effects_text(design, t, range(block.k))
    if whole is None or not block.structure.closed:
        return None
    return f"diag{term_text(design, t, whole)}"  # no correlation


def _droppable(design: Design, t: int) -> list[list[int]]:
    """Columns of the parts of a term that no other part builds on."""
    block = design.blocks[t]
    if design.recipe is None:
        return [[j] for j in range(block.k) if block.names[j] != "Intercept"]
    terms = formula_terms(design.recipe.matrices, f"random{t}")
    return [
        list(term.columns)
        for term in terms
        if term.label != INTERCEPT and not any(term.is_marginal_to(other) for other in terms)
    ]


def _plain(name: str) -> bool:
    """Whether the name of an effect can be written in a formula as it is."""
    return name.isidentifier()


def _sum(weights: FloatArray, names: list[str]) -> str:
    """Weights and names as a sum for a formula."""
    text = ""
    for value, name in zip(weights, names, strict=True):
        if abs(value) < 1e-12:
            continue
        size = f"{abs(value):.6g}"
        piece = size if name == "1" else name if size == "1" else f"{size}*{name}"
        sign = "-" if value < 0 else "+"
        text += f" {sign} {piece}" if text else (f"-{piece}" if value < 0 else piece)
    return text


def relative_contributions(
    fit: Fit, theta: FloatArray, tol: float
) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Per term, the standard deviations of independent contributions to the response, divided by σ.

    Each term's columns are put on one scale (root mean square one), so that units do not matter.
    A correlation that is a parameter counts as being at its bound if it is within `tol` of it.
    Returns (k,) singular values, largest first, the (k, k) left vectors, and the (k,) scales.
    """
    out = []
    for t, (block, part) in enumerate(zip(fit.design.blocks, fit.template.slices, strict=True)):
        par = theta[part]
        if fit.template.has_limits:
            low, high = block.structure.lower(), block.structure.upper()
            limited = np.isfinite(high)
            par = np.where(limited & (par > high - tol), high, par)
            par = np.where(limited & (par < low + tol), low, par)
        T = block.structure.factor(par)
        size = np.sqrt(fit.design.squares(t, weighted=True))
        if block.k == 1:
            out.append((size * np.abs(T[0]), np.ones((1, 1)), size))
            continue
        U, s, _ = np.linalg.svd(size[:, None] * T)
        out.append((s, U, size))
    return out
