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


_GLMMTMB = "glmmTMB in R has it."
_EXTRA = "Use family='negative_binomial', or an effect of every row, (1 | row)."
_ELSEWHERE = {
    **dict.fromkeys(("zip", "zinb", "zeroinflated", "hurdle", "beta", "tweedie"), _GLMMTMB),
    **dict.fromkeys(("ordinal", "cumulative", "multinomial"), "See ordinal and mclogit in R."),
    "quasipoisson": f"It has no likelihood. {_EXTRA}",
    "quasibinomial": "It has no likelihood. Use an effect of every row, (1 | row).",
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
        if name.replace("_", "") in _ELSEWHERE:
            raise OptionError(f"family={family!r} is not here. {_ELSEWHERE[name.replace('_', '')]}")
    raise OptionError(
        f"family={brief(family)} is not a family. Pass one of {', '.join(map(repr, _BY_NAME))}, or "
        "an object such as lmm.families.Binomial(link='probit'). For a Gaussian response use "
        "lmm.lmer."
    )
