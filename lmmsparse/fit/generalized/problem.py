"""Design, family and options → the problem that a generalized linear mixed model is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.design import Design
from lmmsparse.design.design import RandomBlock
from lmmsparse.engine.columns import Basis, InternalColumns
from lmmsparse.engine.families.base import Family, Observations
from lmmsparse.engine.generalized.laplace import LaplaceDeviance
from lmmsparse.engine.generalized.quadrature import QuadratureDeviance
from lmmsparse.engine.generalized.rows import GeneralizedRows
from lmmsparse.engine.products import CrossProducts, Pattern, pattern_of
from lmmsparse.fit.generalized.coordinates import Coordinates
from lmmsparse.fit.identification import Unidentified
from lmmsparse.fit.problem import Problem, check_knows, term_columns

_FEW_EFFECTS = 8
INFORMATION = ("observed", "expected")


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a design determines without its response: columns, pattern and unweighted products."""

    fixed: object
    blocks: tuple[RandomBlock, ...]
    Q: InternalColumns
    basis: Basis
    pattern: Pattern
    products: CrossProducts

    def is_of(self, design: Design) -> bool:
        """Whether a design differs at most in its response, its offset and its weights."""
        return design.fixed is self.fixed and design.blocks is self.blocks


def prepared(design: Design) -> Prepared:
    """Find which levels meet, once for solver and problem."""
    Q, basis = design.internal_columns(weighted=False)
    pattern = pattern_of(term_columns(design))
    return Prepared(design.fixed, design.blocks, Q, basis, pattern, pattern.products(Q, basis))


@dataclass(frozen=True, eq=False)
class GeneralizedProblem(Problem):
    """A generalized model and its data.

    The design holds a binomial response as proportions and, as weights, trials times prior weights.

    Attributes
    ----------
    family : Family
    trials : (n,) array or None
        Trials of a binomial response, 1 if None.
    n_agq : int
        Nodes per random effect of adaptive quadrature; 1: Laplace, 0: β at the joint mode.
    information : {"observed", "expected"}
    success : str
        What a binomial model gives the probability of, empty where that goes without saying.
    prepared : Prepared or None
        What is known of the design already.
    """

    family: Family = field(kw_only=True)
    trials: FloatArray | None = field(default=None, kw_only=True)
    n_agq: int = field(default=1, kw_only=True)
    information: str = field(default="observed", kw_only=True)
    success: str = field(default="", kw_only=True)
    prepared: Prepared | None = field(default=None, kw_only=True)

    @cached_property
    def seen(self) -> Observations:
        """The response with trials and prior weights apart."""
        weights = self.design.weights
        if self.trials is None or weights is None:
            return Observations(self.design.y, self.trials, weights)
        prior = weights / self.trials
        own = None if np.all(np.abs(prior - 1.0) < 1e-12) else prior
        return Observations(self.design.y, self.trials, own)

    @cached_property
    def _made(self) -> tuple[GeneralizedRows, CrossProducts]:
        design, template, made = self.design, self.template, self.prepared
        if made is None or not made.is_of(design):
            made = prepared(design)
        check_knows(self.solver, design, made.products)
        system = self.solver.build(made.products, template)
        rows = GeneralizedRows(
            self.family,
            self.seen,
            made.Q,
            made.basis,
            made.pattern,
            template,
            design.offset,
            system,
            by_level=(
                getattr(self.solver, "level_by_level", False)
                and made.products.one_factor
                and sum(made.products.sizes) <= _FEW_EFFECTS
            ),
        )
        return rows, made.products

    @property
    def rows(self) -> GeneralizedRows:
        return self._made[0]

    @cached_property
    def deviance(self) -> LaplaceDeviance:
        """−2 log-likelihood as a function of β, θ and δ."""
        if self.n_agq > 1:
            return QuadratureDeviance(self.rows, nodes=self.n_agq)
        return LaplaceDeviance(self.rows, self.information == "expected")

    @cached_property
    def coordinates(self) -> Coordinates:
        return Coordinates(self.deviance, self._made[1])

    @property
    def unidentified(self) -> Unidentified | None:
        """Nothing is known of this before the search of a generalized model."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        own = ("family", "trials", "n_agq", "information", "success")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}
