"""Design with a covariance of the residuals → the problem that the model is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray, frozen
from lmmsparse.common.errors import DataError
from lmmsparse.design import Design
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.pairs import pair_patterns
from lmmsparse.engine.residual.criterion import JointDeviance
from lmmsparse.engine.residual.sets import CrossSets
from lmmsparse.engine.residual.structure import ResidualStructure
from lmmsparse.engine.residual.unstructured import Unstructured
from lmmsparse.fit.exact import check_not_exact
from lmmsparse.fit.identification import Unidentified
from lmmsparse.fit.problem import Problem, make_template, term_columns
from lmmsparse.fit.residual.repeated import check_not_repeated
from lmmsparse.fit.residual.search import search_joint
from lmmsparse.fit.start import Start, checked_start, numbers_to_start
from lmmsparse.optimize import Optimizer, Optimum

_MOST = 300_000_000
_MOST_PAIRS = 2e6


@dataclass(frozen=True, eq=False)
class ResidualProblem(Problem):
    """A model with a covariance of the residuals, and its data.

    Attributes
    ----------
    held_phi : tuple of (int, float)
        Positions in φ that the user holds, and their values.
    known_joint : JointDeviance or None
        The criterion, where it has been made already.
    """

    held_phi: tuple[tuple[int, float], ...] = field(default=(), kw_only=True)
    known_joint: JointDeviance | None = field(default=None, kw_only=True)

    @cached_property
    def structure(self) -> ResidualStructure:
        """R as a function of φ."""
        assert self.design.residual is not None
        return self.design.residual.structure(self.design.weights)

    @cached_property
    def joint(self) -> JointDeviance:
        """The criterion as a function of θ and φ."""
        if self.known_joint is not None:
            return self.known_joint
        sets = sets_of(self.design, self.structure)
        check_not_repeated(self.design, sets, self.held)
        template = make_template(self.design, self.held)
        return JointDeviance.of(sets, self.solver, template, self.reml, self.held.sigma)

    @property
    def free_phi(self) -> BoolArray:
        """Which elements of φ are estimated."""
        out = np.ones(self.structure.n_phi, dtype=bool)
        out[[i for i, _ in self.held_phi]] = False
        return frozen(out)

    @property
    def starts(self) -> list[FloatArray]:
        """φ to search from, what is held at its value."""
        out: list[FloatArray] = []
        for start in self.structure.starts:
            phi = start.copy()
            for i, value in self.held_phi:
                phi[i] = value
            if not any(np.array_equal(phi, other) for other in out):
                out.append(phi)
        return out

    @property
    def objective(self) -> ProfiledDeviance:
        """The criterion at the first start of φ."""
        return self.joint.at(self.starts[0])

    @property
    def unidentified(self) -> Unidentified | None:
        """Nothing is known of this before the search."""
        return None

    def of_response(self, design: Design) -> ResidualProblem:
        """The same model of the design's response, all else being the same."""
        sets = sets_of(design, self.structure)
        check_not_repeated(design, sets, self.held)
        return replace(self, design=design, known_joint=self.joint.with_sets(sets))

    def by_maximum_likelihood(self) -> ResidualProblem:
        return replace(self, reml=False, known_joint=self.joint.with_reml(False))

    def search(
        self,
        start: FloatArray | Start | None,
        optimizer: Optimizer,
        progress: bool = False,
    ) -> Optimum:
        """Minimize the criterion, from θ, or from θ and φ together, where they are given."""
        begin = None
        if start is not None:
            given = start.theta if isinstance(start, Start) else start
            begin = self._begin(numbers_to_start(given))
        return search_joint(
            self.joint, self.design, self.starts, self.free_phi, optimizer, begin, progress
        )

    def _begin(self, given: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        template, d = self.joint.template, self.joint.template.n_theta
        if len(given) != d + self.structure.n_phi:
            return checked_start(given, template), None
        phi = given[d:].copy()
        for i, value in self.held_phi:
            phi[i] = value
        return checked_start(given[:d], template), phi

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "held_phi": self.held_phi, "known_joint": None}


def sets_of(design: Design, structure: ResidualStructure) -> CrossSets:
    """What is summed over the rows of a design."""
    _check_pairs(design, structure)
    Q, basis = design.internal_columns()
    X = Q.X
    if not isinstance(X, np.ndarray):
        if X.shape[0] * X.shape[1] > _MOST:
            raise DataError(
                f"The model has {X.shape[1]} fixed effects for {X.shape[0]} rows, which is too "
                "many for residual= or residual_sd=. Make the largest factor a random effect."
            )
        X = Q.times(np.eye(Q.p))
    y = design.y - design.offset_or_zero
    beta0, e = np.zeros(Q.p), y
    W = design.weights
    for _ in range(2):  # the second pass removes what rounding left of the first
        step = X.T @ (e if W is None else e * W)
        e, beta0 = e - X @ step, beta0 + step
    check_not_exact(design, float(np.sum(e * e if W is None else e * e * W)))
    terms = term_columns(design)
    return CrossSets(structure, X, e, beta0, basis, terms, list(pair_patterns(terms)))


def _check_pairs(design: Design, structure: ResidualStructure) -> None:
    """Refuse large groups with a common correlation and a standard deviation of every row."""
    assert design.residual is not None
    if design.residual.kind != "cs":
        return
    sizes = np.bincount(structure.cells.group).astype(np.float64)
    pairs = float(sizes @ (sizes + 1.0)) / 2.0
    if pairs > _MOST_PAIRS:
        raise DataError(
            f"residual={design.residual.text!r} with rows of so many different standard deviations "
            f"has {pairs:.2g} pairs of rows to look at in every step, which is too many. Group the "
            "values that residual_sd= depends on, or use ar1() or car1()."
        )


def with_start(design: Design) -> Design:
    """The design with start values of an unstructured correlation, from least squares."""
    residual = design.residual
    if residual is None or residual.visits is None or residual.begin is not None:
        return design
    law = residual.law
    if not isinstance(law, Unstructured) or residual.grouping is None:
        return design
    Q, _ = design.internal_columns(weighted=False)
    e = design.y - design.offset_or_zero
    for _ in range(2):
        e = e - Q.times(Q.transposed_times(e))
    table = np.zeros((len(residual.grouping.levels), law.v))
    seen = np.zeros_like(table)
    at = residual.grouping.codes, residual.visits.codes
    table[at], seen[at] = e * np.sqrt(design.weights_or_one), 1.0
    R = table.T @ table / np.maximum(seen.T @ seen, 1.0)
    size = np.sqrt(np.maximum(np.diag(R), 1e-12 * np.diag(R).max()))
    values, vectors = np.linalg.eigh(R / np.outer(size, size))
    R = (vectors * np.maximum(values, 0.05)) @ vectors.T * np.outer(size, size)
    return replace(design, residual=replace(residual, begin=law.of_covariance(R)))
