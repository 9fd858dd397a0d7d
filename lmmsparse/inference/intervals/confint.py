"""`Fit` and a method → confidence intervals of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from lmmsparse.common.calls import unknown_keyword
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import check_level, is_number, refused, word_of
from lmmsparse.common.words import brief
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.intervals.bootstrap import bootstrap
from lmmsparse.inference.intervals.profile.profile import profile
from lmmsparse.inference.intervals.wald import wald_intervals
from lmmsparse.results.parameters import parameter_names, select_rows

METHODS = ("profile", "wald", "boot")
_OPTIONS = ("n_jobs", "progress", "n", "rng", "kind")


def check_method(method: Any) -> str:
    """The name of a kind of interval."""
    return word_of("method", method, METHODS, _meant(method))


def check_interval_level(level: Any) -> float:
    """A confidence level, or a hint where parameters were given in its place."""
    if isinstance(level, (str, list, tuple)):
        usual = f"Use, for example, level=0.95. {_by_name(level)}"
        raise refused("level", "a number between 0 and 1", level, usual)
    return check_level(level)


def _meant(method: Any) -> str:
    """What may be meant by what is given first, where R's confint() has the parameters."""
    if is_number(method) and 0.0 < method < 1.0:
        return f"Give the level by its name: m.confint(level={method})."
    return _by_name(method) if isinstance(method, (str, list, tuple)) else ""


def _by_name(which: Any) -> str:
    return f"Give parameters by name: m.confint(which={brief(which)})."


def confidence_intervals(
    fit: Fit,
    method: str,
    level: float,
    which: str | Sequence[str] | None,
    make_model: Callable[[Fit], Any],
    options: Mapping[str, Any],
) -> pd.DataFrame:
    """Intervals by profile, Wald or bootstrap; see `LinearMixedModel.confint`."""
    for name in options:
        if name not in _OPTIONS:
            known = ["method", "level", "which", *_OPTIONS]
            raise OptionError(unknown_keyword("confint", name, known))
    method = check_method(method)
    for name in ("n", "rng", "kind"):
        if name in options and method != "boot":
            raise OptionError(
                f"{name}={brief(options[name])} goes with method='boot', not with "
                f"method={method!r}. Leave it out, or pass method='boot'."
            )
    level = check_interval_level(level)
    n_jobs, progress = options.get("n_jobs", 1), options.get("progress")
    if method == "wald":
        return wald_intervals(fit, level, which)
    if method == "profile":
        return profile(fit, which, level, n_jobs, progress).confint(level)
    names = [*parameter_names(fit), *fit.design.x_names]
    rows = names if which is None else select_rows(which, names, fit)
    seed = 0 if options.get("rng") is None else options["rng"]
    n = options.get("n", 500)
    replicates = bootstrap(fit, n, seed, make_model, n_jobs=n_jobs, progress=progress)
    return replicates.confint(level, options.get("kind", "percentile")).loc[rows]
