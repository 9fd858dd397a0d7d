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

_ROUNDING = 1e-6
_MORE = 1.0 + _ROUNDING
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
    _check_possible(facts, sample)
    return design_without_rows(sample, facts)


def _check_possible(facts: Facts, sample: Design) -> None:
    """Refuse sums that no rows have: squares bound products, and parts of a sum the whole."""
    products, response = facts.products, facts.response
    found = [np.zeros(0)]
    for t in range(len(products.sizes)):
        pair = next(pair for pair in products.pairs if pair.s == pair.t == t)
        squares = np.diagonal(pair.values, axis1=1, axis2=2)
        lowest = np.linalg.eigvalsh(pair.values)[:, 0] if squares.size else np.zeros(0)
        symmetric = np.allclose(pair.values, pair.values.transpose(0, 2, 1), rtol=_ROUNDING)
        if (squares < 0).any() or not symmetric or (lowest < -_ROUNDING * squares.max(1)).any():
            raise ValueError("squares that are negative")
        found.append(squares.ravel())
    size = np.concatenate(found)
    with_fixed = products.ZtX**2 <= _MORE * size[:, None]
    with_response = response.Zty**2 <= _MORE * size * response.yty + _ROUNDING * size * facts.size
    explained = float(response.beta0 @ response.beta0)
    total = np.isclose(explained + response.yty, facts.size, rtol=_ROUNDING, atol=0.0)
    if not (with_fixed.all() and with_response.all() and total):
        raise ValueError("products that are larger than what they are products of")
    for pair in products.pairs:
        a, b = (
            size[products.offsets[t] : products.offsets[t + 1]].reshape(-1, products.sizes[t])
            for t in (pair.s, pair.t)
        )
        bound = a[pair.rows][:, :, None] * b[pair.cols][:, None, :]
        if not (pair.values**2 <= _MORE * bound).all():
            raise ValueError("products that are larger than what they are products of")
    ordered = facts.low <= facts.high
    signs = (
        min(facts.spread, facts.variance, *(facts.between or ()), 0.0) >= -_ROUNDING * facts.size
    )
    if not ordered or not signs or not facts.mean_inverse_weight > 0:
        raise ValueError("sums of the response that are not possible")
    if sample.weights is None and not np.isclose(facts.mean_inverse_weight, 1.0):
        raise ValueError("weights of rows that have none")
    for counts in facts.cells.values():
        if (counts < 0).any() or counts.sum() > facts.n or (counts != np.round(counts)).any():
            raise ValueError("numbers of rows that are not possible")


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
