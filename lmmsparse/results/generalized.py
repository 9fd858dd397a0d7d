"""`GeneralizedFit` → predictions on both scales, residuals of five kinds, draws, dispersion."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import normal_cdf, normal_quantile
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import as_generator, one_of, whole_number
from lmmsparse.common.table import Table, fixed, p_values
from lmmsparse.engine.families import Binomial
from lmmsparse.engine.families.base import Family, Observations
from lmmsparse.engine.linalg import chunks
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.generalized.verdict import pearson, pearson_ratio
from lmmsparse.results.given import Given
from lmmsparse.results.parameters import parameter_names, parameter_values
from lmmsparse.results.predict import level_variances, new_frame, predict
from lmmsparse.results.prediction_error import predict_with_error
from lmmsparse.results.simulate import drawn_predictors

TYPES = ("response", "link")
RESIDUALS = ("deviance", "pearson", "response", "working", "quantile")
_STEP, _FAR, _PER_SD = 0.25, 9.0, 0.6  # in standard deviations


def covariance_names(fit: GeneralizedFit) -> list[str]:
    """Standard deviations and correlations as in `parameter_names`, then the family's own."""
    own = [fit.family.parameter] if fit.family.estimates_delta else []
    return [*parameter_names(fit)[:-1], *own]


def covariance_values(
    fit: GeneralizedFit, theta: FloatArray | None = None, delta: float | None = None
) -> FloatArray:
    """The values of `covariance_names`, of the estimates if θ and δ are not given."""
    at = fit.delta if delta is None else delta
    own = [float(np.exp(at))] if fit.family.estimates_delta else []
    theta = fit.theta if theta is None else theta
    return np.array([*parameter_values(fit, theta, 1.0)[:-1], *own])


def marginal_mean(family: Family, eta: FloatArray, sd: FloatArray) -> FloatArray:
    """E g⁻¹(η + sd · Z) for a standard normal Z, (m,)."""
    if isinstance(family, Binomial) and family.link == "probit":
        return np.asarray(normal_cdf(eta / np.sqrt(1.0 + sd**2)))
    if family.link == "log" and not isinstance(family, Binomial):
        return np.exp(eta + 0.5 * sd**2)
    if family.link == "identity":
        return eta
    # The trapezoidal rule, whose error falls exponentially where the mean is smooth; the poles of
    # the logistic function are π / sd from the real line.
    step = min(_STEP, _PER_SD / max(float(np.nanmax(sd, initial=0.0)), 1e-12))
    nodes = step * np.arange(-math.ceil(_FAR / step), math.ceil(_FAR / step) + 1)
    weights = np.exp(-0.5 * nodes**2)
    out = np.empty(len(eta))
    for rows in chunks(len(eta), len(nodes)):
        at = eta[rows, None] + sd[rows, None] * nodes
        means = family.mean(at.ravel()).reshape(at.shape)
        # A link with limits: the mean over the predictors that it takes.
        share = np.where(np.isfinite(means), weights, 0.0)
        with np.errstate(invalid="ignore"):
            out[rows] = np.sum(np.where(share > 0, means, 0.0) * share, axis=1) / share.sum(axis=1)
    return np.where(np.isfinite(eta), out, np.nan)


def _spread(fit: GeneralizedFit, newdata: Any) -> FloatArray:
    """The standard deviation of all random effects in the linear predictor of every row, (m,)."""
    if newdata is None:
        columns = [block.columns for block in fit.design.blocks]
    else:
        recipe, frame = new_frame(fit, newdata)
        columns = [recipe.random(t, frame) for t in range(len(fit.design.blocks))]
    total: FloatArray | float = 0.0
    for t, (own, T) in enumerate(zip(columns, fit.template.factors(fit.theta), strict=True)):
        total = total + level_variances(fit, t, newdata) * np.square(own @ T).sum(axis=1)
    spread = np.asarray(np.sqrt(total))
    return spread if newdata is not None else fit.design.pad(spread)


def predict_generalized(
    fit: GeneralizedFit,
    newdata: Any,
    kind: str,
    random: bool | str,
    new_levels: str,
    offset: Any,
    se: bool,
    interval: str | None,
    level: float,
    marginal: bool,
) -> pd.Series | pd.DataFrame:
    """Predictions on the scale of the response or of the link.

    Notes
    -----
    Standard errors are those of the linear predictor, by the delta method on the response; limits
    are those of the linear predictor, mapped.
    """
    one_of("type", kind, TYPES, "It is the scale of the predictions.")
    if interval is not None:
        if isinstance(interval, str) and interval == "prediction":
            raise OptionError(
                "interval='prediction' is for models with normal residuals. Draw new responses "
                "with m.simulate(1000, newdata=..., rng=...) and take their quantiles."
            )
        one_of("interval", interval, ("confidence",), "Limits are those of the predicted mean.")
    if marginal and random is not False:
        raise OptionError(
            "marginal=True averages over all random effects. It goes with random=False."
        )
    if marginal and kind == "link":
        raise OptionError(
            "marginal=True gives means of the response. It goes with type='response'."
        )
    spread = _spread(fit, newdata) if marginal else None
    if not se and interval is None:
        eta, index = predict(fit, newdata, random, new_levels, offset)
        values = eta if kind == "link" else _mean(fit, eta, spread)
        return pd.Series(values, index=index, name="predicted")
    frame = predict_with_error(fit, newdata, random, new_levels, offset, interval, level)
    if kind == "link":
        return frame
    eta = frame["fit"].to_numpy()
    slope = np.abs(_slope(fit, eta, spread))
    limits = [_mean(fit, frame[side].to_numpy(), spread) for side in ("lower", "upper")]
    columns = {
        "fit": _mean(fit, eta, spread),
        "se": slope * frame["se"].to_numpy(),
        "lower": np.minimum(*limits),
        "upper": np.maximum(*limits),
    }
    return pd.DataFrame(columns, index=frame.index)


def _mean(fit: GeneralizedFit, eta: FloatArray, spread: FloatArray | None) -> FloatArray:
    """The mean at η, or over random effects of a standard deviation."""
    return fit.family.mean(eta) if spread is None else marginal_mean(fit.family, eta, spread)


def _slope(fit: GeneralizedFit, eta: FloatArray, spread: FloatArray | None) -> FloatArray:
    if spread is None:
        return fit.family.mean_slope(eta)
    h = 1e-5
    up, down = (_mean(fit, eta + d, spread) for d in (h, -h))
    return np.asarray((up - down) / (2.0 * h))


def residuals(fit: GeneralizedFit, kind: str, rng: Any = None) -> FloatArray:
    """Residuals at the mode of the random effects, (n,); see the model's `residuals`."""
    one_of("type", kind, RESIDUALS, "It is the kind of residuals.")
    seen, mu, family = fit.seen, fit.fitted, fit.family
    if kind == "response":
        return np.asarray(seen.y - mu)
    if kind == "pearson":
        return pearson(fit)
    if kind == "working":
        return np.asarray((seen.y - mu) / family.mean_slope(fit.linear_predictor))
    if kind == "deviance":
        unit = np.maximum(family.unit_deviance(seen, mu, fit.delta), 0.0)
        return np.asarray(np.sign(seen.y - mu) * np.sqrt(unit))
    generator = as_generator(0 if rng is None else rng)
    upper = family.cdf(seen.y, mu, seen, fit.delta)
    if family.discrete:
        lower = family.cdf(seen.y - family.step_below(seen), mu, seen, fit.delta)
        upper = lower + generator.uniform(size=len(mu)) * (upper - lower)
    return np.asarray(normal_quantile(np.clip(upper, 1e-15, 1.0 - 1e-15)))


def simulate_generalized(
    fit: GeneralizedFit,
    n: int,
    rng: Any,
    random: str,
    newdata: Any,
    at: Given | None = None,
) -> tuple[FloatArray, pd.Index]:
    """Responses drawn from the model; binomial ones as proportions of their trials."""
    if any(f.code == "not-whole" for f in fit.design.findings) and fit.family.discrete:
        raise OptionError(
            "Responses cannot be drawn: the numbers of successes or counts that were fitted are "
            "not whole, so that their distribution is not known."
        )
    generator = as_generator(rng)
    eta, index = drawn_predictors(fit, n, generator, random, newdata, at)
    seen = fit.seen if newdata is None else _seen(fit, newdata)
    values = np.empty_like(eta)
    for j in range(eta.shape[1]):
        known = np.isfinite(eta[:, j])
        mu = np.where(known, fit.family.mean(np.where(known, eta[:, j], 1.0)), 0.5)
        values[:, j] = np.where(known, fit.family.draw(generator, mu, seen, fit.delta), np.nan)
    if newdata is None and fit.design.na_action == "exclude":
        values = np.column_stack([fit.design.pad(column) for column in values.T])
    return values, index


def _seen(fit: GeneralizedFit, newdata: Any) -> Observations:
    """New rows: trials and prior weights from the column the fit used, otherwise one."""
    recipe, frame = new_frame(fit, newdata)
    ones = np.ones(len(frame))
    if recipe.weights_column is None:
        return Observations(ones)
    weights = recipe.weights(frame)
    if fit.problem.trials is not None:
        return Observations(ones, weights)
    return Observations(ones, None, weights)


def dispersion_table(fit: GeneralizedFit, n: int, rng: Any) -> Table:
    """Pearson's ratio, and the spread about the mean beside that of simulated responses.

    Notes
    -----
    Responses are drawn with new random effects; compared is Σ(y − m)²/v, m and v their means and
    variances over the draws. A ratio above 1 is overdispersion.
    """
    n = whole_number("n", n, 20)
    ratio, left = pearson_ratio(fit)
    draws, _ = simulate_generalized(fit, n, rng, "new", None)
    draws = draws[np.isfinite(draws).all(axis=1)]
    mean, variance = draws.mean(axis=1), draws.var(axis=1, ddof=1)
    usable = variance > 0

    def spread(y: FloatArray) -> float:
        return float(np.sum((y[usable] - mean[usable]) ** 2 / variance[usable]))

    simulated = np.array([spread(column) for column in draws.T])
    own, expected = spread(fit.seen.y), float(np.mean(simulated))
    above = (np.sum(simulated >= own) + 1.0) / (n + 1.0)
    below = (np.sum(simulated <= own) + 1.0) / (n + 1.0)
    p, found = min(1.0, 2.0 * min(above, below)), np.nan
    notes = [
        "Pearson: squared residuals at the modes divided by rows less effective parameters.",
        f"Simulation: {n} responses with new random effects; two-sided test.",
    ]
    if expected > 0:
        found = own / expected
    else:
        p = np.nan
        notes.append("NaN: all responses that the model draws are alike.")
    return Table(
        {
            "ratio": [ratio, found],
            "df": [left, np.nan],
            "p.value": [np.nan, p],
        },
        ["Pearson", "simulation"],
        title=f"Dispersion of {fit.design.response}, {fit.family}",
        notes=notes,
        formats={"ratio": fixed(3), "df": fixed(1), "p.value": p_values},
    )
