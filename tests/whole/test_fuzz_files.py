"""Damaged files and files with other contents: refused, or the model that was saved.

Two kinds: bytes and zip entries that are damaged, which the checksums find, and fields and arrays
that are changed and signed again: only their types, ranges and what they must agree with can tell.
"""

from __future__ import annotations

import copy
import io
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import budget, tally
from hypothesis import given
from hypothesis import strategies as st
from stored import MODELS, outcome, saved
from tampering import packed, parts, read, signed

# Damaged bytes ------------------------------------------------------------------------------------

Random = np.random.Generator


def somewhere(rng: Random, content: bytes) -> tuple[int, int]:
    """A piece of a file, mostly short."""
    length = min(len(content), int(2 ** rng.uniform(0, np.log2(len(content)))))
    start = int(rng.integers(0, len(content) - length + 1))
    return start, start + length


def flipped(rng: Random, content: bytes, _: bytes) -> bytes:
    out = bytearray(content)
    for at in rng.integers(0, len(out), int(rng.integers(1, 4))):
        out[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(out)


def directory_flipped(rng: Random, content: bytes, _: bytes) -> bytes:
    """A bit of the zip directory at the end."""
    start, out = content.find(b"PK\x01\x02"), bytearray(content)
    out[int(rng.integers(start, len(out)))] ^= 1 << int(rng.integers(0, 8))
    return bytes(out)


def overwritten(rng: Random, content: bytes, _: bytes) -> bytes:
    a, z = somewhere(rng, content)
    noise = (bytes(z - a), b"\xff" * (z - a), rng.bytes(z - a))
    return content[:a] + noise[int(rng.integers(0, 3))] + content[z:]


def cut(rng: Random, content: bytes, _: bytes) -> bytes:
    a, z = somewhere(rng, content)
    return (content[:a], content[z:], content[:a] + content[z:])[int(rng.integers(0, 3))]


def spliced(rng: Random, content: bytes, other: bytes) -> bytes:
    """A piece of this or another model's file in some place."""
    a, z = somewhere(rng, source := (content, other)[int(rng.integers(0, 2))])
    at, end = somewhere(rng, content)
    return content[:at] + source[a:z] + content[(at if rng.integers(0, 2) else end) :]


def joined(rng: Random, content: bytes, other: bytes) -> bytes:
    noise = rng.bytes(int(rng.integers(1, 200)))
    ways = (content + other, other + content, noise + content, content + noise)
    return ways[int(rng.integers(0, 4))]


def entries_changed(rng: Random, content: bytes, other: bytes) -> bytes:
    """Entries that are mixed up, with right sums of their own: only the JSON's can tell."""
    entries = list(read(content).items())
    i, j = (int(each) for each in rng.integers(0, len(entries), 2))
    name, value = entries[i]
    others = read(other)
    ways: list[Callable[[], Any]] = [
        lambda: entries.pop(i),
        lambda: entries.append((name, value)),
        lambda: entries.append((name, b"")),
        lambda: entries.append(("../" + name, value)),
        lambda: entries.append(("/etc/passwd", value)),
        lambda: entries.append(("extra.npy", value)),
        lambda: entries.append(("extra.pkl", b"cos\nsystem\n(S'true'\ntR.")),
        lambda: entries.__setitem__(i, (name.upper(), value)),
        lambda: entries.__setitem__(i, (entries[j][0] + " ", value)),
        lambda: entries.__setitem__(i, (name, entries[j][1])),
        lambda: entries.__setitem__(i, (name, flipped(rng, value, b""))),
        lambda: entries.__setitem__(i, (name, cut(rng, value, b""))),
        lambda: entries.__setitem__(i, (name, value + bytes(8))),
        lambda: entries.__setitem__(i, (name, others.get(name, b"?"))),
        lambda: entries.reverse(),
    ]
    ways[int(rng.integers(0, len(ways)))]()
    return packed(entries, zipfile.ZIP_DEFLATED if rng.integers(0, 2) else zipfile.ZIP_STORED)


DAMAGES = (flipped, directory_flipped, overwritten, cut, spliced, joined, entries_changed)


def test_damaged_files_are_refused_or_the_same(tmp_path: Path) -> None:
    with tally("damaged files") as counts:

        @budget(100)
        @given(
            st.sampled_from(sorted(MODELS)),
            st.sampled_from(sorted(MODELS)),
            st.sampled_from(DAMAGES),
            st.integers(0, 2**63),
        )
        def run(kind: str, second: str, damage: Any, seed: int) -> None:
            rng = np.random.default_rng(seed)
            content = damage(rng, saved(kind, tmp_path), saved(second, tmp_path))
            what = outcome(kind, content, tmp_path / "damaged")
            assert what in ("refused", "the same"), damage.__name__
            counts[what] += 1

        run()


# Changed contents, signed again -------------------------------------------------------------------


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in a piece of JSON, itself left out."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = list(enumerate(value))[:6]
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def there(meta: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        meta = meta[key]
    return meta


def nested(depth: int) -> list[Any]:
    out: list[Any] = []
    for _ in range(depth):
        out = [out]
    return out


STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 99, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.5, 1e308,
    "", "x", "g", "1", "x + f", "0", "\0", "ü", "`", "__import__('os')", "np.loadtxt('x')",
    "a" * 2000, [], [[]], {}, [None], ["x"], ["x", "x"], [1, 1], [True], 1e-308, nested(60),
    {"f": "nan"}, {"f": "inf"}, {"f": "0x1p+1"}, {"f": "0x1p-1060"}, {"missing": "NA"},
    {"missing": "NaT"}, {"tuple": []}, {"list": ["x"]}, {"dict": []}, {"array": [], "shape": [0]},
    {"array": [1, 2], "shape": [2]}, {"array": ["x"], "shape": [1]}, {"date": "2024-01-01"},
    {"timestamp": ["2024-01-01T00:00:00", None, "ns"]}, {"bytes": "00"},
    {"interval": [0, 1, "right"]}, {"decimal": "1e999999"}, {"period": ["2024", "Y-DEC"]},
    {"range": [0, 72, 1], "name": None}, {"range": [0, 2**60, 1], "name": None},
    {"values": ["a", "b"], "dtype": "object", "name": None},
    {"name": "Dense", "options": {}}, {"name": "Diagonal", "options": {"k": 2, "hom": True}},
]  # fmt: skip


def field_changed(rng: Random, meta: Any, arrays: dict[str, bytes], other: Any) -> None:
    """One field is another value, is gone, is there twice, or is that of another place or model."""
    found = list(places(meta))
    *path, key = found[int(rng.integers(0, len(found)))]
    into = there(meta, tuple(path))
    now = into[key]

    def elsewhere() -> Any:
        return copy.deepcopy(there(meta, found[int(rng.integers(0, len(found)))]))

    ways: list[Callable[[], Any]] = [
        lambda: into.__setitem__(key, STRANGE[int(rng.integers(0, len(STRANGE)))]),
        lambda: into.__setitem__(key, STRANGE[int(rng.integers(0, len(STRANGE)))]),
        lambda: into.__delitem__(key),
        lambda: into.__setitem__(key, elsewhere()),
        lambda: into.__setitem__(key, altered(rng, now)),
        lambda: into.__setitem__(key, altered(rng, now)),
        lambda: into.__setitem__(key, altered(rng, now)),
    ]
    if isinstance(into, dict):
        ways.append(lambda: into.update(new=now))
    with_same = [path for path in places(other) if path[-1] == key]
    if with_same:
        ways.append(
            lambda: into.__setitem__(
                key, there(other, with_same[int(rng.integers(len(with_same)))])
            )
        )
    ways[int(rng.integers(0, len(ways)))]()


def altered(rng: Random, value: Any) -> Any:
    """A value of the same kind."""
    pick = int(rng.integers(0, 4))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return (value + 1, value - 1, -value, value * 2)[pick]
    if isinstance(value, float):
        return (value + 1, -value, value * 1e10, value * (1 + 1e-4))[pick]
    if isinstance(value, str):
        return (value + "x", value[:-1], value.upper(), value.replace("x", "z"))[pick]
    if isinstance(value, list):
        return ([*value, *value[:1]], value[:-1], value[::-1], value[1:] + value[:1])[pick]
    if isinstance(value, dict):
        return dict(list(value.items())[::-1]) if pick else {}
    return (0, False, "", [])[pick]


def array_changed(rng: Random, meta: Any, arrays: dict[str, bytes], other: Any) -> None:
    """One array has other values, another type or another shape; what the JSON says goes along."""
    name = sorted(arrays)[int(rng.integers(0, len(arrays)))]
    values = np.load(io.BytesIO(arrays[name]))
    flat = values.ravel().copy()
    odd: tuple[float, ...] = (0, 1, -1, 2, 71, 72, 10**6, 2**31 - 1)
    if values.dtype.kind == "f":
        odd += (np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -0.0, 0.5)
    strange = odd[int(rng.integers(0, len(odd)))]
    size = max(1, flat.size)

    def put(share: int) -> Any:
        flat[: max(1, size // share)] = strange
        return rng.permuted(flat).reshape(values.shape) if share > 1 else flat.reshape(values.shape)

    def nudged() -> Any:
        if flat.size:
            flat[int(rng.integers(0, flat.size))] += (1, -1, 3)[int(rng.integers(0, 3))]
        return flat.reshape(values.shape)

    one = flat.copy()
    if one.size:
        one[int(rng.integers(0, one.size))] = strange
    ways: list[Callable[[], Any]] = [
        lambda: one.reshape(values.shape),
        nudged,
        nudged,
        lambda: put(1),
        lambda: put(3),
        lambda: rng.permuted(flat).reshape(values.shape),
        lambda: values[::-1],
        lambda: values[:-1],
        lambda: np.concatenate([values, values[-1:]]) if values.ndim else values,
        lambda: values[..., None],
        lambda: values.ravel(),
        lambda: values.T,
        lambda: np.zeros((0, *values.shape[1:]), values.dtype),
        lambda: values.astype(np.float32),
        lambda: values.astype(np.float64),
        lambda: values.astype(np.int64),
        lambda: values.astype(np.int16),
        lambda: values.astype(">f8"),
        lambda: values != 0,
        lambda: values.astype(str),
        lambda: values.astype(complex),
        lambda: values.astype(object),
        lambda: -values,
        lambda: values * 2,
    ]
    with np.errstate(all="ignore"):
        changed = ways[int(rng.integers(0, len(ways)))]()
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.save(out, np.ascontiguousarray(changed))
    arrays[name] = out.getvalue()
    meta["arrays"][name].update(dtype=changed.dtype.str, shape=list(changed.shape))


def array_moved(rng: Random, meta: Any, arrays: dict[str, bytes], other: Any) -> None:
    """An array that is not there, is there twice, or is that of another."""
    names = sorted(arrays)
    name, second = (names[int(i)] for i in rng.integers(0, len(names), 2))
    way = int(rng.integers(0, 4))
    if way == 0:
        del arrays[name], meta["arrays"][name]
    elif way == 1:
        arrays["more"], meta["arrays"]["more"] = arrays[name], dict(meta["arrays"][name])
    elif way == 2:
        arrays[name], meta["arrays"][name] = arrays[second], dict(meta["arrays"][second])
    else:
        del meta["arrays"][name]


CHANGES = (field_changed, field_changed, field_changed, array_changed, array_changed, array_moved)


def test_changed_files_are_refused_or_hold_the_same_numbers(tmp_path: Path) -> None:
    """Labels and names are whatever a file says; estimates are those of the model."""
    with tally("changed files") as counts:

        @budget(180)
        @given(
            st.sampled_from(sorted(MODELS)),
            st.sampled_from(sorted(MODELS)),
            st.sampled_from(range(len(CHANGES))),
            st.integers(0, 2**63),
        )
        def run(kind: str, second: str, which: int, seed: int) -> None:
            rng = np.random.default_rng(seed)
            meta, arrays = parts(saved(kind, tmp_path))
            other, _ = parts(saved(second, tmp_path))
            CHANGES[which](rng, meta, arrays, other)
            what = outcome(kind, signed(meta, arrays), tmp_path / "changed")
            assert what != "another model"
            counts[what] += 1

        run()


@pytest.mark.parametrize("kind", MODELS)
def test_files_that_were_not_changed(kind: str, tmp_path: Path) -> None:
    """What the fuzzers do to a file without doing anything leaves the model."""
    content = saved(kind, tmp_path)
    assert outcome(kind, content, tmp_path / "file") == "the same"
    assert outcome(kind, signed(*parts(content)), tmp_path / "file") == "the same"
