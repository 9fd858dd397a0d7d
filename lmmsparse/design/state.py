"""Recipes and labels ↔ JSON values; every type is named, unknown ones are refused."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic.transforms import contrasts as coding

from lmmsparse.design.columns import ColumnInfo
from lmmsparse.design.grouping import LevelKey
from lmmsparse.design.matrices import MatrixRecipe
from lmmsparse.design.recipe import GroupRecipe, Recipe, check_texts
from lmmsparse.errors import DataError, StorageError

_CODINGS: dict[str, type[Any]] = {
    c.__name__: c
    for c in (
        coding.TreatmentContrasts,
        coding.SumContrasts,
        coding.HelmertContrasts,
        coding.DiffContrasts,
        coding.PolyContrasts,
        coding.SASContrasts,
        coding.CustomContrasts,
    )
}
_TYPED = ("datetime64", "timedelta64", "interval", "period")


@dataclass(frozen=True)
class NotStored:
    """Stands for a function of the user's `context` in a model that was read from a file."""

    name: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise DataError(
            f"The formula uses {self.name}, which was passed as context= when the model was "
            "fitted. Files do not hold functions. Predict for new data before saving, or fit again."
        )


def encode(value: Any) -> Any:
    """A value as JSON with its type: numbers, text, times, intervals, arrays, lists, mappings.

    Raises
    ------
    StorageError
        For any other type.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return {"f": float(value).hex()}
    if isinstance(value, np.ndarray):
        return {"array": [encode(v) for v in value.ravel().tolist()], "shape": list(value.shape)}
    if isinstance(value, pd.Interval):
        return {"interval": [encode(value.left), encode(value.right), value.closed]}
    if isinstance(value, pd.Timestamp):
        return {"timestamp": value.isoformat()}
    if isinstance(value, pd.Timedelta):
        return {"timedelta": value.isoformat()}
    if isinstance(value, pd.Period):
        return {"period": [str(value), value.freqstr]}
    if isinstance(value, datetime.date):
        return {"date": value.isoformat()}
    if isinstance(value, tuple):
        return {"tuple": [encode(v) for v in value]}
    if isinstance(value, list):
        return {"list": [encode(v) for v in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(k), encode(v)] for k, v in value.items()]}
    if isinstance(value, pd.Series):
        return encode(value.to_numpy())
    raise StorageError(
        f"A value of type {type(value).__name__} ({value!r}) cannot be stored. Files hold numbers, "
        "text, dates and intervals. Convert such labels to text before fitting."
    )


def decode(value: Any) -> Any:
    """The inverse of `encode`."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = ((k, v) for k, v in value.items() if k != "shape")
    if kind == "f":
        return float.fromhex(content)
    if kind == "array":
        return np.array([decode(v) for v in content]).reshape(value["shape"])
    if kind == "interval":
        return pd.Interval(decode(content[0]), decode(content[1]), closed=content[2])
    if kind == "timestamp":
        return pd.Timestamp(content)
    if kind == "timedelta":
        return pd.Timedelta(content)
    if kind == "period":
        return pd.Period(content[0], freq=content[1])
    if kind == "date":
        return datetime.date.fromisoformat(content)
    if kind == "tuple":
        return tuple(decode(v) for v in content)
    if kind == "list":
        return [decode(v) for v in content]
    if kind == "dict":
        return {decode(k): decode(v) for k, v in content}
    raise ValueError(f"unknown kind of value {kind!r}")


def encode_index(index: pd.Index) -> dict[str, Any]:
    """Labels as JSON."""
    if isinstance(index, pd.RangeIndex):
        return {"range": [index.start, index.stop, index.step], "name": encode(index.name)}
    if isinstance(index, pd.MultiIndex):
        return {"tuples": [encode(v) for v in index], "names": [encode(n) for n in index.names]}
    return {
        "values": [encode(v) for v in index.tolist()],
        "dtype": _dtype(index),
        "name": encode(index.name),
    }


def _dtype(index: pd.Index) -> str:
    if isinstance(index, pd.CategoricalIndex):
        return "object"
    text = str(index.dtype)
    simple = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")
    if text in (*simple, "float64", "float32", "bool", "str"):
        return text
    return text if text.startswith(_TYPED) else "object"


def decode_index(meta: dict[str, Any]) -> pd.Index:
    """The inverse of `encode_index`."""
    if "range" in meta:
        start, stop, step = meta["range"]
        return pd.RangeIndex(start, stop, step, name=decode(meta["name"]))
    if "tuples" in meta:
        names = [decode(n) for n in meta["names"]]
        return pd.MultiIndex.from_tuples([decode(v) for v in meta["tuples"]], names=names)
    values = [decode(v) for v in meta["values"]]
    name, dtype = decode(meta["name"]), meta["dtype"]
    index: pd.Index = pd.Index(values, dtype=dtype, name=name, tupleize_cols=False)
    return index


def _encode_contrasts(contrasts: Any) -> dict[str, Any]:
    name = type(contrasts).__name__
    if name not in _CODINGS:
        raise StorageError(
            f"Contrasts of type {name} cannot be stored. Use one of {', '.join(_CODINGS)}."
        )
    options = {}
    for key, value in vars(contrasts).items():
        if not key.startswith("_") and type(value).__name__ not in ("_MissingType", "MissingType"):
            if type(value).__module__.startswith("formulaic"):
                continue
            options[{"contrast_names": "names"}.get(key, key)] = encode(value)
    return {"name": name, "options": options}


def _decode_contrasts(meta: dict[str, Any]) -> Any:
    options = {key: decode(value) for key, value in meta["options"].items()}
    return _CODINGS[meta["name"]](**options)


def encode_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON; the user's own functions cannot be stored and are only named."""
    m = recipe.matrices
    return {
        "parts": dict(m.parts),
        "variables": {part: list(names) for part, names in m.variables.items()},
        "columns": {
            name: {
                "kind": c.kind,
                "categories": encode(c.categories),
                "coded": c.coded,
                "span": encode(c.span),
            }
            for name, c in m.columns.items()
        },
        "contrasts": {name: _encode_contrasts(c) for name, c in m.contrasts.items()},
        "transform_state": encode(m.transform_state),
        "categories": {
            part: {expression: encode(levels) for expression, levels in factors.items()}
            for part, factors in m.categories.items()
        },
        "context": sorted(m.context),
        "kept": [bool(k) for k in recipe.kept],
        "groups": [{"name": g.name, "factors": list(g.factors)} for g in recipe.groups],
        "offsets": list(recipe.offsets),
        "offset_column": recipe.offset_column,
        "offset_array": recipe.offset_array,
        "weights_column": recipe.weights_column,
        "relations": encode(recipe.relations),
    }


def decode_recipe(meta: dict[str, Any], keys: Sequence[LevelKey]) -> Recipe:
    """The inverse of `encode_recipe`; `keys` are those of the design's blocks, in order."""
    columns = {
        name: ColumnInfo(
            c["kind"], decode(c["categories"]), bool(c["coded"]), decode(c.get("span"))
        )
        for name, c in meta["columns"].items()
    }
    variables = {part: tuple(names) for part, names in meta["variables"].items()}
    if not all(name in columns for names in variables.values() for name in names):
        raise ValueError("the formula uses columns that are not described")
    matrices = MatrixRecipe(
        parts={str(k): str(v) for k, v in meta["parts"].items()},
        variables=variables,
        columns=columns,
        contrasts={name: _decode_contrasts(c) for name, c in meta["contrasts"].items()},
        transform_state=decode(meta["transform_state"]),
        categories={
            part: {expression: decode(levels) for expression, levels in factors.items()}
            for part, factors in meta["categories"].items()
        },
        context={name: NotStored(name) for name in meta["context"]},
    )
    recipe = Recipe(
        matrices=matrices,
        kept=np.array(meta["kept"], dtype=bool),
        groups=tuple(
            GroupRecipe(g["name"], tuple(g["factors"]), key)
            for g, key in zip(meta["groups"], keys, strict=True)
        ),
        offsets=tuple(meta["offsets"]),
        offset_column=meta["offset_column"],
        offset_array=bool(meta["offset_array"]),
        weights_column=meta["weights_column"],
        relations=decode(meta.get("relations")),
    )
    check_texts(recipe)
    return recipe
