"""`Fit` → a statistic on many responses drawn from it, refitted one by one or all together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.distributions import normal_quantile
from lmmsparse.common.errors import Finding, LmmWarning, OptionError
from lmmsparse.common.findings import announce
from lmmsparse.common.options import as_generator, check_counts, check_level, one_of, refused
from lmmsparse.common.progress import growing, run
from lmmsparse.common.render import Section, Shown
from lmmsparse.common.table import Table
from lmmsparse.common.threads import filtered
from lmmsparse.common.words import brief
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.many.batched import can_batch
from lmmsparse.fit.many.refit import refit_many
from lmmsparse.fit.refit import refit_response
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.fit.settle import about_given
from lmmsparse.inference.intervals.resample import Resampler
from lmmsparse.results.parameters import parameter_names, parameter_values
from lmmsparse.results.rows_needed import with_rows

KINDS = ("parametric", "semiparametric")
INTERVALS = ("percentile", "basic", "normal")
_VALUES = 2_000_000
BATCH = 128

Statistic = Callable[[Any], Any]


@dataclass(frozen=True, eq=False, repr=False)
class Bootstrap(Shown):
    """The distribution of a statistic over responses drawn from a fitted model.

    Attributes
    ----------
    original : Series
        The statistic of the fit itself.
    failures : Series
        Replicate → why nothing could be computed; the rows of these are NaN.
    requested : int
        How many replicates were asked for; there are fewer where Ctrl-C ended it early.
    findings : tuple of Finding
        What was met on the way: whether the fit itself is not at its optimum, whether Ctrl-C ended
        it early, and how many refits did not reach their optimum.
    unconverged : tuple of int
        The replicates whose refit did not reach its optimum; they are counted like the others.
    """

    original: pd.Series
    failures: pd.Series
    requested: int
    _replicates: pd.DataFrame = field(repr=False)
    findings: tuple[Finding, ...] = ()
    unconverged: tuple[int, ...] = ()

    def _moments(self) -> Table:
        values = self._replicates
        of = "" if len(values) == self.requested else f" of {self.requested}"
        return Table(
            {
                "Estimate": self.original.tolist(),
                "Bias": (values.mean() - self.original).tolist(),
                "Std. Error": values.std(ddof=1).tolist(),
            },
            [str(name) for name in self.original.index],
            title=f"Bootstrap, {len(values)}{of} replicates ({self.n_failed} failed)",
            notes=[finding.message for finding in self.findings],
        )

    @property
    def _sections(self) -> tuple[Section, ...]:
        return (self._moments().section,)

    @property
    def n_failed(self) -> int:
        """Number of replicates without a result."""
        return len(self.failures)

    @checked_keywords
    def to_frame(self) -> pd.DataFrame:
        """One row per replicate, one column per number of the statistic; NaN where it failed."""
        return self._replicates.copy()

    @checked_keywords
    def confint(self, level: float = 0.95, kind: str = "percentile") -> pd.DataFrame:
        """Bootstrap intervals.

        Parameters
        ----------
        level : float
        kind : {"percentile", "basic", "normal"}
            Quantiles of the replicates; the same mirrored at the estimate; estimate minus bias ± z
            times the replicates' standard deviation.

        Returns
        -------
        DataFrame
            Columns ``lower, upper``.

        References
        ----------
        Davison & Hinkley (1997), Bootstrap Methods and their Application, chapter 5.
        """
        tail = 0.5 - check_level(level) / 2
        center = self.original.to_numpy()
        limits = np.full((len(center), 2), np.nan)
        one_of("kind", kind, INTERVALS)
        for j, column in enumerate(self._replicates.to_numpy().T):
            values = column[~np.isnan(column)]
            if len(values) < 2:
                continue
            if kind == "normal":
                half = normal_quantile(1.0 - tail) * values.std(ddof=1)
                middle = 2.0 * center[j] - values.mean()
                limits[j] = middle - half, middle + half
                continue
            limits[j] = np.quantile(values, [tail, 1.0 - tail], method="weibull")
            if kind == "basic":
                limits[j] = 2.0 * center[j] - limits[j, ::-1]
        return pd.DataFrame(limits, index=self.original.index, columns=["lower", "upper"])


def bootstrap(
    fit: Fit,
    n: int,
    rng: Any,
    make_model: Callable[[Fit], Any],
    statistic: Statistic | None = None,
    kind: str = "parametric",
    n_jobs: int = 1,
    progress: bool | None = None,
) -> Bootstrap:
    """Refit a model to responses drawn from it; see `LinearMixedModel.bootstrap`.

    Parameters
    ----------
    make_model : callable
        What turns a fit into what `statistic` is given.

    Returns
    -------
    Bootstrap
        After Ctrl-C, that of the replicates until then, with a warning.
    """
    check_counts(n, n_jobs)
    with_rows(fit, "The bootstrap", "Use m.confint(method='profile').")
    one_of("kind", kind, KINDS)
    if kind != "parametric" and isinstance(fit, ResidualFit):
        raise OptionError(
            "A semiparametric bootstrap draws residuals with replacement, which residual= and "
            "residual_sd= do not allow: they are correlated or of unequal size. Use "
            "kind='parametric'."
        )
    if statistic is not None and not callable(statistic):
        advice = "Write, for example, lambda m: m.fixef."
        raise refused("statistic", "a function of a model", statistic, advice)
    if statistic is None:
        estimates = np.concatenate([parameter_values(fit, fit.theta, fit.sigma), fit.beta])
        original = pd.Series(
            estimates, index=pd.Index([*parameter_names(fit), *fit.design.x_names], dtype=object)
        )
    else:
        original = as_series(statistic(make_model(fit)))
    together = statistic is None and can_batch(fit)
    size = BATCH if together else BATCH // 16
    own = (make_model, statistic, kind, original.index)
    return gathered(_replicates, fit, own, original, n, rng, size, n_jobs, progress)


def gathered(
    replicates: Callable[..., tuple[FloatArray, list[str], BoolArray]],
    fit: Fit,
    own: tuple[Any, ...],
    original: pd.Series,
    n: int,
    rng: Any,
    size: int,
    n_jobs: int,
    progress: bool | None,
) -> Bootstrap:
    """Run `replicates(fit, seeds, *own)` on parts of all seeds and put their results together."""
    chunks = chunks_of_seeds(fit, n, rng, size)
    done = run(
        replicates,
        [(fit, chunk, *own) for chunk in chunks],
        "bootstrap",
        unit="replicates",
        n_jobs=n_jobs,
        progress=progress,
        sizes=[len(chunk) for chunk in chunks],
    )
    values = np.concatenate([part for part, _, _ in done.results])
    reasons = [reason for _, part, _ in done.results for reason in part]
    failed = {i: reason for i, reason in enumerate(reasons) if reason}
    off = np.flatnonzero(np.concatenate([part for _, _, part in done.results]))
    findings = about_given(fit) if fit.has_residuals else ()
    findings += (_interrupted(len(values), n),) if done.interrupted else ()
    findings += (not_at_optimum(off.size, len(values)),) if off.size else ()
    announce(findings)
    return Bootstrap(
        original,
        pd.Series(list(failed.values()), index=list(failed), dtype=object, name="reason"),
        int(n),
        pd.DataFrame(values, columns=original.index),
        findings,
        tuple(int(i) for i in off),
    )


def _interrupted(done: int, n: int) -> Finding:
    return Finding(
        "interrupted",
        "warning",
        f"The bootstrap was interrupted after {done} of {n} replicates. The result holds these. "
        "Call it again for all.",
    )


def not_at_optimum(n_off: int, n: int) -> Finding:
    """Say that refits to drawn responses did not reach their optima.

    Parameters
    ----------
    n_off, n : int
        How many of how many.
    """
    return Finding(
        "not-converged",
        "warning",
        f"{n_off} of {n} refits did not reach their optimum, whatever search was tried. They are "
        "counted, but what depends on them may be off. Simplify the random effects.",
    )


def chunks_of_seeds(
    fit: Fit, n: int, rng: Any, size: int = BATCH
) -> list[list[np.random.SeedSequence]]:
    """One seed per replicate, in parts that are refitted together.

    The parts do not depend on the number of processes: sums are the same to the last digit.
    """
    entropy = as_generator(rng).integers(0, 2**32, size=8, dtype=np.uint64)
    seeds = np.random.SeedSequence(entropy.tolist()).spawn(int(n))
    size = max(1, min(_VALUES // fit.design.n, size))
    return [seeds[part] for part in growing(len(seeds), size, max(1, size // 8))]


def as_series(value: Any) -> pd.Series:
    """A statistic's result as named numbers."""
    if isinstance(value, Mapping):
        value = pd.Series(dict(value), dtype=np.float64)
    if not isinstance(value, pd.Series):
        try:
            array = np.atleast_1d(np.asarray(value, dtype=np.float64)).ravel()
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"The statistic must give numbers, not {brief(value)}. Return a number, an array, "
                "a Series or a mapping of numbers."
            ) from error
        names = pd.Index([f"t{i + 1}" for i in range(len(array))], dtype=object)
        return pd.Series(array, index=names)
    return value.astype(np.float64)


def _replicates(
    fit: Fit,
    seeds: list[np.random.SeedSequence],
    make_model: Callable[[Fit], Any],
    statistic: Statistic | None,
    kind: str,
    names: pd.Index,
) -> tuple[FloatArray, list[str], BoolArray]:
    """The statistic of each seed's response, NaN with a reason where it fails, and which are off.

    Off are those whose refit did not reach its optimum.
    """
    resampler = Resampler(fit, kind)
    responses = [resampler.draw(np.random.default_rng(seed)) for seed in seeds]
    if statistic is None:
        return _parameters(fit, np.column_stack(responses))
    values, reasons = np.full((len(seeds), len(names)), np.nan), [""] * len(seeds)
    off = np.zeros(len(seeds), dtype=bool)
    with filtered(("ignore", LmmWarning)):
        for i, y in enumerate(responses):
            # Whatever goes wrong, in the refit or in the user's own function, is put down.
            try:
                settled = refit_response(fit, y)
                found = as_series(statistic(make_model(settled.fit)))
                values[i] = found.reindex(names) if found.index.is_unique else found
                off[i] = bool(settled.trouble)
            except MemoryError:
                raise
            except Exception as error:
                reasons[i] = f"{type(error).__name__}: {error}"
    return values, reasons, off


def _parameters(fit: Fit, Y: FloatArray) -> tuple[FloatArray, list[str], BoolArray]:
    """All parameters of refits to the columns of `Y`."""
    table, d = refit_many(fit, Y, progress=False), fit.template.n_theta
    if isinstance(fit, ResidualFit):
        return _with_residuals(fit, table)
    numbers = table.iloc[:, : d + 2 + fit.design.p].to_numpy(dtype=np.float64)
    values = np.full((len(numbers), d + 1 + fit.design.p), np.nan)
    reasons = [""] * len(numbers)
    for i, row in enumerate(numbers):
        if np.isnan(row).any():
            reasons[i] = str(table["problem"].iloc[i]) or "The refit failed."
        else:
            values[i, : d + 1] = parameter_values(fit, row[1 : d + 1], row[d + 1])
            values[i, d + 1 :] = row[d + 2 :]
    off = ~table["converged"].to_numpy(dtype=bool) & (np.array(reasons, dtype=object) == "")
    return values, reasons, off


def _with_residuals(
    fit: ResidualFit, table: pd.DataFrame
) -> tuple[FloatArray, list[str], BoolArray]:
    """The same of refits whose residuals have parameters."""
    d, m, p = len(fit.theta), len(fit.phi), fit.design.p
    numbers = table.iloc[:, : d + m + 2 + p].to_numpy(dtype=np.float64)
    values = np.full((len(numbers), d + m + 1 + p), np.nan)
    reasons = [""] * len(numbers)
    for i, row in enumerate(numbers):
        if np.isnan(row).any():
            reasons[i] = str(table["problem"].iloc[i]) or "The refit failed."
            continue
        own, sigma = row[1 + d : 1 + d + m], row[1 + d + m]
        phi = fit.structure.from_natural(own)
        values[i, : d + m + 1] = parameter_values(fit, row[1 : d + 1], sigma, phi)
        values[i, d : d + m] = own
        values[i, d + m + 1 :] = row[d + m + 2 :]
    off = ~table["converged"].to_numpy(dtype=bool) & (np.array(reasons, dtype=object) == "")
    return values, reasons, off
