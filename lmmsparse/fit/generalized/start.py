"""Where a search for β, θ and δ begins: without random effects, a step of EM, the working model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import DataError, NumericalError
from lmmsparse.engine.covariance.structures import Diagonal
from lmmsparse.engine.covariance.triangular import lower_triangular
from lmmsparse.engine.generalized.descent import solution_of
from lmmsparse.engine.generalized.laplace_point import Parameters
from lmmsparse.engine.generalized.mode import factorized
from lmmsparse.engine.generalized.modes import joint_mode
from lmmsparse.engine.generalized.rows import GeneralizedRows
from lmmsparse.engine.points import traces_by_term
from lmmsparse.engine.products import CrossProducts
from lmmsparse.fit.exact import FITS_EXACTLY
from lmmsparse.fit.generalized.coordinates import Coordinates
from lmmsparse.fit.generalized.working import working_estimates

_SIZE, _SMALL_SIZE = 0.7, 0.05
_FIRST, _LOOSE = 1e-2, 1e-3
_SMALLEST, _LARGEST = 0.05, 20.0
_MOST_STEPS = 5


def start_beta(rows: GeneralizedRows) -> FloatArray:
    """β by one weighted least-squares fit to the link of the smoothed response, (p,)."""
    if not rows.p:
        return np.zeros(0)
    family, seen = rows.family, rows.seen
    eta = family.link_of(family.smoothed(seen))
    with np.errstate(all="ignore"):
        weights = family.expected(eta, seen, 0.0).w
    usual = float(np.median(weights))
    weights = np.clip(np.nan_to_num(weights), 1e-3 * usual, 1e3 * usual)
    target = eta if rows.offset is None else eta - rows.offset
    WX = rows.Q.weighted(weights)
    gram = rows.Q.gram_anew(WX)
    return solution_of(gram, rows.Q.transposed_times(weights * target))


def start(
    rows: GeneralizedRows,
    coordinates: Coordinates,
    theta: FloatArray | None = None,
    working: bool = True,
) -> tuple[Parameters, FloatArray]:
    """Return β, θ and δ to begin with, and u there.

    Parameters
    ----------
    rows : GeneralizedRows
    coordinates : Coordinates
    theta : (n_theta,) array, optional
        θ to begin with, which is then kept.
    working : bool
        Whether to go on by the working model.
    """
    family, template = rows.family, rows.template
    beta = _inside(rows, start_beta(rows))
    delta = coordinates.delta
    if coordinates.has_delta:
        delta = family.start_delta(rows.seen, family.mean(rows.fixed_part(beta)))
        if delta <= family.least_delta(rows.seen):
            raise DataError(FITS_EXACTLY)
    keep = theta is not None
    if theta is None:
        theta = template.with_held(coordinates.map @ (_SIZE * template.start))
    u = np.zeros(template.q)
    beta, u, _ = joint_mode(rows, beta, theta, delta, u, _FIRST)
    if keep:
        return Parameters(beta, theta, delta), u
    for _ in range(_MOST_STEPS):
        theta, u, limited = _spread(rows, Parameters(beta, theta, delta), u)
        if coordinates.has_delta:
            eta = rows.fixed_part(beta)
            eta = eta + rows.random_part(template.multiply(template.shifted_factors(theta), u))
            delta = family.start_delta(rows.seen, family.mean(eta))
        beta, u, _ = joint_mode(rows, beta, theta, delta, u, _LOOSE)
        if not limited:  # a step that is cut short says that the next is needed
            break
    if not working:
        return Parameters(beta, theta, delta), u
    here = Parameters(beta, theta, delta)
    at, moved = working_estimates(rows, here, u)
    try:
        beta, moved, _ = joint_mode(rows, at.beta, at.theta, at.delta, moved, _LOOSE)
    except NumericalError:  # they are where the link cannot be used
        return here, u
    return replace(at, beta=beta), moved


def constant_start(
    rows: GeneralizedRows, coordinates: Coordinates
) -> tuple[Parameters, FloatArray]:
    """β of the mean response, and small random effects: far from limits of the link."""
    family, template = rows.family, rows.template
    beta, delta = _constant(rows), coordinates.delta
    if coordinates.has_delta:
        delta = family.start_delta(rows.seen, family.mean(rows.fixed_part(beta)))
    theta = template.with_held(coordinates.map @ (_SMALL_SIZE * template.start))
    return Parameters(beta, theta, delta), np.zeros(template.q)


def _constant(rows: GeneralizedRows) -> FloatArray:
    """β of the mean response, or what is nearest to it if the columns have no constant."""
    family = rows.family
    usual = family.link_of(np.full(rows.n, float(np.mean(family.smoothed(rows.seen)))))
    return rows.Q.transposed_times(usual if rows.offset is None else usual - rows.offset)


def _inside(rows: GeneralizedRows, beta: FloatArray) -> FloatArray:
    """β with a density: the predictor must be inside the link's domain."""
    family, seen = rows.family, rows.seen
    delta = family.held_delta or 0.0
    for _ in range(2):
        with np.errstate(all="ignore"):
            value = family.at(rows.fixed_part(beta), seen, delta).value
        if np.isfinite(value).all():
            return beta
        beta = _constant(rows)
    raise NumericalError(
        f"No start values were found with which the {family.link} link can be used: the linear "
        "predictor leaves the values it allows. Use another link."
    )


def _uncertainty(
    rows: GeneralizedRows,
    products: CrossProducts,
    factors: list[FloatArray],
    inverse: list[FloatArray],
) -> list[FloatArray]:
    """Per term the mean over levels of the blocks of QM⁻¹, (k, k).

    From stored blocks: with M⁻¹M = I they are what T'(Z'WZΛM⁻¹) leaves of the identity.
    """
    own = [S for pair, S in zip(products.pairs, inverse, strict=True) if pair.s == pair.t]
    out = [S.mean(axis=0) for S in own]
    if products.priors:
        for t, trace in enumerate(traces_by_term(products, factors, inverse)):
            left = np.eye(len(trace)) - factors[t].T @ trace / len(own[t])
            out[t] = out[t] if products.priors[t] is None else 0.5 * (left + left.T)
    return out


def _spread(
    rows: GeneralizedRows, at: Parameters, u: FloatArray
) -> tuple[FloatArray, FloatArray, bool]:
    """θ after an over-relaxed step of EM, the random effects in its units, and if it was cut."""
    template, family = rows.template, rows.family
    factors = template.shifted_factors(at.theta)
    eta = rows.fixed_part(at.beta) + rows.random_part(template.multiply(factors, u))
    weights = family.expected(eta, rows.seen, at.delta).w
    products, factor = factorized(rows, at.theta, weights)
    inverse, penalized = factor.inverse_blocks(), rows.prior.times(u)
    remain = _uncertainty(rows, products, factors, inverse)
    out = at.theta.copy()
    moved, limited = u.copy(), False
    for t, (structure, part, T) in enumerate(
        zip(template.structures, template.slices, template.factors(at.theta), strict=True)
    ):
        a, z = template.offsets[t], template.offsets[t + 1]
        by_level = u[a:z].reshape(-1, structure.k)
        spread = by_level.T @ penalized[a:z].reshape(by_level.shape) / len(by_level)
        spread = 0.5 * (spread + spread.T) + remain[t]
        values, vectors = np.linalg.eigh(spread)
        limited |= bool(values[0] < _SMALLEST or values[-1] > _LARGEST)
        values = np.clip(values, _SMALLEST, _LARGEST)
        new = T @ (vectors * values) @ vectors.T
        if structure.closed:
            rows_, columns = np.array(structure.entries).T
            out[part] = lower_triangular(new)[rows_, columns]
        elif isinstance(structure, Diagonal):
            sd = np.sqrt(np.einsum("ij,ij->i", new, new))
            out[part] = np.sqrt(np.mean(sd**2)) if structure.n_par == 1 else sd
        else:
            continue
        back = np.linalg.lstsq(structure.factor(out[part]), T)[0]
        moved[a:z] = (by_level @ back.T).ravel()
    return template.with_held(out), moved, limited
