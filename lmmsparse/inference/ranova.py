"""`Fit` → likelihood-ratio tests of its random effects, one reduction at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from lmmsparse._types import FloatArray
from lmmsparse.covariance import Diagonal, Unstructured
from lmmsparse.design import Design, RandomBlock
from lmmsparse.design.terms import INTERCEPT, FormulaTerm, formula_terms
from lmmsparse.distributions import chi2_tail
from lmmsparse.fit import Fit, fit_design
from lmmsparse.formula import parse_formula
from lmmsparse.held import Held
from lmmsparse.inference.boundary import MIXTURE, boundary
from lmmsparse.progress import bar
from lmmsparse.table import Table, blanks, counts, fixed, p_values

FORMATS = {
    "npar": counts,
    "logLik": fixed(2),
    "AIC": fixed(2),
    "LRT": blanks(fixed(4)),
    "Df": counts,
    "Pr(>Chisq)": p_values,
}


@dataclass(frozen=True, eq=False)
class Reduction:
    """A block, what becomes of it (None: nothing is left), and the term it loses, if only one."""

    label: str
    position: int
    block: RandomBlock | None
    term: str = ""


def ranova_table(fit: Fit, progress: bool | None = None) -> Table:
    """Reduce every random-effects term in turn and compare likelihoods.

    Parameters
    ----------
    fit : Fit
    progress : bool, optional
        A bar at once (True), never (False), or after two seconds if somebody watches.

    Returns
    -------
    Table
        First row ``<none>``; ``npar, logLik, AIC, LRT, Df, Pr(>Chisq)``; beside it
        ``Pr(>Chibarsq)``.

    Notes
    -----
    The criterion of the fit is kept: REML fits are compared by REML. The p-values of the table
    ignore that a variance cannot be negative and are too large; a note, and ``Pr(>Chibarsq)``, give
    those of the mixture of χ² distributions that allows for it (see `Boundary`), NaN where it is
    not known.
    """
    order = formula_order(fit.design)
    held = [i for i in order if not testable(fit, i)]
    reductions = [r for i in order if i not in held for r in reductions_of(fit.design, i)]
    smaller = []
    with bar("ranova", len(reductions), "refits", progress) as shown:
        for reduction in reductions:
            smaller.append(reduced_fit(fit, reduction))
            shown.update()
    results = [_criterion(fit, small) for small in smaller]
    criterion = np.array([fit.criterion, *(value for value, _ in results)])
    npar = np.array([fit.npar, *(n for _, n in results)], dtype=np.float64)
    df = npar[0] - npar
    LRT = np.maximum(0.0, criterion - criterion[0])
    p = np.where(df > 0, chi2_tail(LRT, np.maximum(df, 1.0)), np.nan)
    LRT[0] = df[0] = np.nan
    notes, mixture = [], [np.nan]
    for reduction, small, lrt in zip(reductions, smaller, LRT[1:], strict=True):
        null = boundary(fit, small)
        mixture.append(np.nan if null is None else null.p(float(lrt)))
        if null is not None:
            notes.append(f"{reduction.label}: {null.said(float(lrt))}")
    for i in held:
        notes.append(f"{fit.design.blocks[i].source}: not tested, as parameters of it are fixed.")
    return Table(
        {
            "npar": npar.tolist(),
            "logLik": (-0.5 * criterion).tolist(),
            "AIC": (criterion + 2.0 * npar).tolist(),
            "LRT": LRT.tolist(),
            "Df": df.tolist(),
            "Pr(>Chisq)": p.tolist(),
        },
        ["<none>", *(reduction.label for reduction in reductions)],
        title=f"Likelihood-ratio tests of random effects ({'REML' if fit.reml else 'ML'})",
        notes=notes,
        formats=FORMATS,
        beside={MIXTURE: mixture},
    )


def testable(fit: Fit, position: int) -> bool:
    """Whether a term can be reduced: none of its parameters is held by the user."""
    return bool(fit.template.free[fit.template.slices[position]].all())


def formula_order(design: Design) -> list[int]:
    """Positions of the blocks in the order of the formula's terms."""
    if not design.formula:
        return list(range(len(design.blocks)))
    levels = {block.group: block.n_levels for block in design.blocks}
    written = [levels[term.group] for term in parse_formula(design.formula).random]
    order = sorted(range(len(written)), key=lambda i: -written[i])
    return sorted(range(len(order)), key=lambda j: order[j])


def reductions_of(design: Design, position: int) -> list[Reduction]:
    """Every smaller version of one block."""
    block = design.blocks[position]
    terms, text = _terms(design, position)
    tag = "" if block.split else block.source.partition("(")[0].strip()
    source = f"{tag}({text} | {block.group})"
    droppable = [
        term
        for term in terms
        if term.label != INTERCEPT and not any(term.is_marginal_to(other) for other in terms)
    ]
    if not isinstance(block.structure, Unstructured | Diagonal) or not droppable:
        return [Reduction(source, position, None)]
    out = []
    for term in droppable:
        smaller = _without(design, block, terms, term)
        out.append(Reduction(f"{term.label} in {source}", position, smaller, term.label))
    return out


def _terms(design: Design, position: int) -> tuple[tuple[FormulaTerm, ...], str]:
    """Terms of a block and its left side, an intercept beside others left out."""
    block = design.blocks[position]
    if design.recipe is not None:
        matrices, part = design.recipe.matrices, f"random{position}"
        text = matrices.parts[part].removeprefix("1 + ")
        if block.source.startswith("(") and not block.split:
            written = " ".join(block.source[1:].split("|")[0].split())
            text = re.sub(r"\s*\+\s*", " + ", written)
        return formula_terms(matrices, part), text
    terms = []
    for j, name in enumerate(block.names):
        label = INTERCEPT if np.ptp(block.columns[:, j]) == 0 else name
        terms.append(FormulaTerm(label, frozenset(), frozenset({name}), frozenset({name}), (j,)))
    constant = any(term.label == INTERCEPT for term in terms)
    names = [term.label for term in terms if term.label != INTERCEPT]
    return tuple(terms), " + ".join(names if constant else ["0", *names]) or "1"


def _without(
    design: Design, block: RandomBlock, terms: tuple[FormulaTerm, ...], term: FormulaTerm
) -> RandomBlock | None:
    """The block without a term; what a factor without intercept leaves is the intercept."""
    keep = [j for j in range(block.k) if j not in term.columns]
    columns = block.columns[:, keep]
    names = tuple(block.names[j] for j in keep)
    others = [other for other in terms if other is not term]
    beside = any(
        other is not block and other.group == block.group and "Intercept" in other.names
        for other in design.blocks
    )
    apart = isinstance(block.structure, Diagonal)  # a common effect would correlate the levels
    if not beside and not apart and (not keep or any(other.factors for other in others)):
        one = np.ones((len(columns), 1))
        if _spans(block.columns, one) and not _spans(columns, one):
            columns, names = np.column_stack([one, columns]), ("Intercept", *names)
    if not names:
        return None
    structure = block.structure
    smaller = (
        replace(structure, k=len(names))
        if isinstance(structure, Diagonal) and len(names) > 1
        else Unstructured(len(names))
    )
    return replace(block, columns=np.asfortranarray(columns), names=names, structure=smaller)


def _spans(columns: FloatArray, target: FloatArray) -> bool:
    if columns.shape[1] == 0:
        return False
    solution = np.linalg.lstsq(columns, target, rcond=None)[0]
    return bool(np.abs(columns @ solution - target).max() < 1e-8)


def reduced_fit(fit: Fit, reduction: Reduction) -> Fit | Design:
    """The smaller model; its design where no random effect is left."""
    blocks = list(fit.design.blocks)
    if reduction.block is None:
        del blocks[reduction.position]
    else:
        blocks[reduction.position] = reduction.block
    design = replace(fit.design, blocks=tuple(blocks), recipe=None)
    if not blocks:
        return design
    return fit_design(
        design,
        reml=fit.reml,
        optimizer=fit.optimizer,
        solver=fit.solver,
        fixed=still_fixed(fit, reduction),
    )


def still_fixed(fit: Fit, reduction: Reduction) -> Held:
    """What is held, at its places in the θ of the smaller model; nothing of the block is."""
    end = fit.template.slices[reduction.position].stop
    before = fit.template.slices[reduction.position].start
    own = 0 if reduction.block is None else reduction.block.structure.n_par
    moved = [(i if i < before else i - end + before + own, value) for i, value in fit.held.theta]
    return Held(tuple(moved), fit.held.sigma)


def _criterion(fit: Fit, small: Fit | Design) -> tuple[float, int]:
    """Criterion and number of parameters."""
    if isinstance(small, Fit):
        return small.criterion, small.npar
    sigma = fit.held.sigma
    return least_squares_criterion(small, fit.reml, sigma), small.p + (sigma is None)


def least_squares_criterion(design: Design, reml: bool, sigma: float | None = None) -> float:
    """Deviance or REML criterion of the model without random effects.

    Parameters
    ----------
    design : Design
    reml : bool
    sigma : float, optional
        The residual standard deviation, if it is known.
    """
    weights = design.weights_or_one
    root = np.sqrt(weights)
    y = root * (design.y - design.offset_or_zero)
    Q, R = np.linalg.qr(root[:, None] * design.X)
    squares = float(np.sum((y - Q @ (Q.T @ y)) ** 2))
    df = design.n - design.p if reml else design.n
    sigma2 = squares / df if sigma is None else sigma**2
    value = df * np.log(2.0 * np.pi * sigma2) + squares / sigma2 - float(np.sum(np.log(weights)))
    if reml:
        value += 2.0 * float(np.sum(np.log(np.abs(np.diag(R)))))
    return float(value)
