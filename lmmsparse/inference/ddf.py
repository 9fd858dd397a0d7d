"""A method's name and a fit → denominator degrees of freedom for any hypothesis Lβ = r."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lmmsparse._types import FloatArray
from lmmsparse.fit import Fit
from lmmsparse.inference.kenward_roger import kenward_roger
from lmmsparse.inference.satterthwaite import satterthwaite
from lmmsparse.options import one_of

METHODS = ("satterthwaite", "kenward-roger", "residual", "asymptotic", "none")


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


def check_ddf(ddf: str) -> str:
    """The name of a method for denominator degrees of freedom.

    Raises
    ------
    OptionError
        If there is no such method.
    """
    if isinstance(ddf, str) and ddf.lower() in METHODS:
        return ddf.lower()
    why = "It names the method for the degrees of freedom of the tests."
    return one_of("ddf", ddf, METHODS, why)


def denominator_df(fit: Fit, ddf: str) -> DenominatorDF:
    """Prepare a method for a fit.

    Parameters
    ----------
    fit : Fit
    ddf : {"satterthwaite", "kenward-roger", "residual", "asymptotic", "none"}

    Returns
    -------
    DenominatorDF

    Raises
    ------
    OptionError
        For an unknown name, or Kenward–Roger on an ML fit.
    """
    ddf = check_ddf(ddf)
    if ddf == "satterthwaite":
        return satterthwaite(fit)
    if ddf == "kenward-roger":
        return kenward_roger(fit)
    if ddf == "residual":
        return Constant(fit.vcov, float(fit.design.n - fit.design.p))
    return Constant(fit.vcov, np.inf)
