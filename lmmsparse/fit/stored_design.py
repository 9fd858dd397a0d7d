"""`Design` ↔ JSON and arrays; every field is checked by its type, its range and the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.archive import Arrays
from lmmsparse.common.arrays import FloatArray, ObjectArray, ones_once
from lmmsparse.common.errors import Finding, StorageError
from lmmsparse.common.fields import (
    choice,
    flag,
    items,
    optional,
    options,
    plain,
    record,
    text,
    whole,
)
from lmmsparse.design import Design, Grouping, RandomBlock
from lmmsparse.design.state import check_recipe, decode_recipe, encode_recipe
from lmmsparse.design.values import decode_index, encode_index
from lmmsparse.engine.covariance.correlated import AR1, CompoundSymmetry
from lmmsparse.engine.covariance.structures import CovarianceStructure, Diagonal, Unstructured
from lmmsparse.fit.residual.stored import decode_residual, encode_residual
from lmmsparse.fit.stored_groupings import decode_grouping, encode_grouping

_SPARSE = ("data", "indices", "indptr")
_STRUCTURES: dict[str, type[Any]] = {
    c.__name__: c for c in (Unstructured, Diagonal, CompoundSymmetry, AR1)
}


def plain_array(array: ObjectArray) -> ObjectArray:
    """Double precision and whole numbers: nothing else is in a file."""
    if array.dtype.kind == "f":
        return array.astype(np.float64, copy=False)
    return array.astype(np.int64 if array.dtype.itemsize > 4 else np.int32, copy=False)


def encode_option(option: Any, known: dict[str, type[Any]]) -> dict[str, Any]:
    """An object of a known class as its name and options."""
    name = type(option).__name__
    if known.get(name) is not type(option):
        raise StorageError(
            f"The model was fitted with {name}, which is not part of lmmsparse and cannot be "
            f"stored. Refit with one of {', '.join(known)} before saving."
        )
    return {"name": name, "options": plain(option)}


def decode_option(meta: Any, known: dict[str, type[Any]]) -> Any:
    """What was encoded."""
    record(meta, ("name", "options"))
    kind = known[choice(meta["name"], known)]
    return kind(**options(meta["options"], kind))


def encode_design(design: Design, arrays: dict[str, ObjectArray]) -> dict[str, Any]:
    """Put the arrays beside others, and give the rest as JSON; of the sample if there is one."""
    design = replace(design.some, findings=design.findings)
    arrays["y"], arrays["rows"] = design.y, design.rows
    if isinstance(design.fixed, np.ndarray):
        arrays["X"] = design.fixed
    else:
        for name in _SPARSE:
            arrays[f"X.{name}"] = getattr(design.fixed, name)
    if design.weights is not None:
        arrays["weights"] = design.weights
    if design.offset is not None:
        arrays["offset"] = design.offset
    groupings: list[Grouping] = []
    stored, blocks = [], []
    for i, block in enumerate(design.blocks):
        if not any(block.grouping is g for g in groupings):
            j = len(groupings)
            groupings.append(block.grouping)
            stored.append(encode_grouping(block.grouping, f"group{j}", arrays))
        arrays[f"block{i}.columns"] = block.columns
        blocks.append(
            {
                "grouping": next(j for j, g in enumerate(groupings) if g is block.grouping),
                "names": list(block.names),
                "structure": encode_option(block.structure, _STRUCTURES),
                "source": block.source,
                "split": block.split,
            }
        )
    return {
        "formula": design.formula,
        "response": design.response,
        "x_names": list(design.x_names),
        "dropped": list(design.dropped),
        "na_action": design.na_action,
        "findings": [[f.code, f.level, f.message] for f in design.findings],
        "index": encode_index(design.index),
        "groupings": stored,
        "blocks": blocks,
        "recipe": None if design.recipe is None else encode_recipe(design.recipe),
        **encode_residual(design.residual, arrays),
    }


_DESIGN = (
    "formula", "response", "x_names", "dropped", "na_action", "findings", "index", "groupings",
    "blocks", "recipe",
)  # fmt: skip


def decode_design(meta: Any, arrays: Arrays) -> Design:
    """The design that was encoded."""
    record(meta, _DESIGN, ("residual",))
    y = arrays.numbers("y", None)
    x_names, dropped = items(meta["x_names"], text), items(meta["dropped"], text)
    index = decode_index(meta["index"])
    na_action = choice(meta["na_action"], ("omit", "exclude", "raise"))
    if na_action == "exclude":
        arrays.check_allocation(len(index))
    groupings = [
        decode_grouping(group, f"group{j}", len(y), arrays)
        for j, group in enumerate(items(meta["groupings"], dict))
    ]
    blocks = [
        _decode_block(block, f"block{i}", len(y), groupings, arrays)
        for i, block in enumerate(items(meta["blocks"], dict))
    ]
    residual = None
    if "residual" in meta:
        residual = decode_residual(meta["residual"], len(y), blocks, arrays)
    if not (blocks or residual) or any(all(b.grouping is not g for b in blocks) for g in groupings):
        raise ValueError("grouping factors without terms")
    weights = arrays.numbers("weights", len(y)) if "weights" in arrays else None
    if weights is not None and not (weights > 0).all():
        raise ValueError("weights that are not positive")
    keys = [block.grouping.key for block in blocks]
    design = Design(
        formula=text(meta["formula"]),
        response=text(meta["response"]),
        y=y,
        fixed=_decode_fixed(arrays, len(y), len(x_names)),
        x_names=x_names,
        dropped=dropped,
        blocks=tuple(blocks),
        weights=weights,
        offset=arrays.numbers("offset", len(y)) if "offset" in arrays else None,
        index=index,
        rows=arrays.whole("rows", len(y), len(index), increasing=True),
        na_action=na_action,
        findings=tuple(_decode_finding(each) for each in items(meta["findings"], list)),
        recipe=optional(meta["recipe"], lambda recipe: decode_recipe(recipe, keys)),
        residual=residual,
    )
    check_recipe(design)
    return design


def _decode_finding(meta: list[Any]) -> Finding:
    code, level, message = items(meta, text, 3)
    choice(level, ("info", "warning", "error"))
    return Finding(code, level, message)  # type: ignore[arg-type]


def _decode_block(
    meta: Any, name: str, n: int, groupings: list[Grouping], arrays: Arrays
) -> RandomBlock:
    record(meta, ("grouping", "names", "structure", "source", "split"))
    structure: CovarianceStructure = decode_option(meta["structure"], _STRUCTURES)
    names = items(meta["names"], text, structure.k)
    return RandomBlock(
        groupings[whole(meta["grouping"], 0, len(groupings) - 1)],
        names,
        ones_once(np.asfortranarray(arrays.numbers(f"{name}.columns", n, len(names)))),
        structure,
        text(meta["source"]),
        flag(meta["split"]),
    )


def _decode_fixed(arrays: Arrays, n: int, p: int) -> FloatArray | sp.csr_array:
    if "X" in arrays:
        return ones_once(np.asfortranarray(arrays.numbers("X", n, p)))
    X = sp.csr_array(arrays.compressed("X", n, p), shape=(n, p))
    X.check_format(full_check=True)
    return X
