"""`Fit` and rows → z'ΛM⁻¹Λ'z and x − X'WZΛM⁻¹Λ'z of every row, without a vector of length q each.

A row touches one level per term, so that only blocks of M⁻¹ between its own levels matter. The
factor stores those of pairs of levels that were observed together; for others the levels of one
term are solved for, each once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.linalg import chunks
from lmmsparse.engine.pair_blocks import PairBlocks
from lmmsparse.fit.fit import Fit

_MOST, _AT_A_TIME = 2000, 20  # rows, where there is nothing but solving
_FEW = 50  # rows for which solving costs less than the blocks of the inverse


@dataclass(frozen=True, eq=False)
class EffectsOfRows:
    """The random-effects part of rows: z of every term that takes part.

    Attributes
    ----------
    columns : mapping of int to (m, k) array
        Term → columns, zero where an effect takes no part; of the shifted columns where the term
        has a shift (see `RandomBlock.shift`).
    codes : mapping of int to (m,) int array
        Term → level, −1 for a level the fit has not seen.
    """

    columns: Mapping[int, FloatArray]
    codes: Mapping[int, IntArray]

    @property
    def m(self) -> int:
        return next((len(codes) for codes in self.codes.values()), 0)

    def of(self, part: slice) -> EffectsOfRows:
        """Some of the rows."""
        return EffectsOfRows(
            {t: columns[part] for t, columns in self.columns.items()},
            {t: codes[part] for t, codes in self.codes.items()},
        )


def conditional_forms(fit: Fit, rows: EffectsOfRows) -> FloatArray:
    """z'ΛM⁻¹Λ'z of every row, (m,); levels the fit has not seen count nothing."""
    if fit.estimated:
        return _some_at_a_time(fit, rows)
    if rows.m <= _FEW:
        return _by_rows(fit, rows)
    T = fit.template.shifted_factors(fit.theta)
    out = np.zeros(rows.m)
    for pair, S in zip(fit.products.pairs, fit.modes.factor.inverse_blocks(), strict=True):
        s, t = pair.s, pair.t
        if s not in rows.codes or t not in rows.codes:
            continue
        at, stored = _places(pair, fit.template.n_levels[t], rows)
        C = np.matmul(np.matmul(T[s], S), T[t].T)
        twice = 1.0 if s == t else 2.0
        which = np.flatnonzero(stored)
        for part in chunks(len(which), S.shape[1] * S.shape[2]):
            i = which[part]
            out[i] += twice * np.einsum(
                "ni,nij,nj->n", rows.columns[s][i], C[at[i]], rows.columns[t][i]
            )
        rest = np.flatnonzero(~stored & (rows.codes[s] >= 0) & (rows.codes[t] >= 0))
        if len(rest):
            out[rest] += twice * _between(fit, s, t, rows, rest)
    return out


def _some_at_a_time(fit: Fit, rows: EffectsOfRows) -> FloatArray:
    """The forms by solves only, of as many rows as that is reasonable for."""
    if rows.m > _MOST:
        raise OptionError(
            f"Standard errors of {rows.m} predictions need as many solutions, as the model was "
            "fitted with solver=lmm.Krylov(), which has no inverse. Ask for those of at most "
            f"{_MOST} rows (newdata=) at a time, or fit with an exact solver such as "
            "lmm.Blocked()."
        )
    parts = [slice(i, i + _AT_A_TIME) for i in range(0, rows.m, _AT_A_TIME)]
    return np.concatenate([np.zeros(0), *(_by_rows(fit, rows.of(part)) for part in parts)])


def _places(pair: PairBlocks, n_levels: int, rows: EffectsOfRows) -> tuple[IntArray, BoolArray]:
    """Which stored block belongs to each row, and whether there is one."""
    a, b = rows.codes[pair.s], rows.codes[pair.t]
    if pair.s == pair.t:
        return a, a >= 0
    keys = pair.rows.astype(np.int64) * n_levels + pair.cols
    wanted = a.astype(np.int64) * n_levels + b
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, (keys[at] == wanted) & (a >= 0) & (b >= 0)


def _by_rows(fit: Fit, rows: EffectsOfRows) -> FloatArray:
    """The forms by one solve per row."""
    template, m = fit.template, rows.m
    z = np.zeros((template.q, m))
    for t, codes in rows.codes.items():
        known = np.flatnonzero(codes >= 0)
        k = template.structures[t].k
        places = template.offsets[t] + codes[known, None] * k + np.arange(k)
        z[places, known[:, None]] = rows.columns[t][known]
    a = template.multiply_transposed(template.shifted_factors(fit.theta), z)
    return np.asarray(np.einsum("qn,qn->n", a, fit.modes.factor.solve(a)))


def _between(fit: Fit, s: int, t: int, rows: EffectsOfRows, which: IntArray) -> FloatArray:
    """z_s'[ΛM⁻¹Λ']z_t of some rows, by solves for the levels of the term that has fewer there."""
    template = fit.template
    if len(np.unique(rows.codes[s][which])) < len(np.unique(rows.codes[t][which])):
        s, t = t, s
    T = template.shifted_factors(fit.theta)
    ks, kt = template.structures[s].k, template.structures[t].k
    levels, place = np.unique(rows.codes[t][which], return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(levels) + 1))
    out = np.empty(len(which))
    for part in chunks(len(levels), kt * template.q):
        own = levels[part]
        e = np.zeros((template.q, len(own), kt))
        at = template.offsets[t] + own[:, None] * kt + np.arange(kt)
        e[at, np.arange(len(own))[:, None]] = T[t].T
        solved = fit.modes.factor.solve(e.reshape(template.q, -1))
        of_s = solved[template.offsets[s] : template.offsets[s + 1]]
        blocks = of_s.reshape(-1, ks, len(own), kt)
        mine = order[starts[part.start] : starts[part.stop]]
        i = which[mine]
        between = blocks[rows.codes[s][i], :, place[mine] - part.start]
        left = rows.columns[s][i] @ T[s]
        out[mine] = np.einsum("ni,nij,nj->n", left, between, rows.columns[t][i])
    return out


def projected_rows(
    fit: Fit, X: FloatArray, rows: EffectsOfRows, pulled: list[FloatArray]
) -> FloatArray:
    """R_X⁻ᵀ(x − X'WZΛM⁻¹Λ'z) in internal columns of X, (p, m).

    Parameters
    ----------
    X : (m, p) array
    pulled : list of arrays
        From `pulled_columns`.
    """
    x = sla.solve_triangular(fit.products.basis.R, X.T, trans="T", check_finite=False).T
    for t, codes in rows.codes.items():
        z = np.where(codes[:, None] >= 0, rows.columns[t], 0.0)
        x = x - np.einsum("nk,nkp->np", z, pulled[t][codes])
    return np.asarray(
        sla.solve_triangular(fit.modes.solution.RX, x.T, trans="T", check_finite=False)
    )


def pulled_columns(fit: Fit) -> list[FloatArray]:
    """ΛM⁻¹Λ'Z'WX in internal columns of X, one (levels, k, p) array per term."""
    template, ZtX = fit.template, fit.products.ZtX
    T = template.shifted_factors(fit.theta)
    inner = fit.modes.factor.solve(template.multiply_transposed(T, ZtX))
    return template.by_term(template.multiply(T, inner))
