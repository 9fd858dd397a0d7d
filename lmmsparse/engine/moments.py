"""The solution at one θ → a θ nearer to the optimum, by the method of moments.

The random effects predicted at any θ are, level by level, shrunken least-squares estimates; undoing
the shrinkage gives their spread, and what least squares would leave gives the residual variance.
For one balanced factor this is the analysis of variance, and with REML already the optimum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.structures import Diagonal, Unstructured
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.covariance.triangular import lower_triangular
from lmmsparse.engine.linalg import eigh
from lmmsparse.engine.products import CrossProducts

_TINY = 1e-9
# Variances are kept above this share of the error variance of a level's own estimates: zeros are
# saddle points.
_SMALLEST = 0.05


def moment_estimate(
    products: CrossProducts,
    template: LambdaTemplate,
    theta: FloatArray,
    u: FloatArray,
    pwrss: float,
    inverse: Sequence[FloatArray],
) -> FloatArray | None:
    """Return moment estimates of θ from the solution at `theta`, (n_theta,).

    None where there are none: for structures with correlations, for levels whose covariance is
    known, and where the random effects leave next to nothing for the residuals.

    Parameters
    ----------
    theta : (n_theta,) array
        Of full rank.
    u : (q,) array
        Spherical random effects at θ.
    inverse : sequence of arrays
        M⁻¹ where Z'WZ has blocks.
    """
    estimable = all(isinstance(s, (Unstructured, Diagonal)) for s in template.structures)
    if products.priors or not estimable:
        return None
    own = [S for pair, S in zip(products.pairs, inverse, strict=True) if pair.s == pair.t]
    left = pwrss
    df = float(products.n - products.p)
    spreads = []
    for k, S, a, z in zip(
        products.sizes, own, template.offsets[:-1], template.offsets[1:], strict=True
    ):
        own_u = u[a:z].reshape(-1, k)
        # u is I − Σ times the least-squares estimates, u'b is their share of r².
        shrinkage = np.eye(k) - S
        undo = np.linalg.inv(shrinkage + _TINY * np.eye(k))
        left -= float(np.vdot(own_u, np.matmul(undo, own_u[:, :, None])))
        df -= float(np.vdot(undo, shrinkage.swapaxes(1, 2))) - k
        spreads.append((own_u.T @ own_u / len(own_u), S.sum(axis=0) / len(S)))
    if not (df >= 1.0 and left > 1e-10 * pwrss):
        return None
    sigma2 = left / df
    out = np.empty(template.n_theta)
    for structure, part, places, T, (spread, S) in zip(
        template.structures,
        template.slices,
        template.places,
        template.factors(theta),
        spreads,
        strict=True,
    ):
        share, V = eigh(np.eye(structure.k) - S)
        share = np.minimum(np.maximum(share, _TINY), 1.0 - _TINY)
        error = (V * ((1.0 - share) / share)) @ V.T
        undo = (V / share) @ V.T
        size, W = eigh(undo @ spread @ undo / sigma2 - error)
        floor = _SMALLEST * (W * (error @ W)).sum(axis=0)
        A = T @ W * np.sqrt(np.maximum(size, floor))
        if structure.closed:
            out[part] = lower_triangular(A)[places]
        else:
            sd = np.sqrt(np.einsum("ij,ij->i", A, A))
            out[part] = np.sqrt(np.mean(sd**2)) if structure.n_par == 1 else sd
    return out if np.isfinite(out).all() else None
