"""`Fit` → what inference about variances needs of V: expected information and traces, in q-space.

With N = Z'V⁻¹Z every trace over observations is one over random effects, and N is made a few
columns at a time. Variance parameters are those of `directions`, relative to σ², residual last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import scipy.linalg as sla
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.progress import bar
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.covariance.structures import CovarianceStructure, Diagonal, Unstructured
from lmmsparse.engine.linalg import chunks
from lmmsparse.engine.pair_sums import PairSums, pair_sums
from lmmsparse.fit.fit import Fit

_WELL = 1e4


def restricted(traces: FloatArray, A: FloatArray, Q: FloatArray, C: FloatArray) -> FloatArray:
    """tr(PG_rPG_s) with P = V⁻¹ − V⁻¹X C X'V⁻¹, from tr(V⁻¹G_rV⁻¹G_s), (r, r)."""
    CA = np.matmul(C, A)
    J = traces - 2.0 * np.einsum("ij,rsji->rs", C, Q, optimize=True)
    return np.asarray(J + np.einsum("rij,sji->rs", CA, CA, optimize=True))


@one_thread
def information(fit: Fit) -> FloatArray:
    """Expected information about all variance parameters (see `directions`), the residual one last.

    They are relative to σ². It is that of the criterion of the fit, ML or REML; (r, r).
    """
    parts = VarianceParts(fit)
    J = parts.traces()
    if fit.reml and fit.design.p:
        C = sla.cho_solve((fit.modes.solution.RX, False), np.eye(fit.design.p))
        J = restricted(J, parts.slopes(), parts.curvatures(), C)
    return np.asarray(0.25 * (J + J.T))


class VarianceParts:
    """What the method needs of V, variance parameter by variance parameter, residual last."""

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._T = fit.template.shifted_factors(fit.theta)
        self._VX = fit.objective.border(fit.theta)
        # Term, and derivative of its k × k covariance by each variance parameter.
        self._entries = [
            (t, E)
            for t, (structure, part) in enumerate(
                zip(fit.template.structures, fit.template.slices, strict=True)
            )
            for E in directions(structure, fit.theta[part], self._T[t])
        ]

    def _apply(self, entry: tuple[int, FloatArray], B: FloatArray) -> FloatArray:
        """E_r B, with E_r the derivative of Cov(b) by one variance parameter; B is (q, m)."""
        t, E = entry
        a, z = self._fit.template.offsets[t], self._fit.template.offsets[t + 1]
        k = self._fit.template.structures[t].k
        out = np.zeros_like(B)
        part = B[a:z].reshape((z - a) // k, k, B.shape[1])
        out[a:z] = np.matmul(E, part).reshape(z - a, B.shape[1])
        return out

    def _N(self, B: FloatArray) -> FloatArray:
        """N B = Z'V⁻¹Z B."""
        return self._N_from(self._fit.products.ZtZ @ B)

    def _N_from(self, GB: FloatArray) -> FloatArray:
        """N B from Z'WZ B. With w = M⁻¹Λ'Z'WZB, Λ'N B is w itself."""
        template = self._fit.template
        w = self._fit.modes.factor.solve(template.multiply_transposed(self._T, GB))
        if self._inverses is not None:
            return template.multiply_transposed(self._inverses, w)
        return np.asarray(GB - self._fit.products.ZtZ @ template.multiply(self._T, w))

    @cached_property
    def _inverses(self) -> list[FloatArray] | None:
        """T⁻¹ of every term, if none is close to singular."""
        if any(np.linalg.cond(T) > _WELL for T in self._T):
            return None
        return [np.asarray(np.linalg.inv(T), dtype=np.float64) for T in self._T]

    def _K(self, B: FloatArray) -> FloatArray:
        """ΛΛ' B."""
        template = self._fit.template
        return template.multiply(self._T, template.multiply_transposed(self._T, B))

    def slopes(self) -> FloatArray:
        """A_r = X'V⁻¹G_rV⁻¹X, (r, p, p)."""
        VX, RX = self._VX, self._fit.modes.solution.RX
        out = [VX.T @ self._apply(entry, VX) for entry in self._entries]
        return np.array([*out, RX.T @ RX - VX.T @ self._K(VX)])

    def slope_of(self, changes: Sequence[FloatArray], residual: float) -> FloatArray:
        """X'V⁻¹GV⁻¹X with G of a change of every term's covariance and of σ², (p, p)."""
        VX, RX = self._VX, self._fit.modes.solution.RX
        out = residual * (RX.T @ RX - VX.T @ self._K(VX))
        for t, E in enumerate(changes):
            out = out + VX.T @ self._apply((t, E), VX)
        return np.asarray(out)

    def curvatures(self) -> FloatArray:
        """Q_rs = X'V⁻¹G_rV⁻¹G_sV⁻¹X, (r, r, p, p)."""
        VX, RX = self._VX, self._fit.modes.solution.RX
        KVX = self._K(VX)
        NKVX = self._N(KVX)
        left = [self._apply(entry, VX) for entry in self._entries]
        # Z'V⁻¹ G_s V⁻¹X of every parameter; the residual one is Z'V⁻¹W⁻¹V⁻¹X.
        right = [*(self._N(B) for B in left), VX - NKVX]
        r, p = len(left) + 1, VX.shape[1]
        out = np.empty((r, r, p, p))
        for i, B in enumerate(left):
            for j, D in enumerate(right):
                out[i, j] = B.T @ D
                out[j, i] = out[i, j].T
        out[-1, -1] = RX.T @ RX - 2.0 * VX.T @ KVX + KVX.T @ NKVX
        return out

    def _chunks(self) -> Iterator[tuple[int, IntArray, bool]]:
        """Levels of one term whose columns of N are made together; True: one column for all."""
        template = self._fit.template
        apart = len(self._fit.design.groups) == 1
        for t, (structure, n) in enumerate(
            zip(template.structures, template.n_levels, strict=True)
        ):
            if apart:
                yield t, np.arange(n), True
                continue
            for part in chunks(n, template.q * structure.k):
                yield t, np.arange(part.start, part.stop), False

    def traces(self) -> FloatArray:
        """tr(V⁻¹G_rV⁻¹G_s), (r, r)."""
        sums = None
        if len(self._fit.design.groups) > 1:
            sums = pair_sums(
                self._fit.products,
                self._fit.template.shifted_factors(self._fit.theta),
                self._fit.modes.factor,
                self._N_from,
            )
        return self._traces_by_columns() if sums is None else self._traces_of(sums)

    def _traces_of(self, sums: PairSums) -> FloatArray:
        """The traces from sums over pairs of levels."""
        T, sizes = self._T, [s.k for s in self._fit.template.structures]
        own, squares = [N.copy() for N in sums.own], 0.0
        total = float(sum(np.sum(t @ t.T * N) for t, N in zip(T, own, strict=True)))
        for (a, b), flat in sums.products.items():
            # Σ N_ba TT' N_ab, and the squares of Λ'NΛ.
            H = flat.reshape(sizes[a], sizes[b], sizes[a], sizes[b])
            minus = np.tensordot(T[a] @ T[a].T, H, axes=([0, 1], [0, 2]))
            own[b] -= minus
            squares += float(np.sum(T[b] @ T[b].T * minus))
        return self._assembled(sums.products, own, total, squares)

    def _traces_by_columns(self) -> FloatArray:
        """The traces from all columns of N, some at a time."""
        template = self._fit.template
        sizes = [s.k for s in template.structures]
        pairs = {
            (a, b): np.zeros((sizes[a] * sizes[b],) * 2)
            for a in range(len(sizes))
            for b in range(len(sizes))
        }
        own = [np.zeros((k, k)) for k in sizes]
        total, squares = 0.0, 0.0
        with bar("variance information", sum(template.n_levels), "levels") as shown:
            for b, levels, together in self._chunks():
                k, offset = sizes[b], template.offsets[b]
                width = 1 if together else len(levels)
                places = offset + levels[:, None] * k + np.arange(k)
                # Columns of Z'WZ, which is symmetric; for all levels together their sums.
                GB = self._fit.products.ZtZ[places.ravel()]
                if together:
                    GB = sp.kron(np.ones((1, len(levels))), sp.eye_array(k), format="csr") @ GB
                N = self._N_from(GB.toarray().T).reshape(template.q, width, k)
                for a, ka in enumerate(sizes):
                    block = N[template.offsets[a] : template.offsets[a + 1]]
                    rows = block.reshape(-1, ka, width, k).transpose(0, 2, 1, 3).reshape(-1, ka * k)
                    pairs[a, b] += rows.T @ rows
                half = template.multiply_transposed(self._T, N.reshape(template.q, -1))
                half = half.reshape(template.q, width, k)
                for i, level in enumerate(levels if not together else []):
                    own[b] += N[offset + level * k : offset + (level + 1) * k, i]
                if together:
                    own[b] += N[offset : template.offsets[b + 1], 0].reshape(-1, k, k).sum(axis=0)
                own[b] -= np.tensordot(half, half, axes=([0, 1], [0, 1]))
                white = half @ self._T[b]  # columns of Λ'NΛ
                squares += float((white**2).sum())
                if together:
                    mine = white[offset : template.offsets[b + 1], 0].reshape(-1, k, k)
                    total += float(np.einsum("lii->", mine))
                else:
                    for i, level in enumerate(levels):
                        at = offset + level * k
                        total += float(np.trace(white[at : at + k, i]))
                shown.update(len(levels))
        return self._assembled(pairs, own, total, squares)

    def _assembled(
        self,
        pairs: Mapping[tuple[int, int], FloatArray],
        own: list[FloatArray],
        total: float,
        squares: float,
    ) -> FloatArray:
        """The traces from sums over levels; `total` and `squares` are of Λ'NΛ."""
        sizes, n_obs = [s.k for s in self._fit.template.structures], self._fit.design.n
        r = len(self._entries)
        out = np.empty((r + 1, r + 1))
        for x, (a, E) in enumerate(self._entries):
            for y, (b, D) in enumerate(self._entries):
                # tr(N_ba E_r N_ab E_s), with H[(i,k),(j,l)] = Σ N[(ℓ,i),(m,k)] N[(ℓ,j),(m,l)].
                H = pairs[a, b].reshape(sizes[a], sizes[b], sizes[a], sizes[b])
                out[x, y] = np.tensordot(np.tensordot(E, H, axes=([0, 1], [0, 2])), D)
            out[x, r] = out[r, x] = float(np.sum(E * own[a]))
        out[r, r] = n_obs - 2.0 * total + squares
        return out


def directions(structure: CovarianceStructure, par: FloatArray, T: FloatArray) -> list[FloatArray]:
    """Derivatives of the covariance T T' by parameters that span its form, each (k, k)."""
    k = structure.k
    if not isinstance(structure, Unstructured | Diagonal):
        G = np.matmul(structure.derivative(par), T.T)
        return list(G + np.swapaxes(G, 1, 2))
    if structure.n_par == 1:
        return [np.eye(k)]
    out = []
    for i in range(k):
        for j in range(i + 1) if structure.correlated else (i,):
            E = np.zeros((k, k))
            E[i, j] = E[j, i] = 1.0
            out.append(E)
    return out
