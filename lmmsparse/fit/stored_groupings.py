"""Grouping factors ↔ what a file holds of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmsparse.common.archive import Arrays
from lmmsparse.common.arrays import IntArray, ObjectArray
from lmmsparse.common.fields import items, record, text
from lmmsparse.design import Grouping, LevelKey
from lmmsparse.design.known_state import decode_known, encode_known
from lmmsparse.design.values import decode_index, encode_index, same_labels


def encode_grouping(
    grouping: Grouping, name: str, arrays: dict[str, ObjectArray]
) -> dict[str, Any]:
    """Labels as JSON; codes and combinations are added to `arrays`."""
    arrays[f"{name}.codes"] = grouping.codes
    arrays[f"{name}.combinations"] = grouping.key.combinations.ravel()
    return {
        "name": grouping.name,
        "levels": encode_index(grouping.levels),
        "components": [encode_index(c) for c in grouping.key.components],
        **encode_known(grouping.known, name, arrays),
    }


def decode_grouping(meta: Any, name: str, n: int, arrays: Arrays) -> Grouping:
    """The inverse of `encode_grouping`, for n rows."""
    record(meta, ("name", "levels", "components"), ("known",))
    levels = decode_index(meta["levels"])
    components = items(meta["components"], decode_index)
    shape = [len(component) for component in components]
    flat = arrays.whole(f"{name}.combinations", len(levels) * len(shape), max(shape, default=0))
    combinations = flat.reshape(-1, len(shape) or 1)
    if (combinations >= shape).any() or not _in_order(combinations):
        raise ValueError(f"{name}.combinations holds what is not possible")
    key = LevelKey(components, combinations.astype(np.int64, copy=False))
    if not components or not same_labels(levels, key):
        raise ValueError(f"the levels of {meta['name']} do not belong to its factors")
    codes = arrays.whole(f"{name}.codes", n, len(levels))
    known = None
    if "known" in meta:
        known = decode_known(meta["known"], name, levels, arrays)
    return Grouping(text(meta["name"]), levels, codes, key, known)


def _in_order(rows: IntArray) -> bool:
    """Whether rows increase, the first column before the others."""
    step = np.diff(rows, axis=0)
    first = step[np.arange(len(step)), np.argmax(step != 0, axis=1)]
    return bool((first > 0).all())
