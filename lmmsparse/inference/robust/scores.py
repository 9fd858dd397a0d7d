"""`GeneralizedFit` and clusters → a covariance matrix of β̂ from the scores of the clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.generalized.scores import scores
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.robust.clusters import Robust

_MANY = 40  # clusters with which z tests are about right


@dataclass(frozen=True, eq=False)
class ScoreRobust:
    """Cluster-robust covariance of the fixed effects of a generalized model; z tests.

    Attributes
    ----------
    robust : Robust
    covariance : (p, p) array

    Notes
    -----
    Cov = H⁻¹ Σ_j s_j s_j' H⁻¹ in (β, θ, δ), with the Hessian H of the log-likelihood and the scores
    s_j of the clusters, as it is approximated (CR0); times m/(m − 1) for m clusters (CR1).

    References
    ----------
    White (1982), Econometrica 50, 1-25; Rabe-Hesketh & Skrondal (2006), Journal of the Royal
    Statistical Society A 169, 805-827.
    """

    robust: Robust
    covariance: FloatArray

    def single(self, L: FloatArray) -> FloatArray:
        return np.full(len(L), np.inf)

    def joint(self, L: FloatArray) -> tuple[float, float]:
        """NaN where the clusters are fewer than what they are to tell."""
        V = L @ self.covariance @ L.T
        if not np.isfinite(V).all():
            return 1.0, np.inf
        size = np.sqrt(np.maximum(np.diag(V), 1e-300))
        rank = np.linalg.matrix_rank(V / np.outer(size, size), hermitian=True)
        return (1.0 if rank >= np.linalg.matrix_rank(L) else np.nan), np.inf

    def notes(self, L: FloatArray) -> list[str]:
        """What a table has to say of the clusters."""
        count = self.robust.clusters.count
        notes = [f"{self.robust.words}: {count} clusters."]
        if count < _MANY:
            notes.append(f"With fewer than {_MANY} clusters these p-values tend to be too small.")
        return notes


@one_thread
def score_robust(fit: GeneralizedFit, robust: Robust) -> ScoreRobust:
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
    p, clusters = fit.design.p, robust.clusters
    own = scores(fit.point, clusters.codes, clusters.count)
    own[:, :p] = own[:, :p] @ fit.problem.rows.basis.R
    # d is −2 log-likelihood, and the model's covariance matrix twice the inverse of its Hessian.
    bread = fit.joint_covariance
    known = np.where(np.isfinite(bread), bread, 0.0)
    half = 0.5 * known[:p] @ own.T
    factor = clusters.count / (clusters.count - 1.0) if robust.kind == "CR1" else 1.0
    covariance = factor * (half @ half.T)
    open_ = ~np.isfinite(np.diag(bread)[:p])
    covariance[open_, open_] = np.inf
    return ScoreRobust(robust, covariance)
