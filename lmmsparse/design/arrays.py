"""Plain arrays → `Design`: the same model without a formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import DataError, Finding
from lmmsparse.design.arguments import aligned, numbers
from lmmsparse.design.design import Design, RandomBlock
from lmmsparse.design.grouping import make_grouping
from lmmsparse.design.known import known_covariances
from lmmsparse.design.rank import independent_columns
from lmmsparse.design.recipe import plain_labels
from lmmsparse.engine.covariance.structures import make_structure


def design_from_arrays(
    y: Any,
    X: Any,
    random: Sequence[tuple[Any, Any]],
    *,
    weights: Any = None,
    offset: Any = None,
    known: Mapping[str, Any] | None = None,
) -> Design:
    """Make a design of what `fit_arrays` takes.

    Parameters
    ----------
    y : (n,) array
    X : (n, p) array or DataFrame
    random : list of (groups, Z)
        `groups` (n,) labels; `Z` (n, k) columns, or None for a random intercept.
    weights, offset : (n,) arrays, optional
    known : mapping, optional
        Name of a grouping → the covariance of its levels.
    """
    index = _labels([y, X, *_given(random), weights, offset])
    if index is not None:
        y, X = aligned("y", y, index), aligned("X", X, index)
        weights, offset = aligned("weights", weights, index), aligned("offset", offset, index)
    response = _numbers("y", y, 1)
    n = len(response)
    if n == 0:
        raise DataError("y is empty. Pass at least a few observations.")
    matrix = _numbers("X", X, 2, n)
    w = None if weights is None else _numbers("weights", weights, 1, n)
    o = None if offset is None else _numbers("offset", offset, 1, n)
    rows = np.arange(n)
    findings = []
    if w is not None:
        if np.any(w < 0):
            raise DataError(
                f"weights holds {int(np.sum(w < 0))} negative values. Weights must be positive, "
                "or zero to leave a row out."
            )
        rows = np.flatnonzero(w > 0)
        if len(rows) == 0:
            raise DataError("All weights are zero. Use positive weights.")
        if len(rows) < n:
            text = f"{n - len(rows)} rows have weight zero and were left out."
            findings.append(Finding("zero-weights", "warning", text))
    names = _names(X, matrix, "x")
    keep = independent_columns(matrix[rows], names)
    lost = tuple(name for name, kept in zip(names, keep, strict=True) if not kept)
    if lost:
        text = (
            f"The columns of X are linearly dependent: {', '.join(lost)} dropped. Their "
            "coefficients cannot be told apart from the others'. Leave them out of X."
        )
        findings.append(Finding("rank-deficient", "warning", text))
    blocks = _blocks(random, index, rows, n, known)
    return Design(
        formula="",
        response=str(getattr(y, "name", None) or "y"),
        y=response[rows],
        fixed=np.asfortranarray(matrix[rows][:, keep]),
        x_names=tuple(name for name, kept in zip(names, keep, strict=True) if kept),
        dropped=lost,
        blocks=tuple(sorted(blocks, key=lambda block: -block.n_levels)),
        weights=None if w is None else w[rows],
        offset=None if o is None else o[rows],
        index=y.index if isinstance(y, pd.Series) else pd.RangeIndex(n),
        rows=rows,
        na_action="omit",
        findings=tuple(findings),
        recipe=None,
    )


def _labels(given: list[Any]) -> pd.Index | None:
    """The row labels of the first input that has any: those of the others are held to them."""
    return next((v.index for v in given if isinstance(v, (pd.Series, pd.DataFrame))), None)


def _given(random: Any) -> list[Any]:
    try:
        return [values for groups, Z in random for values in (groups, Z)]
    except Exception:  # also those of objects of somebody else's; `_blocks` says what is wrong
        return []


def _blocks(
    random: Any, index: pd.Index | None, rows: IntArray, n: int, known: Any
) -> list[RandomBlock]:
    try:
        terms = [(groups, Z) for groups, Z in random]
    except Exception as error:
        raise DataError(
            "random must be a list of pairs of group labels and columns. Pass, for example, "
            "[(subject, None)] for a random intercept."
        ) from error
    if not terms:
        raise DataError(
            "random is empty. Pass, for example, [(subject, None)] for a random intercept."
        )
    blocks: list[RandomBlock] = []
    covariances = known_covariances(known, _group_names(terms))
    for i, (groups, Z) in enumerate(terms):
        if index is not None:
            groups = aligned(f"groups of term {i + 1}", groups, index)
            Z = aligned(f"Z of term {i + 1}", Z, index)
        labels = groups if isinstance(groups, pd.Series) else _series(groups, i)
        name = _group_names(terms)[i]
        if len(labels) != n:
            raise DataError(
                f"The groups of term {i + 1} have {len(labels)} labels for {n} observations. Give "
                "one label per observation."
            )
        if labels.isna().any():
            raise DataError(
                f"The groups of term {i + 1} ({name}) have missing labels. Drop those rows from "
                "all arrays."
            )
        columns = np.ones((n, 1)) if Z is None else _numbers(f"Z of term {i + 1}", Z, 2, n)
        if columns.shape[1] == 0:
            raise DataError(f"Z of term {i + 1} has no columns. Pass None for a random intercept.")
        effects = ("Intercept",) if Z is None else _names(Z, columns, "z")
        used = plain_labels(labels.iloc[rows].reset_index(drop=True))
        grouping = make_grouping(name, [used], covariances.get(name))
        for other in blocks:
            if other.group != name:
                continue
            if not (other.levels.equals(grouping.levels) and (other.codes == grouping.codes).all()):
                raise DataError(
                    f"Two different groupings are both named {name!r}. Rename one of the Series."
                )
            grouping = other.grouping
        structure = make_structure("us", columns.shape[1], None)
        source = f"({' + '.join(effects)} | {name})"
        blocks.append(
            RandomBlock(grouping, effects, np.asfortranarray(columns[rows]), structure, source)
        )
    return blocks


def _group_names(terms: Sequence[tuple[Any, Any]]) -> list[str]:
    """The names of Series, and "group1", "group2", … for others."""
    names = [getattr(groups, "name", None) for groups, _ in terms]
    return [str(f"group{i + 1}" if name is None else name) for i, name in enumerate(names)]


def _series(groups: Any, i: int) -> pd.Series:
    if np.ndim(groups) != 1:
        raise DataError(
            f"The groups of term {i + 1} have {np.ndim(groups)} dimensions. Pass a (n,) array or "
            "a Series."
        )
    return pd.Series(groups)


def _numbers(what: str, values: Any, ndim: int, n: int | None = None) -> FloatArray:
    array = numbers(what, values)
    if ndim == 2 and array.ndim == 1:
        array = array[:, None]
    if array.ndim != ndim:
        raise DataError(
            f"{what} has {array.ndim} dimensions. Reshape it to "
            f"{'(n,)' if ndim == 1 else '(n, columns)'}."
        )
    if n is not None and len(array) != n:
        raise DataError(
            f"{what} has {len(array)} rows for {n} observations. Make all arrays equally long."
        )
    if not np.isfinite(array).all():
        raise DataError(
            f"{what} holds values that are missing or infinite. Drop those rows from all arrays "
            "first."
        )
    return np.ascontiguousarray(array)


def _names(source: Any, columns: FloatArray, prefix: str) -> tuple[str, ...]:
    if isinstance(source, pd.DataFrame):
        return tuple(str(name) for name in source.columns)
    if isinstance(source, pd.Series) and source.name is not None:
        return (str(source.name),)
    names = []
    for j in range(columns.shape[1]):
        ones = bool(np.all(columns[:, j] == 1.0)) and "Intercept" not in names
        names.append("Intercept" if ones else f"{prefix}{j + 1}")
    return tuple(names)
