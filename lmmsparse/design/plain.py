"""Formula parts that only multiply numbers or name factors by themselves → their columns, directly.

Most formulas are of this kind, and on small data formulaic's general way would be most of the time
of a fit. The columns and their names are formulaic's; whatever is not plain goes to formulaic, and
so do new data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from formulaic.parser.types import Factor, Term

from lmmsparse._types import FloatArray, IntArray
from lmmsparse.design.columns import ColumnInfo
from lmmsparse.design.frame import Variables, codes_and_categories
from lmmsparse.design.rank import FixedColumns

_MANY = 50
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

    None if the part is not plain: its terms must be 1, products of numeric columns, or, where there
    is an intercept, factors with treatment coding that stand by themselves.

    Parameters
    ----------
    terms : sequence of Term
        As formulaic has read them.
    table : Variables
        Complete rows.
    columns : mapping
        Column → what it is.
    sparse : bool
        Whether columns may be sparse where they are many and mostly zeros.
    """
    names: list[str] = []
    values: list[FloatArray | sp.csr_array] = []
    levels: Levels = {}
    with_intercept = any(_is_intercept(term) for term in terms)
    for term in terms:
        if _is_intercept(term):
            names.append("Intercept")
            values.append(np.ones(len(table)))
            continue
        product: FloatArray | None = None
        for factor in term.factors:
            name = str(factor.expr)
            info = columns.get(name)
            lookup = factor.eval_method is Factor.EvalMethod.LOOKUP
            if not lookup or info is None or info.coded or name not in table.columns:
                return None
            if info.kind == "numeric":
                levels[name] = None
                column = table[name].to_numpy(dtype=np.float64)
                product = column if product is None else product * column
            elif info.kind == "categorical" and len(term.factors) == 1 and with_intercept:
                assert info.categories is not None
                levels[name] = info.categories
                names += [f"{name}[T.{level}]" for level in info.categories[1:]]
                codes = codes_and_categories(table[name])[0].astype(np.intp)
                values.append(_indicators(codes, len(info.categories)))
            else:
                return None
        if product is not None:
            names.append(":".join(str(factor.expr) for factor in term.factors))
            values.append(product)
    if len(set(names)) < len(names):
        return None
    return (_side_by_side(values, len(table), sparse), tuple(names)), levels


def _indicators(codes: IntArray, n_levels: int) -> sp.csr_array:
    """Indicators of all levels but the first."""
    after = codes > 0
    starts = np.concatenate([[0], np.cumsum(after)])
    return sp.csr_array(
        (np.ones(starts[-1]), codes[after] - 1, starts),
        shape=(len(codes), n_levels - 1),
    )


def _side_by_side(
    values: Sequence[FloatArray | sp.csr_array], n: int, sparse: bool
) -> FixedColumns:
    width = sum(1 if isinstance(v, np.ndarray) else v.shape[1] for v in values)
    filled = sum(n if isinstance(v, np.ndarray) else v.nnz for v in values)
    if sparse and width > _MANY and filled < _MOSTLY_ZEROS * n * width:
        parts = [sp.csr_array(v[:, None]) if isinstance(v, np.ndarray) else v for v in values]
        return sp.csr_array(sp.hstack(parts, format="csr"))
    out, at = np.empty((n, width), order="F"), 0
    for v in values:
        own = 1 if isinstance(v, np.ndarray) else v.shape[1]
        out[:, at : at + own] = v[:, None] if isinstance(v, np.ndarray) else v.toarray(order="F")
        at += own
    return out


def _is_intercept(term: Term) -> bool:
    return len(term.factors) == 1 and str(term.factors[0].expr) == "1"
