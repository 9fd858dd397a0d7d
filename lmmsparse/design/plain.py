"""Formula parts that only multiply numbers or name factors by themselves → their columns, directly.

Most formulas are of this kind, and on small data formulaic's general way would be most of the time
of a fit. The columns and their names are formulaic's; whatever is not plain goes to formulaic, and
so do new data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse as sp
from formulaic.parser.types import Factor, Term

from lmmsparse.common.arrays import FloatArray, IntArray, column_of_ones, is_ones
from lmmsparse.design.columns import ColumnInfo
from lmmsparse.design.rank import FixedColumns
from lmmsparse.design.variables import Variables, codes_and_categories

_MANY = 50
_FEW = 8
_MOSTLY_ZEROS = 0.1

Columns = tuple[FixedColumns, tuple[str, ...]]
Levels = dict[str, tuple[Any, ...] | None]


def plain_columns(
    terms: Sequence[Term],
    table: Variables,
    columns: Mapping[str, ColumnInfo],
    sparse: bool = False,
) -> tuple[Columns, Levels] | None:
    """The columns of a formula part with their names, and the levels of its factors.

    None if the part is not plain: its terms must be 1, or products of numeric columns and factors
    with treatment coding. Every such product without one of its factors must come before it, as in
    `f*g`: otherwise the factor is coded by all of its levels. With `sparse`, columns may be sparse
    where they are many and mostly zeros.
    """
    names: list[str] = []
    values: list[FloatArray | _Indicators] = []
    levels: Levels = {}
    before: set[frozenset[str]] = set()
    for term in terms:
        if _is_intercept(term):
            before.add(frozenset())
            names.append("Intercept")
            values.append(column_of_ones(len(table))[:, 0])
            continue
        number: FloatArray | None = None
        factors: list[str] = []
        expressions = [str(factor.expr) for factor in term.factors]
        for name, factor in zip(expressions, term.factors, strict=True):
            info = columns.get(name)
            lookup = factor.eval_method is Factor.EvalMethod.LOOKUP
            if not lookup or info is None or info.coded or name not in table.columns:
                return None
            if info.kind == "numeric":
                levels[name] = None
                column = table[name].to_numpy(dtype=np.float64)
                number = column if number is None else number * column
            elif info.kind == "categorical" and frozenset(expressions) - {name} in before:
                assert info.categories is not None
                levels[name] = info.categories
                factors.append(name)
            else:
                return None
        before.add(frozenset(expressions))
        parts = [
            [f"{name}[T.{level}]" for level in (levels[name] or ())[1:]]
            if name in factors
            else [name]
            for name in expressions
        ]
        # The levels of the first factor change fastest.
        names += [":".join(reversed(each)) for each in product(*reversed(parts))]
        if factors:
            values.append(_indicators(factors, table, levels, number))
        elif number is not None:
            values.append(number)
    if len(set(names)) < len(names):
        return None
    return (_side_by_side(values, len(table), sparse), tuple(names)), levels


@dataclass(frozen=True, eq=False)
class _Indicators:
    """Columns of which each row has an element in one, or in none.

    Attributes
    ----------
    column : (n,) int array
        Which one; negative for none.
    number : (n,) array or None
        The elements; 1 if not given.
    """

    column: IntArray
    width: int
    number: FloatArray | None

    def sparse(self) -> sp.csr_array:
        there = self.column >= 0
        starts = np.concatenate([[0], np.cumsum(there)])
        data = np.ones(starts[-1]) if self.number is None else self.number[there]
        return sp.csr_array((data, self.column[there], starts), shape=(len(there), self.width))

    def fill(self, out: FloatArray) -> None:
        """Write the columns into an (n, width) array that stands column by column."""
        if self.width <= _FEW:
            for j in range(self.width):
                there = self.column == j  # elsewhere 0, also of a number that is infinite
                out[:, j] = there if self.number is None else np.where(there, self.number, 0.0)
            return
        out[:] = 0.0
        there = np.flatnonzero(self.column >= 0)
        out[there, self.column[there]] = 1.0 if self.number is None else self.number[there]


def _indicators(
    factors: Sequence[str], table: Variables, levels: Levels, number: FloatArray | None
) -> _Indicators:
    """One column for every combination of levels other than the first."""
    column, width = np.zeros(len(table), dtype=np.intp), 1
    none = np.zeros(len(table), dtype=bool)
    for name in factors:
        codes = codes_and_categories(table[name])[0]
        column += width * (codes.astype(np.intp) - 1)
        none |= codes == 0
        width *= len(levels[name] or ()) - 1
    column[none] = -1
    return _Indicators(column, width, number)


def _side_by_side(values: Sequence[FloatArray | _Indicators], n: int, sparse: bool) -> FixedColumns:
    widths = [1 if isinstance(v, np.ndarray) else v.width for v in values]
    width = sum(widths)
    if sparse and width > _MANY:
        filled = sum(n if isinstance(v, np.ndarray) else int((v.column >= 0).sum()) for v in values)
        if filled < _MOSTLY_ZEROS * n * width:
            parts = [
                sp.csr_array(v[:, None]) if isinstance(v, np.ndarray) else v.sparse()
                for v in values
            ]
            return sp.csr_array(sp.hstack(parts, format="csr"))
    if width == 1 and isinstance(values[0], np.ndarray) and is_ones(values[0][:, None]):
        return column_of_ones(n)
    out, at = np.empty((n, width), order="F"), 0
    for v, own in zip(values, widths, strict=True):
        if isinstance(v, np.ndarray):
            out[:, at] = v
        else:
            v.fill(out[:, at : at + own])
        at += own
    return out


def _is_intercept(term: Term) -> bool:
    return len(term.factors) == 1 and str(term.factors[0].expr) == "1"
