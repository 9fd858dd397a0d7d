"""`Fit` and the user's own values → the parameters that responses are drawn with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import array_of, is_number, positive
from lmmsparse.common.words import brief, close_match, listed
from lmmsparse.design.terms import coefficients_of
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.held import theta_names
from lmmsparse.optimize import Bounds

_LARGEST = 1e300


@dataclass(frozen=True, eq=False)
class Given:
    """Parameters of a model, in place of its estimates.

    Attributes
    ----------
    beta : (p,) array
    theta : (n_theta,) array
    sigma : float
    """

    beta: FloatArray
    theta: FloatArray
    sigma: float


def given_parameters(
    fit: Fit, beta: Any = None, theta: Any = None, sigma: Any = None, bounded: bool = True
) -> Given:
    """The estimates, but for what is given.

    Parameters
    ----------
    beta, theta : mapping, Series or array, optional
        A mapping or Series need not name all of them; labels 0, 1, 2, … are none.
    sigma : float, optional
    bounded : bool
        Whether signs that do not matter are refused.
    """
    names = theta_names(fit.design)
    beta, theta = _by_position(beta), _by_position(theta)
    covariances = _values("theta", theta, fit.theta, names)
    template = fit.template
    lower, upper = template.lower, template.upper
    if not bounded:
        lower, upper = Bounds(lower, upper, template.mirrors).limits
    outside = np.flatnonzero((covariances < lower) | (covariances > upper))
    if outside.size:
        i = int(outside[0])
        raise OptionError(
            f"theta gives {names[i]!r} the value {covariances[i]:g}, which must be between "
            f"{lower[i]:g} and {upper[i]:g}."
        )
    effects = beta
    if isinstance(beta, (Mapping, pd.Series)):
        effects = {coefficient(fit, "beta", name): value for name, value in beta.items()}
    return Given(
        _values("beta", effects, fit.beta, list(fit.design.x_names)),
        covariances,
        fit.sigma if sigma is None else positive("sigma", sigma),
    )


def _by_position(given: Any) -> Any:
    """Values of a Series without names."""
    if isinstance(given, pd.Series) and isinstance(given.index, pd.RangeIndex):
        return given.to_numpy()
    return given


def coefficient(fit: Fit, what: str, name: Any) -> str:
    """A fixed effect's name, also for a term that has a single one."""
    if name in fit.design.x_names:
        return str(name)
    found = coefficients_of(fit.design, name) if isinstance(name, str) else []
    if len(found) == 1:
        return found[0]
    if found:
        raise OptionError(
            f"{what} names {name!r}, a term of {len(found)} coefficients: {', '.join(found)}. "
            "Name each."
        )
    raise OptionError(
        f"{what} names {name!r}, which is not a fixed effect."
        f"{close_match(str(name), fit.design.x_names)} The fixed effects are "
        f"{listed(fit.design.x_names, 20)}."
    )


def _values(what: str, given: Any, own: FloatArray, names: list[str]) -> FloatArray:
    if given is None:
        return np.array(own)
    if isinstance(given, (Mapping, pd.Series)):
        out = np.array(own)
        for name, value in given.items():
            if names.count(str(name)) != 1:
                raise OptionError(
                    f"{what} names {name!r}, which is not one of {listed(names, 20)}."
                    f"{close_match(str(name), names)}"
                )
            out[names.index(str(name))] = _number(what, value)
        return out
    values = [given] if array_of(what, given).ndim == 0 else list(given)
    if len(values) != len(names):
        raise OptionError(
            f"{what} has {len(values)} values, but the model has {len(names)}: {', '.join(names)}. "
            "Give all, or a mapping of some names to values."
        )
    return np.array([_number(what, value) for value in values])


def _number(what: str, value: Any) -> float:
    if is_number(value) and abs(value) <= _LARGEST:
        return float(value)
    raise OptionError(f"{what} must hold finite numbers, not {brief(value)}.")
