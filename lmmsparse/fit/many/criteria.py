"""θ of many responses → their criteria and derivatives at once, where M is block diagonal.

The formulas are those of `objective`, with a leading axis for responses. Small matrices have their
own two axes first, (K, K, responses, levels), so that every operation runs along contiguous memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.criterion import lost_digits, rounding_error
from lmmsparse.engine.linalg import inverse_factors
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import ManyResponses
from lmmsparse.fit.many.levels import MergedLevels
from lmmsparse.optimize.batched import ManyDerivatives


@dataclass(frozen=True, eq=False)
class ManySolutions:
    """The penalized least-squares problems of m responses solved, each at its θ.

    Attributes
    ----------
    value : (m,) array
        The criterion; NaN where it cannot be evaluated.
    beta : (m, p) array
        Internal coordinates, without `ManyResponses.beta0`.
    inverse : (p, p, m) array
        (X'V⁻¹X)⁻¹, internal coordinates.
    pwrss : (m,) array
    s2 : (m,) array
        σ², as held or as profiled out.
    """

    value: FloatArray
    beta: FloatArray
    inverse: FloatArray
    pwrss: FloatArray
    s2: FloatArray


class SharedDesign:
    """What all responses have in common.

    Parameters
    ----------
    T0 : (K, K) array
        What is held of T, the terms side by side in the coordinates of `levels`.
    D : (d, K, K) array
        ∂T/∂x of what is free: T is T0 plus a linear function of x.
    sizes : (K, K) array
        Takes columns of T to those of the cross-products, each over its root mean square.
    held_sigma : float, optional
        σ, where it is not profiled out but held.
    """

    def __init__(
        self,
        products: CrossProducts,
        levels: MergedLevels,
        T0: FloatArray,
        D: FloatArray,
        reml: bool,
        sizes: FloatArray,
        held_sigma: float | None = None,
    ) -> None:
        self.n, self.sizes = products.n, sizes
        self.levels, self.T0, self.D, self.reml = levels, T0, D, reml
        self.held_sigma = held_sigma
        self.df = products.n - (products.p if reml else 0)
        self.XtX = products.XtX
        self.constant = -products.sum_log_weights + (products.basis.logdet if reml else 0.0)


@dataclass(frozen=True, eq=False)
class _Point:
    """What an evaluation leaves for the derivatives; (…, m, L) arrays are per merged level.

    Attributes
    ----------
    T : (K, K, m) array
    y : (K, m, L) array
    inverse : (K, K, m, L) array
        L⁻¹ with LL' = M.
    W : (K, K, m, L) array
        L⁻¹T'.
    WX : (K, p, m, L) array
    """

    T: FloatArray
    y: FloatArray
    inverse: FloatArray
    W: FloatArray
    WX: FloatArray
    solutions: ManySolutions


@dataclass(frozen=True, eq=False)
class _Within:
    """Sums within levels; (…, m, L) arrays are per merged level, (m, …, L) ones of all effects.

    H = Z'V⁻¹Z, HT = Z'V⁻¹Z T and T'HT; VX = Z'V⁻¹X and UX = T'VX, (m, K p, L); v = Z'V⁻¹(y − Xβ)
    and u = T'v, (K, m, L).
    """

    H: FloatArray
    HT: FloatArray
    THT: FloatArray
    VX: FloatArray
    UX: FloatArray
    v: FloatArray
    u: FloatArray


class ManyDeviances:
    """−2 log-likelihoods (or restricted ones) of m responses, in standardized coordinates."""

    def __init__(self, design: SharedDesign, responses: ManyResponses) -> None:
        self._design = design
        self._yty = responses.yty
        self._y = design.levels.responses(responses.Zty)
        p, m = responses.Xty.shape
        # [X'WX X'Wy; · y'Wy] of every response.
        self._border = np.empty((m, p + 1, p + 1))
        self._border[:, :p, :p] = design.XtX
        self._border[:, :p, p] = self._border[:, p, :p] = responses.Xty.T
        self._border[:, p, p] = responses.yty

    def values(self, x: FloatArray, which: IntArray) -> FloatArray:
        """The criteria of the responses `which`, (m,) in ascending order, at x (m, d)."""
        return self.solutions(x, which).value

    def solutions(self, x: FloatArray, which: IntArray) -> ManySolutions:
        """The penalized least-squares solutions of the responses `which` at x."""
        with np.errstate(all="ignore"):  # what breaks down becomes NaN and is dealt with as such
            return self._solve(x, which).solutions

    def residual_squares(self, x: FloatArray, which: IntArray) -> FloatArray:
        """What of r² is not ‖u‖² but residuals, of the responses `which` at x, (m,)."""
        with np.errstate(all="ignore"):
            point = self._solve(x, which)
            residual = point.y - np.matmul(point.solutions.beta, self._design.levels.X)
            half = np.einsum("iaml,aml->iml", point.W, residual)
            u = np.einsum("jiml,jml->iml", point.inverse, half)
            return np.asarray(point.solutions.pwrss - np.einsum("iml,iml->m", u, u))

    def derivatives(self, x: FloatArray, which: IntArray) -> ManyDerivatives:
        """Values, gradients and Hessians of the responses `which` at x."""
        with np.errstate(all="ignore"):
            point = self._solve(x, which)
            left = point.solutions.pwrss / self._yty[which]
            effects = np.abs(np.tensordot(self._design.sizes, point.T, axes=1)).sum(axis=0)
            noise = rounding_error(self._design.df, left)
            noise = noise + lost_digits(self._design.n, np.linalg.norm(effects, axis=0))
            return self._derivatives(point, noise)

    def slopes(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """How (X'V⁻¹X)⁻¹ and r² change with x (m, d), of all responses.

        Returns
        -------
        inverse : (m, d, p, p) array
        pwrss : (m, d) array
        """
        D = self._design.D
        K, p, _ = self._design.levels.X.shape
        with np.errstate(all="ignore"):
            point = self._solve(x, np.arange(len(x)))
            within = self._within(point)
            G = np.matmul(within.VX, within.UX.swapaxes(1, 2)).reshape(len(x), K, p, K, p)
            S = np.einsum("iab,mapbq->mipq", D, G, optimize=True)
            C = point.solutions.inverse.transpose(2, 0, 1)[:, None]
            inverse = np.matmul(np.matmul(C, S + S.swapaxes(2, 3)), C)
            vu = np.einsum("aml,bml->abm", within.v, within.u)
            return inverse, np.asarray(-2.0 * np.einsum("iab,abm->mi", D, vu))

    def _solve(self, x: FloatArray, which: IntArray) -> _Point:
        design, A, X = self._design, self._design.levels.A, self._design.levels.X
        K, p, L = X.shape
        m = len(x)
        y = self._y if m == self._y.shape[1] else self._y[:, which]
        T = design.T0[:, :, None] + np.tensordot(design.D, x, axes=(0, 1))
        # M = T'AT + I, a linear map of the products of two entries of T.
        TT = np.einsum("aim,bjm->ijmab", T, T).reshape(K * K * m, K * K)
        M = (TT @ A.reshape(K * K, L)).reshape(K, K, m, L)
        for i in range(K):
            M[i, i] += 1.0
        inverse, logdets = inverse_factors(M)
        W = np.einsum("ijml,ajm->iaml", inverse, T)
        C = np.empty((K, p + 1, m, L))
        C[:, :p] = np.einsum("iaml,apl->ipml", W, X)
        C[:, p] = np.einsum("iaml,aml->iml", W, y)
        CtC = np.matmul(C.transpose(0, 2, 1, 3), C.transpose(0, 2, 3, 1)).sum(axis=0)
        rest = np.ascontiguousarray((self._border[which] - CtC).transpose(1, 2, 0))
        # The last row of the inverse factor of [R_X'R_X ·; · r²] is [−β' 1] / r.
        root, logdet = inverse_factors(rest)
        pwrss = root[p, p] ** -2.0
        pwrss = np.where(pwrss > 0, pwrss, np.nan)
        value = logdets @ design.levels.count + design.constant
        s2 = pwrss / design.df
        if design.held_sigma is not None:
            s2 = np.where(np.isnan(pwrss), np.nan, design.held_sigma**2)
        value += design.df * np.log(2.0 * np.pi * s2) + pwrss / s2
        if design.reml:
            value += logdet - np.log(pwrss)
        beta = (-root[p, :p] / root[p, p]).T
        inverse_X = np.einsum("ijm,ikm->jkm", root[:p, :p], root[:p, :p])
        solved = ManySolutions(value, beta, inverse_X, pwrss, s2)
        return _Point(T, y, inverse, W, C[:, :p], solved)

    def _within(self, point: _Point) -> _Within:
        design, T, W = self._design, point.T, point.W
        A, X = design.levels.A, design.levels.X
        K, p, L = X.shape
        m = T.shape[2]
        # H = Z'V⁻¹Z level by level, HT = ATM⁻¹ and T'HT = I − M⁻¹, which lose no digits however
        # large T is; VX = Z'V⁻¹X, v = Z'V⁻¹(y − Xβ), and UX and u are T' times these.
        WA = np.einsum("iaml,abl->ibml", W, A)
        H = A[:, :, None] - np.einsum("iaml,ibml->abml", WA, WA)
        HT = np.einsum("iaml,ijml->ajml", WA, point.inverse)
        THT = -np.einsum("iaml,ibml->abml", point.inverse, point.inverse)
        for i in range(K):
            THT[i, i] += 1.0
        VX = X[:, :, None] - np.einsum("iaml,ipml->apml", WA, point.WX)
        UX = np.einsum("iaml,ipml->apml", point.inverse, point.WX)
        VX, UX = (each.reshape(K * p, m, L).transpose(1, 0, 2) for each in (VX, UX))
        r = point.y - np.matmul(point.solutions.beta, X)
        half = np.einsum("iaml,aml->iml", W, r)
        v = r - np.einsum("iaml,iml->aml", WA, half)
        u = np.einsum("iaml,iml->aml", point.inverse, half)
        return _Within(H, HT, THT, VX, UX, v, u)

    def _derivatives(self, point: _Point, noise: FloatArray) -> ManyDerivatives:
        design, T, solved, D = self._design, point.T, point.solutions, self._design.D
        K, p, _ = design.levels.X.shape
        d, m, s2 = len(D), T.shape[2], solved.s2
        within = self._within(point)
        H, HT, THT = within.H, within.HT, within.THT
        VX, UX, v, u = within.VX, within.UX, within.v, within.u
        vv, vu, uu = (a[:, None] * b for a, b in ((v, v), (v, u), (u, u)))
        minus = vv.sum(axis=3) / s2
        if design.reml and p:
            gram = np.matmul(VX, VX.swapaxes(1, 2)).reshape(m, K, p, K, p)
            minus = minus + np.einsum("mapbq,pqm->abm", gram, solved.inverse)
        FT = HT @ design.levels.count - np.einsum("abm,bcm->acm", minus, T)
        F = H @ design.levels.count - minus
        FD = np.einsum("abm,jbc->acjm", F, D).reshape(K * K, d * m)
        D_flat = D.reshape(d, K * K)
        gradient = 2.0 * (D_flat @ FT.reshape(K * K, m)).T
        curvature = 2.0 * (D_flat @ FD).reshape(d, d, m).transpose(2, 0, 1)

        def sums(first: FloatArray, second: FloatArray) -> FloatArray:
            flat = first.reshape(K * K, m, -1).transpose(1, 0, 2)
            other = second.reshape(K * K, m, -1).transpose(1, 2, 0)
            return np.asarray(np.matmul(flat, other).reshape(m, K, K, K, K))

        # Σ_levels v'E_i H E_j v as in `traces.sandwiches`.
        form = (sums(H, uu) + sums(vv, THT)).transpose(0, 1, 3, 2, 4)
        form = form + 2.0 * sums(HT, vu).transpose(0, 1, 4, 3, 2)
        AI = np.matmul(np.matmul(D_flat, form.reshape(m, K * K, K * K)), D_flat.T)
        if p:
            # X'V⁻¹Z E_i v = Σ_levels VX' D_i u + UX' D_i'v.
            XVu = np.matmul(VX, u.transpose(1, 2, 0)).reshape(m, K, p, K).transpose(0, 1, 3, 2)
            UXv = np.matmul(UX, v.transpose(1, 2, 0)).reshape(m, K, p, K).transpose(0, 3, 1, 2)
            XVZc = np.matmul(D_flat, (XVu + UXv).reshape(m, K * K, p))
            inner = np.matmul(XVZc, solved.inverse.transpose(2, 0, 1))
            AI -= np.matmul(inner, XVZc.swapaxes(1, 2))
        if design.held_sigma is None:
            cv = 2.0 * (D_flat @ vu.sum(axis=3).reshape(K * K, m)).T
            AI -= cv[:, :, None] * cv[:, None, :] / (s2 * design.df)[:, None, None]
        hessian = AI / s2[:, None, None] + curvature
        hessian = 0.5 * (hessian + hessian.swapaxes(1, 2))
        return ManyDerivatives(solved.value, gradient, hessian, noise)
