"""A saved file taken apart, and put together with other contents and right sums."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from typing import Any


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


def array_of(shape: str, kind: str, content: bytes = b"") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + content
