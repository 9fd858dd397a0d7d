"""A call with a keyword that does not exist → an error that names the one that was meant."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from lmmsparse.errors import OptionError

P = ParamSpec("P")
R = TypeVar("R")

# What users of R and of statsmodels write from habit.
_HABITS = {
    "REML": "Write reml=True or reml=False.",
    "ML": "Write reml=False for maximum likelihood.",
    "control": "Pass optimizer= or solver= instead.",
    "groups": "Write the grouping factor into the formula, as in (1 | group).",
    "re_formula": "Write random slopes into the formula, as in (x | group).",
    "family": "Responses are Gaussian here; for others use lme4, glmmTMB or MixedModels.jl.",
    "subset": "Select the rows of the data before the call.",
    "re_form": "Write random=True, random=False (R's NA), or random='~(1 | group)'.",
    "allow_new_levels": "Write new_levels='population'.",
    "se_fit": "Write se=True.",
    "nsim": "Write n= for the number of draws.",
    "seed": "Write rng= with a whole number or a numpy generator.",
    "use_u": "Write random='keep' to keep the estimated random effects.",
    "parm": "Write which= for the parameters.",
    "type": "Write kind=, or type= where the function has it.",
}


def checked_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function so that an unknown keyword says what to write instead."""
    known = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_POSITIONAL and name != "self"
    ]

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                raise OptionError(unknown_keyword(function.__name__, name, known))
        return function(*args, **kwargs)

    return checked


def unknown_keyword(function: str, name: str, known: list[str]) -> str:
    """The message for a keyword that a function does not have."""
    folded = {option.lower(): option for option in known}
    close = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    hint = _HABITS.get(name, "") or (f"Did you mean {folded[close[0]]}=?" if close else "")
    return (
        f"{function}() has no option {name!r}. {hint} Its options are {', '.join(known)}.".replace(
            "  ", " "
        )
    )
