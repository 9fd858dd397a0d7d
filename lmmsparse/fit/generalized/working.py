"""The working linear mixed model at a mode, and its estimates: where the search begins.

Of the response η̂ + s/w with weights w the linear model is fitted by maximum likelihood, roughly:
its criterion sees cross-products only. Where levels hold much information it is nearly the model
itself; elsewhere its variances are too small, and nearer than any others known before the search.

References
----------
Breslow & Clayton (1993), Journal of the American Statistical Association 88, 9-25.
"""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.covariance.structures import Diagonal
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.generalized.descent import solution_of
from lmmsparse.engine.generalized.laplace_point import Parameters
from lmmsparse.engine.generalized.rows import GeneralizedRows
from lmmsparse.engine.responses import Response
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.optimize import TrustRegion, minimize_free

_ROUGHLY = TrustRegion(tol=0.2, max_eval=8)
_LEAST = 0.02  # of a standardized diagonal: zero is a stationary point


def working_estimates(
    rows: GeneralizedRows, at: Parameters, u: FloatArray
) -> tuple[Parameters, FloatArray]:
    """Parameters and random effects of the working model; what was given where it has none.

    Parameters
    ----------
    rows : GeneralizedRows
    at : Parameters
    u : (q,) array
        About the mode there.
    """
    template = rows.template
    if not all(s.closed or isinstance(s, Diagonal) for s in template.structures):
        return at, u  # θ is not in units of the response
    try:
        return _fitted(rows, at, u)
    except (NumericalError, np.linalg.LinAlgError):
        return at, u


def _fitted(rows: GeneralizedRows, at: Parameters, u: FloatArray) -> tuple[Parameters, FloatArray]:
    family, template, seen = rows.family, rows.template, rows.seen
    scaled = family.estimates_delta and not family.discrete
    unit = float(np.exp(0.5 * at.delta)) if scaled else 1.0
    random = template.multiply(template.shifted_factors(at.theta), u)
    eta = rows.fixed_part(at.beta) + rows.random_part(random)
    with np.errstate(divide="ignore", invalid="ignore"):
        w = family.expected(eta, seen, at.delta).w
        target = np.where(w > 0, eta + family.at(eta, seen, at.delta).s / w, eta)
    objective = _criterion(rows, w * unit**2, target, None if scaled else 1.0)
    coordinates = StandardizedObjective(objective)
    begin = coordinates.to_internal(at.theta / unit)
    bounds = coordinates.bounds
    x = np.array(minimize_free(_ROUGHLY, coordinates, begin, bounds, template.free).x)
    for group in bounds.mirrors:
        x[group[0]] = max(abs(x[group[0]]), _LEAST)
    theta = template.with_held(coordinates.to_theta(x))
    modes = objective.modes(theta)
    sigma = float(np.sqrt(objective.sigma2(modes.solution)))
    delta = 2.0 * float(np.log(sigma)) if scaled else at.delta
    beta = objective.response.beta0 + modes.solution.beta
    found = Parameters(beta, template.with_held(sigma * theta), delta)
    if not np.isfinite([*beta, delta]).all():
        return at, u
    return found, np.array(modes.u) / sigma


def _criterion(
    rows: GeneralizedRows, weights: FloatArray, target: FloatArray, sigma: float | None
) -> ProfiledDeviance:
    """The deviance of the working model as a function of θ."""
    products = rows.with_fixed(rows.products(weights), weights)
    y = target if rows.offset is None else target - rows.offset
    right = rows.Q.transposed_times(weights * y)
    beta = solution_of(products.XtX, right)
    left = y - rows.Q.times(beta) if rows.p else y
    pulled = weights * left
    response = Response(
        rows.grouped(pulled), rows.Q.transposed_times(pulled), float(pulled @ left), beta
    )
    system = rows.system.with_products(products)
    return ProfiledDeviance(system, rows.template, products, response, False, sigma)
