"""`GeneralizedFit` and clusters → a covariance matrix of β̂ from the scores of the clusters.

The sandwich H⁻¹ Σ s_j s_j' H⁻¹ in (β, θ, δ), with the Hessian H of the log-likelihood and the
scores s_j of the clusters, as the likelihood is approximated. What the estimates take from the
scores, and the degrees of freedom, are those of the working linear model at the optimum: with
I_j = X_j'V_j⁻¹X_j of every cluster and A'(Σ I_j)A = I, shares S_j = A'I_jA, the scores A's_j are
multiplied by (I − S_j)^{−1/2} (CR2) or (I − S_j)⁻¹ (CR3), pseudo-inverses where nothing is left.

References
----------
White (1982), Econometrica 50, 1-25; Kauermann & Carroll (2001), Journal of the American Statistical
Association 96, 1387-1396; Mancl & DeRouen (2001), Biometrics 57, 126-134.
"""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.generalized.scores import informations, scores
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.generalized.verdict import unbounded
from lmmsparse.inference.robust.adjustment import NOTHING_LEFT
from lmmsparse.inference.robust.clusters import Clusters, Robust
from lmmsparse.inference.robust.sandwich import ClusterRobust

_FLAT = 1e-14
_POWERS = {"CR0": 0.0, "CR1": 0.0, "CR2": -0.5, "CR3": -1.0}


@one_thread
def score_robust(fit: GeneralizedFit, robust: Robust, finite: bool = True) -> ClusterRobust:
    """The cluster-robust covariance matrix of a fit.

    Raises
    ------
    OptionError
        If the fixed effects are not where the likelihood is highest.
    """
    if fit.problem.n_agq == 0:
        raise OptionError(
            "Cluster-robust standard errors need the fixed effects that maximize the likelihood, "
            "which n_agq=0 does not find. Fit with n_agq=1."
        )
    p, clusters, basis = fit.design.p, robust.clusters, fit.problem.rows.basis
    assert isinstance(clusters, Clusters)
    own = scores(fit.point, clusters.codes, clusters.count)
    parts = informations(fit.point, clusters.codes, clusters.count)
    values, vectors = np.linalg.eigh(parts.sum(axis=0))
    size = np.sqrt(np.maximum(values, _FLAT * values.max(initial=0.0)))
    A, back = vectors / size, vectors * size
    shares = np.matmul(A.T, np.matmul(parts, A))
    adjust = _powers(shares, _POWERS[robust.kind])
    if robust.kind == "CR1":
        factor = np.sqrt(clusters.count / (clusters.count - 1.0))
        adjust, own = factor * adjust, np.column_stack([own[:, :p], factor * own[:, p:]])
    in_beta = np.einsum("jab,jb->ja", adjust, own[:, :p] @ A) @ back.T
    own = np.column_stack([in_beta @ basis.R, own[:, p:]])
    # −2 log-likelihood is what is differentiated, and the model's covariance matrix twice the
    # inverse of its Hessian.
    bread = np.where(np.isfinite(fit.joint_covariance), fit.joint_covariance, 0.0)
    half = 0.5 * bread[:p] @ own.T
    covariance = half @ half.T
    boundless = unbounded(fit)
    covariance[boundless, boundless] = np.inf
    hat = np.matmul(adjust, shares)
    spread = np.matmul(hat, adjust)
    return ClusterRobust(robust, covariance, basis.coefficients(A), spread, hat, finite)


def _powers(shares: FloatArray, power: float) -> FloatArray:
    """(I − S)^power of every cluster, pseudo-inverses where nothing is left."""
    values, vectors = np.linalg.eigh(shares)
    left = 1.0 - values
    with np.errstate(divide="ignore"):
        scale = np.where(left > NOTHING_LEFT, np.abs(left) ** power, float(power == 0.0))
    return np.asarray(np.matmul(vectors * scale[:, None], vectors.swapaxes(1, 2)))
