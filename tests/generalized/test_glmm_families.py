"""Families: log densities against scipy's, derivatives against differences, and far out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats as st

import lmmsparse as lmm
from lmmsparse.engine.families import (
    Binomial,
    Family,
    Gamma,
    Gaussian,
    InverseGaussian,
    NegativeBinomial,
    Observations,
    Poisson,
    family_named,
)

EVERY = [
    *(Binomial(link) for link in Binomial.links),
    *(Poisson(link) for link in Poisson.links),
    *(NegativeBinomial(link) for link in NegativeBinomial.links),
    *(Gamma(link) for link in Gamma.links),
    *(InverseGaussian(link) for link in InverseGaussian.links),
    *(Gaussian(link) for link in Gaussian.links),
]
every = pytest.mark.parametrize("family", EVERY, ids=str)


def observed(family: Family, n: int = 40, seed: int = 0) -> tuple[np.ndarray, Observations, float]:
    """A predictor inside the domain, a response, and δ."""
    rng = np.random.default_rng(seed)
    eta = rng.normal(0, 1.2, n)
    prior = rng.uniform(0.5, 3.0, n)
    delta = 0.4 if family.parameter else 0.0
    if isinstance(family, Binomial):
        trials = rng.integers(1, 9, n).astype(float)
        eta = -np.abs(eta) - 0.05 if family.link == "log" else eta
        return eta, Observations(rng.binomial(trials.astype(int), 0.5) / trials, trials, prior), 0.0
    if family.link != "log":
        eta = np.abs(eta) + 0.3
    if family.discrete:
        return eta, Observations(rng.poisson(3.0, n).astype(float), None, prior), delta
    return eta, Observations(rng.gamma(2.0, 1.0, n) + 0.05, None, prior), delta


def slope(f: Callable[[float], np.ndarray], h: float = 2e-3) -> np.ndarray:
    """The derivative at 0 by differences of eighth order."""
    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    return sum(c * (f(k * h) - f(-k * h)) for k, c in weights.items()) / h


def close(value: np.ndarray, expected: np.ndarray, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)


def log_density(family: Family, eta: np.ndarray, seen: Observations, delta: float) -> np.ndarray:
    """By scipy's distributions; prior weights multiply it, or divide the dispersion."""
    mu, y, w = family.mean(eta), seen.y, np.broadcast_to(seen.prior_or_one, seen.y.shape)
    if isinstance(family, Binomial):
        trials = seen.trials_or_one
        return w * st.binom.logpmf(np.rint(y * trials), trials, mu)
    if isinstance(family, Poisson):
        return w * st.poisson.logpmf(y, mu)
    if isinstance(family, NegativeBinomial):
        k = np.exp(delta)
        return w * st.nbinom.logpmf(y, k, k / (k + mu))
    phi = np.exp(delta) / w
    if isinstance(family, Gamma):
        return st.gamma.logpdf(y, 1 / phi, scale=mu * phi)
    if isinstance(family, InverseGaussian):
        return st.invgauss.logpdf(y, mu * phi, scale=1 / phi)
    return st.norm.logpdf(y, mu, np.sqrt(phi))


@every
def test_log_density_has_every_constant(family: Family) -> None:
    eta, seen, delta = observed(family)
    total = family.at(eta, seen, delta).value.sum() + family.constant(seen, delta)
    close(total, log_density(family, eta, seen, delta).sum(), 1e-11)


@every
def test_derivatives_in_the_predictor(family: Family) -> None:
    eta, seen, delta = observed(family)
    at = family.at(eta, seen, delta, third=True)
    close(at.s, slope(lambda h: family.at(eta + h, seen, delta).value))
    close(-at.w, slope(lambda h: family.at(eta + h, seen, delta).s))
    close(at.t, slope(lambda h: family.at(eta + h, seen, delta).w))
    expected = family.expected(eta, seen, delta)
    close(expected.t, slope(lambda h: family.expected(eta + h, seen, delta).w))
    close(family.mean_slope(eta), slope(lambda h: family.mean(eta + h)))
    close(family.link_of(family.mean(eta)), eta)
    if family.canonical:
        close(at.w, expected.w, 1e-12)


@pytest.mark.parametrize("family", [f for f in EVERY if f.parameter], ids=str)
def test_derivatives_in_the_scale(family: Family) -> None:
    eta, seen, delta = observed(family)
    at = family.scale_slopes(eta, seen, delta)

    def total(h: float) -> np.ndarray:
        moved = delta + h
        return family.at(eta, seen, moved).value.sum() + family.constant(seen, moved)

    close(at.total, slope(total))
    close(at.s, slope(lambda h: family.at(eta, seen, delta + h).s))
    close(at.w, slope(lambda h: family.at(eta, seen, delta + h).w))
    in_delta = family.expected(eta, seen, delta).in_delta
    close(in_delta, slope(lambda h: family.expected(eta, seen, delta + h).w))


@every
def test_expected_weights_are_the_expectation(family: Family) -> None:
    """E(w) over responses drawn from the family."""
    eta, seen, delta = observed(family, n=4)
    rng, n = np.random.default_rng(1), 20_000
    many = np.repeat(eta, n)
    trials = None if seen.trials is None else np.repeat(seen.trials, n)
    wide = Observations(np.ones(4 * n), trials)
    y = family.draw(rng, family.mean(many), wide, delta)
    w = family.at(many, Observations(y, trials), delta).w.reshape(4, n)
    one = family.expected(eta, Observations(seen.y, seen.trials), delta).w
    error = w.std(axis=1) / np.sqrt(n) + 1e-12
    assert np.all(np.abs(w.mean(axis=1) - one) < 5 * error)


@every
def test_draws_have_mean_variance_and_distribution(family: Family) -> None:
    eta, seen, delta = observed(family, n=3)
    rng, n = np.random.default_rng(2), 20_000
    many = np.repeat(eta, n)
    trials = None if seen.trials is None else np.repeat(seen.trials, n)
    wide = Observations(np.ones(3 * n), trials)
    mu = family.mean(many)
    y = family.draw(rng, mu, wide, delta)
    sizes = 1.0 if seen.trials is None else seen.trials
    variance = family.dispersion(delta) * family.variance(family.mean(eta), delta) / sizes
    draws = y.reshape(3, n)
    assert np.all(np.abs(draws.mean(axis=1) - family.mean(eta)) < 5 * np.sqrt(variance / n))
    np.testing.assert_allclose(draws.var(axis=1), variance, rtol=0.2)
    # The share of draws up to a value against the distribution function there.
    own = Observations(draws[:, 0], seen.trials)
    share = (draws <= draws[:, :1]).mean(axis=1)
    np.testing.assert_allclose(
        share, family.cdf(draws[:, 0], family.mean(eta), own, delta), atol=0.02
    )
    below = family.cdf(draws[:, 0] - family.step_below(own), family.mean(eta), own, delta)
    if family.discrete:
        np.testing.assert_allclose((draws < draws[:, :1]).mean(axis=1), below, atol=0.02)


@every
def test_deviance_is_twice_the_distance_to_the_saturated_model(family: Family) -> None:
    eta, seen, delta = observed(family)
    seen = Observations(np.where(seen.y == 0, 0.5, np.minimum(seen.y, 0.9)), seen.trials)
    if isinstance(family, Binomial) and family.link == "log":
        eta = np.minimum(eta, -0.1)
    at_best = family.at(family.link_of(seen.y), seen, delta).value
    distance = 2.0 * (at_best - family.at(eta, seen, delta).value) * family.dispersion(delta)
    close(family.unit_deviance(seen, family.mean(eta), delta), distance)


@pytest.mark.parametrize("link", ["logit", "probit", "cauchit", "cloglog"])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_binomial_is_smooth_far_out(link: str, y: float) -> None:
    """No overflow, no jumps where another formula takes over, derivatives that agree."""
    family = Binomial(link)
    far = 34.0 if link != "cloglog" else 6.0
    eta = np.concatenate([np.linspace(-60, far, 2001), [-1e4, -300.0]])
    at = family.at(eta, Observations(np.full(len(eta), y)), 0.0, third=True)
    for part in at:
        assert np.isfinite(part).all()
    seen = Observations(np.full(len(eta), y))
    for name, of in (("s", "value"), ("w", "s"), ("t", "w")):
        sign = -1.0 if name == "w" else 1.0
        found = sign * slope(lambda h, of=of: getattr(family.at(eta + h, seen, 0.0), of), 1e-2)
        size = np.maximum(np.abs(getattr(at, of)), 1e-12)
        assert np.max(np.abs(found - getattr(at, name)) / np.maximum(size, 1.0)) < 1e-8


@pytest.mark.parametrize("link", ["probit", "cauchit"])
def test_tails_keep_their_digits(link: str) -> None:
    """Relative errors of every derivative against the leading terms of the asymptotic series."""
    at = Binomial(link).at(np.array([-1e3]), Observations(np.ones(1)), 0.0, third=True)
    x, i = 1e3, 1e-6
    if link == "probit":
        expected = [x + 1 / x - 2 / x**3, 1 - i + 6 * i**2, -2 / x**3]
    else:
        expected = [(1 - 2 * i / 3) / x, -1 / x**2, 2 / x**3]
    assert at.s[0] == pytest.approx(expected[0], rel=1e-10)
    assert at.w[0] == pytest.approx(expected[1], rel=1e-5)
    assert at.t[0] == pytest.approx(
        -2 / x**3 * (1.0 if link == "cauchit" else -1.0) * (-1.0 if link == "probit" else 1.0),
        rel=1e-4,
    )


@pytest.mark.parametrize("k", [1e3, 1e6, 1e9, 1e12])
def test_negative_binomial_tends_to_poisson(k: float) -> None:
    eta, seen, _ = observed(Poisson())
    one, other = Poisson(), NegativeBinomial()
    delta = float(np.log(k))
    a, b = one.at(eta, seen, 0.0, True), other.at(eta, seen, delta, True)
    for p, q in zip(a[1:], b[1:], strict=True):  # values leave out different constants
        np.testing.assert_allclose(q, p, rtol=30 / k + 1e-12, atol=100 / k + 1e-12)
    total = [f.at(eta, seen, delta).value.sum() + f.constant(seen, delta) for f in (one, other)]
    assert total[1] == pytest.approx(total[0], abs=3e3 / k + 1e-10)
    assert abs(other.scale_slopes(eta, seen, delta).total) < 3e3 / k + 1e-10


def test_names_and_objects() -> None:
    assert family_named("bernoulli") == Binomial("logit")
    assert family_named("inverse gaussian") == InverseGaussian("log")
    assert family_named("nbinom2") == NegativeBinomial()
    assert family_named(Gamma) == Gamma("log")
    assert family_named(Poisson("sqrt")).link == "sqrt"
    for wrong in ("cauchy", None, 3):
        with pytest.raises(lmm.LmmError, match="is not a family"):
            family_named(wrong)
    with pytest.raises(lmm.LmmError, match=r"lmm\.lmer"):
        family_named("gaussian")
    with pytest.raises(lmm.LmmError, match="'logit', 'probit'"):
        Binomial("log-log")
    with pytest.raises(lmm.LmmError, match="positive"):
        NegativeBinomial(theta=0)
