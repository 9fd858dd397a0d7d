"""Design and what to leave out → the design of the smaller formula, as if it had been written so.

The data are not at hand: columns of the smaller model are combinations of those of the larger, and
we find which by evaluating both formulas on synthetic rows that meet every level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.design import Design, MatrixRecipe, RandomBlock
from lmmsparse.design.expressions import columns_of
from lmmsparse.design.rank import column_relations, combination, independent_columns, spans
from lmmsparse.design.terms import (
    INTERCEPT,
    FormulaTerm,
    fixed_terms,
    formula_terms,
    part_text,
    typical_rows,
)
from lmmsparse.design.without_rows import with_block, with_fixed
from lmmsparse.engine.covariance.structures import CovarianceStructure, resized
from lmmsparse.formula.formula import parse_formula
from lmmsparse.formula.terms import left_of_bar

_WHOLE = 1e-9


def leaving_out(design: Design, i: int) -> Design:
    """The design without a term of its fixed effects, and mostly without a formula.

    To know the formula takes longer than many a fit. It is needed where there is no intercept:
    another factor then gets all its levels.
    """
    if design.sample is not None:
        return with_fixed(design, leaving_out(design.sample, i))
    terms, recipe = fixed_terms(design)[0], design.recipe
    intercept = any(term.label == INTERCEPT for term in terms)
    if recipe is not None and terms[i].factors and not intercept:
        return without_fixed(design, i)
    X, names = design.X, list(design.x_names)
    if recipe is not None and recipe.relations is not None:
        # Columns that were dropped because they depend on the term come back.
        X = np.empty((design.n, len(recipe.kept)))
        X[:, recipe.kept], X[:, ~recipe.kept] = design.X, design.X @ recipe.relations
        names = [str(name) for name in recipe.matrices.specification("fixed").column_names]
    keep = np.setdiff1d(np.arange(X.shape[1]), terms[i].columns)
    X, names = X[:, keep], [names[j] for j in keep]
    stays = np.flatnonzero(independent_columns(X, names))
    return replace(
        design,
        fixed=np.asfortranarray(X[:, stays]),
        x_names=tuple(names[j] for j in stays),
        dropped=(),
        formula="",
        recipe=None,
    )


def without_fixed(design: Design, i: int) -> Design:
    """The design without a term of its fixed effects, with its formula."""
    if design.sample is not None:
        return with_fixed(design, without_fixed(design.sample, i))
    terms, recipe = fixed_terms(design)[0], design.recipe
    if recipe is None:
        return leaving_out(design, i)
    text = part_text(recipe.matrices, "fixed", [j for j in range(len(terms)) if j != i])
    matrices = _with_part(recipe.matrices, "fixed", text)
    M = _combination(recipe.matrices, matrices, "fixed")
    kept = M[recipe.kept]
    if recipe.relations is not None:
        kept = kept + recipe.relations @ M[~recipe.kept]
    X = design.X @ _clean(kept)
    all_names = [str(name) for name in matrices.specification("fixed").column_names]
    independent = independent_columns(X, all_names)
    smaller = replace(
        recipe,
        matrices=matrices,
        kept=independent,
        relations=column_relations(X, independent, all_names),
    )
    out = replace(
        design,
        fixed=np.asfortranarray(X[:, independent]),
        x_names=tuple(name for name, stays in zip(all_names, independent, strict=True) if stays),
        dropped=tuple(n for n, stays in zip(all_names, independent, strict=True) if not stays),
        findings=tuple(f for f in design.findings if f.code != "rank-deficient"),
        recipe=smaller,
    )
    return replace(out, formula=formula_of(out))


def without_random(design: Design, reduction: Reduction) -> Design:
    """The design with a random-effects term reduced, or without it.

    Parameters
    ----------
    reduction : Reduction
        One of `reductions_of`.
    """
    at, recipe = reduction.position, design.recipe
    if design.sample is not None:
        return with_block(design, without_random(design.sample, reduction), at)
    blocks = list(design.blocks)
    if recipe is None:
        blocks[at : at + 1] = [] if reduction.block is None else [reduction.block]
        return replace(design, blocks=tuple(blocks))
    if reduction.block is None:
        del blocks[at]
        rest = [i for i in range(len(recipe.groups)) if i != at]
        smaller = replace(
            recipe,
            matrices=recipe.matrices.with_random(rest),
            groups=tuple(recipe.groups[i] for i in rest),
        )
    else:
        part = f"random{at}"
        names = frozenset(design.blocks[at].names)
        terms = formula_terms(recipe.matrices, part)
        keep = [j for j, term in enumerate(terms) if term.label != reduction.term]
        text = part_text(recipe.matrices, part, keep)
        if "Intercept" in reduction.block.names and "Intercept" not in names:
            text = text.replace("0", "1", 1)
        matrices = _with_part(recipe.matrices, part, text)
        M = _clean(_combination(recipe.matrices, matrices, part))
        blocks[at] = _block(design.blocks[at], reduction.block, matrices, part, M)
        smaller = replace(recipe, matrices=matrices)
    out = replace(design, blocks=tuple(blocks), recipe=smaller)
    return replace(out, formula=formula_of(out))


def _block(
    old: RandomBlock, reduced: RandomBlock, matrices: MatrixRecipe, part: str, M: FloatArray
) -> RandomBlock:
    names = tuple(str(name) for name in matrices.specification(part).column_names)
    structure = reduced.structure
    if structure.k != len(names):
        structure = resized(structure, len(names))
    return replace(
        old,
        names=names,
        columns=np.asfortranarray(old.columns @ M),
        structure=structure,
        source=_term(structure, matrices.parts[part], old.group),
        split=False,
    )


def formula_of(design: Design) -> str:
    """A formula that makes the design; empty for a model made from arrays."""
    recipe = design.recipe
    if recipe is None:
        return ""
    parts = recipe.matrices.parts
    pieces = [_shown(parts["fixed"]), *(f"offset({text})" for text in recipe.offsets)]
    for i, (block, group) in enumerate(zip(design.blocks, recipe.groups, strict=True)):
        pieces.append(_term(block.structure, parts[f"random{i}"], ":".join(group.factors)))
    left = design.formula.partition("~")[0].strip() or design.response
    return f"{left} ~ {' + '.join(pieces)}"


def _term(structure: CovarianceStructure, text: str, group: str) -> str:
    """A random-effects term as a formula has it."""
    tag = "" if structure.tag == "us" else structure.tag
    usual = structure.hom == (tag == "ar1")
    hom = "" if usual else f", hom={structure.hom}"
    return f"{tag}({_shown(text)} | {group}{hom})"


def _shown(text: str) -> str:
    """A part without the intercept that goes without saying."""
    short = text.removeprefix("1 + ")
    return short if short and "~" not in short else text


def _with_part(matrices: MatrixRecipe, part: str, text: str) -> MatrixRecipe:
    names = columns_of(text, matrices.columns, matrices.context)
    return replace(
        matrices,
        parts={**matrices.parts, part: text},
        variables={**matrices.variables, part: names},
    )


def _combination(old: MatrixRecipe, new: MatrixRecipe, part: str) -> FloatArray:
    """M with (columns of the new part) = (columns of the old one) M."""
    rows = typical_rows(old, part)
    X, _ = old.matrix(part, rows)
    wanted, _ = new.matrix(part, rows)
    names, wanted_names = (
        [str(name) for name in matrices.specification(part).column_names] for matrices in (old, new)
    )
    return combination(X, wanted, names, wanted_names)


def _clean(M: FloatArray) -> FloatArray:
    """Whole numbers as such: most columns are columns of the larger model."""
    near = np.round(M)
    return np.where(np.abs(M - near) < _WHOLE, near, M)


@dataclass(frozen=True, eq=False)
class Reduction:
    """A block, what becomes of it (None: nothing is left), and the term it loses, if only one."""

    label: str
    position: int
    block: RandomBlock | None
    term: str = ""


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
    design = design.some
    block = design.blocks[position]
    terms, text = _terms(design, position)
    tag = "" if block.split else block.source.partition("(")[0].strip()
    source = f"{tag}({text} | {block.group})"
    droppable = [
        term
        for term in terms
        if term.label != INTERCEPT and not any(term.is_marginal_to(other) for other in terms)
    ]
    if not block.structure.linear or not droppable:
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
            text = left_of_bar(block.source)
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
    # A common effect would correlate the levels.
    apart = not block.structure.correlated and block.k > 1
    if not beside and not apart and (not keep or any(other.factors for other in others)):
        one = np.ones((len(columns), 1))
        if spans(block.columns, one) and not spans(columns, one):
            columns, names = np.column_stack([one, columns]), ("Intercept", *names)
    if not names:
        return None
    smaller = resized(block.structure, len(names))
    return replace(block, columns=np.asfortranarray(columns), names=names, structure=smaller)
