"""What is given beside a table, a response or weights → its values in the order of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.words import brief


def aligned(what: str, values: Any, index: pd.Index) -> Any:
    """A Series or DataFrame in the order of the rows' labels; anything else as it is."""
    if not isinstance(values, (pd.Series, pd.DataFrame)):
        return values
    at = places(what, values.index, index)
    return values if at is None else values.iloc[at]


def in_order_of_theta(name: str, given: Any, names: Sequence[str]) -> Any:
    """A Series or mapping in the order of the parameters it names; anything else as it is.

    Labels 0, 1, 2, … are none: such values go by position.
    """
    values = given
    if isinstance(given, Mapping):
        labels = pd.Index(list(given), dtype=object)  # as texts need not be those of pandas
        values = pd.Series(list(given.values()), index=labels, dtype=object)
    numbered = isinstance(values, pd.Series) and isinstance(values.index, pd.RangeIndex)
    if not isinstance(values, pd.Series) or numbered or list(values.index) == list(names):
        return values
    labels = list(values.index)
    if len(set(names)) < len(names) or len(labels) != len(names) or set(labels) != set(names):
        raise OptionError(
            f"{name}={brief(given)} does not name the parameters, which are {', '.join(names)}. "
            "Pass a mapping or Series with these names, or an array in the order of m.theta."
        )
    return values.loc[list(names)]


def places(what: str, labels: pd.Index, index: pd.Index) -> IntArray | None:
    """Where each row of `index` is among the labels of the same length; None if in their places.

    Labels 0, 1, 2, … that the rows do not have are none: such values go by position.
    """
    if len(labels) != len(index) or labels.equals(index):
        return None
    numbered = isinstance(labels, pd.RangeIndex) and labels.equals(pd.RangeIndex(len(labels)))
    unique = labels.is_unique and index.is_unique
    at = labels.get_indexer(index) if unique else np.full(len(index), -1)
    if (at >= 0).all():
        return np.asarray(at, dtype=np.intp)
    if numbered:
        return None
    position = "Pass an array, for example .to_numpy(), if they are in the order of the rows."
    if not unique:
        raise DataError(
            f"{what} has row labels that are repeated, or belongs to rows whose labels are, and "
            f"they are in another order. {position}"
        )
    strange = index[at < 0][0]
    raise DataError(
        f"{what} does not have the row labels of the data; {strange!r} is not among them. "
        f"{position}"
    )


def check_real(what: str, values: Any) -> None:
    """Refuse complex numbers."""
    if isinstance(values, pd.DataFrame):
        kinds = list(values.dtypes)
    else:
        kinds = [values.dtype if hasattr(values, "dtype") else np.asarray(values).dtype]
    if any(getattr(kind, "kind", "") == "c" for kind in kinds):
        raise DataError(
            f"{what} holds complex numbers. Take their real part, or their absolute value."
        )


def numbers(what: str, values: Any, advice: str = "Convert it first.") -> FloatArray:
    """Real numbers that the user gives, of any shape; NaN where one is missing."""
    try:
        plain = isinstance(values, (pd.Series, pd.DataFrame))
        table = values if plain else pd.Series(np.asarray(values).ravel())
        check_real(what, table)
        array = table.to_numpy(dtype=np.float64, na_value=np.nan)
    except DataError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{what} must be numbers ({error}). {advice}") from error
    return np.array(array).reshape(np.shape(values))
