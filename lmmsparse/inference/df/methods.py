"""A method's name and a fit → denominator degrees of freedom for any hypothesis Lβ = r."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import word_of
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.df.kenward_roger import KenwardRoger, kenward_roger
from lmmsparse.inference.df.satterthwaite import Satterthwaite, satterthwaite
from lmmsparse.inference.robust.clusters import Robust
from lmmsparse.inference.robust.robust import cluster_robust
from lmmsparse.inference.robust.sandwich import ClusterRobust
from lmmsparse.inference.robust.scores import score_robust

METHODS = ("satterthwaite", "kenward-roger", "residual", "asymptotic", "none")
_NAMES = {
    "satterthwaite": "Satterthwaite's degrees of freedom",
    "kenward-roger": "Kenward and Roger's degrees of freedom",
    "residual": "residual degrees of freedom",
    "asymptotic": "infinite degrees of freedom",
    "none": "no degrees of freedom",
}


class DenominatorDF(Protocol):
    """Degrees of freedom of t and F tests, and the covariance matrix that goes with them."""

    @property
    def covariance(self) -> FloatArray:
        """Covariance matrix of the fixed effects, (p, p)."""
        ...

    def single(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of the t test of each row of L (m, p); (m,)."""
        ...

    def joint(self, L: FloatArray) -> tuple[float, float]:
        """Scale of the F statistic and denominator df of the test of all rows of L (q, p)."""
        ...


@dataclass(frozen=True, eq=False)
class Constant:
    """The same degrees of freedom for every hypothesis."""

    covariance: FloatArray
    df: float

    def single(self, L: FloatArray) -> FloatArray:
        return np.full(len(L), self.df)

    def joint(self, L: FloatArray) -> tuple[float, float]:
        return 1.0, self.df


def standard_errors(method: DenominatorDF, L: FloatArray) -> FloatArray:
    """Of the rows of L (m, p); NaN where they are not determined, infinite where nothing bounds."""
    V = method.covariance
    boundless = np.isinf(np.diag(V))
    if boundless.any():
        V = np.where(np.isinf(V) | boundless | boundless[:, None], 0.0, V)
    with np.errstate(invalid="ignore"):
        se = np.sqrt(np.einsum("mi,ij,mj->m", L, V, L, optimize=True))
    se[(L[:, boundless] != 0).any(axis=1)] = np.inf
    return np.where(method.open(L), np.nan, se) if isinstance(method, KenwardRoger) else se


def method_notes(method: DenominatorDF, L: FloatArray) -> list[str]:
    """What a table has to say about the standard errors of the rows of L."""
    if isinstance(method, (ClusterRobust, Satterthwaite)):
        return method.notes(L)
    if not isinstance(method, KenwardRoger) or not method.open(L).any():
        return []
    return ["NaN: it depends on variances that REML leaves open, see m.convergence."]


def joint_notes(method: DenominatorDF, ranks: Sequence[float], F: Sequence[float]) -> list[str]:
    """What a table has to say about joint tests that are NaN."""
    tested = np.isnan(F) & (np.asarray(ranks) > 0)
    if not isinstance(method, ClusterRobust) or not tested.any():
        return []
    return ["NaN: there are too few clusters to test so many coefficients at once."]


def method_name(ddf: str, robust: Robust | None = None) -> str:
    """The method in words, for the title of a table."""
    return _NAMES[ddf] if robust is None else f"{robust.words}, {_NAMES[ddf]}"


def check_ddf(ddf: str) -> str:
    """The name of a method for denominator degrees of freedom."""
    return word_of("ddf", ddf, METHODS)


def denominator_df(fit: Fit, ddf: str, robust: Robust | None = None) -> DenominatorDF:
    """Prepare a method for a fit.

    Parameters
    ----------
    ddf : {"satterthwaite", "kenward-roger", "residual", "asymptotic", "none"}
    robust : Robust, optional
        Cluster-robust standard errors in place of the model's.
    """
    ddf = check_ddf(ddf)
    if robust is not None:
        if ddf in ("kenward-roger", "residual"):
            raise OptionError(
                f"ddf={ddf!r} goes with the model's standard errors, not with cluster-robust ones. "
                "Use ddf='satterthwaite' or 'asymptotic'."
            )
        if isinstance(fit, GeneralizedFit):
            return score_robust(fit, robust, ddf == "satterthwaite")
        return cluster_robust(fit, robust, ddf == "satterthwaite")
    if ddf == "satterthwaite":
        return satterthwaite(fit)
    if ddf == "kenward-roger":
        return kenward_roger(fit)
    if ddf == "residual":
        return Constant(fit.vcov, float(fit.design.n - fit.design.p))
    return Constant(fit.vcov, np.inf)
