"""θ of many responses → their criteria and derivatives at once, where M is block diagonal.

The formulas are those of `objective`, with a leading axis for responses. Small matrices have their
own two axes first, (K, K, responses, levels), so that every operation runs along contiguous memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse._types import FloatArray, IntArray
from lmmsparse.covariance import LambdaTemplate
from lmmsparse.crossproducts import CrossProducts
from lmmsparse.merged_levels import MergedLevels
from lmmsparse.optimize.batched import ManyDerivatives
from lmmsparse.responses import ManyResponses


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
    """

    value: FloatArray
    beta: FloatArray
    inverse: FloatArray
    pwrss: FloatArray


class SharedDesign:
    """What all responses have in common.

    Parameters
    ----------
    products : CrossProducts
    template : LambdaTemplate
        Of structures in which T is linear in its parameters.
    levels : MergedLevels
    reml : bool
    """

    def __init__(
        self,
        products: CrossProducts,
        template: LambdaTemplate,
        levels: MergedLevels,
        reml: bool,
    ) -> None:
        self.levels, self.reml, self.p = levels, reml, products.p
        self.df = products.n - (products.p if reml else 0)
        self.XtX = products.XtX
        self.constant = -products.sum_log_weights + (products.basis.logdet if reml else 0.0)
        K = len(levels.A)
        # ∂T/∂x for the terms side by side, (d, K, K).
        self.D = np.zeros((template.n_theta, K, K))
        at = 0
        for structure, part in zip(template.structures, template.slices, strict=True):
            own = slice(at, at + structure.k)
            self.D[part, own, own] = structure.derivative(structure.start())
            at += structure.k
        X = levels.X
        outer = np.einsum("alp,blq->ablpq", X, X)
        self.XX = outer.reshape(K * K, X.shape[1], self.p**2)


@dataclass(frozen=True, eq=False)
class _Point:
    """What an evaluation leaves for the derivatives; (…, m, L) arrays are per merged level.

    Attributes
    ----------
    T : (K, K, m) array
    P : (K, K, m, L) array
        T M⁻¹ T' of every level.
    y, Py : (K, m, L) arrays
    """

    T: FloatArray
    P: FloatArray
    y: FloatArray
    Py: FloatArray
    solutions: ManySolutions


class ManyDeviances:
    """−2 log-likelihoods (or restricted ones) of m responses, in standardized coordinates.

    Parameters
    ----------
    design : SharedDesign
    responses : ManyResponses
    """

    def __init__(self, design: SharedDesign, responses: ManyResponses) -> None:
        self._design = design
        self._y = design.levels.responses(responses.Zty)
        self._Xty, self._yty = responses.Xty.T, responses.yty

    def values(self, x: FloatArray, which: IntArray) -> FloatArray:
        """The criteria of the responses `which`, (m,) in ascending order, at x (m, d)."""
        return self.solutions(x, which).value

    def solutions(self, x: FloatArray, which: IntArray) -> ManySolutions:
        """The penalized least-squares solutions of the responses `which` at x."""
        return self._evaluate(x, which).solutions

    def derivatives(self, x: FloatArray, which: IntArray) -> ManyDerivatives:
        """Values, gradients and Hessians of the responses `which` at x."""
        point = self._evaluate(x, which)
        with np.errstate(all="ignore"):
            return self._derivatives(point)

    def _evaluate(self, x: FloatArray, which: IntArray) -> _Point:
        with np.errstate(all="ignore"):  # what breaks down becomes NaN and is dealt with as such
            return self._solve(x, which)

    def _solve(self, x: FloatArray, which: IntArray) -> _Point:
        design, A = self._design, self._design.levels.A
        K, L, p = A.shape[0], A.shape[2], design.p
        m = len(x)
        y = self._y if m == self._y.shape[1] else self._y[:, which]
        T = np.tensordot(design.D, x, axes=(0, 1))
        # M = T'AT + I, a linear map of the products of two entries of T.
        TT = np.einsum("aim,bjm->ijmab", T, T).reshape(K * K * m, K * K)
        M = (TT @ A.reshape(K * K, L)).reshape(K, K, m, L)
        for i in range(K):
            M[i, i] += 1.0
        inverse, logdets = inverse_factors(M)
        W = np.einsum("ijml,ajm->iaml", inverse, T)
        Wy = np.einsum("iaml,aml->iml", W, y)
        P = np.einsum("iaml,ibml->abml", W, W)
        Py = np.einsum("iaml,iml->aml", W, Wy)
        XVX = np.matmul(P.reshape(K * K, m, L), design.XX).sum(axis=0)
        XVX = design.XtX[:, :, None] - XVX.T.reshape(p, p, m)
        XVy = self._Xty[which] - np.matmul(Py, design.levels.X).sum(axis=0)
        root, logdet_X = inverse_factors(XVX)
        c = np.einsum("ijm,mj->im", root, XVy)
        beta = np.einsum("ijm,im->mj", root, c)
        pwrss = self._yty[which] - np.einsum("iml,iml->m", Wy, Wy) - np.einsum("im,im->m", c, c)
        pwrss = np.where(pwrss > 0, pwrss, np.nan)
        value = logdets @ design.levels.count + design.constant
        value += design.df * (1.0 + np.log(2.0 * np.pi * pwrss / design.df))
        if design.reml:
            value += logdet_X
        inverse_X = np.einsum("ijm,ikm->jkm", root, root)
        return _Point(T, P, y, Py, ManySolutions(value, beta, inverse_X, pwrss))

    def _derivatives(self, point: _Point) -> ManyDerivatives:
        design, levels, T, solved = self._design, self._design.levels, point.T, point.solutions
        A, X, D = levels.A, levels.X, design.D
        K, L, p, d = A.shape[0], A.shape[2], design.p, len(D)
        m, s2 = T.shape[2], solved.pwrss / design.df
        # Per level: N = I − AP and H = NA, the blocks of Z'V⁻¹Z; v = Z'V⁻¹(y − Xβ).
        AP = np.einsum("abl,bcml->acml", A, point.P)
        H = A[:, :, None] - np.einsum("abml,bcl->acml", AP, A)
        N = -AP
        for i in range(K):
            N[i, i] += 1.0
        r = point.y - np.matmul(solved.beta, X.transpose(0, 2, 1))
        v = np.einsum("abml,bml->aml", N, r)
        vv = np.einsum("aml,bml->abml", v, v)
        sum_vv = vv.sum(axis=3)
        F = H @ levels.count - sum_vv / s2
        if design.reml and p:
            XCX = solved.inverse.reshape(p * p, m).T @ design.XX.transpose(0, 2, 1)
            NX = np.einsum("abml,bcml->acml", N, XCX.reshape(K, K, m, L))
            F -= np.einsum("acml,bcml->abm", NX, N)
        # E_i = ∂(TT')/∂x_i; then c_i = E_i v in the notation of `objective`.
        half = np.einsum("iab,cbm->miac", D, T)
        E = half + half.swapaxes(2, 3)
        FT = np.einsum("abm,bcm->acm", F, T)
        FD = np.einsum("abm,jbc->acjm", F, D).reshape(K * K, d * m)
        D_flat = D.reshape(d, K * K)
        gradient = 2.0 * (D_flat @ FT.reshape(K * K, m)).T
        curvature = 2.0 * (D_flat @ FD).reshape(d, d, m).transpose(2, 0, 1)
        # Σ_levels c_i' H c_j, from the sums of products of H and vv'.
        HV = np.matmul(
            H.reshape(K * K, m, L).transpose(1, 0, 2), vv.reshape(K * K, m, L).transpose(1, 2, 0)
        )
        HV = HV.reshape(m, K, K, K, K).transpose(0, 1, 3, 2, 4).reshape(m, K * K, K * K)
        flat = E.reshape(m, d, K * K)
        AI = np.matmul(np.matmul(flat, HV), flat.swapaxes(1, 2))
        if p:
            # X'V⁻¹Z c_i = Σ_levels X'N'E_i v.
            Nv = np.einsum("acml,bml->cabml", N, v).reshape(K, K * K * m, L)
            XNv = np.matmul(Nv, X).sum(axis=0).reshape(K * K, m, p)
            XVZc = np.matmul(flat, XNv.transpose(1, 0, 2))
            AI -= np.matmul(np.matmul(XVZc, solved.inverse.transpose(2, 0, 1)), XVZc.swapaxes(1, 2))
        cv = np.einsum("miab,abm->mi", E, sum_vv)
        AI -= cv[:, :, None] * cv[:, None, :] / (s2 * design.df)[:, None, None]
        hessian = AI / s2[:, None, None] + curvature
        hessian = 0.5 * (hessian + hessian.swapaxes(1, 2))
        return ManyDerivatives(solved.value, gradient, hessian)


def inverse_factors(M: FloatArray) -> tuple[FloatArray, FloatArray]:
    """L⁻¹ for the lower Cholesky factor L of every matrix, and the log-determinants of M.

    Parameters
    ----------
    M : (k, k, …) array
        Symmetric matrices, their own axes first. Overwritten.

    Returns
    -------
    inverse : (k, k, …) array
        Lower triangular; not finite where M is not positive definite.
    logdet : (…) array
    """
    k = len(M)
    inverse = np.zeros_like(M)
    logdet = np.zeros(M.shape[2:])
    for j in range(k):
        logdet += np.log(M[j, j])
        M[j:, j] /= np.sqrt(M[j, j])
        below = M[j + 1 :, j]
        M[j + 1 :, j + 1 :] -= below[:, None] * below[None]
        inverse[j, j] = 1.0 / M[j, j]
        if j:
            row = np.einsum("i...,ij...->j...", M[j, :j], inverse[:j, :j])
            inverse[j, :j] = -row * inverse[j, j]
    return inverse, logdet
