"""`GeneralizedFit` → how much one observation varies about its mean, on the scale of the link."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import polygamma

from lmmsparse.common.options import word_of
from lmmsparse.engine.families import Binomial, Gamma, NegativeBinomial, Poisson
from lmmsparse.engine.families.base import Family
from lmmsparse.fit.generalized.fit import GeneralizedFit, fitted_generalized
from lmmsparse.results.generalized import marginal_mean
from lmmsparse.results.group_variances import group_variances

# Variances of the distributions whose functions the links are the inverses of.
_LATENT = {"logit": math.pi**2 / 3.0, "probit": 1.0, "cloglog": math.pi**2 / 6.0}
_OF_ZERO = 1e-12


def methods_of(family: Family) -> tuple[str, ...]:
    """The methods that a family has, the default first."""
    if isinstance(family, Binomial):
        return ("theoretical", "delta") if family.link in _LATENT else ("delta",)
    if family.link != "log":
        return ("delta",)
    with_gamma = isinstance(family, (Gamma, NegativeBinomial, Poisson))
    return ("lognormal", "delta", "trigamma") if with_gamma else ("lognormal", "delta")


def check_method(family: Family, method: Any) -> str:
    """The name of a method; the family's first for None."""
    methods = methods_of(family)
    if method is None:
        return methods[0]
    return word_of("method", method, methods, f"It is for {family}.")


def observation_variance(fit: GeneralizedFit, method: str) -> float:
    """The variance that stands for residuals in shares of variance.

    Parameters
    ----------
    fit : GeneralizedFit
    method : str
        One of `methods_of` its family.

    Notes
    -----
    ``"theoretical"``: of the latent variable of which the response says whether it is above zero.
    Otherwise from c² = φV(λ)/λ² at the mean λ of the model without predictors: ``"lognormal"`` is
    log(1 + c²), ``"trigamma"`` ψ₁(1/c²), ``"delta"`` φV(λ) g'(λ)², which is c² for a logarithm. A
    binomial response counts as one trial.

    References
    ----------
    Nakagawa, Johnson & Schielzeth (2017), Journal of the Royal Society Interface 14, 20170213.
    """
    family = fit.family
    if method == "theoretical":
        return _LATENT[family.link]
    mean = np.array([mean_without_predictors(fit)])
    weights = 1.0 if fit.seen.prior is None else float(np.mean(1.0 / fit.seen.prior))
    variance = family.dispersion(fit.delta) * weights * family.variance(mean, fit.delta)
    if method == "delta":
        return float((variance / np.square(family.mean_slope(family.link_of(mean))))[0])
    relative = float((variance / np.square(mean))[0])
    return float(np.log1p(relative) if method == "lognormal" else polygamma(1, 1.0 / relative))


def mean_without_predictors(fit: GeneralizedFit) -> float:
    """Mean of the response by the model with an intercept in place of its fixed effects.

    Random effects are integrated out, with their variance averaged over the rows.
    """
    if isinstance(fit.family, Gamma) and fit.family.link == "log":
        return 1.0  # whatever it is, the coefficient of variation is the same
    null = fit if _has_intercept_only(fit) else _without_predictors(fit)
    eta = np.asarray(null.design.fixed @ null.beta + null.design.offset_or_zero)
    sd = np.full(len(eta), math.sqrt(sum(group_variances(null).values())))
    return float(np.mean(marginal_mean(null.family, eta, sd)))


def _has_intercept_only(fit: GeneralizedFit) -> bool:
    return fit.design.p == 1 and bool(np.ptp(np.asarray(fit.design.X)) <= _OF_ZERO)


def _without_predictors(fit: GeneralizedFit) -> GeneralizedFit:
    design = replace(
        fit.design,
        fixed=np.ones((fit.design.n, 1), order="F"),
        x_names=("Intercept",),
        dropped=(),
        formula="",
        recipe=None,
    )
    return fitted_generalized(replace(fit.problem, design=design, prepared=None), fit.optimizer)
