"""Two fits of the same data → whether one model is contained in the other.

Means are compared by the spaces of their columns. Covariance matrices of the response are, for most
structures, sums of known matrices with unknown weights: one model contains the other where its
matrices span those of the other. The matrices are never formed: random bilinear forms u'Vw of
them have the same linear relations.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.design import Design, RandomBlock
from lmmsparse.design.grouping import same_covariance
from lmmsparse.design.rank import factors_of
from lmmsparse.design.without_rows import on_same_rows
from lmmsparse.engine.covariance.correlated import AR1
from lmmsparse.engine.covariance.structures import CovarianceStructure
from lmmsparse.engine.origins import origins
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.held import theta_names
from lmmsparse.inference.hypotheses.residual_nesting import why_residuals_differ

_SAME = 1e-7
_MORE = 4  # forms beyond the number of matrices
_SEED = 30


def why_not_contained(small: Fit, large: Fit) -> str:
    """Why a likelihood-ratio test of two models says nothing; empty where the one is in the other.

    Parameters
    ----------
    small, large : Fit
        Of the same response, rows and weights.
    """
    designs = on_same_rows(small.design, large.design)
    if designs is None:
        return "as far as can be told: they were fitted in chunks in different ways"
    if not _means_contained(*designs):
        return "fixed effects (or offsets) of the one are not among those of the other"
    if not _held_alike(small, large):
        return "parameters are held in the larger model that are free or other in the smaller"
    differ = why_residuals_differ(small.design, large.design)
    if differ:
        return differ
    known = _covariances_contained(*designs)
    if known is False and large.design.residual is not None:
        known = None  # a correlation within groups may stand for random effects
    if known is None:
        return "it cannot be told whether the random effects of the one are those of the other"
    return "" if known else "random effects of the one are not among those of the other"


def _means_contained(small: Design, large: Design) -> bool:
    """Whether offset + Xβ of the smaller model can be that of the larger for every β."""
    X, _ = origins(small.X, factors_of(small.x_names))
    shift = small.offset_or_zero - large.offset_or_zero
    columns = np.column_stack([X, shift]) if shift.any() else X
    if not columns.shape[1]:
        return True
    Q, _ = large.internal_columns(weighted=False)
    left = columns - Q.times(Q.transposed_times(columns))
    return bool(np.all(np.linalg.norm(left, axis=0) <= _SAME * np.linalg.norm(columns, axis=0)))


def _held_alike(small: Fit, large: Fit) -> bool:
    """Whether the smaller model holds all that the larger one holds, at the same values."""
    values = []
    for fit in (small, large):
        names = theta_names(fit.design)
        held = {names[i]: value for i, value in fit.held.theta} | dict(fit.held.residual)
        values.append(held if fit.held.sigma is None else {**held, "sigma": fit.held.sigma})
    return all(values[0].get(name) == value for name, value in values[1].items())


def _covariances_contained(small: Design, large: Design) -> bool | None:
    """Whether the larger model has all covariance matrices of the smaller; None if unknown."""
    inner, outer = list(small.blocks), list(large.blocks)
    for block in small.blocks:
        partner = next((other for other in outer if _same_but_for_size(block, other)), None)
        if partner is not None:
            inner.remove(block)
            outer.remove(partner)
    if not inner:
        return True
    forms = _Forms(small, _MORE + sum(b.k * (b.k + 1) // 2 for b in (*inner, *outer)))
    wanted = [form for block in inner for form in _hull(block.structure, forms.of(block))]
    found = [forms.of(block) for block in outer]
    ways = [_linear_parts(b.structure, own) for b, own in zip(outer, found, strict=True)]
    for way in product(*ways):
        if _spanned(wanted, [forms.residual, *(form for part in way for form in part)]):
            return True
    hulls = [_hull(b.structure, own) for b, own in zip(outer, found, strict=True)]
    if not _spanned(wanted, [forms.residual, *(form for hull in hulls for form in hull)]):
        return False
    return None if any(_is_curved(block.structure) for block in outer) else False


def _is_curved(structure: CovarianceStructure) -> bool:
    """Whether covariance matrices of a structure do not add up to others of it."""
    return structure.tag == "ar1" or (structure.tag == "cs" and not structure.hom)


def _same_but_for_size(block: RandomBlock, other: RandomBlock) -> bool:
    """Whether two terms are the same, but that standard deviations may be equal in the first."""
    a, b = block.structure, other.structure
    if type(a) is not type(b) or a.k != b.k or not np.array_equal(block.codes, other.codes):
        return False
    if not np.array_equal(block.columns, other.columns) or not same_covariance(
        block.known, other.known
    ):
        return False
    places = isinstance(a, AR1) and isinstance(b, AR1) and a.at != b.at
    return not places and (a.hom or not b.hom)


class _Forms:
    """Random bilinear forms of the covariance matrices that terms are made of.

    Parameters
    ----------
    design : Design
        For its rows and weights.
    """

    def __init__(self, design: Design, count: int) -> None:
        rng = np.random.default_rng(_SEED)
        self._pairs = [rng.standard_normal((2, design.n)) for _ in range(count)]
        w = design.weights_or_one
        self.residual = np.array([float(np.sum(u * v / w)) for u, v in self._pairs])

    def of(self, block: RandomBlock) -> FloatArray:
        """u'Z_i A Z_j'v for all pairs of effects, A the levels' covariance, (k, k, forms)."""
        columns = block.shifted_columns
        size = np.sqrt(np.mean(columns**2, axis=0))
        out = np.empty((block.k, block.k, len(self._pairs)))
        for f, (u, v) in enumerate(self._pairs):
            left, right = (
                np.array(
                    [
                        np.bincount(block.codes, column * r, minlength=block.n_levels)
                        for column in columns.T
                    ]
                )
                for r in (u, v)
            )
            right = right.T if block.prior is None else block.prior.solve(right.T)
            out[:, :, f] = left @ right
        if block.structure.hom or not block.structure.linear:
            return out
        return np.asarray(out / (size[:, None] * size)[:, :, None])


def _all_pairs(F: FloatArray) -> list[FloatArray]:
    k = len(F)
    return [F[i, j] + F[j, i] for i in range(k) for j in range(i + 1)]


def _sums(F: FloatArray, groups: FloatArray) -> list[FloatArray]:
    """Sums of the forms over pairs of effects with the same mark."""
    return [F[groups == mark].sum(axis=0) for mark in np.unique(groups)]


def _hull(structure: CovarianceStructure, F: FloatArray) -> list[FloatArray]:
    """Forms of matrices of which all covariance matrices of a term are sums."""
    k = len(F)
    if not structure.correlated:
        own = [F[i, i] for i in range(k)]
        return [np.sum(own, axis=0)] if structure.hom else own
    if structure.tag == "cs" and structure.hom:
        return _sums(F, np.eye(k))
    if isinstance(structure, AR1) and structure.hom:
        at = np.arange(k) if structure.at is None else np.array(structure.at)
        return _sums(F, np.abs(np.subtract.outer(at, at)))
    return _all_pairs(F)


def _linear_parts(structure: CovarianceStructure, F: FloatArray) -> list[list[FloatArray]]:
    """Sets of matrices all nonnegative sums of which a term has; one is all it has."""
    if not _is_curved(structure):
        return [_hull(structure, F)]
    k, hom = len(F), structure.hom
    own = [F[i, i] for i in range(k)]
    if hom:  # no correlation, or full correlation
        return [[np.sum(own, axis=0)], [F.sum(axis=(0, 1))]]
    equal = _sums(F, np.eye(k)) if structure.tag == "cs" else []
    return [own, equal or [F.sum(axis=(0, 1))]]


def _spanned(wanted: Sequence[FloatArray], by: Sequence[FloatArray]) -> bool:
    """Whether some vectors are combinations of others."""
    A = np.array([form / np.linalg.norm(form) for form in by if form.any()]).T
    B = np.array([form / np.linalg.norm(form) for form in wanted if form.any()]).T
    if not B.size:
        return True
    left = B - A @ np.linalg.lstsq(A, B, rcond=1e-10)[0]
    return bool(np.abs(left).max() <= _SAME)
