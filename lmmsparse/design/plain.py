"""Formula parts that only multiply numbers or name factors by themselves → their columns, directly.

Most formulas are of this kind, and on small data formulaic's general way would be most of the time
of a fit. The columns and their names are formulaic's; whatever is not plain goes to formulaic, and
so do new data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from formulaic.parser.types import Factor, Term

from lmmsparse._types import FloatArray
from lmmsparse.design.columns import ColumnInfo

Columns = tuple[FloatArray, tuple[str, ...]]
Levels = dict[str, tuple[Any, ...] | None]


def plain_columns(
    terms: Sequence[Term], frame: pd.DataFrame, columns: Mapping[str, ColumnInfo]
) -> tuple[Columns, Levels] | None:
    """The columns of a formula part with their names, and the levels of its factors.

    None if the part is not plain: its terms must be 1, products of numeric columns, or, where there
    is an intercept, factors with treatment coding that stand by themselves.

    Parameters
    ----------
    terms : sequence of Term
        As formulaic has read them.
    frame : DataFrame
        Complete rows.
    columns : mapping
        Column → what it is.
    """
    names: list[str] = []
    values: list[FloatArray] = []
    levels: Levels = {}
    with_intercept = any(_is_intercept(term) for term in terms)
    for term in terms:
        if _is_intercept(term):
            names.append("Intercept")
            values.append(np.ones(len(frame)))
            continue
        product: FloatArray | None = None
        for factor in term.factors:
            name = str(factor.expr)
            info = columns.get(name)
            lookup = factor.eval_method is Factor.EvalMethod.LOOKUP
            if not lookup or info is None or info.coded or name not in frame.columns:
                return None
            if info.kind == "numeric":
                levels[name] = None
                column = frame[name].to_numpy(dtype=np.float64)
                product = column if product is None else product * column
            elif info.kind == "categorical" and len(term.factors) == 1 and with_intercept:
                assert info.categories is not None
                levels[name] = info.categories
                codes = frame[name].cat.codes.to_numpy()
                names += [f"{name}[T.{level}]" for level in info.categories[1:]]
                values += [(codes == i).astype(np.float64) for i in range(1, len(info.categories))]
            else:
                return None
        if product is not None:
            names.append(":".join(str(factor.expr) for factor in term.factors))
            values.append(product)
    if len(set(names)) < len(names):
        return None
    matrix = np.column_stack(values) if values else np.zeros((len(frame), 0))
    return (matrix, tuple(names)), levels


def _is_intercept(term: Term) -> bool:
    return len(term.factors) == 1 and str(term.factors[0].expr) == "1"
