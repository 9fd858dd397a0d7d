"""The sums that a model needs of its data, apart from the model: kept, saved, fitted often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import FormulaError, OptionError
from lmmsparse.common.options import one_of
from lmmsparse.common.words import listed
from lmmsparse.design import Design
from lmmsparse.fit.storage import save_products
from lmmsparse.formula.formula import MixedFormula, RandomTerm, parse_formula


class ModelProducts:
    """Cross-products of the data of a model, from `cross_products` or `load`.

    Parameters
    ----------
    design : Design
        Without rows.
    """

    def __init__(self, design: Design) -> None:
        self._design = design

    @property
    def design(self) -> Design:
        """Names, levels and sums, as the model has them."""
        return self._design

    @property
    def formula(self) -> str:
        """The formula as it was written."""
        return self._design.formula

    @property
    def nobs(self) -> int:
        """Number of rows that were summed."""
        return self._design.n

    @property
    def n_groups(self) -> dict[str, int]:
        """Grouping factor → number of levels."""
        design = self._design
        return {name: design.blocks[t[0]].n_levels for name, t in design.groups.items()}

    def __repr__(self) -> str:
        groups = ", ".join(f"{name} ({n:,} levels)" for name, n in self.n_groups.items())
        return f"Cross-products of {self.formula}: {self.nobs:,} rows, {groups}"

    @checked_keywords
    def save(self, path: str | Path) -> None:
        """Write the sums to one file (arrays and JSON; no pickle), readable by `load`."""
        save_products(self._design, path)


def design_of_products(
    formula: MixedFormula, products: ModelProducts, options: Mapping[str, Any]
) -> Design:
    """The design that was summed, for the same formula.

    Parameters
    ----------
    options : mapping
        Arguments of `lmer` about data; none may be given, for the rows are gone.

    Raises
    ------
    FormulaError, OptionError
    """
    asked = {name: value for name, value in options.items() if value is not None}
    action = one_of("na_action", options.get("na_action", "omit"), ("omit", "exclude", "raise"))
    given = [name for name in asked if not (name == "na_action" and action == "omit")]
    if given:
        raise OptionError(
            f"{listed(f'{name}=' for name in given)} cannot be given with cross-products, whose "
            "rows are summed already. Leave it out here, and give it to lmm.cross_products if it "
            "is an option there."
        )
    if _meaning(formula) != _meaning(parse_formula(products.formula)):
        raise FormulaError(
            f"The cross-products are those of {products.formula!r}, not of {formula.text!r}. Write "
            "the formula they were made with, or make those of the other: "
            f"lmm.cross_products({formula.text!r}, data)."
        )
    return products.design


def _meaning(formula: MixedFormula) -> MixedFormula:
    """A formula without the way in which it is written."""
    random = tuple(map(_plain, formula.random))
    return replace(formula, text="", random=random, idle=())


def _plain(term: RandomTerm) -> RandomTerm:
    return replace(term, source="", position=0)
