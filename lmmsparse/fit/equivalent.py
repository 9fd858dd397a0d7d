"""`Fit` and a set of its terms → another way to write them that fits equally well with less.

Whether it does is checked, not known: the matrices V_i of both span the same space, and what was
estimated is among what the other can be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray
from lmmsparse.design import Design, RandomBlock
from lmmsparse.engine.covariance.structures import Diagonal, Unstructured, resized
from lmmsparse.engine.held import Held
from lmmsparse.fit.advice import (
    column_text,
    effects_text,
    formula_with,
    literal,
    term_text,
    written,
)
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.held import theta_names
from lmmsparse.fit.identification import off_columns, term_matrices
from lmmsparse.fit.problem import make_template

_SAME = 1e-7
_NOT_NEGATIVE = 1e-5
_FEW = 6


@dataclass(frozen=True, eq=False)
class Candidate:
    """Other blocks in place of some of a design's.

    Attributes
    ----------
    instead : dict of int to str
        What is written in the place of a block; empty if nothing is.
    blocks : tuple of RandomBlock
        What takes the place of all blocks concerned.
    held : dict of str to float
        Elements of θ to hold at zero, by name.
    """

    instead: Mapping[int, str]
    blocks: tuple[RandomBlock, ...]
    held: tuple[str, ...] = ()
    reachable: bool = False


def instead(fit: Fit, terms: Collection[int], m: int) -> str:
    """What to write in place of terms whose parameters are not determined.

    Parameters
    ----------
    terms : collection of int
        Positions of the terms.
    m : int
        How many combinations of them are not.
    """
    design = fit.design
    if design.facts is not None:
        return "Leave out a part of these terms."
    check = _Check(fit, sorted(terms))
    for candidate in _candidates(design, sorted(terms)):
        if check.equivalent(candidate):
            return _said(design, candidate, m)
    smaller = _smaller(design, sorted(terms))
    return f"A smaller model: {smaller}." if smaller else "Leave out a part of these terms."


def _said(design: Design, candidate: Candidate, m: int) -> str:
    formula = formula_with(design, candidate.instead)
    ways = [text for text in candidate.instead.values() if text]
    gone = [written(design, i) for i, text in candidate.instead.items() if not text]
    text = formula or " and ".join([*ways, *(f"the model without {term}" for term in gone)])
    fixed = ", ".join(f"{name!r}: 0" for name in candidate.held)
    call = f", fixed={{{fixed}}}" if fixed else ""
    less = "one parameter" if m == 1 else f"{m} parameters"
    return f"The same fit with {less} less, all of them determined: {text}{call}."


def _candidates(design: Design, terms: list[int]) -> Iterator[Candidate]:
    if len(terms) > 1:
        for i in terms:
            rest = tuple(design.blocks[j] for j in terms if j != i)
            yield Candidate({i: ""}, rest)
    for i in terms:
        others = tuple(design.blocks[j] for j in terms if j != i)
        for text, blocks, held, reachable in _rewritten(design, i):
            yield Candidate({i: text}, (*blocks, *others), held, reachable)


_Way = tuple[str, tuple[RandomBlock, ...], tuple[str, ...], bool]


def _rewritten(design: Design, i: int) -> Iterator[_Way]:
    """Other ways to write one block: fewer effects, or effects by kind of level."""
    block = design.blocks[i]
    still = np.flatnonzero(constant_within_levels(block)).tolist()
    if block.k > 1:
        yield from _by_cells(design, i, still)
    for j in range(block.k):
        keep = [c for c in range(block.k) if c != j]
        text = effects_text(design, i, keep) if keep else None
        if text is not None:
            yield term_text(design, i, text), (_with_columns(block, keep),), (), False
    if block.k > 2:
        for j in range(block.k):
            for m in range(j):
                keep = [c for c in range(block.k) if c not in (j, m)]
                text = effects_text(design, i, keep)
                if text is not None:
                    yield term_text(design, i, text), (_with_columns(block, keep),), (), False


def constant_within_levels(block: RandomBlock) -> BoolArray:
    """Which columns of a block have one value in every level, (k,)."""
    order = np.argsort(block.codes, kind="stable")
    columns, codes = block.columns[order], block.codes[order]
    same = (codes[1:] == codes[:-1])[:, None]
    return np.asarray(~((columns[1:] != columns[:-1]) & same).any(axis=0))


def _with_columns(block: RandomBlock, keep: list[int]) -> RandomBlock:
    new = resized(block.structure, len(keep))
    names = tuple(block.names[j] for j in keep)
    columns = np.ascontiguousarray(block.columns[:, keep])
    return replace(block, columns=columns, names=names, structure=new)


def _by_cells(design: Design, i: int, still: list[int]) -> Iterator[_Way]:
    """Effects for every kind of level, where some columns do not vary within levels."""
    block, recipe = design.blocks[i], design.recipe
    if recipe is None or not still or not block.structure.correlated:
        return
    cells, cell = np.unique(block.columns[:, still], axis=0, return_inverse=True)
    cell = cell.ravel()
    variables = list(
        dict.fromkeys(
            piece.split("[")[0]
            for j in still
            if block.names[j] != "Intercept"
            for piece in block.names[j].split(":")
        )
    )
    if not 1 < len(cells) <= _FEW or not variables:
        return
    if any(v not in recipe.matrices.columns for v in variables):
        return
    as_factors = [v if recipe.matrices.columns[v].categories else f"C({v})" for v in variables]
    indicators = (cell[:, None] == np.arange(len(cells))).astype(float)
    factor = ":".join(as_factors)
    if len(still) == block.k:
        names = tuple(f"{factor}[{c}]" for c in range(len(cells)))
        new = replace(block, columns=indicators, names=names, structure=Diagonal(len(cells)))
        group = term_text(design, i, "1").split(" | ", 1)[1].rstrip(")").split(",")[0]
        yield f"diag(0 + {factor} | {group})", (new,), (), True
        return
    if len(variables) > 1:
        return
    within = [j for j in range(block.k) if j not in still and ":" not in block.names[j]]
    texts = [column_text(design, block.names[j]) for j in within]
    if any(text is None or not text.isidentifier() for text in texts):
        return
    slopes = [str(text) for text in texts]
    group = term_text(design, i, "1").split(" | ", 1)[1].rstrip(")")
    info = recipe.matrices.columns[variables[0]]
    levels = list(info.categories or ())
    labels = _cell_labels(design, i, variables[0], levels, cell, len(cells))
    if labels is None:
        return
    # A block per kind of level, each with its own intercept and slopes.
    parts, ways = [], []
    for c, label in enumerate(labels):
        columns = indicators[:, [c]] * np.column_stack(
            [np.ones(design.n), block.columns[:, within]]
        )
        parts.append(
            replace(
                block,
                columns=columns,
                names=tuple(f"{c}.{j}" for j in range(columns.shape[1])),
                structure=Unstructured(columns.shape[1]),
            )
        )
        here = f"({variables[0]} == {label})"
        ways.append(
            "("
            + " + ".join(["0", f"I({here} * 1)", *(f"I({here} * {n})" for n in slopes)])
            + f" | {group})"
        )
    yield " + ".join(ways), tuple(parts), (), True
    # One block whose effects of different kinds of levels never meet.
    order = [f"{variables[0]}[{level}]" for level in levels] if levels else []
    if not order or len(order) != len(cells):
        return
    columns = np.column_stack([block.columns[:, within], indicators])
    k = columns.shape[1]
    new = replace(
        block,
        columns=columns,
        names=tuple([*(block.names[j] for j in within), *order]),
        structure=Unstructured(k),
    )
    first = len(within)
    held = tuple(
        f"{block.group}.{new.names[r]}.{new.names[c]}"
        for c in range(first, k)
        for r in range(c + 1, k)
    )
    text = f"(0 + {' + '.join([*slopes, variables[0]])} | {group})"
    yield text, (new,), held, True


def _cell_labels(
    design: Design, i: int, variable: str, levels: list[object], cell: IntArray, n: int
) -> list[str] | None:
    """How the value of a variable in each kind of level is written."""
    block = design.blocks[i]
    out: list[str] = []
    for c in range(n):
        row = block.columns[np.flatnonzero(cell == c)[0]]
        if not levels:
            j = block.names.index(variable) if variable in block.names else -1
            text = literal(float(row[j])) if j >= 0 else None
        else:
            on = [
                level
                for level in levels
                for name in (f"{variable}[T.{level}]", f"{variable}[{level}]")
                if name in block.names and row[block.names.index(name)] == 1.0
            ]
            text = literal(on[0] if on else levels[0])
        if text is None:
            return None
        out.append(text)
    return out if len(set(out)) == n else None


def _smaller(design: Design, terms: list[int]) -> str | None:
    """A model with less, not one that fits as well."""
    for i in terms:
        block = design.blocks[i]
        still = [
            j
            for j in np.flatnonzero(constant_within_levels(block))
            if block.names[j] != "Intercept"
        ]
        gone = np.flatnonzero(still).tolist() or [block.k - 1]
        keep = [j for j in range(block.k) if j not in gone]
        text = effects_text(design, i, keep) if keep else None
        if text is not None:
            return formula_with(design, {i: term_text(design, i, text)})
    return None


class _Check:
    """Whether candidates fit as well as the terms they replace.

    Parameters
    ----------
    terms : list of int
        The terms that candidates replace.
    """

    def __init__(self, fit: Fit, terms: list[int]) -> None:
        design = fit.design
        self._fit, self._terms = fit, terms
        self._root = np.sqrt(design.weights_or_one)
        self._Q = None
        if fit.reml and design.p:
            self._Q, _ = design.internal_columns()
        width = 2 + sum(design.blocks[t].k for t in terms) // 2
        self._probes = np.random.default_rng(5).normal(size=(max(4, width), design.n))
        self._sigma = fit.held.sigma is None
        blocks = tuple(design.blocks[t] for t in terms)
        held = _own(fit, terms)
        self._full = self._matrices(blocks, held)
        self._estimate = self._estimated()

    def _off(self, r: FloatArray) -> FloatArray:
        return r if self._Q is None else off_columns(self._Q, self._root, r)

    def _matrices(self, blocks: tuple[RandomBlock, ...], held: Held) -> FloatArray:
        """All V_i of some blocks and of the residual, times the probes: (rows, d)."""
        design = replace(self._fit.design, blocks=blocks)
        template = make_template(design, held)
        self._last = [term_matrices(design, template, t) for t in range(len(blocks))]
        out = []
        for r in map(self._off, self._probes):
            parts = [term.times(r) for term in self._last]
            out.append(self._off(np.column_stack([*parts, r] if self._sigma else parts)))
        return np.concatenate(out)

    def _estimated(self) -> FloatArray:
        """The part of V that the terms and the residual have, times the probes."""
        fit, out = self._fit, []
        factors = fit.template.factors(fit.theta)
        for r in map(self._off, self._probes):
            total = r.copy() if self._sigma else np.zeros_like(r)
            for t in self._terms:
                block, T = fit.design.blocks[t], factors[t]
                columns = self._root[:, None] * block.columns
                sums: FloatArray = np.column_stack(
                    [np.bincount(block.codes, c * r, block.n_levels) for c in columns.T]
                )
                if block.prior is not None:
                    sums = block.prior.solve(sums)
                total += np.einsum("nk,nk->n", columns, (sums @ T @ T.T)[block.codes])
            out.append(self._off(total))
        return np.concatenate(out)

    def equivalent(self, candidate: Candidate) -> bool:
        """Whether a candidate has the same V, fewer parameters, and the one that was estimated."""
        try:
            held = _held_by_name(self._fit.design, candidate)
        except ValueError:
            return False
        F = self._matrices(candidate.blocks, held)
        terms = self._last
        scale = np.linalg.norm(F, axis=0)
        if not scale.all():
            return False
        own = _rank(F)
        if own < F.shape[1] or own != _rank(self._full):
            return False
        if _rank(np.column_stack([F, self._full])) > own:
            return False
        if candidate.reachable:
            return True
        found = np.linalg.lstsq(F / scale, self._estimate, rcond=None)[0] / scale
        if self._sigma and found[-1] <= 0:
            return False
        ends = np.cumsum([0, *(len(term.changes) for term in terms)]).tolist()
        for term, (a, z) in zip(terms, pairwise(ends), strict=True):
            S = np.tensordot(found[a:z], term.changes, axes=1)
            values = np.linalg.eigvalsh(S)
            if values[0] < -_NOT_NEGATIVE * max(1.0, float(np.abs(values).max())):
                return False
        return True


def _rank(F: FloatArray) -> int:
    size = np.linalg.norm(F, axis=0)
    F = F[:, size > 0] / size[size > 0]
    return int(np.sum(np.linalg.svd(np.linalg.qr(F, mode="r"), compute_uv=False) > _SAME))


def _own(fit: Fit, terms: list[int]) -> Held:
    """What is held of some terms, as if there were no others."""
    held, start = [], 0
    for t in terms:
        part = fit.template.slices[t]
        held += [
            (i - part.start + start, v) for i, v in fit.held.theta if part.start <= i < part.stop
        ]
        start += part.stop - part.start
    return Held(tuple(held), fit.held.sigma)


def _held_by_name(design: Design, candidate: Candidate) -> Held:
    names = theta_names(replace(design, blocks=candidate.blocks))
    return Held(tuple((names.index(name), 0.0) for name in candidate.held))
