"""Design → other random terms as formula text: parts of a term, and the whole formula with them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from lmmsparse.design import Design
from lmmsparse.design.terms import INTERCEPT, FormulaTerm, formula_terms, part_text
from lmmsparse.formula.formula import RandomTerm, parse_formula
from lmmsparse.formula.places import one_line

_INDICATOR = re.compile(r"(\w+)\[(?:T\.)?(.+)\]")


def random_terms(design: Design) -> list[RandomTerm] | None:
    """The formula's random terms in the order of the design's blocks; None without a formula."""
    if not design.formula:
        return None
    levels = {block.group: block.n_levels for block in design.blocks}
    terms = parse_formula(design.formula).random
    return sorted(terms, key=lambda term: -levels[term.group])


def written(design: Design, i: int) -> str:
    """A block as a term of its own: as the user wrote it, unless that made several blocks."""
    block, terms = design.blocks[i], random_terms(design)
    if terms is None or sum(term.position == terms[i].position for term in terms) == 1:
        return block.source
    return term_text(design, i, terms[i].effects)


def term_text(design: Design, i: int, effects: str) -> str:
    """Effects (as ``1 + x`` or ``0 + x``) with the tag and the grouping of a block."""
    block, terms = design.blocks[i], random_terms(design)
    tag, options = "", ""
    if block.structure.tag == "diag":
        tag, options = "diag", ", hom=True" if block.structure.hom else ""
    elif not block.structure.linear and terms is not None:
        tag, hom = terms[i].structure, terms[i].hom
        options = "" if hom is None else f", hom={hom}"
    short = effects.removeprefix("1 + ")
    group = block.group if terms is None else ":".join(terms[i].factors)
    return f"{tag}({short} | {group}{options})"


def effects_text(design: Design, i: int, keep: Collection[int]) -> str | None:
    """The left side of a block with some of its columns only; None if it cannot be written.

    Parameters
    ----------
    keep : collection of int
        Columns of the block, at least one.
    """
    block, keep = design.blocks[i], sorted(keep)
    if design.recipe is not None:
        matrices, part = design.recipe.matrices, f"random{i}"
        terms = formula_terms(matrices, part)
        kept = [j for j, term in enumerate(terms) if set(term.columns) <= set(keep)]
        if sorted(c for j in kept for c in terms[j].columns) == keep and _same_coding(terms, kept):
            return part_text(matrices, part, kept)
    pieces = [column_text(design, block.names[j]) for j in keep]
    if any(piece is None for piece in pieces):
        return None
    rest = [piece for piece in pieces if piece is not None and piece != INTERCEPT]
    return " + ".join([INTERCEPT if INTERCEPT in pieces else "0", *rest])


def _same_coding(terms: Sequence[FormulaTerm], kept: Sequence[int]) -> bool:
    """Whether terms keep their columns without the others: none that a factor is coded against."""
    gone = [term for j, term in enumerate(terms) if j not in kept]
    return not any(
        terms[j].factors and (term.label == INTERCEPT or term.is_marginal_to(terms[j]))
        for j in kept
        for term in gone
    )


def column_text(design: Design, name: str) -> str | None:
    """One column of a random term as an expression; None if its name does not say how."""
    if name == "Intercept":
        return INTERCEPT
    pieces = [_piece(design, piece) for piece in name.split(":")]
    if any(piece is None for piece in pieces):
        return None
    if len(pieces) == 1 and name.isidentifier():
        return name
    indicator = all(not piece.isidentifier() for piece in name.split(":"))
    return f"I({' * '.join([*map(str, pieces), *(['1'] if indicator else [])])})"


def _piece(design: Design, name: str) -> str | None:
    if name.isidentifier():
        return name
    found = _INDICATOR.fullmatch(name)
    if found is None or design.recipe is None:
        return None
    info = design.recipe.matrices.columns.get(found[1])
    level = [v for v in (info.categories if info else None) or () if str(v) == found[2]]
    return f"({found[1]} == {literal(level[0])})" if level and literal(level[0]) else None


def literal(level: Any) -> str | None:
    """A factor level as it is written in a formula; None if it cannot be."""
    if isinstance(level, str):
        return f'"{level}"' if '"' not in level and "\\" not in level else None
    if isinstance(level, (bool, np.bool_)) or not isinstance(level, (int, float, np.number)):
        return None
    return repr(level.item() if isinstance(level, np.generic) else level)


def formula_with(design: Design, instead: Mapping[int, str]) -> str | None:
    """The formula with other text in place of some blocks, nothing where that is empty.

    None where there is no formula, or no random term would be left.
    """
    terms = random_terms(design)
    if terms is None:
        return None
    text, left = design.formula, 0
    sources = {term.position: len(term.source) for term in terms}
    for position in sorted(sources, reverse=True):
        own = [i for i, term in enumerate(terms) if term.position == position]
        own.sort(key=lambda i: parse_formula(design.formula).random.index(terms[i]))
        end = position + sources[position]
        if any(i in instead for i in own):
            parts = [instead.get(i, written(design, i)) for i in own]
            new = " + ".join(part for part in parts if part)
        else:
            new = text[position:end]
        left += bool(new)
        before, after = text[:position], text[end:]
        if not new:
            before, dropped = re.subn(r"\s*\+\s*$", "", before)
            after = after if dropped else re.sub(r"^\s*\+\s*", "", after)
        text = before + new + after
    return one_line(text) if left else None
