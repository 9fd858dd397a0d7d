"""Damaged files and files with other contents: refused, or the model that was saved.

Two kinds: bytes and zip entries that are damaged, which the checksums find, and fields and arrays
that are changed and signed again: only their types, ranges and what they must agree with can tell.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
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
from stored import MODELS, N, outcome, saved

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


def read(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, value in entries:
            archive.writestr(name, value)
    return out.getvalue()


def test_damaged_files_are_refused_or_the_same(tmp_path: Path) -> None:
    with tally("damaged files") as counts:

        @budget(150)
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


def signed(meta: Any, arrays: dict[str, bytes]) -> bytes:
    """A file whose sums are all right, whatever it holds."""
    if isinstance(meta, dict) and isinstance(meta.get("arrays"), dict):
        for name, value in arrays.items():
            if isinstance(said := meta["arrays"].get(name), dict):
                said["sha256"] = hashlib.sha256(value).hexdigest()
    return sealed(json.dumps(meta).encode(), arrays)


def sealed(text: bytes, arrays: dict[str, bytes]) -> bytes:
    entries = [
        ("model.json", text),
        ("model.json.sha256", hashlib.sha256(text).hexdigest().encode()),
    ]
    entries += [(f"{name}.npy", value) for name, value in arrays.items()]
    return packed(entries)


def parts(content: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The JSON and the arrays of a file."""
    entries = read(content)
    arrays = {name[:-4]: value for name, value in entries.items() if name.endswith(".npy")}
    return json.loads(entries["model.json"]), arrays


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

        @budget(250)
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


# Contents that nobody would write -----------------------------------------------------------------


def array_of(shape: str, kind: str, content: bytes = b"") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + content


def with_text(old: str, new: str) -> Callable[[dict[str, Any], dict[str, bytes]], bytes]:
    def make(meta: dict[str, Any], arrays: dict[str, bytes]) -> bytes:
        text = json.dumps(meta)
        assert old in text
        return sealed(text.replace(old, new, 1).encode(), arrays)

    return make


def with_y(content: bytes, **said: Any) -> Callable[[dict[str, Any], dict[str, bytes]], bytes]:
    def make(meta: dict[str, Any], arrays: dict[str, bytes]) -> bytes:
        meta["arrays"]["y"].update(said)
        return signed(meta, arrays | {"y": content})

    return make


def with_entry(name: str, content: bytes) -> Callable[[dict[str, Any], dict[str, bytes]], bytes]:
    def make(meta: dict[str, Any], arrays: dict[str, bytes]) -> bytes:
        entries = [*read(signed(meta, arrays)).items(), (name, content)]
        return packed(entries, zipfile.ZIP_DEFLATED)

    return make


def with_bytes(change: Callable[[bytearray], Any]) -> Callable[..., bytes]:
    def make(meta: dict[str, Any], arrays: dict[str, bytes]) -> bytes:
        out = bytearray(signed(meta, arrays))
        change(out)
        return bytes(out)

    return make


def poked(offset: int, value: bytes) -> Callable[[bytearray], Any]:
    """Bytes of the first entry of the zip directory."""

    def change(content: bytearray) -> None:
        at = content.find(b"PK\x01\x02") + offset
        content[at : at + len(value)] = value

    return change


REML = '"reml": true'
CONTENTS: dict[str, Callable[[dict[str, Any], dict[str, bytes]], bytes]] = {
    "nothing but brackets": lambda meta, arrays: sealed(b"[" * 100_000, arrays),
    "brackets in a field": with_text(REML, '"reml": ' + "[" * 9000 + "]" * 9000),
    "no UTF-8": lambda meta, arrays: sealed(json.dumps(meta).encode() + b"\xff", arrays),
    "half a character": with_text('"response": "y"', '"response": "\\ud800"'),
    "a number of 5,000 digits": with_text('"evaluations": ', '"evaluations": ' + "9" * 5000),
    "a number of 4,000 digits": with_text('"evaluations": ', '"evaluations": ' + "9" * 4000),
    "no number": with_text(REML, '"reml": NaN'),
    "a field twice": with_text(REML, f'"reml": false, {REML}'),
    "text of zeros": lambda meta, arrays: packed(
        [("model.json", b" " * 50_000_000)], zipfile.ZIP_DEFLATED
    ),
    "an array of petabytes": with_y(array_of("(1000000000000,)", "<f8"), shape=[10**12]),
    "a shape beyond 64 bits": with_y(
        array_of("(4294967296, 4294967296, 4294967296)", "<f8"), shape=[2**32] * 3
    ),
    "an array of objects": with_y(array_of(f"({N},)", "|O", bytes(8 * N)), dtype="|O"),
    "an array in Fortran's order": with_y(
        array_of(f"({N},)", "<f8", bytes(8 * N)).replace(b"False", b"True ")
    ),
    "code for a shape": with_y(array_of("(__import__('os').getpid(),)", "<f8")),
    "an entry of 250 MB": with_entry(
        "more.npy", array_of("(32000000,)", "<f8", bytes(256_000_000))
    ),
    "an entry of 350 MB": with_entry("more.npy", bytes(350_000_000)),
    "an entry above": with_entry("../y.npy", b"x"),
    "an entry of the system": with_entry("/etc/passwd.npy", b"x"),
    "a directory": with_entry("y/", b""),
    "a program": with_entry("y.pkl", b"cos\nsystem\n(S'true'\ntR."),
    "an entry twice": with_entry("y.npy", array_of(f"({N},)", "<f8", bytes(8 * N))),
    "a locked entry": with_bytes(poked(8, b"\x01")),
    "another compression": with_bytes(poked(10, b"\x0c")),
    "an entry of 4 GB": with_bytes(poked(24, b"\xf0\xff\xff\xff")),
    "something before it": lambda meta, arrays: b"MZ" + signed(meta, arrays),
    "the first format with sums": lambda meta, arrays: sealed(
        json.dumps({**meta, "version": 1}).encode(), arrays
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_files_that_nobody_would_write(name: str, tmp_path: Path) -> None:
    content = CONTENTS[name](*parts(saved("slope", tmp_path)))
    assert outcome("slope", content, tmp_path / "strange") == "refused"


@pytest.mark.parametrize("kind", MODELS)
def test_files_that_were_not_changed(kind: str, tmp_path: Path) -> None:
    """What the fuzzers do to a file without doing anything leaves the model."""
    content = saved(kind, tmp_path)
    assert outcome(kind, content, tmp_path / "file") == "the same"
    assert outcome(kind, signed(*parts(content)), tmp_path / "file") == "the same"
