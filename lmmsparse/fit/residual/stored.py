"""What a file holds of the covariance of the residuals ↔ the part of a design."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmmsparse.common.archive import Arrays
from lmmsparse.common.arrays import ObjectArray
from lmmsparse.common.fields import flag, items, optional, record, text
from lmmsparse.design import RandomBlock
from lmmsparse.design.residual import ResidualDesign
from lmmsparse.design.residual_checks import check_groups, check_nested
from lmmsparse.fit.stored_groupings import decode_grouping, encode_grouping
from lmmsparse.formula.residual import parse_residual, parse_residual_sd

_FIELDS = ("correlation", "sd_text", "names", "listed", "grouping", "visits")


def encode_residual(
    design: ResidualDesign | None, arrays: dict[str, ObjectArray]
) -> dict[str, Any]:
    """A field with structure and names as JSON, if any; arrays are added to `arrays`."""
    if design is None:
        return {}
    grouping, visits = design.grouping, design.visits
    arrays["residual.columns"] = design.columns
    if design.times is not None:
        arrays["residual.times"] = design.times
    meta = {
        "correlation": None if design.correlation is None else design.correlation.text,
        "sd_text": design.sd_text,
        "names": list(design.names),
        "listed": design.listed,
        "grouping": None if grouping is None else encode_grouping(grouping, "residual", arrays),
        "visits": None if visits is None else encode_grouping(visits, "visits", arrays),
    }
    return {"residual": meta}


def decode_residual(
    meta: Any, n: int, blocks: Sequence[RandomBlock], arrays: Arrays
) -> ResidualDesign:
    """The inverse of `encode_residual`, checked as if the user had asked for it."""
    record(meta, _FIELDS)
    correlation = optional(meta["correlation"], lambda value: parse_residual(text(value)))
    names, sd_text = items(meta["names"], text), text(meta["sd_text"])
    if names:
        parse_residual_sd(sd_text)
    grouping = optional(meta["grouping"], lambda own: decode_grouping(own, "residual", n, arrays))
    visits = optional(meta["visits"], lambda own: decode_grouping(own, "visits", n, arrays))
    times = arrays.numbers("residual.times", n) if "residual.times" in arrays else None
    if (correlation is None) != (grouping is None) or (grouping is None) != (times is None):
        raise ValueError("a correlation without its groups or times")
    if correlation is None and not names:
        raise ValueError("a covariance of the residuals that is none")
    columns = np.asfortranarray(arrays.numbers("residual.columns", n, len(names)))
    listed = flag(meta["listed"])
    out = ResidualDesign(
        correlation, grouping, times, visits, columns, names, sd_text, listed=listed
    )
    if correlation is not None:
        wanted = correlation.kind == "us" or (correlation.kind == "cs" and correlation.time != "1")
        if wanted != (visits is not None):
            raise ValueError("visits of what has none, or none of what has")
        if visits is not None and times is not None and (visits.codes != times).any():
            raise ValueError("visits at other times")
        if grouping is not None and times is not None:
            check_groups(correlation, grouping, times, visits)
    check_nested(grouping, blocks)
    return out
