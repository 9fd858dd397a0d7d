"""Values read from JSON → the same values, or a ValueError that names what is wrong with one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")


def record(value: Any, keys: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """A mapping with these keys and no others."""
    required, more = set(keys), set(optional)
    if not isinstance(value, dict) or not required <= value.keys() <= required | more:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"fields {sorted(required)} expected, not {found}")
    return value


def mapping(value: Any, each: Callable[[Any], T]) -> dict[str, T]:
    """A mapping whose values are all of one kind."""
    if not isinstance(value, dict):
        raise ValueError(f"a mapping expected, not {value!r:.80}")
    return {key: each(item) for key, item in value.items()}


def items(value: Any, each: Callable[[Any], T], length: int | None = None) -> tuple[T, ...]:
    """A list whose items are all of one kind, of a given length."""
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise ValueError(f"a list of {length or 'any'} items expected, not {value!r:.80}")
    return tuple(each(item) for item in value)


def text(value: Any, longest: float = math.inf) -> str:
    """A text, of so many letters at most."""
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"a text expected, not {value!r:.80}")
    return value


def flag(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"true or false expected, not {value!r:.80}")
    return value


def whole(value: Any, low: float = -math.inf, high: float = math.inf) -> int:
    """A whole number within bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"a whole number from {low} to {high} expected, not {value!r:.80}")
    return value


def number(value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number within bounds."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"a number from {low} to {high} expected, not {value!r:.80}")
    return float(value)


def choice(value: Any, known: Collection[str]) -> str:
    """One of several words."""
    if text(value) not in known:
        raise ValueError(f"one of {', '.join(known)} expected, not {value!r:.80}")
    return str(value)


def optional(value: Any, each: Callable[[Any], T]) -> T | None:
    """A value of a kind, or None."""
    return None if value is None else each(value)


_POSITIONS = "tuple[int, ...] | None"
_NUMBERS = "tuple[float, ...]"
_KINDS: dict[str, Callable[[Any], Any]] = {
    "int": whole,
    "float": number,
    "bool": flag,
    "str": text,
    _POSITIONS: lambda value: optional(value, _positions),
    _NUMBERS: lambda value: items(value, number),
}


def options(value: Any, kind: type[Any]) -> dict[str, Any]:
    """The fields of a dataclass of plain values, each of the type it is declared with."""
    declared = {field.name: _KINDS[str(field.type)] for field in fields(kind)}
    return {name: declared[name](given) for name, given in record(value, declared).items()}


def plain(option: Any) -> dict[str, Any]:
    """The inverse of `options`: numbers of numpy become plain ones."""
    kinds: dict[str, Callable[[Any], Any]]
    kinds = {"int": int, "float": float, "bool": bool, "str": str, _POSITIONS: _plain_positions}
    kinds[_NUMBERS] = lambda value: [float(each) for each in value]
    return {f.name: kinds[str(f.type)](getattr(option, f.name)) for f in fields(option)}


def _positions(value: Any) -> tuple[int, ...]:
    return items(value, lambda place: whole(place, 0, 1e9))


def _plain_positions(value: Any) -> list[int] | None:
    return None if value is None else [int(place) for place in value]
