"""Searches from further starts, where one may have ended in the wrong valley.

A random effect that carries a mean, or a variance of zero, can have another minimum beside the one
that was found. Where an evaluation is cheap, the search is made from small and from large random
effects too, and the lowest end is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import LmmError
from lmmsparse.fit.generalized.limit import Found
from lmmsparse.fit.generalized.problem import GeneralizedProblem
from lmmsparse.fit.generalized.search import NO_WORSE, search
from lmmsparse.fit.start import is_cheap, lacks_fixed_effects
from lmmsparse.optimize import Optimizer, StructuredSearch

_SMALL, _LARGE = 0.1, 5.0
_NO_VARIANCE = 1e-3
_MOST_ROWS = 3_000
_PATIENCE = 60


def best_of_further(problem: GeneralizedProblem, found: Found, optimizer: Optimizer) -> Found:
    """The lowest of what was found and of what further searches find, if there is need of any."""
    if optimizer != StructuredSearch() or not _may_be_wrong(problem, found):
        return found
    best, others = found, 0
    for name, theta in _starts(problem, found):
        try:
            other = search(problem, theta, StructuredSearch(max_eval=_PATIENCE))
        except (LmmError, np.linalg.LinAlgError):
            continue
        others += other.optimum.evaluations
        if other.optimum.value < best.optimum.value - 1e3 * NO_WORSE and other.optimum.success:
            others += best.optimum.evaluations - other.optimum.evaluations
            best = replace(other, optimum=replace(other.optimum, start=name))
    optimum = replace(best.optimum, further_evaluations=others)
    return replace(best, optimum=optimum)


def _may_be_wrong(problem: GeneralizedProblem, found: Found) -> bool:
    products, family = problem.coordinates.products, problem.family
    if problem.rows.n > _MOST_ROWS or family.is_limited or problem.n_agq > 1:
        return False
    if not is_cheap(products) or not problem.template.free.all():
        return False
    p, d = problem.design.p, problem.template.n_theta
    x = problem.coordinates.standardized(found.optimum.x[p : p + d])
    diagonals = [abs(x[group[0]]) for group in problem.template.mirrors]
    return min(diagonals, default=1.0) < _NO_VARIANCE or lacks_fixed_effects(products)


def _starts(problem: GeneralizedProblem, found: Found) -> Iterator[tuple[str, FloatArray]]:
    """θ to begin with, in units of the family's standard deviation where that is estimated."""
    template, family = problem.template, problem.family
    unit = problem.coordinates.map @ template.start
    scaled = family.estimates_delta and not family.discrete
    sigma = float(np.exp(0.5 * found.optimum.x[-1])) if scaled else 1.0
    yield "a tenth of unit size", template.with_held(_SMALL * sigma * unit)
    yield f"{_LARGE:g} times unit size", template.with_held(_LARGE * sigma * unit)
