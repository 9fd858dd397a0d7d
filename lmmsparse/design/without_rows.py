"""A design of some rows and the sums of all → the design of all, without the rows; smaller ones.

What becomes of a smaller design is found out on the sample. The sums follow: columns that are
combinations of others have sums that are combinations of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import Finding
from lmmsparse.design.design import Design, RandomBlock
from lmmsparse.design.facts import Facts, NotKept
from lmmsparse.design.rank import combination
from lmmsparse.engine.columns import Basis
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response

_WHOLE = 1e-9


def design_without_rows(sample: Design, facts: Facts, findings: Sequence[Finding] = ()) -> Design:
    """The design of all rows, of which only those of a sample are kept.

    Parameters
    ----------
    findings : sequence of Finding
        About all rows, beside those about the sample.
    """
    absent: dict[str, Any] = {
        "y": NotKept("the response"),
        "fixed": NotKept("the columns of the fixed effects"),
        "weights": None if sample.weights is None else NotKept("the weights"),
        "offset": None if sample.offset is None else NotKept("the offset"),
        "index": NotKept("the labels of the rows"),
        "rows": NotKept("the positions of the rows"),
    }
    blocks = tuple(map(_without_rows, sample.blocks))
    said = (*findings, *(f for f in sample.findings if f not in findings))
    return replace(sample, blocks=blocks, findings=said, facts=facts, sample=sample, **absent)


def _without_rows(block: RandomBlock) -> RandomBlock:
    codes: Any = NotKept(f"the level of {block.group!r}")
    columns: Any = NotKept(f"the columns of {block.source}")
    grouping = replace(block.grouping, codes=codes)
    return replace(block, grouping=grouping, columns=columns, moved=block.shift)


def with_fixed(design: Design, smaller: Design) -> Design:
    """The design with the fixed effects of another design of its sample, which it spans."""
    sample, facts = design.some, design.facts
    assert facts is not None
    M = _clean(combination(sample.fixed, smaller.fixed, sample.x_names, smaller.x_names))
    products, response = facts.products, facts.response
    Q, R = np.linalg.qr(products.basis.R @ M)
    sign = np.where(np.diag(R) < 0, -1.0, 1.0)
    Q, R = Q * sign, sign[:, None] * R
    along = Q.T @ response.beta0
    left = response.beta0 - Q @ along
    moved = replace(
        products,
        ZtX=products.ZtX @ Q,
        XtX=np.eye(len(R)),
        basis=Basis(R=R, logdet=float(2.0 * np.log(np.abs(np.diag(R))).sum())),
    )
    answer = Response(
        Zty=response.Zty + products.ZtX @ left,
        Xty=np.zeros(len(R)),
        yty=response.yty + float(left @ left),
        beta0=along,
    )
    plain = np.asarray(np.linalg.qr(facts.R @ M, mode="r"))
    new = replace(facts, products=moved, response=answer, R=plain, sums=M.T @ facts.sums)
    dropped = "rank-deficient"
    found = [f for f in smaller.findings if f.code == dropped]
    kept = [f for f in design.findings if f.code != dropped]
    return design_without_rows(replace(smaller, findings=()), new, [*kept, *found])


def with_block(design: Design, smaller: Design, at: int) -> Design:
    """The design with a term as it is in another design of its sample, or without it.

    Parameters
    ----------
    at : int
        Position of the term; the other design has one term less if there is none for it.
    """
    facts, old = design.facts, design.some.blocks[at]
    assert facts is not None
    grams = list(facts.grams)
    if len(smaller.blocks) < len(design.blocks):
        del grams[at]
        products, Zty = _without_term(facts.products, facts.response.Zty, at)
    else:
        new = smaller.blocks[at]
        M = _clean(combination(old.columns, new.columns, old.names, new.names))
        grams[at] = M.T @ grams[at] @ M
        N = M if old.shift is None else old.shift @ M
        N = N if new.shift is None else np.asarray(np.linalg.solve(new.shift.T, N.T).T)
        products, Zty = _with_columns(facts.products, facts.response.Zty, at, N)
    response = replace(facts.response, Zty=Zty)
    made = replace(facts, products=products, response=response, grams=tuple(grams), between=None)
    return design_without_rows(replace(smaller, findings=()), made, design.findings)


def _clean(M: FloatArray) -> FloatArray:
    """Whole numbers as such: most columns are columns of the larger model."""
    near = np.round(M)
    return np.where(np.abs(M - near) < _WHOLE, near, M)


def _without_term(
    products: CrossProducts, Zty: FloatArray, at: int
) -> tuple[CrossProducts, FloatArray]:
    a, z = products.offsets[at], products.offsets[at + 1]
    keep = np.r_[0:a, z : products.q]
    pairs = tuple(
        replace(pair, s=pair.s - (pair.s > at), t=pair.t - (pair.t > at))
        for pair in products.pairs
        if at not in (pair.s, pair.t)
    )
    sizes = tuple(k for t, k in enumerate(products.sizes) if t != at)
    offsets = (*products.offsets[: at + 1], *(o - (z - a) for o in products.offsets[at + 2 :]))
    ZtX = products.ZtX[keep]
    return replace(products, pairs=pairs, ZtX=ZtX, sizes=sizes, offsets=offsets), Zty[keep]


def _with_columns(
    products: CrossProducts, Zty: FloatArray, at: int, N: FloatArray
) -> tuple[CrossProducts, FloatArray]:
    """The products with the columns of a term times N."""
    pairs = []
    for pair in products.pairs:
        values = pair.values
        if pair.s == at:
            values = np.matmul(N.T, values)
        if pair.t == at:
            values = np.matmul(values, N)
        pairs.append(replace(pair, values=values))
    k, m = N.shape
    levels = products.n_levels[at]
    a, z = products.offsets[at], products.offsets[at + 1]
    own = np.matmul(N.T, products.ZtX[a:z].reshape(levels, k, -1)).reshape(levels * m, -1)
    ZtX = np.concatenate([products.ZtX[:a], own, products.ZtX[z:]])
    response = (Zty[a:z].reshape(levels, k) @ N).ravel()
    sizes = tuple(m if t == at else size for t, size in enumerate(products.sizes))
    step = levels * (m - k)
    offsets = tuple(o + step * (i > at) for i, o in enumerate(products.offsets))
    moved = replace(products, pairs=tuple(pairs), ZtX=ZtX, sizes=sizes, offsets=offsets)
    return moved, np.concatenate([Zty[:a], response, Zty[z:]])


def on_same_rows(a: Design, b: Design) -> tuple[Design, Design] | None:
    """Two designs on rows that they share, None if they share none that are known.

    Designs whose rows are not kept have samples that begin alike where they were read alike.
    """
    if a.facts is None and b.facts is None:
        return a, b
    if a.facts is None or b.facts is None:
        return None
    m = min(a.facts.systematic, b.facts.systematic)
    first, second = _first_rows(a.some, m), _first_rows(b.some, m)
    same = np.array_equal(first.y, second.y)
    return (first, second) if same else None


def _first_rows(design: Design, m: int) -> Design:
    blocks = tuple(
        replace(
            block,
            columns=block.columns[:m],
            grouping=replace(block.grouping, codes=block.codes[:m]),
        )
        for block in design.blocks
    )
    return replace(
        design,
        y=design.y[:m],
        fixed=design.fixed[:m],
        blocks=blocks,
        weights=None if design.weights is None else design.weights[:m],
        offset=None if design.offset is None else design.offset[:m],
        rows=design.rows[:m],
    )
