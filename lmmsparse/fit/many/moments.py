"""`Fit` and the θ of many responses → what tests of their fixed effects need, all at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.responses import ManyResponses, many_response_products
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.many.batched import BatchedRefits
from lmmsparse.fit.problem import term_columns

_STEP = 1e-4
_FLAT = 1e-8


@dataclass(frozen=True, eq=False)
class Moments:
    """Fixed effects of m responses with their covariances, and how sure these are.

    Attributes
    ----------
    beta : (m, p) array
    covariance : (m, p, p) array
    parameters : (m, d + 1, d + 1) array
        Asymptotic covariance of what is free of θ̂ and of σ̂.
    derivatives : (m, d + 1, p, p) array
        Of the covariance with respect to the same.
    """

    beta: FloatArray
    covariance: FloatArray
    parameters: FloatArray
    derivatives: FloatArray


@one_thread
def moments_of_many(fit: Fit, Y: FloatArray, theta: FloatArray) -> Moments:
    """Moments of responses of a model whose responses can be searched together.

    Parameters
    ----------
    Y : (n, m) array
    theta : (m, n_theta) array
        Their optima.

    Notes
    -----
    As `results.parameter_covariance` has it: central differences of the exact gradient.
    """
    batch = BatchedRefits(fit)
    Q, _ = fit.design.internal_columns()
    terms, design = term_columns(fit.design), fit.design
    m, d, p = Y.shape[1], int(fit.template.free.sum()) + 1, design.p
    out = Moments(
        np.empty((m, p)), np.empty((m, p, p)), np.empty((m, d, d)), np.empty((m, d, p, p))
    )
    for a in range(0, m, batch.part):
        part = slice(a, a + batch.part)
        responses = many_response_products(Y[:, part], Q, terms, design.weights, design.offset)
        found = _moments(fit, batch, responses, batch.coordinates(theta[part]))
        for field in fields(out):
            getattr(out, field.name)[part] = getattr(found, field.name)
    return out


def _moments(fit: Fit, batch: BatchedRefits, responses: ManyResponses, x: FloatArray) -> Moments:
    deviances, which = batch.deviances(responses), np.arange(len(x))
    m, d = x.shape
    solved = deviances.solutions(x, which)
    slopes, pwrss = deviances.slopes(x)
    sigma2 = np.asarray(solved.s2)
    sigma = np.sqrt(sigma2)
    H = np.zeros((m, d + 1, d + 1))
    for i in range(d):
        step = np.zeros((m, d))
        step[:, i] = _STEP * np.maximum(1.0, np.abs(x[:, i]))
        up = deviances.derivatives(x + step, which).gradient
        down = deviances.derivatives(x - step, which).gradient
        H[:, :d, i] = (up - down) / (2.0 * step[:, i, None])
    H = 0.5 * (H + H.swapaxes(1, 2))
    varies = d
    if fit.held.sigma is None:  # the gradients are those with σ profiled out
        varies = d + 1
        df = fit.objective.df
        mixed = -2.0 * pwrss / sigma[:, None] ** 3
        own = 4.0 * df / sigma2
        H[:, :d, :d] += mixed[:, :, None] * mixed[:, None, :] / own[:, None, None]
        H[:, :d, d] = H[:, d, :d] = mixed
        H[:, d, d] = own
    A = np.zeros_like(H)
    A[:, :varies, :varies] = 2.0 * _inverses(H[:, :varies, :varies])
    back = fit.products.basis.coefficients(np.eye(fit.design.p))
    C = np.matmul(np.matmul(back, solved.inverse.transpose(2, 0, 1)), back.T)
    slopes = np.matmul(np.matmul(back, slopes), back.T)
    beta = (responses.beta0.T + solved.beta) @ back.T
    covariance = sigma2[:, None, None] * C
    along = [sigma2[:, None, None, None] * slopes, 2.0 * sigma[:, None, None, None] * C[:, None]]
    return Moments(beta, covariance, A, np.concatenate(along, axis=1))


def _inverses(H: FloatArray) -> FloatArray:
    """Inverses of Hessians, without directions in which nothing is curved; NaN stays NaN."""
    known = np.isfinite(H).all(axis=(1, 2))
    out = np.full_like(H, np.nan)
    values, vectors = np.linalg.eigh(H[known])
    kept = values > _FLAT * values[:, -1:].clip(min=0.0)
    inverse = np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)
    out[known] = np.matmul(vectors * inverse[:, None], vectors.swapaxes(1, 2))
    return out
