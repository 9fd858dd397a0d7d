"""Values and labels ↔ JSON; every type is named, unknown ones are refused."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import ObjectArray
from lmmsparse.common.errors import StorageError
from lmmsparse.common.fields import choice, flag, items, optional, record, text, whole
from lmmsparse.design.grouping import LevelKey, combined_labels

_SIMPLE = (
    "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "float64", "float32",
    "bool", "str",
    "Int64", "Int32", "Int16", "Int8", "UInt8", "UInt16", "UInt32", "UInt64", "Float64", "Float32",
    "boolean", "string",
)  # fmt: skip
_MISSING = {"NaT": pd.NaT, "NA": pd.NA}
_FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "bytes": bytes.fromhex,
    "decimal": lambda content: _decimal(content),
    "uuid": uuid.UUID,
}
_LARGEST = 2**62
_TYPED = ("datetime64", "timedelta64", "interval", "period")


def encode(value: Any) -> Any:
    """A value as JSON with its type: numbers, text, times, intervals, arrays, lists, mappings."""
    if value is None or isinstance(value, (str, bool)):
        return str(value) if isinstance(value, np.str_) else value
    for name, missing in _MISSING.items():
        if value is missing:
            return {"missing": name}
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
    if isinstance(value, datetime.datetime):
        moment = pd.Timestamp(value)
        zone = None if moment.tz is None else str(moment.tz)
        return {"timestamp": [moment.isoformat(), zone, moment.unit]}
    if isinstance(value, datetime.timedelta):
        duration = pd.Timedelta(value)
        return {"timedelta": [duration.isoformat(), duration.unit]}
    if isinstance(value, datetime.time):
        return {"time": value.isoformat()}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, decimal.Decimal):
        return {"decimal": str(value)}
    if isinstance(value, uuid.UUID):
        return {"uuid": str(value)}
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
        f"A value of type {type(value).__name__} ({value!r}) cannot be stored. Convert such "
        "labels to text, numbers, dates or intervals before fitting."
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
        name, zone, unit = items(content, lambda each: optional(each, text), 3)
        moment = pd.Timestamp(text(name))
        moment = moment if zone is None else moment.tz_convert(zone)
        return moment.as_unit(text(unit))  # type: ignore[arg-type]
    if kind == "timedelta":
        name, unit = items(content, text, 2)
        return pd.Timedelta(name).as_unit(unit)  # type: ignore[arg-type]
    if kind == "missing":
        return _MISSING[choice(content, _MISSING)]
    if kind in _FROM_TEXT:
        return _FROM_TEXT[kind](text(content))
    if kind == "period":
        name, frequency = items(content, text, 2)
        return pd.Period(name, freq=frequency)
    if kind == "tuple":
        return items(content, decode)
    if kind == "list":
        return list(items(content, decode))
    if kind == "dict":
        pairs = items(content, lambda pair: items(pair, decode, 2))
        return dict(pairs)
    raise ValueError(f"an unknown kind of value {kind!r:.80}")


def _decimal(content: str) -> decimal.Decimal:
    """A decimal number of a size that arithmetic with whole numbers can bear."""
    number = decimal.Decimal(content)
    if number.is_finite() and (len(content) > 1000 or abs(number.adjusted()) > 1000):
        raise ValueError(f"a decimal number out of range {content!r:.80}")
    return number


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
        return {
            "levels": [encode_index(level) for level in index.levels],
            "codes": [codes.tolist() for codes in index.codes],
            "names": [encode(name) for name in index.names],
        }
    if isinstance(index, pd.CategoricalIndex):
        return {
            "categories": encode_index(index.categories),
            "codes": index.codes.tolist(),
            "ordered": bool(index.ordered),
            "name": encode(index.name),
        }
    return {
        "values": [encode(v) for v in index.tolist()],
        "dtype": _dtype(index),
        "name": encode(index.name),
    }


def _dtype(index: pd.Index) -> str:
    name = str(index.dtype)
    return name if _is_known(name) else "object"


def _is_known(dtype: str) -> bool:
    return dtype in _SIMPLE or dtype.startswith(_TYPED) or dtype.endswith("[pyarrow]")


def decode_index(meta: Any) -> pd.Index:
    """The inverse of `encode_index`."""
    if isinstance(meta, dict) and "range" in meta:
        record(meta, ("range", "name"))
        start, stop, step = items(meta["range"], lambda end: whole(end, -_LARGEST, _LARGEST), 3)
        return pd.RangeIndex(start, stop, step, name=decode(meta["name"]))
    if isinstance(meta, dict) and "levels" in meta:
        record(meta, ("levels", "codes", "names"))
        levels: Any = items(meta["levels"], decode_index)
        names = items(meta["names"], decode, len(levels))
        codes = [
            _decode_codes(each, level)
            for each, level in zip(items(meta["codes"], list, len(levels)), levels, strict=True)
        ]
        return pd.MultiIndex(levels, codes, names=names)
    if isinstance(meta, dict) and "categories" in meta:
        record(meta, ("categories", "codes", "ordered", "name"))
        categories = decode_index(meta["categories"])
        coded = pd.Categorical.from_codes(
            _decode_codes(meta["codes"], categories), categories, ordered=flag(meta["ordered"])
        )
        return pd.CategoricalIndex(coded, name=decode(meta["name"]))
    record(meta, ("values", "dtype", "name"))
    values = items(meta["values"], decode)
    if not all(pd.api.types.is_hashable(value) for value in values):
        raise ValueError("labels that are none")
    dtype = text(meta["dtype"])
    if dtype != "object" and not _is_known(dtype):
        raise ValueError(f"labels of an unknown type {dtype!r:.80}")
    name = decode(meta["name"])
    index: pd.Index = pd.Index(list(values), dtype=dtype, name=name, tupleize_cols=False)
    if _dtype(index) != dtype or [encode(label) for label in index.tolist()] != meta["values"]:
        raise ValueError("labels that are not of their type")
    return index


def _decode_codes(meta: Any, levels: pd.Index) -> list[int]:
    return list(items(meta, lambda code: whole(code, -1, len(levels) - 1)))


def same_labels(levels: pd.Index, key: LevelKey) -> bool:
    """Whether levels are those that a key finds, each once."""
    if not all(part.is_unique and not part.hasnans for part in key.components):
        return False
    if len(key.components) == 1:
        return len(levels) == len(key.components[0]) and levels.equals(key.components[0])
    return len(levels) == len(key.combinations) and levels.equals(combined_labels(key))
