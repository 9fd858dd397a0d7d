"""Families of distributions for generalized linear mixed models, with their links.

`Binomial`, `Poisson`, `NegativeBinomial`, `Gamma`, `InverseGaussian`, and `Gaussian` for links
other than the identity.
"""

from __future__ import annotations

from typing import Any

from lmmsparse.common.errors import OptionError
from lmmsparse.common.words import brief
from lmmsparse.engine.families.base import Family, Observations, Pointwise
from lmmsparse.engine.families.binomial import Binomial
from lmmsparse.engine.families.continuous import Gamma, Gaussian, InverseGaussian
from lmmsparse.engine.families.counts import NegativeBinomial, Poisson

__all__ = [
    "Binomial",
    "Family",
    "Gamma",
    "Gaussian",
    "InverseGaussian",
    "NegativeBinomial",
    "Observations",
    "Pointwise",
    "Poisson",
    "family_named",
]

_BY_NAME: dict[str, type[Family]] = {
    "binomial": Binomial,
    "bernoulli": Binomial,
    "poisson": Poisson,
    "gamma": Gamma,
    "inverse_gaussian": InverseGaussian,
    "negative_binomial": NegativeBinomial,
    "nbinom2": NegativeBinomial,
}


def family_named(family: Any) -> Family:
    """The family that was given as an object, a class or a name.

    Raises
    ------
    OptionError
    """
    if isinstance(family, Family):
        return family
    if isinstance(family, type) and issubclass(family, Family):
        return family()
    if isinstance(family, str):
        name = family.strip().lower().replace(" ", "_").replace("-", "_").replace(".", "_")
        if name in ("gaussian", "normal"):
            return Gaussian()
        if name in _BY_NAME:
            return _BY_NAME[name]()
    raise OptionError(
        f"family={brief(family)} is not a family. Pass one of {', '.join(map(repr, _BY_NAME))}, or "
        "an object such as lmm.families.Binomial(link='probit'). For a Gaussian response use "
        "lmm.lmer."
    )
