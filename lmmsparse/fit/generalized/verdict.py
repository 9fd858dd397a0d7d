"""`GeneralizedFit` → a verdict, and what is particular about the data or the approximation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import Finding, NumericalError
from lmmsparse.common.words import listed
from lmmsparse.engine.families import Binomial, Family, NegativeBinomial
from lmmsparse.engine.generalized.laplace_point import Parameters
from lmmsparse.engine.generalized.quadrature import LARGEST, QuadratureDeviance
from lmmsparse.engine.points import traces_by_term
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.singular import is_singular, singular_finding
from lmmsparse.fit.verdict import TOLERANCE, Convergence
from lmmsparse.optimize import Status

_MUCH_WIDER = 50.0
_NO_SIGNAL = 0.1
_NO_OVERDISPERSION = 25.0  # log of a size that is as good as infinite
_NOTICEABLE = 1.0  # in units of -2 log-likelihood
_LARGE, _MUCH_KNOWN = 1.5, 10.0
_NODES = {1: 15, 2: 9, 3: 5}
_MOST_POINTS = 1500
_VISIBLE = 0.01  # change of -2 log-likelihood by more nodes
_RATIO = 1.5
_WHOLE = 1e-8


class Doubts(NamedTuple):
    """What a user is warned of when a model has been fitted."""

    decrease: float
    singular: bool
    findings: list[Finding]

    @property
    def converged(self) -> bool:
        return self.decrease <= TOLERANCE


def doubts(fit: GeneralizedFit) -> Doubts:
    """Judge a fit by its exact gradient and second derivatives, as far as there are warnings."""
    optimum = fit.optimum
    decrease = 0.0 if optimum.expected_decrease is None else optimum.expected_decrease
    singular = is_singular(fit)
    found = Doubts(decrease, singular, [])
    if not found.converged and fit.family.is_limited and optimum.status is Status.LIMIT:
        found.findings.append(_at_link_limit(fit))
    elif not found.converged:
        found.findings.append(_not_converged(decrease, optimum.status.value))
    if singular and found.converged:
        found.findings.append(singular_finding(fit))
    for check in EVEN_SO:
        found.findings.extend(check(fit))
    if found.converged:
        found.findings.extend(separation(fit))
    return found


def judge_generalized(
    fit: GeneralizedFit, findings: tuple[Finding, ...], doubts: Doubts
) -> Convergence:
    """The whole verdict.

    Parameters
    ----------
    fit : GeneralizedFit
    findings : tuple of Finding
        What the checks of the design have found.
    doubts : Doubts
    """
    optimum = fit.optimum
    notes = [*findings, *doubts.findings]
    if doubts.converged:
        notes += [finding for check in CHECKS for finding in check(fit)]
    if any(finding.code == "levels-agree" for finding in notes):  # more nodes would not help
        notes = [finding for finding in notes if finding.code != "too-few-nodes"]
    return Convergence(
        converged=doubts.converged,
        singular=doubts.singular,
        expected_decrease=doubts.decrease,
        status=optimum.status.value,
        evaluations=optimum.evaluations,
        findings=tuple(notes),
        further_evaluations=optimum.further_evaluations,
    )


def _not_converged(decrease: float, status: str) -> Finding:
    return Finding(
        "not-converged",
        "warning",
        "The search has not reached the optimum: -2 log-likelihood can be expected to fall by "
        f"another {decrease:.2g} ({status}). Estimates and standard errors may be off. Refit from "
        "start=m.theta, or simplify the model.",
    )


def _at_link_limit(fit: GeneralizedFit) -> Finding:
    """The linear predictor can go no further where the likelihood wants it to."""
    family = fit.family
    other = f"lmm.families.{type(family).__name__}(link={_unlimited(family)!r})"
    return Finding(
        "link-limit",
        "warning",
        f"The {family.link} link does not take every linear predictor, and the likelihood rises "
        "up to where some observation's would leave what it takes. The search has ended there: "
        "these estimates are no optimum, and their standard errors and tests mean nothing. Use a "
        f"link without limits, for example {other}.",
    )


def _unlimited(family: Family) -> str:
    """A link that takes every predictor."""
    return "logit" if isinstance(family, Binomial) else "log"


def unbounded(fit: GeneralizedFit) -> BoolArray:
    """Which coefficients the likelihood does not bound, (p,)."""
    nothing = np.zeros(fit.design.p, dtype=bool)
    if not fit.design.p or (not isinstance(fit.family, Binomial) and not fit.family.discrete):
        return nothing
    se = np.sqrt(np.diag(fit.vcov))
    if np.all(np.abs(fit.beta) >= _NO_SIGNAL * se):  # nor is any infinite then
        return nothing
    # Coefficients given random effects grow with these.
    usual = fit.reference_errors * max(1.0, _largest_sd(fit))
    with np.errstate(invalid="ignore"):
        lost = (se > _MUCH_WIDER * usual) & (np.abs(fit.beta) < _NO_SIGNAL * se)
    return np.asarray(lost | ~np.isfinite(se))


def separation(fit: GeneralizedFit) -> list[Finding]:
    """Coefficients that the likelihood does not bound."""
    lost = unbounded(fit)
    if not lost.any():
        return []
    names = [n for n, own in zip(fit.design.x_names, lost, strict=True) if own]
    return [
        Finding(
            "separation",
            "warning",
            f"The likelihood does not bound {listed(names)}: some combination of predictors goes "
            "with one kind of response only (separation). These estimates would be infinite, and "
            "their standard errors and Wald tests mean nothing; the other results hold. Test such "
            "terms by likelihood ratio, for example with m.drop1(), or leave them out.",
        )
    ]


def _largest_sd(fit: GeneralizedFit) -> float:
    """The largest standard deviation of a random effect on the scale of the link."""
    factors = fit.template.factors(fit.theta)
    return max(float(np.linalg.norm(T, axis=1).max(initial=0.0)) for T in factors)


def levels_agree(fit: GeneralizedFit) -> list[Finding]:
    """Levels all of which have responses of one kind only."""
    if not isinstance(fit.family, Binomial):
        return []
    trials = fit.seen.trials_or_one
    out = []
    for name, terms in fit.design.groups.items():
        block = fit.design.blocks[terms[0]]
        if block.known is not None:
            continue
        size = np.bincount(block.codes, trials, minlength=block.n_levels)
        share = np.bincount(block.codes, trials * fit.seen.y, minlength=block.n_levels) / size
        if np.any((share > _WHOLE) & (share < 1.0 - _WHOLE)) or np.mean(size > 1.0 + _WHOLE) < 0.05:
            continue
        out.append(
            Finding(
                "levels-agree",
                "warning",
                f"No level of {name!r} has both successes and failures: the likelihood rises with "
                "the standard deviation of its random effects without limit. The estimate of "
                f"{_largest_sd(fit):.3g} is where the search has ended, and coefficients and "
                "standard errors grow with it. Leave the term out and fit one response per level.",
            )
        )
    return out


def one_row_per_level(fit: GeneralizedFit) -> list[Finding]:
    """A random effect for every Bernoulli response."""
    design = fit.design
    if not isinstance(fit.family, Binomial):
        return []
    trials = fit.seen.trials_or_one
    out = []
    for name, terms in design.groups.items():
        block = design.blocks[terms[0]]
        if block.known is not None:  # relatives tell
            continue
        per_level = np.bincount(block.codes, trials, minlength=block.n_levels)
        if np.mean(per_level <= 1.0 + _WHOLE) > 0.95:
            out.append(
                Finding(
                    "one-trial-per-level",
                    "warning",
                    f"The grouping factor {name!r} has one level per Bernoulli response. A single "
                    "0 or 1 holds no information about its own variation: the variance is not "
                    "determined. Leave the term out; overdispersion shows in counts of several "
                    "trials only.",
                )
            )
    return out


def nearly_poisson(fit: GeneralizedFit) -> list[Finding]:
    """A negative binomial whose size has gone to infinity."""
    family = fit.family
    if not isinstance(family, NegativeBinomial) or not family.estimates_delta:
        return []
    at = fit.parameters
    limit = Parameters(at.beta, at.theta, max(at.delta, _NO_OVERDISPERSION))
    try:
        rise = fit.problem.deviance.point(limit, fit.u).value - fit.criterion
    except NumericalError:
        return []
    if rise > _NOTICEABLE:
        return []
    return [
        Finding(
            "nearly-poisson",
            "info",
            f"The counts are hardly more variable than Poisson counts: theta is "
            f"{np.exp(fit.delta):.3g}, and without overdispersion -2 log-likelihood rises by "
            f"{max(rise, 0.0):.2g} only. family='poisson' does with one parameter less.",
        )
    ]


def exact_fit(fit: GeneralizedFit) -> list[Finding]:
    """A dispersion that is nothing but rounding."""
    if not fit.family.estimates_delta or fit.delta > fit.family.least_delta(fit.seen) + 1e-3:
        return []
    return [
        Finding(
            "exact-fit",
            "warning",
            f"The random effects fit the response {fit.design.response!r} (almost) exactly: no "
            "more than 1e-12 of its variation is left for the residuals. The dispersion and all "
            "that depends on it, standard errors and the log-likelihood among them, are lost in "
            "rounding. Check whether the response repeats within groups.",
        )
    ]


def not_counts(fit: GeneralizedFit) -> list[Finding]:
    """Counts that are not whole."""
    if not fit.family.discrete or isinstance(fit.family, Binomial):
        return []
    y = fit.seen.y
    if np.all(np.abs(y - np.rint(y)) <= _WHOLE * np.maximum(1.0, y)):
        return []
    return [
        Finding(
            "not-whole",
            "warning",
            f"The response {fit.design.response!r} holds counts that are not whole. The density "
            f"of a {fit.family.name} distribution is extended to them; rates belong into an "
            "offset, offset='log(exposure)'.",
        )
    ]


def pearson(fit: GeneralizedFit) -> FloatArray:
    """(y − μ) √(weight / V(μ)), not divided by the dispersion, (n,)."""
    variance = fit.family.variance(fit.fitted, fit.delta)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = (fit.seen.y - fit.fitted) * np.sqrt(fit.seen.weights / variance)
    return np.asarray(np.where(np.isfinite(out), out, 0.0))


def pearson_ratio(fit: GeneralizedFit) -> tuple[float, float]:
    """Pearson's χ² divided by the rows less the effective number of parameters, and the latter."""
    inverse, T = fit.modes.factor.inverse_blocks(), fit.template.shifted_factors(fit.theta)
    traces = traces_by_term(fit.products, T, inverse)  # of Z'WZΛM⁻¹
    effective = sum(float(np.sum(own * trace)) for own, trace in zip(T, traces, strict=True))
    left = fit.design.n - fit.design.p - effective
    return float(np.sum(np.square(pearson(fit)))) / max(left, 1.0), left


def laplace_too_coarse(fit: GeneralizedFit) -> list[Finding]:
    """Where the levels hold too little for their likelihoods to look normal."""
    problem = fit.problem
    template = fit.template
    K = sum(structure.k for structure in template.structures)
    if problem.n_agq != 1 or not fit.family.discrete or K > LARGEST:
        return []
    known = any(block.known is not None for block in fit.design.blocks)
    if known or len(fit.design.groups) > 1 or problem.information != "observed":
        return []
    own = next(pair.values for pair in fit.products.pairs if pair.s == pair.t)
    if _largest_sd(fit) < _LARGE or float(np.mean(own[:, 0, 0])) > _MUCH_KNOWN:
        return []
    finer = QuadratureDeviance(problem.rows, nodes=_NODES[K])
    try:
        value = finer.point(fit.parameters, fit.u).value
    except NumericalError:
        return []
    gap = abs(value - fit.criterion)
    if not gap > _NOTICEABLE:
        return []
    return [
        Finding(
            "laplace-too-coarse",
            "info",
            f"The levels of {listed(fit.design.groups)} hold little information and vary much: "
            f"adaptive quadrature puts -2 log-likelihood at these estimates {gap:.2g} off the "
            "Laplace approximation, and the variance may be too. Fit with n_agq=25.",
        )
    ]


def too_few_nodes(fit: GeneralizedFit) -> list[Finding]:
    """Quadrature whose value changes with more nodes."""
    n = fit.problem.n_agq
    if n <= 1:
        return []
    K = sum(structure.k for structure in fit.template.structures)
    more = 2 * n + 1
    while more**K > _MOST_POINTS and more > n + 2:
        more -= 2
    finer = QuadratureDeviance(fit.problem.rows, nodes=more)
    try:
        gap = abs(finer.point(fit.parameters, fit.u).value - fit.criterion)
    except NumericalError:
        return []
    if not gap > _VISIBLE:
        return []
    enough = min(max(more, 25), 101) if K == 1 else more
    return [
        Finding(
            "too-few-nodes",
            "info",
            f"With {more} nodes in place of {n}, -2 log-likelihood at these estimates changes by "
            f"{gap:.2g}: the quadrature is too coarse. Fit with n_agq={enough}.",
        )
    ]


def overdispersion(fit: GeneralizedFit) -> list[Finding]:
    """Responses that vary more than their family lets them."""
    family = fit.family
    if not family.discrete or family.parameter:
        return []
    if isinstance(family, Binomial):
        if float(np.mean(fit.seen.trials_or_one)) < 2.0:
            return []
    elif float(np.mean(fit.fitted)) < 1.0:
        return []
    ratio, left = pearson_ratio(fit)
    if left < 10 or ratio < max(_RATIO, 1.0 + 4.0 * np.sqrt(2.0 / left)):
        return []
    other = (
        "a random effect per row" if isinstance(family, Binomial) else "family='negative_binomial'"
    )
    return [
        Finding(
            "overdispersion",
            "info",
            f"The responses vary {ratio:.2g} times as much about their means as a {family.name} "
            f"distribution lets them: standard errors are too small. Use {other}; "
            "m.check_dispersion() has a test.",
        )
    ]


EVEN_SO = (exact_fit, levels_agree, one_row_per_level, not_counts)
CHECKS = (
    nearly_poisson,
    laplace_too_coarse,
    too_few_nodes,
    overdispersion,
)
