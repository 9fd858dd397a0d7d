"""Two designs → whether the residuals' covariance of one is contained in that of the other."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.design import Design, Grouping
from lmmsparse.design.residual import ResidualDesign

_SAME = 1e-8
_OTHER = "the correlation of the residuals of the one is not that of the other, or within it"
_UNEQUAL = "standard deviations of residuals of the one are not among those of the other"


def why_residuals_differ(small: Design, large: Design) -> str:
    """Why the residuals of one model are not contained in those of another; empty if they are."""
    inner, outer = small.residual, large.residual
    if inner is None:
        return ""
    if outer is None:
        return _OTHER if inner.correlation is not None else _UNEQUAL
    if inner.correlation is not None and not _correlation_within(inner, outer):
        return _OTHER
    own = outer.columns
    if outer.kind == "us" and outer.visits is not None:
        own = np.column_stack([own, _indicators(outer.visits.codes)])
    return "" if _within(inner.columns, own) else _UNEQUAL


def _correlation_within(inner: ResidualDesign, outer: ResidualDesign) -> bool:
    if inner.grouping is None or outer.grouping is None or inner.times is None:
        return False
    if not _same_groups(inner.grouping, outer.grouping):
        return False
    if inner.kind == outer.kind:
        return inner.kind == "cs" or _same_places(inner.times, outer.times, outer.kind)
    if outer.kind != "us" or outer.visits is None:
        return False
    return inner.kind == "cs" or _one_to_one(inner.times, outer.visits.codes)


def _same_groups(a: Grouping, b: Grouping) -> bool:
    pairs = a.codes.astype(np.int64) * len(b.levels) + b.codes
    return len(a.levels) == len(b.levels) == len(np.unique(pairs))


def _same_places(a: FloatArray | None, b: FloatArray | None, kind: str) -> bool:
    if a is None or b is None:
        return False
    if kind == "us":
        return _one_to_one(a, b)
    return bool(np.allclose(a - a.min(), b - b.min()))


def _one_to_one(a: FloatArray | IntArray, b: FloatArray | IntArray) -> bool:
    one, i = np.unique(a, return_inverse=True)
    other, j = np.unique(b, return_inverse=True)
    pairs = len(np.unique(i.astype(np.int64) * len(other) + j))
    return len(one) == len(other) == pairs


def _indicators(codes: IntArray) -> FloatArray:
    return np.asarray(np.eye(int(codes.max()) + 1)[codes][:, 1:])


def _within(columns: FloatArray, others: FloatArray) -> bool:
    """Whether columns are combinations of others and a constant."""
    if not columns.shape[1]:
        return True
    known = np.column_stack([np.ones(len(columns)), others])
    Q, _ = np.linalg.qr(known / np.linalg.norm(known, axis=0))
    left = columns - Q @ (Q.T @ columns)
    return bool(np.all(np.linalg.norm(left, axis=0) <= _SAME * np.linalg.norm(columns, axis=0)))
