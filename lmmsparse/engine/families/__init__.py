"""Families of distributions for generalized linear mixed models, with their links.

`Binomial`, `Poisson`, `NegativeBinomial`, `Gamma`, `InverseGaussian`, and `Gaussian` for links
other than the identity.
"""

from __future__ import annotations

import re
from typing import Any

from lmmsparse.common.errors import OptionError
from lmmsparse.common.words import brief, close_match
from lmmsparse.engine.families.base import Family, Observations, Pointwise
from lmmsparse.engine.families.continuous import Gamma, Gaussian, InverseGaussian
from lmmsparse.engine.families.counts import NegativeBinomial, Poisson
from lmmsparse.engine.families.proportions import Binomial

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
# By the names that R, statsmodels, pymer4 and bambi have for them, without signs.
_ALSO: dict[str, type[Family]] = {
    **{name.replace("_", ""): kind for name, kind in _BY_NAME.items()},
    **dict.fromkeys(("gaussian", "normal"), Gaussian),
    **dict.fromkeys(("nb", "nb2", "nbinom", "negbin", "negbinomial"), NegativeBinomial),
}


_GLMMTMB = "glmmTMB in R has it."
_EXTRA = "Use family='negative_binomial', or an effect of every row, (1 | row)."
_ELSEWHERE = {
    **dict.fromkeys(("zip", "zinb", "zeroinflated", "hurdle", "beta", "tweedie"), _GLMMTMB),
    **dict.fromkeys(("ordinal", "cumulative", "multinomial"), "See ordinal and mclogit in R."),
    "quasipoisson": f"It has no likelihood. {_EXTRA}",
    "quasibinomial": "It has no likelihood. Use an effect of every row, (1 | row).",
    **dict.fromkeys(
        ("nbinom1", "nb1"),
        "Its variance is proportional to the mean. 'negative_binomial' has mu + mu^2/theta; "
        f"{_GLMMTMB}",
    ),
    **dict.fromkeys(("t", "student", "lognormal"), "Use lmm.lmer, with log(y) for a lognormal y."),
}
_WITH_LINK = re.compile(r"""([^()]+)\(\s*(?:link\s*=\s*)?(["']?)([^()"']*)\2\s*\)""")


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
        with_link = _WITH_LINK.fullmatch(family.strip())
        text, link = (with_link[1], with_link[3].strip()) if with_link else (family, "")
        if (kind := _kind_named(text)) is not None:
            return kind(link)
        if _plain(text) in _ELSEWHERE:
            raise OptionError(f"family={family!r} is not here. {_ELSEWHERE[_plain(text)]}")
    hint = close_match(family, _BY_NAME) if isinstance(family, str) else ""
    if not hint and (kind := _kind_named(type(family).__name__)) is not None:  # of statsmodels
        hint = f" Did you mean lmm.families.{kind.__name__}()?"
    if hasattr(family, "columns"):
        hint = " The data come second, the family third."
    raise OptionError(
        f"family={brief(family)} is not a family.{hint} Pass one of "
        f"{', '.join(map(repr, _BY_NAME))}, or an object such as "
        "lmm.families.Binomial(link='probit'). For a Gaussian response use lmm.lmer."
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s._-]", "", name.lower())


def _kind_named(name: str) -> type[Family] | None:
    return _ALSO.get(_plain(name))


def _family_called(name: str) -> type[Family]:
    """A family by any of its names, such as R's ``binomial`` or ``Gamma``."""
    kind = None if name.startswith("_") else _kind_named(name)
    if kind is not None:
        return kind
    text = f"module 'lmmsparse.families' has no attribute {name!r}."
    if _plain(name) in _ELSEWHERE:
        raise AttributeError(f"{text} {_ELSEWHERE[_plain(name)]}")
    raise AttributeError(f"{text}{close_match(name, __all__)}")


# Not a plain function, from which type checkers would conclude that every name is there.
globals()["__getattr__"] = _family_called
