"""`Fit` → the profile of its deviance along every parameter, and the intervals read off it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.distributions import chi2_quantile, normal_quantile
from lmmsparse.common.errors import Finding, NumericalError, OptionError
from lmmsparse.common.findings import announce
from lmmsparse.common.options import check_jobs, check_level
from lmmsparse.common.progress import run
from lmmsparse.common.render import Section, Shown
from lmmsparse.common.table import Table
from lmmsparse.common.threads import one_thread
from lmmsparse.fit.fit import Fit, refitted
from lmmsparse.fit.monte_carlo import require_exact
from lmmsparse.fit.refit import maximum_likelihood
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.fit.settle import Settled, better_optimum, findings_about, settle
from lmmsparse.inference.intervals.profile.curve import BetterOptimumError, Curve, trace
from lmmsparse.inference.intervals.profile.problems import problem_of
from lmmsparse.inference.intervals.profile.residual import problem_of_residuals
from lmmsparse.optimize import TrustRegion
from lmmsparse.results.parameters import (
    known_parameters,
    parameter_names,
    parameter_values,
    select_rows,
)

_RESTARTS = 5
_STEPS = 8.0


@dataclass(frozen=True, eq=False, repr=False)
class Profile(Shown):
    """The deviance profiled along parameters.

    Attributes
    ----------
    findings : tuple of Finding
        What was met on the way.

    Notes
    -----
    zeta(ψ) = sign(ψ − ψ̂) √(d(ψ) − d(ψ̂)) with d(ψ) the least ML deviance with the parameter held at
    ψ. It is standard normal, to first order, if ψ is the true value. Of a correlation, d(ψ) is at
    most the deviance of the models in which one of the two effects does not vary: any ψ is theirs.

    References
    ----------
    Bates, Mächler, Bolker & Walker (2015), Journal of Statistical Software 67(1), section 5.1.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> m = lmm.lmer("Yield ~ (1 | Batch)", lmm.load_dataset("Dyestuff"))
    >>> m.profile("sigma").confint().round(2).loc["sigma"].tolist()
    [38.23, 67.66]
    """

    _curves: dict[str, Curve] = field(repr=False)
    _estimates: dict[str, list[FloatArray]] = field(repr=False)
    _names: list[str] = field(repr=False)
    _cutoff: float
    findings: tuple[Finding, ...] = ()

    @property
    def _sections(self) -> tuple[Section, ...]:
        limits = self.confint()
        table = Table(
            {"lower": limits["lower"].tolist(), "upper": limits["upper"].tolist()},
            [str(name) for name in limits.index],
            title="Profile likelihood, 95 % intervals",
            notes=[finding.message for finding in self.findings] + self._open_sides(0.95),
        )
        return (table.section,)

    def _open_sides(self, level: float) -> list[str]:
        """Where an interval has no limit, and what stands there instead."""
        z = float(normal_quantile(0.5 + level / 2))
        open_at = []
        for name, curve in self._curves.items():
            sides = [
                side
                for side, reached in (
                    ("lower", curve.zeta[0] <= -z),
                    ("upper", curve.zeta[-1] >= z),
                )
                if not reached
            ]
            if sides:
                open_at.append(f"{name} ({' and '.join(sides)})")
        if not open_at:
            return []
        note = (
            f"Without a limit: {', '.join(open_at)}. On that side no value can be excluded at "
            "this level; the parameter's bound is reported instead."
        )
        if any(name.startswith("cor_") for name in open_at):
            note += (
                " A correlation is open where the model with a standard deviation of zero, which "
                "leaves it undetermined, fits nearly as well."
            )
        return [note]

    @checked_keywords
    def confint(self, level: float = 0.95) -> pd.DataFrame:
        """Intervals of the values whose zeta is not too large.

        Parameters
        ----------
        level : float

        Returns
        -------
        DataFrame
            Columns ``lower, upper``; a side on which the deviance never rises enough is the bound
            of the parameter: 0, ±1 or infinite. The printout of the profile names these sides.

        Raises
        ------
        OptionError
            If the curves do not reach that far.
        """
        z = float(normal_quantile(0.5 + check_level(level) / 2))
        if z > self._cutoff * (1 + 1e-9):
            raise OptionError(
                f"level={level!r} is higher than the profile reaches (zeta {self._cutoff:.2f}). "
                f"Profile again with m.profile(level={level!r})."
            )
        limits = [(curve.limit(-z), curve.limit(z)) for curve in self._curves.values()]
        index = pd.Index(list(self._curves), dtype=object)
        return pd.DataFrame(np.array(limits), index=index, columns=["lower", "upper"])

    @checked_keywords
    def to_frame(self) -> pd.DataFrame:
        """The points of the curves.

        Returns
        -------
        DataFrame
            Columns ``parameter, value, zeta``, then one per parameter of the model with its best
            value at that point.
        """
        parts = []
        for name, curve in self._curves.items():
            rest = np.full((len(curve.value), len(self._names)), np.nan)
            for i, values in enumerate(self._estimates[name]):
                rest[i] = values
            part = pd.DataFrame(rest, columns=pd.Index(self._names, dtype=object))
            part.insert(0, "parameter", name)
            part.insert(1, "value", curve.value)
            part.insert(2, "zeta", curve.zeta)
            parts.append(part)
        return pd.concat(parts, ignore_index=True)


def profile(
    fit: Fit,
    which: str | Sequence[str] | None = None,
    level: float | None = None,
    n_jobs: int = 1,
    progress: bool | None = None,
) -> Profile:
    """Profile the ML deviance along parameters; see `LinearMixedModel.profile`.

    Returns
    -------
    Profile
        After Ctrl-C, that of the parameters that were finished, with a warning.
    """
    check_jobs(n_jobs)
    instead = "Use method='wald', m.vcov_varcorr() for variances, or method='boot'"
    require_exact(fit, "A profile of the likelihood needs", instead)
    names = [*parameter_names(fit), *fit.design.x_names]
    wanted = names if which is None else list(dict.fromkeys(select_rows(which, names, fit)))
    exact = [float(normal_quantile(0.5 + check_level(level) / 2))] if level is not None else []
    if not wanted:
        raise OptionError(
            "which=[] names no parameter. Leave it out for all of them, or give one or several of "
            f"{', '.join(names)}."
        )
    joint = float(np.sqrt(chi2_quantile(0.99, max(len(names), 1))))
    cutoff = exact[0] if exact else joint
    exact = exact or [float(normal_quantile(0.5 + share / 2)) for share in (0.95, 0.99)]
    settled, former = maximum_likelihood(fit, TrustRegion()), np.nan
    for _ in range(_RESTARTS):
        followed = run(
            _follow,
            [(settled.fit, names.index(name), cutoff, tuple(exact)) for name in wanted],
            "profile",
            unit="parameters",
            n_jobs=n_jobs,
            progress=progress,
            until=lambda result: isinstance(result, np.ndarray),
        )
        done = followed.results
        better = [result for result in done if isinstance(result, np.ndarray)]
        used = settled.fit
        if not better or followed.interrupted:
            done = [result for result in done if not isinstance(result, np.ndarray)]
            curves = {name: result[0] for name, result in zip(wanted, done, strict=False)}
            estimates = {name: result[1] for name, result in zip(wanted, done, strict=False)}
            findings = (*_about_fit(fit, settled, former), *_about_curves(curves))
            if followed.interrupted:
                findings = (*findings, interrupted(list(curves), wanted))
            announce(findings)
            return Profile(curves, estimates, names, cutoff, findings)
        former = used.criterion
        settled = settle(refitted(used, used.problem, better[0], TrustRegion()))
    raise NumericalError(
        f"The profile met a better optimum {_RESTARTS} times in a row. The deviance has many "
        "local minima. Fit a simpler model, or use method='boot'."
    )


@one_thread
def _follow(
    fit: Fit, index: int, cutoff: float, exact: tuple[float, ...]
) -> tuple[Curve, list[FloatArray]] | FloatArray:
    """The curve of a parameter and all estimates along it, or θ of a better optimum."""
    if known_parameters(fit)[index]:
        values = np.concatenate([parameter_values(fit, fit.theta, fit.sigma), fit.beta])
        value = values[[index]]
        return Curve(value, np.zeros(1), float(value[0]), float(value[0]), ()), [values]
    problem = (
        problem_of_residuals(fit, index) if isinstance(fit, ResidualFit) else problem_of(fit, index)
    )
    try:
        curve = trace(problem, cutoff, cutoff / _STEPS, exact)
    except BetterOptimumError as found:
        return problem.estimates(found.point)[0]
    along = []
    for point in curve.points:
        theta, sigma, beta = problem.estimates(point)
        d = fit.template.n_theta
        own = parameter_values(fit, theta[:d], sigma, theta[d:])
        values = np.concatenate([own, beta])
        values[index] = point.value  # a correlation that is not determined by theta
        along.append(values)
    return curve, along


def interrupted(done: list[str], wanted: Sequence[str]) -> Finding:
    """Say which parameters were followed before Ctrl-C."""
    return Finding(
        "interrupted",
        "warning",
        f"The profile was interrupted after {len(done)} of {len(wanted)} parameters. The result "
        f"holds {', '.join(done)}. Profile the others with which=.",
    )


def _about_fit(fit: Fit, settled: Settled, former: float) -> tuple[Finding, ...]:
    """What is to be said of the optimum that the curves start from."""
    if np.isfinite(former):
        found = findings_about([("the fit", replace(settled, again=False))])
        return (better_optimum("the fit", former, settled.fit), *found)
    if fit.reml:
        return findings_about([("the refit by maximum likelihood", settled)])
    return findings_about([], [("the fit", fit, settled)])


def _about_curves(curves: Mapping[str, Curve]) -> tuple[Finding, ...]:
    """Where the search with a parameter held did not reach its optimum."""
    off = {
        name: [point.value for point in curve.points if not point.converged]
        for name, curve in curves.items()
    }
    where = [
        f"{name} at {len(values)} of {len(curves[name].points)} values between {min(values):.4g} "
        f"and {max(values):.4g}"
        for name, values in off.items()
        if values
    ]
    if not where:
        return ()
    return (
        Finding(
            "not-converged",
            "warning",
            "With the parameter held, the search did not reach the lowest deviance for "
            f"{'; '.join(where)}. The curve is too high there, and intervals that end there are "
            "too short. Simplify the random effects, or use method='boot'.",
        ),
    )
