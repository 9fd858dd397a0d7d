"""JSON and arrays ↔ one zip file, whose size is known before it is unpacked.

The JSON lists every array with its type, shape and SHA-256; the JSON's own stands beside it. A file
holds these entries and no others.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray, ObjectArray
from lmmsparse.common.errors import StorageError
from lmmsparse.common.fields import items, record, text, whole
from lmmsparse.common.files import write_whole

_JSON = "model.json"
_SEAL = "model.json.sha256"
_ENTRY_DATE = (1980, 1, 1, 0, 0, 0)
# What a file may unpack to: this much, and this many times its own size (deflate manages 1,000).
_ALWAYS = 2**28
_EXPANSION = 100
_HEADER = re.compile(
    r"\{'descr': '([<>])([fi])([48])', 'fortran_order': False, "
    r"'shape': \(((?:[0-9]{1,15}, )*(?:[0-9]{1,15},?)?)\), \} *\n"
)


def limit_of(size: int) -> int:
    """How many bytes a file of a size may unpack to."""
    return _ALWAYS + _EXPANSION * size


def text_limit_of(size: int) -> int:
    """How many bytes of these may be text, which takes several times as much when it is read."""
    return limit_of(size) // 16


# Writing ------------------------------------------------------------------------------------------


def write_archive(path: Any, meta: dict[str, Any], arrays: Mapping[str, ObjectArray]) -> None:
    """Write JSON and arrays to a file, or leave what was there."""
    entries = {name: _array_bytes(array) for name, array in arrays.items()}
    described = {
        name: {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "sha256": _sha(entries[name]),
        }
        for name, array in arrays.items()
    }
    try:
        text = json.dumps({**meta, "arrays": described}, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise StorageError(
            f"The model holds a value that cannot be stored ({error}): files hold finite numbers "
            "and text. Fit again without it."
        ) from error
    files = {_JSON: text, _SEAL: _sha(text).encode()}
    files.update({f"{name}.npy": content for name, content in entries.items()})

    def write(file: IO[bytes]) -> None:
        _write_zip(file, files, zipfile.ZIP_DEFLATED)
        size = file.tell()
        if sum(map(len, files.values())) > limit_of(size) or len(text) > text_limit_of(size):
            file.seek(0)
            file.truncate()
            _write_zip(file, files, zipfile.ZIP_STORED)

    write_whole(path, write)


def _array_bytes(array: ObjectArray) -> bytes:
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    text = "{" + "".join(f"'{key}': {value!r}, " for key, value in header.items()) + "}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    start = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    return start + array.tobytes()


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Zip(zipfile.ZipFile):
    """One that has nothing to say of its own when writing is interrupted."""

    def close(self) -> None:
        with suppress(ValueError):  # of an entry that is not complete
            super().close()


def _write_zip(file: IO[bytes], entries: Mapping[str, bytes], compression: int) -> None:
    with _Zip(file, "w") as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, _ENTRY_DATE)
            entry.compress_type = compression
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, content)


# Reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """Type and shape of a stored array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes_each(self) -> int:
        """Size of a value."""
        return int(self.dtype[2:])

    @property
    def nbytes(self) -> int:
        """Size of all values."""
        return self.nbytes_each * math.prod(self.shape)


class Archive:
    """An open file of `write_archive`; nothing is unpacked whose size is not known to be right."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file)
        self.size = file.seek(0, os.SEEK_END)
        entries = self._zip.infolist()
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise ValueError("an entry is there twice")
        if entries and min(entry.header_offset for entry in entries) > 0:
            raise ValueError("something stands before it")
        if any(e.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for e in entries):
            raise ValueError("an unknown compression")
        if sum(entry.compress_size for entry in entries) > self.size:
            raise ValueError("entries overlap")
        if sum(entry.file_size for entry in entries) > limit_of(self.size):
            raise ValueError("it would unpack to far more than a model")
        if self._json_size > text_limit_of(self.size):
            raise ValueError("its text would unpack to far more than that of a model")

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def _json_size(self) -> int:
        return self._entries[_JSON].file_size if _JSON in self._entries else 0

    @property
    def has_model(self) -> bool:
        """Whether there is JSON in it."""
        return _JSON in self._entries

    def json(self) -> tuple[Any, bool]:
        """The JSON, and whether it is what was written."""
        text = self._zip.read(self._entries[_JSON])
        sealed = _SEAL in self._entries and self._entries[_SEAL].file_size == 64
        same = sealed and self._zip.read(self._entries[_SEAL]) == _sha(text).encode()
        meta = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_number)
        return meta, same

    def headers(self) -> dict[str, Header]:
        """Type and shape of every array."""
        out = {}
        for name, entry in self._entries.items():
            if name in (_JSON, _SEAL):
                continue
            if not name.endswith(".npy"):
                raise ValueError(f"an entry {name!r} that does not belong there")
            with self._zip.open(entry) as stream:
                header, start = _read_header(stream)
            if entry.file_size != start + header.nbytes:
                raise ValueError(f"the size of {name} does not fit its shape")
            out[name.removesuffix(".npy")] = header
        return out

    def array(self, name: str, header: Header, sha: str | None) -> ObjectArray:
        """The values of an array, checked against its SHA-256 if there is one."""
        with self._zip.open(self._entries[f"{name}.npy"]) as stream:
            content = stream.read()
        if sha is not None and _sha(content) != sha:
            raise ValueError(f"the values of {name} are not those that were stored")
        values = np.frombuffer(content[len(content) - header.nbytes :], np.dtype(header.dtype))
        return values.reshape(header.shape).astype(values.dtype.newbyteorder("="))


class Arrays:
    """The arrays of a file, each taken once by what is expected of it.

    Parameters
    ----------
    listed : mapping or None
        What the JSON says of them; None for files that do not say it.
    """

    def __init__(self, archive: Archive, listed: Any) -> None:
        self._archive, self._headers = archive, archive.headers()
        self._shas: dict[str, str] = {}
        if listed is None:
            return
        for name, each in record(listed, self._headers).items():
            record(each, ("dtype", "shape", "sha256"))
            said = Header(text(each["dtype"]), items(each["shape"], whole))
            if said != self._headers[name]:
                raise ValueError(f"type or shape of {name} is not what was stored")
            self._shas[name] = text(each["sha256"])

    def __contains__(self, name: str) -> bool:
        return name in self._headers

    def _take(self, name: str, kind: str, shape: tuple[int | None, ...]) -> ObjectArray:
        header = self._headers.pop(name)
        fits = len(header.shape) == len(shape)
        fits = fits and all(a in (None, b) for a, b in zip(shape, header.shape, strict=True))
        if header.dtype[1] != kind or (kind == "f" and header.nbytes_each != 8) or not fits:
            raise ValueError(f"{name} has type {header.dtype} and shape {header.shape}")
        return self._archive.array(name, header, self._shas.get(name))

    def any_numbers(self, name: str, *shape: int | None) -> FloatArray:
        """Numbers of a shape, finite or not; None for any length."""
        return self._take(name, "f", shape).astype(np.float64, copy=False)

    def numbers(self, name: str, *shape: int | None) -> FloatArray:
        """Finite numbers of a shape."""
        out = self.any_numbers(name, *shape)
        if not np.isfinite(out).all():
            raise ValueError(f"{name} holds values that are not finite")
        return out

    def whole(self, name: str, length: int | None, end: int, increasing: bool = False) -> IntArray:
        """Whole numbers from 0 up to, but not including, an end."""
        out = self._take(name, "i", (length,)).astype(np.int64, copy=False)
        if out.size and (out.min() < 0 or out.max() >= end):
            raise ValueError(f"{name} holds values out of range")
        if increasing and not (out[1:] > out[:-1]).all():
            raise ValueError(f"{name} does not increase")
        return out.astype(np.intp, copy=False)

    def compressed(
        self, name: str, rows: int, columns: int
    ) -> tuple[FloatArray, IntArray, IntArray]:
        """Numbers, columns and pointers of a matrix by its rows, none of which leads outside."""
        data = self.numbers(f"{name}.data", None)
        indices = self.whole(f"{name}.indices", len(data), columns)
        indptr = self.whole(f"{name}.indptr", rows + 1, len(data) + 1)
        if indptr[0] != 0 or indptr[-1] != len(data) or (indptr[1:] < indptr[:-1]).any():
            raise ValueError(f"{name} has rows that are not there")
        return data, indices, indptr

    def check_all_taken(self) -> None:
        """Refuse what nobody has asked for."""
        if self._headers:
            raise ValueError(f"unexpected arrays {sorted(self._headers)}")

    def check_allocation(self, length: int) -> None:
        """Refuse a number of rows that a file of this size cannot stand for."""
        if 8 * length > limit_of(self._archive.size):
            raise ValueError(f"{length} rows in a file of {self._archive.size} bytes")


def _read_header(stream: IO[bytes]) -> tuple[Header, int]:
    start = stream.read(10)
    if start[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("an array of another format")
    length = int.from_bytes(start[8:], "little")
    found = _HEADER.fullmatch(stream.read(min(length, 4096)).decode("latin-1"))
    if found is None:
        raise ValueError("an array that does not hold plain numbers")
    order, kind, size, shape = found.groups()
    lengths = tuple(int(part) for part in shape.split(",") if part.strip())
    return Header(order + kind + size, lengths), 10 + length


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise ValueError("a field is there twice")
    return out


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a finite number")
