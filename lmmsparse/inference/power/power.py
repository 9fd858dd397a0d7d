"""`Fit`, a term and numbers of levels → how often the term's test is significant, by simulation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.distributions import beta_quantile
from lmmsparse.common.errors import InterruptedWarning, OptionError
from lmmsparse.common.findings import warn
from lmmsparse.common.options import (
    as_generator,
    check_jobs,
    check_level,
    is_number,
    is_whole,
    several,
    share,
    whole_number,
    word_of,
)
from lmmsparse.common.progress import run
from lmmsparse.common.words import brief, listed
from lmmsparse.design import Design
from lmmsparse.design.extended import extended
from lmmsparse.design.rank import chosen_columns
from lmmsparse.design.terms import coefficients_of
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.problem import Problem
from lmmsparse.fit.residual.fit import ResidualFit, residual_fit
from lmmsparse.inference.power.tests import TESTS, Experiment, Outcomes, outcomes
from lmmsparse.results.by_group import own_name
from lmmsparse.results.given import Given, coefficient, given_parameters

_TOGETHER, _ALONE = 250, 10
_VALUES = 5_000_000  # of responses at once
_WORDS = {
    "satterthwaite": "{} test with Satterthwaite's degrees of freedom",
    "kenward-roger": "{} test with Kenward and Roger's degrees of freedom",
    "lrt": "likelihood-ratio test",
    "z": "Wald test by the normal approximation",
}


@dataclass(frozen=True, eq=False)
class Repeated:
    """What came of the simulations, one entry per number of levels.

    Attributes
    ----------
    n : (rows,) array
        Levels of the grouping factor, or NaN for the design as it is.
    nobs, done, significant, unconverged, singular, failed : (rows,) int arrays
        Rows of the study, simulations, and how many of these were significant, did not reach their
        optimum, were singular and gave no fit at all.
    lower, upper : (rows,) arrays
        Clopper and Pearson's limits of the power.
    """

    n: FloatArray
    nobs: IntArray
    done: IntArray
    significant: IntArray
    unconverged: IntArray
    singular: IntArray
    failed: IntArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True, eq=False)
class Question:
    """What was asked, in words.

    Attributes
    ----------
    term : str
    along : str
        The grouping factor whose levels vary, empty if none does.
    effects : mapping
        Coefficients of the term, as they were in the simulations.
    test : str
        In words.
    given : bool
        Whether the effects are the user's, and not the estimates.
    """

    term: str
    along: str
    effects: Mapping[str, float]
    test: str
    alpha: float
    level: float
    given: bool


def power(
    fit: Fit,
    term: Any,
    n: Any,
    along: Any,
    effect: Any,
    rng: Any,
    test: Any,
    alpha: Any,
    n_sim: Any,
    level: Any,
    theta: Any,
    sigma: Any,
    n_jobs: Any,
    progress: bool | None,
) -> tuple[Question, Repeated]:
    """Power by simulation; see `LinearMixedModel.power`."""
    names = _coefficients(fit, term)
    at = given_parameters(fit, _effects(fit, term, names, effect), theta, sigma)
    test = _test(fit, test)
    alpha, level = share("alpha", alpha, "It is the level of the test."), check_level(level)
    n_sim, n_jobs = whole_number("n_sim", n_sim), check_jobs(n_jobs)
    group, sizes = _sizes(fit.design, n, along)
    columns = [fit.design.x_names.index(name) for name in names]
    seed = as_generator(rng).integers(0, 2**32, size=8, dtype=np.uint64)
    seeds = np.random.SeedSequence(seed.tolist()).spawn(len(sizes))
    experiments = [
        _experiment(fit, group, size, at, columns, test, own.spawn(1)[0])
        for size, own in zip(sizes, seeds, strict=True)
    ]
    calls = [
        (experiment, part, count)
        for experiment, own in zip(experiments, seeds, strict=True)
        for part, count in _parts(experiment, own, n_sim)
    ]
    counts = [count for *_, count in calls]
    done = run(
        outcomes, calls, "power", unit="fits", n_jobs=n_jobs, progress=progress, sizes=counts
    )
    if done.interrupted:
        warn(
            f"The simulations were interrupted after {sum(counts[: len(done.results)])} of "
            f"{sum(counts)}. The result holds these.",
            InterruptedWarning,
        )
    found: dict[int, list[Outcomes]] = {id(experiment): [] for experiment in experiments}
    for (experiment, *_), result in zip(calls, done.results, strict=False):
        found[id(experiment)].append(result)
    rows = [_counted(e, found[id(e)], alpha, level) for e in experiments]
    sizes_ = np.array([np.nan if size is None else size for size in sizes], dtype=np.float64)
    numbers = [np.array([row[j] for row in rows]) for j in range(8)]
    question = Question(
        str(term),
        group,
        {name: float(at.beta[j]) for name, j in zip(names, columns, strict=True)},
        _WORDS[test].format("t" if len(names) == 1 else "F"),
        alpha,
        level,
        effect is not None,
    )
    return question, Repeated(sizes_, *numbers)


def _coefficients(fit: Fit, term: Any) -> list[str]:
    """The coefficients of what is tested."""
    names = fit.design.x_names
    if isinstance(term, str):
        if term in names:
            return [term]
        if found := coefficients_of(fit.design, term):
            return found
    raise OptionError(
        f"term must be a fixed effect or a term of the formula, not {brief(term)}. The fixed "
        f"effects are {listed(names, 20)}."
    )


def _effects(fit: Fit, term: str, names: list[str], effect: Any) -> Mapping[str, Any]:
    """The values of coefficients that ``effect=`` gives."""
    if effect is None:
        return {}
    if isinstance(effect, Mapping) or hasattr(effect, "items"):
        given = {coefficient(fit, "effect", name): value for name, value in effect.items()}
        if not set(names) & set(given):
            raise OptionError(f"effect does not name a coefficient of {term!r}: {listed(names)}.")
        return given
    values = [effect] if is_number(effect) else several(effect)
    if len(values) != len(names):
        raise OptionError(
            f"effect must hold {len(names)} value{'s' if len(names) > 1 else ''}, for "
            f"{listed(names)}, not {brief(effect)}. Give a mapping of names to values."
        )
    return dict(zip(names, values, strict=True))


def _test(fit: Fit, test: Any) -> str:
    generalized = isinstance(fit, GeneralizedFit)
    if test is None:
        return "z" if generalized else "satterthwaite"
    named = word_of("test", test, TESTS)
    if generalized and named not in ("z", "lrt"):
        raise OptionError(
            f"test={named!r} is for linear mixed models. Generalized models are tested by 'z' or "
            "'lrt'."
        )
    if named == "kenward-roger" and not fit.reml:
        raise OptionError(
            "test='kenward-roger' is defined for REML fits, and this model was fitted by maximum "
            "likelihood. Refit with reml=True, or use test='satterthwaite'."
        )
    return named


def _sizes(design: Design, n: Any, along: Any) -> tuple[str, list[int | None]]:
    """The grouping factor that varies and its numbers of levels; None for the design as it is."""
    if n is None:
        if along is not None:
            raise OptionError(
                f"along={brief(along)} needs numbers of levels. Pass, for example, n=[20, 30, 40]."
            )
        return "", [None]
    groups = list(design.groupings)
    if not groups:
        raise OptionError("The model has no grouping factor, and n= no levels. Leave n= out.")
    if along is None:
        if len(groups) > 1:
            raise OptionError(
                f"n= needs to know of which factor: pass along= with one of {listed(groups)}."
            )
        along = groups[0]
    group = own_name(along, groups)
    if group not in groups:
        raise OptionError(
            f"along must be a grouping factor of the model, {listed(groups)}, not {brief(along)}."
        )
    sizes = several(n)
    if not sizes or not all(is_whole(size) and size >= 2 for size in sizes):
        raise OptionError(
            f"n must be whole numbers of levels of {group!r}, 2 or more, not {brief(n)}."
        )
    return group, [int(size) for size in sizes]


def _experiment(
    fit: Fit,
    group: str,
    size: int | None,
    at: Given,
    columns: list[int],
    test: str,
    seed: np.random.SeedSequence,
) -> Experiment:
    """The study with so many levels."""
    design = fit.design
    rows = np.arange(design.n)
    if size is None or size == len(design.groupings[group].levels):
        index = design.index[design.rows]
        design = replace(design, index=index, rows=rows, na_action="omit")
    else:
        design, rows = extended(design, group, size, np.random.default_rng(seed))
    fitted = _at(fit, design, rows, at)
    L = np.eye(design.p)[columns]
    if test != "lrt":
        return Experiment(fitted, None, at, L, test)
    kept = np.ones(design.p, dtype=bool)
    kept[columns] = False
    names = tuple(name for name, stays in zip(design.x_names, kept, strict=True) if stays)
    less = replace(design, fixed=chosen_columns(design.fixed, kept), x_names=names, recipe=None)
    small = _at(fit, less, rows, replace(at, beta=at.beta[kept]), reml=False)
    return Experiment(_at(fit, design, rows, at, reml=False), small, at, L, test)


def _at(fit: Fit, design: Design, rows: IntArray, at: Given, reml: bool | None = None) -> Fit:
    """A model of another design at given parameters, from which searches start."""
    if isinstance(fit, GeneralizedFit):
        trials = None if fit.problem.trials is None else fit.problem.trials[rows]
        problem = replace(fit.problem, design=design, trials=trials)
        internal = problem.rows.basis.R @ at.beta if design.p else at.beta
        own = [fit.delta] if fit.family.estimates_delta else []
        optimum = replace(fit.optimum, x=np.concatenate([internal, at.theta, own]))
        d, q = len(optimum.x), problem.template.q
        return replace(
            fit, problem=problem, optimum=optimum, hessian=np.zeros((d, d)), u=np.zeros(q)
        )
    reml = fit.reml if reml is None else reml
    if isinstance(fit, ResidualFit):
        optimum = replace(fit.optimum, x=np.concatenate([at.theta, fit.phi]))
        return residual_fit(design, reml, fit.solver, fit.held, optimum, fit.optimizer)
    other = Problem(design, reml, fit.solver, fit.held)
    return Fit(other, replace(fit.optimum, x=at.theta), fit.optimizer)


def _parts(
    experiment: Experiment, seed: np.random.SeedSequence, n_sim: int
) -> Iterator[tuple[np.random.SeedSequence, int]]:
    """Simulations that are done in one go; they do not depend on the number of processes."""
    most = _TOGETHER if experiment.together else _ALONE
    size = max(1, min(most, _VALUES // experiment.fit.design.n))
    counts = [min(size, n_sim - a) for a in range(0, n_sim, size)]
    yield from zip(seed.spawn(len(counts)), counts, strict=True)


def _counted(
    experiment: Experiment, parts: Sequence[Outcomes], alpha: float, level: float
) -> tuple[float, ...]:
    """Numbers of the study, in the order of `Repeated`."""
    p = np.concatenate([np.zeros(0), *(part.p for part in parts)])
    flags = [np.concatenate([np.zeros(0, bool), *(part.converged for part in parts)])]
    flags += [np.concatenate([np.zeros(0, bool), *(part.singular for part in parts)])]
    failed = np.isnan(p)
    done, x = len(p), int(np.sum(p < alpha))
    lower, upper = limits(x, done, level)
    unconverged = int(np.sum(~flags[0] & ~failed))
    counts = (experiment.fit.design.n, done, x, unconverged, int(flags[1].sum()))
    return (*counts, int(failed.sum()), lower, upper)


def limits(x: int, n: int, level: float) -> tuple[float, float]:
    """Clopper and Pearson's limits of a share, of x in n."""
    tail = 0.5 - level / 2.0
    lower = 0.0 if x == 0 else float(beta_quantile(tail, x, n - x + 1))
    upper = 1.0 if x == n else float(beta_quantile(1.0 - tail, x + 1, n - x))
    return lower, upper
