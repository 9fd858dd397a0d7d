"""θ and directions → how T and TT' change there, to second order, and where T must not be singular.

A direction is a change of T. Those of θ's own entries are `CovarianceStructure.derivative`; any
others of an unstructured T may be given in their place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.covariance.triangular import with_zero_columns

# The criterion is even in every column of T: this far off, it differs by 1e-16 of its curvature.
ALMOST_NOTHING = 1e-8
_FROM_LIMIT = 1e-4


def of_full_rank(
    template: LambdaTemplate, scales: Sequence[FloatArray], theta: FloatArray
) -> FloatArray:
    """θ with columns of T that are zero moved so little that the criterion cannot tell.

    Parameters
    ----------
    scales : sequence of (k,) arrays
        The unit of every row of T, by term.
    theta : (n_theta,) array
    """
    out = theta.copy()
    for structure, part, scale, (rows, columns) in zip(
        template.structures, template.slices, scales, template.places, strict=True
    ):
        floor = ALMOST_NOTHING * scale[rows]
        small = (rows == columns) & (np.abs(out[part]) < floor)
        if not small.any():
            continue
        if structure.closed:
            T = with_zero_columns(structure.factor(out[part]), ALMOST_NOTHING * scale)
            out[part] = T[rows, columns]
            small = (rows == columns) & (np.abs(out[part]) < floor)
        out[part] = np.where(small, floor, out[part])
    return out


def turned(
    template: LambdaTemplate,
    scales: Sequence[FloatArray],
    theta: FloatArray,
    full: FloatArray,
    directions: Sequence[FloatArray],
) -> Sequence[FloatArray]:
    """∂T at `full`, the point of full rank beside θ, that change TT' as `directions` do at θ.

    Parameters
    ----------
    scales : sequence of (k,) arrays
        As for `of_full_rank`.
    theta, full : (n_theta,) arrays
    directions : sequence of (parameters, k, k) arrays
    """
    if theta is full or np.array_equal(theta, full):
        return directions
    out = []
    for T, moved, scale, D in zip(
        template.factors(theta), template.factors(full), scales, directions, strict=True
    ):
        U, _, V = np.linalg.svd(T.T @ (moved / scale[:, None] ** 2))
        out.append(D if np.array_equal(T, moved) else np.matmul(D, U @ V))
    return out


def away_from_limits(template: LambdaTemplate, theta: FloatArray) -> FloatArray:
    """θ with correlations off their bounds, where T is singular but may not be moved.

    Parameters
    ----------
    theta : (n_theta,) array
    """
    if not template.has_limits:
        return theta
    out = theta.copy()
    for structure, part in zip(template.structures, template.slices, strict=True):
        low, high = structure.lower(), structure.upper()
        limited = np.flatnonzero(np.isfinite(high))
        at = part.start + limited
        out[at] = np.clip(out[at], low[limited] + _FROM_LIMIT, high[limited] - _FROM_LIMIT)
    return out


def derivatives_of_T(
    template: LambdaTemplate,
    theta: FloatArray,
    given: Sequence[FloatArray | None] | None = None,
) -> list[FloatArray]:
    """Per term ∂T, (parameters, k, k), for the columns that cross-products are taken of.

    Parameters
    ----------
    theta : (n_theta,) array
    given : sequence of (parameters, k, k) arrays or None, optional
        Directions of unstructured terms in place of the entries of T.
    """
    ways = given if given is not None else [None] * len(template.structures)
    return [
        template.shifted(t, way if way is not None else structure.derivative(theta[part]))
        for t, (structure, part, way) in enumerate(
            zip(template.structures, template.slices, ways, strict=True)
        )
    ]


def changes_of_TT(
    template: LambdaTemplate, theta: FloatArray, directions: Sequence[FloatArray]
) -> list[FloatArray]:
    """Per term ∂(TT'), (parameters, k, k).

    Parameters
    ----------
    theta : (n_theta,) array
    directions : sequence of (parameters, k, k) arrays
        Per term ∂T, from `derivatives_of_T`.
    """
    out = []
    for D, T in zip(directions, template.shifted_factors(theta), strict=True):
        E = np.matmul(D, T.T)
        out.append(E + np.swapaxes(E, 1, 2))
    return out


def curvatures(
    template: LambdaTemplate,
    theta: FloatArray,
    F: Sequence[FloatArray],
    given: Sequence[FloatArray | None] | None = None,
) -> FloatArray:
    """Σ_terms tr(F ∂²(TT')), (n_theta, n_theta), block diagonal by term.

    Parameters
    ----------
    theta : (n_theta,) array
    F : sequence of (k, k) arrays
        Per term the derivative by TT'.
    given : sequence of (parameters, k, k) arrays or None, optional
        As for `derivatives_of_T`.
    """
    out = np.zeros((template.n_theta, template.n_theta))
    ways = given if given is not None else [None] * len(F)
    for t, (structure, part, D) in enumerate(
        zip(template.structures, template.slices, ways, strict=True)
    ):
        own = template.unshifted(t, F[t])
        if D is None:
            out[part, part] = structure.curvature(theta[part], own)
        else:
            flat = D.reshape(len(D), -1)
            out[part, part] = 2.0 * flat @ np.matmul(own, D).reshape(flat.shape).T
    return out
