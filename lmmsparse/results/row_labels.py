"""Labels that a user gives, one per row → those of the rows that were fitted."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lmmsparse.common.errors import DataError
from lmmsparse.common.options import array_of
from lmmsparse.design import Design
from lmmsparse.design.recipe import plain_labels


def row_labels(design: Design, what: str, given: Any) -> pd.Series:
    """One label per fitted row, from one per row of the fit or of its data.

    Parameters
    ----------
    what : str
        The name of the argument, for messages.

    Raises
    ------
    DataError
        If labels are missing, or are not one per row.
    """
    if (dimensions := array_of(what, given).ndim) != 1:
        raise DataError(
            f"{what} must have one dimension, not {dimensions}. Pass one label per row, or "
            "the name of a grouping factor."
        )
    labels = plain_labels(pd.Series(design.in_rows(what, given)))
    if len(labels) == len(design.index):
        labels = labels.iloc[design.rows]
    elif len(labels) != design.n:
        raise DataError(
            f"{what} has {len(labels)} labels. The model was fitted to {design.n} rows"
            + (f" of {len(design.index)}" if len(design.index) != design.n else "")
            + ", and each needs one. Pass one label per row."
        )
    if missing := int(labels.isna().sum()):
        raise DataError(f"{what} is missing in {missing} rows. Give every row a label.")
    return labels
