"""`Fit` → responses for a bootstrap: drawn from the model, or from its own residuals and modes."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.fit.fit import Fit
from lmmsparse.results.residuals import residuals
from lmmsparse.results.simulate import simulate


class Resampler:
    """Draws one response at a time.

    Parameters
    ----------
    kind : {"parametric", "semiparametric"}

    Notes
    -----
    Semiparametric: residuals √w (y − ŷ) are centred, scaled to mean square σ², drawn with
    replacement and divided by √w; the random effects of each term are centred, transformed so that
    their empirical covariance is the estimated one (which undoes their shrinkage), and whole levels
    are drawn with replacement. Where the covariance A = RR' of the levels is known, R⁻¹u is drawn
    from, and R brings it back.

    References
    ----------
    Carpenter, Goldstein & Rasbash (2003), Journal of the Royal Statistical Society C 52, 431-443.
    """

    def __init__(self, fit: Fit, kind: str) -> None:
        self._fit = fit
        self._parametric = kind == "parametric"
        if self._parametric:
            return
        design = fit.design
        self._mean = design.fixed @ fit.beta + design.offset_or_zero
        rows = residuals(fit, "pearson")[:, None]
        self._residuals = _with_covariance(rows, np.array([[fit.sigma]]))[:, 0]
        factors, prior = fit.template.factors(fit.theta), fit.products.prior
        white = prior.root_transposed(prior.times(fit.modes.u))
        self._effects = [
            _with_covariance(u, fit.sigma * T)
            for u, T in zip(fit.split(white), factors, strict=True)
        ]

    def draw(self, rng: np.random.Generator) -> FloatArray:
        """One response on the fitted rows, (n,)."""
        design = self._fit.design
        if self._parametric:
            values = simulate(self._fit, 1, rng)[0][:, 0]
            return values if len(values) == design.n else values[design.rows]
        y = self._mean.copy()
        for block, effects in zip(design.blocks, self._effects, strict=True):
            drawn = effects[rng.integers(len(effects), size=len(effects))]
            drawn = drawn if block.prior is None else block.prior.root(drawn)
            y += np.einsum("nk,nk->n", block.columns, drawn[block.codes])
        noise = self._residuals[rng.integers(design.n, size=design.n)]
        return np.asarray(y + noise / np.sqrt(design.weights_or_one))


def _with_covariance(rows: FloatArray, factor: FloatArray) -> FloatArray:
    """Rows (m, k) centred and transformed to have empirical covariance factor @ factor.T."""
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    kept = values > 1e-12 * max(float(values.max(initial=0.0)), 1e-300)
    root = np.where(kept, 1.0 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    white = centred @ (vectors * root) @ vectors.T
    return np.asarray(white @ factor.T)
