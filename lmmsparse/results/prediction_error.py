"""`Fit` and rows → standard errors and intervals of predictions, by the covariance of (b, β)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import normal_cdf, normal_quantile
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import as_generator, one_of, whole_number
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.linalg import chunks
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.results.correlated_rows import neighbours_of
from lmmsparse.results.parameter_covariance import parameter_covariance
from lmmsparse.results.predict import (
    NewRows,
    Selection,
    check_variances_known,
    level_variances,
    new_frame,
    new_rows,
    new_weights,
    predict,
    predicted,
    select_effects,
)
from lmmsparse.results.row_forms import (
    EffectsOfRows,
    conditional_forms,
    projected_rows,
    pulled_columns,
)

INTERVALS = ("confidence", "prediction")


def predict_with_error(
    fit: Fit,
    newdata: Any,
    random: bool | str,
    new_levels: str,
    offset: Any,
    interval: str | None,
    level: float,
    theta_draws: int = 0,
    rng: Any = None,
) -> pd.DataFrame:
    """Predictions with standard errors and limits; see `LinearMixedModel.predict`.

    Returns
    -------
    DataFrame
        Columns ``fit, se, lower, upper``; `se` is that of the predicted mean.

    Notes
    -----
    With m = M⁻¹Λ'z, Var(x'β̂ + z'b̂ − x'β − z'b) = σ²[z'Λm + |R_X⁻ᵀ(x − X'WZΛm)|²], conditional on θ:
    the inverse of Henderson's mixed-model equations. A level the fit has not seen adds its own
    variance σ² z'TT'z (an animal that a pedigree does not have is as one of unknown parents). A new
    observation adds the residual variance σ²/w and the variance of the random effects that `random`
    leaves out. Limits are normal quantiles.

    With draws of (θ, σ) from their asymptotic normal distribution, the variance is the mean of the
    conditional variances plus the variance of the conditional means, and limits are quantiles of
    the mixture of the conditional normal distributions. The prediction stays that at θ̂.
    """
    if interval is not None:
        one_of("interval", interval, INTERVALS)
    values, index = predict(fit, newdata, random, new_levels, offset)
    selections = select_effects(fit, random)
    rows = _rows(fit, newdata, selections, new_levels, offset, random is True)
    if new_levels == "population":
        check_variances_known(fit, rows.codes)
    theta_draws = whole_number("theta_draws", theta_draws, least=0)
    if theta_draws and isinstance(fit, ResidualFit):
        raise OptionError(
            "theta_draws= is not available for a model with residual= or residual_sd=. Use "
            "bootstrap() for what depends on the uncertainty of covariance parameters."
        )
    observed = interval == "prediction"
    tail = 0.5 - level / 2.0
    if theta_draws:
        center = predicted(fit, rows, selections)
        mixture = _Mixture(
            [
                _conditional(drawn, sigma2, newdata, rows, selections, observed, random)
                for drawn, sigma2 in _drawn_fits(fit, theta_draws, rng)
            ]
        )
        variance, lower, upper = mixture.variance, mixture.quantile(tail), mixture.quantile(-tail)
        lower, upper = lower - center, upper - center
    else:
        _, variance, total = _conditional(
            fit, fit.sigma2, newdata, rows, selections, observed, random
        )
        upper = -normal_quantile(tail) * np.sqrt(total)
        lower = -upper
    if newdata is None:
        variance, lower, upper = (fit.design.pad(v) for v in (variance, lower, upper))
    if new_levels == "nan":
        variance, lower, upper = (
            np.where(rows.unknown, np.nan, v) for v in (variance, lower, upper)
        )
    columns = {
        "fit": values,
        "se": np.sqrt(variance),
        "lower": values + lower,
        "upper": values + upper,
    }
    return pd.DataFrame(columns, index=index)


def _conditional(
    fit: Fit,
    sigma2: float,
    newdata: Any,
    rows: NewRows,
    selections: list[Selection],
    observed: bool,
    random: bool | str,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean of the predicted quantity, the variance of its mean, and its variance, given θ and σ."""
    variance = sigma2 * relative_variance(fit, rows, selections)
    total = variance
    if observed:
        total = variance + sigma2 * _observation_variance(fit, newdata, selections, random)
    return predicted(fit, rows, selections), variance, total


def _drawn_fits(fit: Fit, draws: int, rng: Any) -> Iterator[tuple[Fit, float]]:
    """Fits at draws of θ from its asymptotic distribution, each with a draw of σ²."""
    generator = as_generator(0 if rng is None else rng)
    scaled, template = StandardizedObjective(fit.objective), fit.template
    spread = parameter_covariance(fit).matrix.copy()
    spread[-1] /= fit.sigma  # σ on the scale of its logarithm
    spread[:, -1] /= fit.sigma
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    x = scaled.to_internal(fit.theta)
    for _ in range(draws):
        step = root @ generator.standard_normal(len(root))
        bounds = scaled.bounds.limits
        theta = template.with_held(scaled.to_theta(np.clip(x + step[:-1], *bounds)))
        drawn = replace(fit, optimum=replace(fit.optimum, x=theta))
        yield drawn, fit.sigma2 * float(np.exp(2.0 * step[-1]))


class _Mixture:
    """Equal parts of normal distributions, per row."""

    def __init__(self, parts: list[tuple[FloatArray, FloatArray, FloatArray]]) -> None:
        self._mean = np.array([mean for mean, _, _ in parts])
        self._sd = np.sqrt([total for _, _, total in parts])
        own = np.array([variance for _, variance, _ in parts])
        self.variance = own.mean(axis=0) + self._mean.var(axis=0)

    def quantile(self, tail: float) -> FloatArray:
        """The value below which a share `tail` lies; above which, if it is negative."""
        z = normal_quantile(abs(tail)) * np.sign(tail)
        ends = self._mean + z * self._sd
        low, high = ends.min(axis=0), ends.max(axis=0)
        share = tail if tail > 0 else 1.0 + tail
        for _ in range(60):
            middle = 0.5 * (low + high)
            below = normal_cdf((middle - self._mean) / self._sd).mean(axis=0) < share
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray(0.5 * (low + high))


def _rows(
    fit: Fit,
    newdata: Any,
    selections: list[Selection],
    new_levels: str,
    offset: Any,
    correlated: bool,
) -> NewRows:
    if newdata is not None:
        return new_rows(fit, newdata, selections, new_levels, offset, correlated)
    design = fit.design
    chosen = [s.block for s in selections]
    return NewRows(
        X=design.X,
        offset=design.offset_or_zero,
        columns={t: design.blocks[t].columns for t in chosen},
        codes={t: design.blocks[t].codes for t in chosen},
        unknown=np.zeros(design.n, dtype=bool),
        undetermined=np.zeros(design.n, dtype=bool),
        index=design.index[design.rows],
    )


@one_thread
def relative_variance(fit: Fit, rows: NewRows, selections: list[Selection]) -> FloatArray:
    """Variance of the error of the predicted mean divided by σ², given θ, (m,).

    Parameters
    ----------
    selections : list of Selection
        The random effects that take part.
    """
    template = fit.template
    T = template.factors(fit.theta)
    chosen: dict[int, FloatArray] = {}
    fresh = np.zeros(len(rows.X))
    for selection in selections:
        t, at = selection.block, selection.columns
        columns = np.zeros_like(rows.columns[t])
        columns[:, at] = rows.columns[t][:, at]
        own = columns @ T[t]
        each = fit.design.blocks[t].level_variances(rows.codes[t])
        fresh += np.where(rows.codes[t] < 0, each * np.einsum("nk,nk->n", own, own), 0.0)
        S = template.shifts[t] if template.shifts else None
        chosen[t] = columns if S is None else np.asarray(np.linalg.solve(S.T, columns.T).T)
    effects = EffectsOfRows(chosen, {t: rows.codes[t] for t in chosen})
    out = fresh if not chosen else fresh + conditional_forms(fit, effects)
    if rows.X.shape[1]:
        pulled = pulled_columns(fit)
        widest = max((columns.shape[1] for columns in chosen.values()), default=1)
        for part in chunks(len(out), rows.X.shape[1] * widest):
            half = projected_rows(fit, rows.X[part], effects.of(part), pulled)
            out[part] += np.einsum("pn,pn->n", half, half)
    return out


def _residual_variance(fit: Fit, newdata: Any, random: bool | str) -> FloatArray:
    """What the residual of a new observation adds, divided by σ², (m,)."""
    if not isinstance(fit, ResidualFit):
        return 1.0 / (fit.design.weights_or_one if newdata is None else new_weights(fit, newdata))
    if newdata is None:
        return np.asarray(fit.structure.sd(fit.phi) ** 2)
    recipe, frame = new_frame(fit, newdata)
    found = neighbours_of(fit, recipe, frame, new_weights(fit, newdata))
    return found.variance if random is True else found.unconditional


def _observation_variance(
    fit: Fit, newdata: Any, selections: list[Selection], random: bool | str
) -> FloatArray:
    """1/w and the variance of the random effects that are not predicted, divided by σ², (m,)."""
    chosen = {s.block: set(s.columns.tolist()) for s in selections}
    T = fit.template.factors(fit.theta)
    total = _residual_variance(fit, newdata, random)
    if newdata is not None:
        recipe, frame = new_frame(fit, newdata)
    for t, block in enumerate(fit.design.blocks):
        rest = [j for j in range(block.k) if j not in chosen.get(t, set())]
        if not rest:
            continue
        columns = block.columns if newdata is None else recipe.random(t, frame)
        own = columns[:, rest] @ T[t][rest]
        total = total + level_variances(fit, t, newdata) * np.einsum("nk,nk->n", own, own)
    return np.asarray(total)
