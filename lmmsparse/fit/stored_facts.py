"""The sums of rows that are not kept ↔ JSON and arrays; what is read belongs to its design."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmsparse.common.archive import Arrays
from lmmsparse.common.arrays import FloatArray, ObjectArray, compact
from lmmsparse.common.fields import items, number, optional, record, text, whole
from lmmsparse.design import Design
from lmmsparse.design.facts import Facts
from lmmsparse.design.terms import factor_levels
from lmmsparse.design.without_rows import design_without_rows
from lmmsparse.engine.columns import Basis
from lmmsparse.engine.pair_blocks import PairBlocks
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response

_NUMBERS = ("low", "high", "spread", "size", "mean_offset", "mean_inverse_weight", "variance")


def encode_facts(facts: Facts, arrays: dict[str, ObjectArray]) -> dict[str, Any]:
    """Put the arrays beside others, and give the rest as JSON."""
    products, response = facts.products, facts.response
    arrays["facts.ZtX"], arrays["facts.Zty"] = products.ZtX, response.Zty
    arrays["facts.beta0"], arrays["facts.basis"] = response.beta0, products.basis.R
    arrays["facts.R"], arrays["facts.sums"] = facts.R, facts.sums
    for t, gram in enumerate(facts.grams):
        arrays[f"facts.gram{t}"] = gram
    for pair in products.pairs:
        name = f"facts.pair{pair.s}.{pair.t}"
        arrays[f"{name}.rows"], arrays[f"{name}.cols"] = pair.rows, pair.cols
        arrays[f"{name}.values"] = pair.values.reshape(len(pair.rows), -1)
    for i, counts in enumerate(facts.cells.values()):
        arrays[f"facts.cells{i}"] = counts.ravel()
    return {
        "n": facts.n,
        "read": facts.read,
        "systematic": facts.systematic,
        "yty": response.yty,
        "sum_log_weights": products.sum_log_weights,
        "numbers": [getattr(facts, name) for name in _NUMBERS],
        "between": None if facts.between is None else list(facts.between),
        "cells": [list(names) for names in facts.cells],
    }


_FACTS = ("n", "read", "systematic", "yty", "sum_log_weights", "numbers", "between", "cells")


def decode_facts(meta: Any, sample: Design, arrays: Arrays) -> Design:
    """The design without rows of a sample and what was stored of all rows."""
    record(meta, _FACTS)
    n, p = whole(meta["n"], 1, 2**62), sample.p
    sizes = tuple(block.k for block in sample.blocks)
    levels = [block.n_levels for block in sample.blocks]
    ends = np.cumsum([0, *(k * m for k, m in zip(sizes, levels, strict=True))])
    R = _triangular(arrays.numbers("facts.basis", p, p))
    products = CrossProducts(
        pairs=tuple(_pair(sample, s, t, arrays) for s in range(len(sizes)) for t in range(s + 1)),
        ZtX=arrays.numbers("facts.ZtX", int(ends[-1]), p),
        XtX=np.eye(p),
        offsets=tuple(int(end) for end in ends),
        sizes=sizes,
        n=n,
        sum_log_weights=number(meta["sum_log_weights"]),
        basis=Basis(R=R, logdet=float(2.0 * np.log(np.abs(np.diag(R))).sum())),
    )
    response = Response(
        Zty=arrays.numbers("facts.Zty", int(ends[-1])),
        Xty=np.zeros(p),
        yty=number(meta["yty"], 0.0),
        beta0=arrays.numbers("facts.beta0", p),
    )
    values = dict(zip(_NUMBERS, items(meta["numbers"], number, len(_NUMBERS)), strict=True))
    facts = Facts(
        products=products,
        response=response,
        n=n,
        read=whole(meta["read"], n, 2**62),
        between=optional(meta["between"], lambda each: items(each, number, len(sizes))),
        R=_triangular(arrays.numbers("facts.R", p, p)),
        sums=arrays.numbers("facts.sums", p),
        grams=tuple(arrays.numbers(f"facts.gram{t}", k, k) for t, k in enumerate(sizes)),
        systematic=whole(meta["systematic"], 0, sample.n),
        cells=_cells(meta["cells"], sample, arrays),
        **values,
    )
    return design_without_rows(sample, facts)


def _triangular(R: FloatArray) -> FloatArray:
    below = np.abs(np.tril(R, -1)).max(initial=0.0)
    if below > 1e-12 * np.abs(R).max(initial=0.0) or not np.diag(R).all():
        raise ValueError("a triangular factor that is none")
    return np.triu(R)


def _pair(sample: Design, s: int, t: int, arrays: Arrays) -> PairBlocks:
    a, b = sample.blocks[s], sample.blocks[t]
    name = f"facts.pair{s}.{t}"
    rows = arrays.whole(f"{name}.rows", None, a.n_levels)
    cols = arrays.whole(f"{name}.cols", len(rows), b.n_levels)
    values = arrays.numbers(f"{name}.values", len(rows), a.k * b.k)
    key = rows * b.n_levels + cols
    if (np.diff(key) <= 0).any():
        raise ValueError(f"{name} is not in order")
    if a.group == b.group and not (len(rows) == a.n_levels and np.array_equal(rows, cols)):
        raise ValueError(f"{name} does not have the levels of {a.group!r:.80}")
    rows, cols = compact(rows, a.n_levels), compact(cols, b.n_levels)
    return PairBlocks(s, t, rows, cols, values.reshape(-1, a.k, b.k))


def _cells(meta: Any, sample: Design, arrays: Arrays) -> dict[tuple[str, ...], FloatArray]:
    assert sample.recipe is not None
    levels = factor_levels(sample.recipe.matrices, "fixed")
    out = {}
    for i, names in enumerate(items(meta, lambda each: items(each, text))):
        shape = [len(levels[name]) for name in names]
        counts = arrays.numbers(f"facts.cells{i}", int(np.prod(shape)))
        out[names] = counts.reshape(shape)
    return out
