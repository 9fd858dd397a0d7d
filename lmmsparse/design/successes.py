"""What stands left of ~ in a binomial model → proportions, trials, and what a success is.

A response may be 0/1 numbers, truth values, text or categories of two kinds, `cbind(a, b)`,
`a / n`, or proportions with the trials as weights.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import DataError, Finding, FormulaError
from lmmsparse.common.words import listed
from lmmsparse.design.arguments import check_real, numbers
from lmmsparse.design.asked import context_of
from lmmsparse.design.expressions import columns_of
from lmmsparse.design.recipe import column_or_array, evaluate
from lmmsparse.design.tables import check_unique
from lmmsparse.design.variables import Variables, tidy_column
from lmmsparse.formula.expression import bare, read_expression, spelled
from lmmsparse.formula.formula import MixedFormula
from lmmsparse.formula.references import references, with_columns
from lmmsparse.formula.tokens import quote_name

_WHOLE = 1e-8
_LARGEST = 1e15  # beyond it there are no whole numbers in double precision
FORMS = (
    "Write cbind(successes, failures) or successes / trials on the left of ~, or give proportions "
    "there and the trials as weights='trials'."
)


@dataclass(frozen=True, eq=False)
class BinomialResponse:
    """A binomial response in all rows of a table.

    Attributes
    ----------
    formula : MixedFormula
        With a column of `data` on the left.
    data : DataFrame
    weights : (rows,) array or None
        Trials times prior weights.
    trials : (rows,) array or None
    success : str
        What a 1 is, where the response was text or categories.
    findings : list of Finding
    """

    formula: MixedFormula
    data: pd.DataFrame
    weights: FloatArray | None
    trials: FloatArray | None
    success: str
    findings: list[Finding]


def binomial_response(
    formula: MixedFormula, frame: pd.DataFrame, weights: Any, context: Mapping[str, Any] | None
) -> BinomialResponse:
    """Read a binomial response.

    Raises
    ------
    DataError
        For counts without trials, and for text or categories that are not of two kinds.
    FormulaError
    """
    prior = None if weights is None else column_or_array("weights", weights, frame)
    text = as_written(formula)
    parts, own = _two_parts(text), context_of(context)
    if parts is not None:
        kind, first, second = parts
        a, b = _numbers(first, frame, own), _numbers(second, frame, own)
        if kind == "cbind":
            with np.errstate(over="ignore"):  # what is too large is refused
                together = a + b
            return _counted(formula, frame, a, together, prior, own)
        if np.nanmax(b, initial=0.0) > 1 and _are_whole(b) and _are_whole(a):
            if prior is not None and np.array_equal(prior, b, equal_nan=True):
                prior = None  # as in R, where weights are the trials of a proportion
            return _counted(formula, frame, a, b, prior, own)
    values = evaluate(text, _columns(text, frame, own), own)
    y, success = _as_numbers(text, values, len(frame))
    if np.any((y < 0) | (y > 1)):
        raise DataError(_not_a_proportion(text, y))
    findings: list[Finding] = []
    trials = prior
    if prior is not None:
        known = np.isfinite(prior) & np.isfinite(y)
        if not (_are_whole(prior[known]) and _are_whole((prior * y)[known])):
            trials = None
            findings.append(_not_trials())
        elif np.any(prior[known] > 1.0) and np.all((y == 0) | (y == 1) | ~known):
            findings.append(
                Finding(
                    "weights-are-trials",
                    "info",
                    "The weights are taken as numbers of trials: a row of weight 3 counts as three "
                    "like it.",
                )
            )
    elif not _are_whole(y):
        findings.append(
            Finding(
                "not-whole",
                "warning",
                f"The response {text} holds proportions, and every row counts as one trial. Name "
                "the trials by weights=, or write successes / trials.",
            )
        )
    if (
        success
        or not pd.api.types.is_numeric_dtype(getattr(values, "dtype", np.dtype(float)))
        or (isinstance(values, pd.Series) and pd.api.types.is_bool_dtype(values.dtype))
    ):
        frame, formula = _with_response(formula, frame, y, own)
    return BinomialResponse(formula, frame, prior, trials, success, findings)


def _not_whole() -> Finding:
    return Finding(
        "not-whole",
        "warning",
        "The numbers of successes, or of trials, are not whole. Check the columns: these are "
        "counts. Responses cannot be drawn from such a model.",
    )


def _not_trials() -> Finding:
    return Finding(
        "not-whole",
        "warning",
        "The weights are no numbers of trials, as they or the successes are not whole. They "
        "multiply the log-likelihood, as if a row had been seen that often: standard errors depend "
        "on their size. Survey weights are for a survey package; responses cannot be drawn.",
    )


def _not_a_proportion(text: str, y: FloatArray) -> str:
    largest = float(np.nanmax(np.abs(y)))
    return (
        f"The binomial response {text} holds values up to {largest:g}, which are neither 0 and 1 "
        f"nor proportions. {FORMS}"
    )


def _counted(
    formula: MixedFormula,
    frame: pd.DataFrame,
    successes: FloatArray,
    trials: FloatArray,
    prior: FloatArray | None,
    context: Mapping[str, Any],
) -> BinomialResponse:
    """Successes among trials."""
    text = as_written(formula)
    if max(np.nanmax(np.abs(successes), initial=0), np.nanmax(trials, initial=0)) > _LARGEST:
        raise DataError(
            f"The response {text} holds infinite values, or numbers beyond {_LARGEST:.0e}. Check "
            f"the columns it uses. {FORMS}"
        )
    known = np.isfinite(successes) & np.isfinite(trials)
    wrong = known & ((successes < 0) | (successes > trials + _WHOLE) | (trials < 0))
    if wrong.any():
        raise DataError(
            f"The response {text} has {int(wrong.sum())} rows with a negative number of successes "
            f"or failures. Check the columns it uses. {FORMS}"
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        y = np.where(trials > 0, successes / trials, np.where(known, 0.0, np.nan))
    whole = _are_whole(successes[known]) and _are_whole(trials[known])
    findings = [] if whole else [_not_whole()]
    if prior is not None:
        findings.append(
            Finding(
                "weights-beside-trials",
                "info",
                "The response has its trials; weights= multiply the log-likelihood beside them.",
            )
        )
    weights = trials if prior is None else trials * prior
    data, formula = _with_response(formula, frame, y, context)
    weights = np.where(known, weights, 1.0)  # rows that are missing are so by the response
    return BinomialResponse(formula, data, weights, trials, "", findings)


def as_written(formula: MixedFormula) -> str:
    """The response without the I( ) that the formula's reader has put around calculations."""
    text = formula.response or ""
    if not text.startswith("I(") or formula.text.lstrip().startswith("I("):
        return text
    return spelled(_inner(read_expression(text).tree))


def _inner(node: ast.expr) -> ast.expr:
    """What stands inside I( )."""
    while _calls(node, "I") and len(node.args) == 1 and not node.keywords:
        node = node.args[0]
    return node


def _calls(node: ast.expr, name: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _with_response(
    formula: MixedFormula, frame: pd.DataFrame, y: FloatArray, context: Mapping[str, Any]
) -> tuple[pd.DataFrame, MixedFormula]:
    """The table with the proportions as a column of the name that the response has."""
    written = read_expression(formula.response or "")
    if isinstance(written.tree, ast.Name):
        name = bare(written.tree.id)
    else:
        name = as_written(formula).replace("`", "")
        while name in frame.columns:  # which is another one
            name += " "
    used = {*written.names, name}
    others = " + ".join(f"`{column}`" for column in frame.columns if column not in used)
    fixed = with_columns(formula.fixed, others)
    random = tuple(replace(t, effects=with_columns(t.effects, others)) for t in formula.random)
    # Names that are unknown are refused here, where the table has the user's columns only.
    factors = (factor for term in random for factor in term.factors)
    for text in (fixed, *(term.effects for term in random), *factors, *formula.offsets):
        columns_of(text, frame.columns, context)
    data = frame.copy(deep=False)
    data[name] = y
    response = quote_name(name, quoted=True)
    return data, replace(formula, response=response, fixed=fixed, random=random)


def _are_whole(values: FloatArray) -> bool:
    finite = values[np.isfinite(values)]
    return bool(
        np.all(np.abs(finite - np.rint(finite)) <= _WHOLE * np.maximum(1.0, np.abs(finite)))
    )


def _columns(text: str, frame: pd.DataFrame, context: Mapping[str, Any]) -> Variables:
    columns_of(text, frame.columns, context)  # names that are no columns are refused here
    used = [name for name in references(text).names if name in frame.columns]
    check_unique(frame, set(used))
    return Variables.of(frame, used)


def _numbers(text: str, frame: pd.DataFrame, context: Mapping[str, Any]) -> FloatArray:
    table = _columns(text, frame, context)
    values = evaluate(text, table, context)
    if np.ndim(values) == 0:
        values = np.full(len(frame), values)
    column = _one_column(text, values, len(frame))
    if isinstance(column.dtype, pd.CategoricalDtype):
        raise DataError(f"{text} in the response does not hold numbers. {FORMS}")
    return numbers(f"{text} in the response", column, FORMS)


def _one_column(text: str, values: Any, n: int) -> pd.Series:
    if np.ndim(values) != 1 or len(values) != n:
        raise FormulaError(f"The response {text} must have one value per row.")
    return tidy_column(values if isinstance(values, pd.Series) else pd.Series(values))


def _as_numbers(text: str, values: Any, n: int) -> tuple[FloatArray, str]:
    """0 and 1, or proportions, and what a 1 is if that is not a number."""
    column = _one_column(text, values, n)
    check_real(f"The response {text}", column)
    if pd.api.types.is_bool_dtype(column.dtype) or (
        pd.api.types.is_numeric_dtype(column.dtype)
        and not isinstance(column.dtype, pd.CategoricalDtype)
    ):
        return np.array(column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)), ""
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = [c for c in column.cat.categories if (column == c).any()]
    else:
        categories = sorted(column.dropna().unique(), key=str)
    if len(categories) != 2:
        raise DataError(
            f"The binomial response {text} has {len(categories)} different values "
            f"({listed(map(repr, categories))}). It must have two, of which the second is the "
            "success. Compare with one of them, for example with data.assign("
            f"y=data[{text.strip('`')!r}] == {categories[-1] if categories else 'yes'!r})."
        )
    y = np.where(column.isna().to_numpy(), np.nan, (column == categories[1]).to_numpy(dtype=float))
    return np.asarray(y, dtype=np.float64), f"{text.strip('`')} = {categories[1]}"


def _two_parts(text: str) -> tuple[str, str, str] | None:
    """``cbind(a, b)`` or ``a / b`` taken apart."""
    node = _inner(read_expression(text).tree)
    if _calls(node, "cbind"):
        if len(node.args) != 2 or node.keywords:
            raise FormulaError(
                f"The response {text} must have two columns: cbind(successes, failures)."
            )
        return "cbind", spelled(node.args[0]), spelled(node.args[1])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return "/", spelled(node.left), spelled(node.right)
    return None
