"""Formulaic's way from terms to columns, with expressions evaluated by us and sizes looked at.

Its errors are translated here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from formulaic import ModelSpec
from formulaic.errors import FormulaicWarning
from formulaic.materializers import PandasMaterializer
from formulaic.materializers.types import FactorValues, ScopedFactor, ScopedTerm
from formulaic.parser.types import Factor, Term
from formulaic.utils.null_handling import find_nulls

from lmmsparse.common.arrays import BoolArray, IntArray
from lmmsparse.common.errors import DataError, FormulaError, LmmError
from lmmsparse.common.threads import filtered
from lmmsparse.common.words import shortened
from lmmsparse.design.columns import text_explained
from lmmsparse.design.evaluate import Evaluator
from lmmsparse.design.new_columns import unseen_level
from lmmsparse.formula import limits
from lmmsparse.formula.expression import read_expression
from lmmsparse.formula.limits import too_much

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _override(method: _Method) -> _Method:
    """Formulaic wants to be told which of its methods are replaced."""
    marked: _Method = PandasMaterializer.override(method)
    return marked


class Materializer(PandasMaterializer):  # type: ignore[misc]
    """Makes the columns of formula parts from a table and the user's own names.

    Nothing of a formula's text is evaluated by formulaic: names are looked up among the columns and
    the user's own names only, expressions are given to `Evaluator`.

    Parameters
    ----------
    coded : mapping
        Columns whose coding is prescribed, as formulaic's factors, where they stand by themselves;
        expressions compute with the values.
    sample : (rows,) bool array or None
        Rows that transforms may learn from; None for all.
    unseen : (rows,) bool array or None
        Where to mark rows that have a level that a factor has not; an error if None.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        coded: Mapping[str, Any],
        own: Mapping[str, Any],
        sample: BoolArray | None = None,
        unseen: BoolArray | None = None,
    ) -> None:
        super().__init__(frame)
        self._columns = {str(name): frame[name] for name in frame}
        self._coded = coded
        self._own = own
        self._sample = sample
        self._unseen = unseen

    @_override
    def _lookup(self, name: str) -> tuple[Any, set[Any]]:
        if name in self._columns:
            return self._coded.get(name, self._columns[name]), set()
        if name not in self._own:
            raise FormulaError(f"{name!r} is not a column of the data.")
        return self._column(name, self._own[name]), set()

    @_override
    def _evaluate(self, expr: str, metadata: Any, spec: ModelSpec) -> tuple[Any, set[Any]]:
        evaluator = Evaluator(
            self._columns, self.nrows, self._own, spec.transform_state, self._sample
        )
        return self._column(expr, evaluator(read_expression(expr))), set()

    def _column(self, name: str, values: Any) -> Any:
        """Values that can be columns of a matrix: numbers or levels, one for each row."""
        if isinstance(values, FactorValues) and isinstance(values, dict):  # of splines
            return values
        shape = np.shape(values)
        if shape[:1] == (self.nrows,) and len(shape) <= 2:
            return values
        what = "a single value" if not shape else f"values of shape {shape}"
        if not isinstance(values, (pd.Series, np.ndarray, float, int, list, tuple, str)):
            what = f"of type {type(values).__name__}"
        raise FormulaError(
            f"{shortened(name)} is {what} where there are {self.nrows:,} rows. Write it with a "
            "column of the data."
        )

    @_override
    def _get_scoped_terms(
        self, terms: Iterable[Term], ensure_full_rank: bool = True
    ) -> Iterator[tuple[Term, Iterable[ScopedTerm]]]:
        """Which factors of each term are without their first level.

        Formulaic takes a term for the set of its products with each factor present or absent, less
        those of the terms before it. Where every product without one factor is there, as in a*b*c,
        only the term itself is left, and the 2ᵏ products need not be made.
        """
        if not ensure_full_rank:
            yield from super()._get_scoped_terms(terms, ensure_full_rank)
            return
        spanned: set[frozenset[str]] = set()
        for term in terms:
            factors = [self.factor_cache[factor.expr] for factor in term.factors]
            factors = [f for f in factors if f.values.__wrapped__ is not None]
            constant = Factor.Kind.CONSTANT
            scale = prod(f.values for f in factors if f.metadata.kind is constant)
            own = [f for f in factors if f.metadata.kind is not constant]
            whole = frozenset(f.expr for f in own)
            spanning = [f.expr for f in own if f.metadata.spans_intercept]
            if not factors:
                yield term, []
                continue
            if all(whole - {name} in spanned for name in spanning):
                reduced = (ScopedFactor(f, reduced=f.metadata.spans_intercept) for f in own)
                yield term, [] if whole in spanned else [ScopedTerm(reduced, scale)]
            else:
                products = self._get_scoped_terms_spanned_by_evaled_factors(factors)
                left = [p for p in products if _expressions(p) not in spanned]
                yield term, self._simplify_scoped_terms(left)
                spanned.update(map(_expressions, left))
            spanned.add(whole)

    @_override
    def _encode_evaled_factor(
        self, factor: Any, spec: ModelSpec, drop_rows: Any, reduced_rank: bool = False
    ) -> dict[str, Any]:
        levels = spec.encoder_state.get(factor.expr, (None, {}))[1].get("categories")
        values = factor.values.__wrapped__
        if levels is not None and np.ndim(values) == 1:
            self._look_for_others(factor.expr, pd.Series(values), levels, list(drop_rows))
        return dict(super()._encode_evaled_factor(factor, spec, drop_rows, reduced_rank))

    def _look_for_others(
        self, expr: str, values: pd.Series, levels: Sequence[Any], dropped: list[int]
    ) -> None:
        """Mark or refuse rows with a level that a factor did not have when it was learnt."""
        values = values.astype(object)
        others = (values.notna() & ~values.isin(list(levels))).to_numpy(copy=True)
        others[dropped] = False
        if self._unseen is not None:
            self._unseen |= others
        elif others.any():
            raise unseen_level(expr, values[others].iloc[0], levels)

    @classmethod
    @_override
    def _simplify_scoped_terms(cls, scoped_terms: Any) -> Any:
        if len(scoped_terms) > 2**limits.FACTORS:
            too_much(
                "The formula has an interaction of too many factors",
                f"{limits.FACTORS} factors without the interactions of lower order",
                "Write them with *, or make one factor of some of them.",
            )
        return super()._simplify_scoped_terms(scoped_terms)

    @_override
    def _get_columns_for_term(
        self, factors: list[dict[str, Any]], spec: ModelSpec, scale: float = 1
    ) -> dict[str, Any]:
        width = prod(len(factor) for factor in factors)
        if width > limits.COLUMNS or width * self.nrows > limits.CELLS:
            _too_wide(width, self.nrows)
        return dict(super()._get_columns_for_term(factors, spec, scale))

    @_override
    def _combine_columns(
        self, cols: Sequence[tuple[str, Any]], spec: ModelSpec, drop_rows: Sequence[int]
    ) -> Any:
        if len(cols) > limits.COLUMNS or len(cols) * self.nrows > limits.CELLS:
            _too_wide(len(cols), self.nrows)
        return super()._combine_columns(cols, spec, drop_rows)


def _expressions(term: ScopedTerm) -> frozenset[str]:
    return frozenset(factor.factor.expr for factor in term.factors)


def _too_wide(width: int, rows: int) -> None:
    too_much(
        f"Terms of the formula make {width:,} columns of {rows:,} rows",
        f"{limits.COLUMNS:,} columns and {limits.CELLS:,} numbers",
        "Leave out interactions of factors with many levels, or use such a factor as a grouping.",
    )


# The log of a negative number is found later; what else numpy and pandas say of the user's
# calculations is not about what is fitted.
_STRICT: list[tuple[str, type[Warning]]] = [
    ("error", FormulaicWarning),
    *(
        ("ignore", kind)
        for kind in (RuntimeWarning, DeprecationWarning, FutureWarning, UserWarning)
    ),
]


def materialized(
    spec: Any,
    frame: pd.DataFrame,
    coded: Mapping[str, Any],
    context: Mapping[str, Any],
    dropped: dict[str, set[int]] | None = None,
    strict: bool = True,
    rows: IntArray | None = None,
    sample: IntArray | None = None,
    unseen: BoolArray | None = None,
) -> Any:
    """Evaluate a specification; `dropped` is filled with what came out missing where.

    `strict` makes an error of what formulaic warns about, such as a level it does not know. `rows`
    are those of the frame that are wanted, `sample` those that transforms learn from. `unseen` is
    as for `Materializer`.
    """
    every = np.arange(len(frame))
    taught = None if sample is None else np.isin(every, sample)
    if unseen is None and not strict:
        unseen = np.zeros(len(frame), dtype=bool)
    materializer = Materializer(frame, coded, context, taught, unseen)
    without = set() if rows is None else set(np.setdiff1d(every, rows).tolist())
    holes = set(without)
    try:
        with filtered(*(_STRICT if strict else [("ignore", Warning)])):
            # The method of the specification itself forgets which rows were dropped.
            matrix = materializer.get_model_matrix(spec, drop_rows=holes)
    except (LmmError, MemoryError):
        raise
    except Exception as error:  # whatever the functions of a formula raise
        cause = error.__cause__ or error.__context__
        if isinstance(cause, LmmError | MemoryError):
            raise cause from error
        used = [str(name) for name in frame if _names(str(error), str(name))]
        what, why = _plain(error), text_explained(used, frame)
        if "outside of the nominated levels" in what:
            raise FormulaError(
                "levels= of a factor leaves out some levels of the data. Name all of them, or "
                "leave out the rows with the others."
            ) from error
        if why:  # plainer than what numpy or pandas say
            what = what.partition(" [")[0]
        if "`extrapolation`" in str(error):
            raise DataError(
                f"{_factor_of(what)} is given values outside the range that it has learnt from, "
                "where a spline is not defined. Write extrapolation='extend' in its call to "
                "continue it, or keep to the range."
            ) from error
        why = why or "Check that its arguments are columns and values of the right kind."
        raise FormulaError(f"A term of the formula could not be evaluated: {what} {why}") from error
    if dropped is not None and len(holes) > len(without):
        found = {
            name: set(find_nulls(factor.values)) - without
            for name, factor in materializer.factor_cache.items()
        }
        dropped.update({name: holes for name, holes in found.items() if holes})
    return matrix


def _names(text: str, word: str) -> bool:
    """Whether a word stands in a text, and not only its letters."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _factor_of(text: str) -> str:
    """The term that a message of formulaic names."""
    return repr(found[1]) if (found := re.search(r"`(.*?)`", text)) else "A term of the formula"


def _plain(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith((".", "]", "!")) else text + "."
