"""Values and labels ↔ JSON; every type is named, unknown ones are refused."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse._types import ObjectArray
from lmmsparse.design.grouping import LevelKey, combined_labels
from lmmsparse.errors import StorageError
from lmmsparse.fields import items, record, text, whole

_SIMPLE = (
    "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "float64", "float32",
    "bool", "str",
)  # fmt: skip
_LARGEST = 2**62
_TYPED = ("datetime64", "timedelta64", "interval", "period")


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
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, dict) and "array" in value:
        return _decode_array(value)
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError(f"an unknown kind of value {value!r:.80}")
    ((kind, content),) = value.items()
    if kind == "f":
        return float.fromhex(text(content))
    if kind == "interval":
        left, right, closed = items(content, lambda each: each, 3)
        return pd.Interval(decode(left), decode(right), closed=closed)
    if kind == "timestamp":
        return pd.Timestamp(text(content))
    if kind == "timedelta":
        return pd.Timedelta(text(content))
    if kind == "period":
        name, frequency = items(content, text, 2)
        return pd.Period(name, freq=frequency)
    if kind == "date":
        return datetime.date.fromisoformat(text(content))
    if kind == "tuple":
        return items(content, decode)
    if kind == "list":
        return list(items(content, decode))
    if kind == "dict":
        pairs = items(content, lambda pair: items(pair, decode, 2))
        return dict(pairs)
    raise ValueError(f"an unknown kind of value {kind!r:.80}")


def _decode_array(value: dict[str, Any]) -> ObjectArray:
    record(value, ("array", "shape"))
    shape = items(value["shape"], lambda length: whole(length, 0))
    values = items(value["array"], decode)
    if any(isinstance(each, (list, dict, np.ndarray)) for each in values):
        raise ValueError("an array of more than single values")
    return np.array(values).reshape(shape)


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
    name = str(index.dtype)
    return name if name in _SIMPLE or name.startswith(_TYPED) else "object"


def decode_index(meta: Any) -> pd.Index:
    """The inverse of `encode_index`."""
    if isinstance(meta, dict) and "range" in meta:
        record(meta, ("range", "name"))
        start, stop, step = items(meta["range"], lambda end: whole(end, -_LARGEST, _LARGEST), 3)
        return pd.RangeIndex(start, stop, step, name=decode(meta["name"]))
    if isinstance(meta, dict) and "tuples" in meta:
        record(meta, ("tuples", "names"))
        names = items(meta["names"], decode)
        rows = items(meta["tuples"], decode)
        if not all(isinstance(row, tuple) and len(row) == len(names) for row in rows):
            raise ValueError("labels of several parts of which some are missing")
        return pd.MultiIndex.from_tuples(rows, names=names)
    record(meta, ("values", "dtype", "name"))
    values = items(meta["values"], decode)
    if not all(pd.api.types.is_hashable(value) for value in values):
        raise ValueError("labels that are none")
    dtype = text(meta["dtype"])
    if dtype not in (*_SIMPLE, "object") and not dtype.startswith(_TYPED):
        raise ValueError(f"labels of an unknown type {dtype!r:.80}")
    name = decode(meta["name"])
    index: pd.Index = pd.Index(list(values), dtype=dtype, name=name, tupleize_cols=False)
    if _dtype(index) != dtype or [encode(label) for label in index.tolist()] != meta["values"]:
        raise ValueError("labels that are not of their type")
    return index


def same_labels(levels: pd.Index, key: LevelKey) -> bool:
    """Whether levels are those that a key finds, each once."""
    if not all(part.is_unique and not part.hasnans for part in key.components):
        return False
    if len(key.components) == 1:
        return len(levels) == len(key.components[0]) and levels.equals(key.components[0])
    return len(levels) == len(key.combinations) and levels.equals(combined_labels(key))
