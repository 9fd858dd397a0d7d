"""Design → `Problem`: what a search minimizes, with the cross-products it is made of.

The criterion is made when it is first asked for; a problem pickles small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.words import listed
from lmmsparse.design import Design
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.held import NOTHING, Held
from lmmsparse.engine.pairs import TermColumns
from lmmsparse.engine.products import CrossProducts, cross_products
from lmmsparse.engine.responses import Response, response_products
from lmmsparse.engine.solvers.base import PLSSolver
from lmmsparse.fit.exact import check_not_exact
from lmmsparse.fit.identification import Unidentified, unidentified
from lmmsparse.fit.identification_by_products import unidentified_by_products
from lmmsparse.fit.search import search
from lmmsparse.fit.start import Start
from lmmsparse.fit.undetermined import Undetermined
from lmmsparse.optimize import Optimizer, Optimum


@dataclass(frozen=True, eq=False)
class Problem:
    """A model and its data.

    Attributes
    ----------
    held : Held
        Covariance parameters the user holds.
    known : ProfiledDeviance or None
        The criterion, where it has been made already.
    like : Problem or None
        One that differs in the response only.
    """

    design: Design
    reml: bool
    solver: PLSSolver
    held: Held = NOTHING
    known: ProfiledDeviance | None = None
    like: Problem | None = None

    @cached_property
    def objective(self) -> ProfiledDeviance:
        """The criterion as a function of θ."""
        if self.known is not None:
            return self.known
        products, response = products_of(self.design)
        return make_objective(self.design, self.reml, self.solver, products, response, self.held)

    @cached_property
    def template(self) -> LambdaTemplate:
        """The pattern of Λ."""
        return make_template(self.design, self.held)

    @cached_property
    def unidentified(self) -> Unidentified | None:
        """Combinations of covariance parameters that the data do not determine."""
        if self.like is not None:
            return self.like.unidentified
        products, sigma_known = self.objective.products, self.held.sigma is not None
        if self.design.facts is not None:
            return unidentified_by_products(self.template, products, self.reml, sigma_known)
        return unidentified(self.design, self.template, products, self.reml, sigma_known)

    @property
    def away(self) -> Undetermined | None:
        """Where a search must not go."""
        return None if self.unidentified is None else self.unidentified.away

    def with_response(self, design: Design, response: Response) -> Problem:
        """The same model of another response, of which the cross-products are given."""
        known = self.objective.with_response(response)
        return replace(self, design=design, known=known, like=self.like or self)

    def by_maximum_likelihood(self) -> Problem:
        """The same model by the other criterion, on the same cross-products."""
        return replace(self, reml=False, known=self.objective.with_reml(False), like=None)

    def search(
        self,
        start: FloatArray | Start | None,
        optimizer: Optimizer,
        progress: bool = False,
    ) -> Optimum:
        """Minimize the criterion."""
        return search(self.objective, self.design, start, optimizer, progress, self.away)

    def __getstate__(self) -> dict[str, Any]:
        parts = {"design": self.design, "reml": self.reml, "solver": self.solver}
        return {**parts, "held": self.held, "known": None, "like": None}


def make_template(design: Design, fixed: Held = NOTHING) -> LambdaTemplate:
    """The pattern of Λ for a design."""
    return LambdaTemplate(
        structures=tuple(block.structure for block in design.blocks),
        n_levels=tuple(block.n_levels for block in design.blocks),
        held=fixed.theta,
        shifts=tuple(block.shift for block in design.blocks),
    )


def term_columns(design: Design) -> list[TermColumns]:
    """The random-effects terms as the engine sees them."""
    return [TermColumns(b.codes, b.shifted_columns, b.n_levels, b.prior) for b in design.blocks]


def products_of(design: Design) -> tuple[CrossProducts, Response]:
    """The cross-products of a design: the last step that sees its rows."""
    if design.facts is not None:
        check_not_exact(design, design.facts.response.yty)
        return design.facts.products, design.facts.response
    terms = term_columns(design)
    Q, basis = design.internal_columns()
    products = cross_products(Q, basis, terms, design.weights)
    response = response_products(design.y, Q, terms, design.weights, design.offset)
    check_not_exact(design, response.yty)
    return products, response


def make_objective(
    design: Design,
    reml: bool,
    solver: PLSSolver,
    products: CrossProducts,
    response: Response,
    fixed: Held = NOTHING,
) -> ProfiledDeviance:
    """The criterion of a model on the linear algebra of `solver`."""
    check_knows(solver, design, products)
    template = make_template(design, fixed)
    system = solver.build(products, template)
    return ProfiledDeviance(system, template, products, response, reml, fixed.sigma)


def check_knows(solver: PLSSolver, design: Design, products: CrossProducts) -> None:
    """Refuse linear algebra that would pass over a known covariance."""
    known = [block.group for block in design.blocks if block.known is not None]
    if not known:
        return
    if not getattr(solver, "known_covariances", False):
        raise OptionError(
            f"solver={type(solver).__name__} cannot work with the known covariance of "
            f"{listed(dict.fromkeys(known))}. Leave solver= out, or use lmm.Cholmod(), "
            "lmm.SuperLU(), lmm.Blocked() or lmm.Dense()."
        )
    if not products.priors:
        raise OptionError(
            f"The known covariance of {listed(dict.fromkeys(known))} cannot be used with data that "
            "come in parts. Pass the data as one table."
        )
