"""Files that somebody has written by hand: every one is refused, soon and without memory."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import N, outcome, saved
from tampering import array_of, packed, parts, read, sealed, signed

# Archives, arrays and texts -----------------------------------------------------------------------


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


def with_bytes(change: Callable[..., Any], **where: int) -> Callable[..., bytes]:
    def make(meta: dict[str, Any], arrays: dict[str, bytes]) -> bytes:
        out = bytearray(signed(meta, arrays))
        change(out, **where)
        return bytes(out)

    return make


def poked(offset: int, value: bytes) -> Callable[..., Any]:
    """Bytes of an entry of the zip directory."""

    def change(content: bytearray, nth: int = 0) -> None:
        start = -1
        for _ in range(nth + 1):
            start = content.find(b"PK\x01\x02", start + 1)
        content[start + offset : start + offset + len(value)] = value

    return change


def ended(offset: int, value: bytes) -> Callable[..., Any]:
    """Bytes of the end of the zip directory."""

    def change(content: bytearray) -> None:
        start = content.rfind(b"PK\x05\x06") + offset
        content[start : start + len(value)] = value

    return change


def bomb(name: str, start: bytes, megabytes: int) -> Callable[..., bytes]:
    """With a last entry that unpacks to that many spaces."""

    def make(meta: dict[str, Any], arrays: dict[str, bytes]) -> bytes:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        first = deflate.compress(start) + deflate.flush(zlib.Z_FULL_FLUSH)
        each = deflate.compress(b" " * 10**6) + deflate.flush(zlib.Z_FULL_FLUSH)
        entries = read(signed(meta, arrays))
        entries.pop(name, None)
        entries[name] = first + each * megabytes + deflate.flush()
        out = bytearray(packed([*entries.items()]))
        size = struct.pack("<L", len(start) + 10**6 * megabytes)
        with zipfile.ZipFile(io.BytesIO(out)) as archive:
            here, there = archive.getinfo(name).header_offset, out.rfind(b"PK\x01\x02")
        out[here + 8 : here + 9], out[there + 10 : there + 11] = b"\x08", b"\x08"
        out[here + 22 : here + 26], out[there + 24 : there + 28] = size, size
        return bytes(out)

    return make


def linked(name: str) -> Callable[..., bytes]:
    """With an entry that is a symbolic link to a file of the system."""

    def make(meta: dict[str, Any], arrays: dict[str, bytes]) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for each, value in read(signed(meta, arrays)).items():
                entry = zipfile.ZipInfo(each)
                entry.external_attr = (0o120777 if each == name else 0o600) << 16
                archive.writestr(entry, b"/etc/passwd" if each == name else value)
        return out.getvalue()

    return make


def text_of(meta: dict[str, Any]) -> bytes:
    return json.dumps(meta).encode()


FLOATS = array_of(f"({N},)", "<f8", bytes(8 * N))
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
    "text of 50 MB": bomb("model.json", b"", 50),
    "text of 15 MB": bomb("model.json", b"", 15),
    "an array of petabytes": with_y(array_of("(1000000000000,)", "<f8"), shape=[10**12]),
    "a shape beyond 64 bits": with_y(
        array_of("(4294967296, 4294967296, 4294967296)", "<f8"), shape=[2**32] * 3
    ),
    "an array of objects": with_y(array_of(f"({N},)", "|O", bytes(8 * N)), dtype="|O"),
    "an array in Fortran's order": with_y(
        array_of(f"({N},)", "<f8", bytes(8 * N)).replace(b"False", b"True ")
    ),
    "code for a shape": with_y(array_of("(__import__('os').getpid(),)", "<f8")),
    "an entry of 250 MB": bomb("more.npy", array_of("(31250000,)", "<f8"), 250),
    "an entry of 350 MB": bomb("more.npy", b"", 350),
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
    # The archive
    "an archive in an archive": lambda meta, arrays: packed([("m.lmm", signed(meta, arrays))]),
    "an archive for an array": with_y(packed([("y.npy", b"")])),
    "nothing": lambda meta, arrays: b"",
    "an archive of nothing": lambda meta, arrays: packed([]),
    "text alone": lambda meta, arrays: sealed(json.dumps(meta).encode(), {}),
    "arrays alone": lambda meta, arrays: packed([(f"{k}.npy", v) for k, v in arrays.items()]),
    "no seal": lambda meta, arrays: packed([("model.json", json.dumps(meta).encode())]),
    "a seal of another text": lambda meta, arrays: packed(
        [*(read(signed(meta, arrays)) | {"model.json.sha256": b"0" * 64}).items()]
    ),
    "a long seal": lambda meta, arrays: packed(
        [*(read(signed(meta, arrays)) | {"model.json.sha256": b"0" * 10**6}).items()]
    ),
    "entries that overlap": with_bytes(poked(42, b"\x00\x00\x00\x00"), nth=1),
    "an entry beyond the end": with_bytes(poked(42, b"\xff\xff\xff\x7f"), nth=1),
    "an entry of another's place": with_bytes(poked(42, b"\x07\x00\x00\x00"), nth=2),
    "sizes of 64 bits that are not there": with_bytes(poked(20, b"\xff" * 8), nth=2),
    "a place of 64 bits that is not there": with_bytes(poked(42, b"\xff" * 4), nth=2),
    "a compressed size of nothing": with_bytes(poked(20, bytes(4)), nth=2),
    "a compressed size of much": with_bytes(poked(20, b"\xff\xff\x00\x00"), nth=2),
    "a size of nothing": with_bytes(poked(24, bytes(4)), nth=2),
    "another checksum of zip": with_bytes(poked(16, b"abcd"), nth=2),
    "a name of no length": with_bytes(poked(28, bytes(2)), nth=2),
    "a name of great length": with_bytes(poked(28, b"\xff\xff"), nth=2),
    "more of a field than there is": with_bytes(poked(30, b"\xff\xff"), nth=2),
    "a version of zip from the future": with_bytes(poked(6, b"\xff\x00"), nth=2),
    "deflated as it says, stored as it is": with_bytes(poked(10, b"\x08\x00"), nth=2),
    "another disk": with_bytes(ended(4, b"\x05\x00")),
    "more entries than there are": with_bytes(ended(8, b"\xff\x7f\xff\x7f")),
    "a directory beyond the end": with_bytes(ended(16, b"\xff\xff\xff\x7f")),
    "a directory of no size": with_bytes(ended(12, bytes(4))),
    "a directory of 64 bits": with_bytes(ended(12, b"\xff" * 8)),
    "a link": linked("y.npy"),
    "a name in other letters": with_entry("Y.NPY", b"x"),
    "a name with a zero": with_entry("z\0.npy", b"x"),
    "a name of 60,000 letters": with_entry("y" * 60_000 + ".npy", b"x"),
    "5,000 entries": lambda meta, arrays: packed(
        [*read(signed(meta, arrays)).items(), *((f"{i}.npy", b"") for i in range(5_000))]
    ),
    # Arrays
    "an array of version 2": with_y(b"\x93NUMPY\x02\x00" + FLOATS[8:10] + b"\0\0" + FLOATS[10:]),
    "an array of version 3": with_y(b"\x93NUMPY\x03\x00" + FLOATS[8:10] + b"\0\0" + FLOATS[10:]),
    "an array of version 255": with_y(b"\x93NUMPY\xff\xff" + FLOATS[8:]),
    "a header of 65 kB": with_y(FLOATS[:8] + b"\xff\xff" + FLOATS[10:].ljust(70_000)),
    "a header of nothing": with_y(FLOATS[:8] + b"\0\0" + FLOATS[10:]),
    "a header of calls": with_y(FLOATS.replace(b"'<f8'", b"f(1) ")),
    "a header of fields": with_y(array_of(f"({N},)", "[('a', '<f8')]")),
    "a header with more": with_y(FLOATS.replace(b"}", b", 'more': 1}")),
    "a header in other order": with_y(FLOATS.replace(b"'descr': '<f8', ", b"")),
    "a header with a zero": with_y(FLOATS.replace(b"descr", b"des\0r")),
    "a negative length": with_y(array_of("(-72,)", "<f8", bytes(8 * N))),
    "a length of 40 digits": with_y(array_of(f"({'9' * 40},)", "<f8", bytes(8 * N))),
    "a length in words": with_y(array_of("(True,)", "<f8", bytes(8))),
    "a length times nothing": with_y(array_of(f"({10**14}, 0)", "<f8"), shape=[10**14, 0]),
    "forty dimensions": with_y(array_of(f"({'1, ' * 40}72)", "<f8", bytes(576))),
    "more than its shape": with_y(FLOATS + bytes(8)),
    "less than its shape": with_y(FLOATS[:-8]),
    "half precision": with_y(array_of(f"({N},)", "<f2", bytes(2 * N)), dtype="<f2"),
    "quadruple precision": with_y(array_of(f"({N},)", "<f16", bytes(16 * N)), dtype="<f16"),
    "complex numbers": with_y(array_of(f"({N},)", "<c16", bytes(16 * N)), dtype="<c16"),
    "times": with_y(array_of(f"({N},)", "<M8", bytes(8 * N)), dtype="<M8"),
    "letters": with_y(array_of(f"({N},)", "|S8", bytes(8 * N)), dtype="|S8"),
    "truth values": with_y(array_of(f"({N},)", "|b1", bytes(N)), dtype="|b1"),
    "no numbers": with_y(array_of(f"({N},)", "<f8", b"\xff" * 8 * N)),
    "numbers beyond all": with_y(array_of(f"({N},)", "<f8", struct.pack("<d", 1e308) * N)),
    "numbers next to nothing": with_y(array_of(f"({N},)", "<f8", struct.pack("<d", 5e-324) * N)),
    "a constant": with_y(array_of(f"({N},)", "<f8", struct.pack("<d", 1.5) * N)),
    # The text
    "a mark before it": lambda meta, arrays: sealed(b"\xef\xbb\xbf" + text_of(meta), arrays),
    "text in UTF-32": lambda meta, arrays: sealed(json.dumps(meta).encode("utf-32"), arrays),
    "something after it": lambda meta, arrays: sealed(text_of(meta) + b"{}", arrays),
    "a comment": with_text("{", "/* */ {"),
    "a list": lambda meta, arrays: sealed(b"[" + text_of(meta) + b"]", arrays),
    "a number alone": lambda meta, arrays: sealed(b"1", arrays),
    "no end": lambda meta, arrays: sealed(text_of(meta)[:-1], arrays),
    "no number in words": with_text(REML, '"reml": -Infinity'),
    "a number beyond all": with_text('"value": ', '"value": 1e999, "was": '),
    "a number with a sign": with_text('"evaluations": ', '"evaluations": +'),
    "a number in hex": with_text('"evaluations": ', '"evaluations": 0x'),
    "an array twice": with_text('"arrays": {', '"arrays": {}, "arrays": {'),
    "letters that nobody sees": with_text('"response": "y"', '"response": "y\\u200b"'),
    "a zero in a name": with_text('"response": "y"', '"response": "y\\u0000"'),
    "a name of a million letters": with_text('"response": "y"', f'"response": "{"y" * 10**6}"'),
    "a million fields": with_text(REML, ", ".join(f'"{i}": 0' for i in range(10**5)) + ", " + REML),
    "a deep mapping": with_text(REML, '"reml": ' + '{"a": ' * 900 + "1" + "}" * 900),
}


HARMLESS = (
    "another disk", "more entries than there are", "a mark before it", "text in UTF-32",
)  # fmt: skip


@pytest.mark.parametrize("name", CONTENTS)
def test_files_that_nobody_would_write(name: str, tmp_path: Path) -> None:
    content = CONTENTS[name](*parts(saved("slope", tmp_path)))
    found = outcome("slope", content, tmp_path / "strange")
    assert found == ("the same" if name in HARMLESS else "refused")


# Fields that say something else ------------------------------------------------------------------

OPEN = "open('x')"
FIELDS: dict[str, list[tuple[str, Any]]] = {
    "slope": [
        ("format", "lmmsparse"), ("version", 4), ("version", 10**30), ("version", 0),
        ("version", 2.0), ("version", "2"), ("version", True), ("version", None), ("reml", 1),
        ("reml", "true"), ("reml", None), ("reml", False), ("arrays", {}), ("arrays", []),
        ("arrays.y", None), 
        ("arrays.y.dtype", "<f4"), ("arrays.y.shape", [71]), ("arrays.y.shape", [72, 1]),
        ("arrays.y.shape", [72.0]), ("arrays.y.shape", 72), ("arrays.y.shape", [-72]),
        ("optimum.value", 1e300), ("optimum.value", -1.0), ("optimum.value", None),
        ("optimum.value", "1"), ("optimum.evaluations", 0), ("optimum.evaluations", 2.5),
        ("optimum.evaluations", 1), ("optimum.status", "GREAT"), ("optimum.status", 1),
        ("optimum.optimizer", "os.system"), ("optimum.start", 5), ("optimum.start", "y" * 10**6),
        ("optimum.further_evaluations", -1), ("optimum.expected_decrease", [1]),
        ("optimizer.name", "Popen"), ("optimizer.options", None), ("optimizer.options", {"x": 1}),
        ("optimizer", "TrustRegion"), ("solver.name", "eval"), ("solver.options", {"a": 1}),
        ("held.sigma", 0.0), ("held.sigma", -1.0), ("held.sigma", 1.0), ("held.theta", [[0, 0.5]]),
        ("held.theta", [[99, 1.0]]), ("held.theta", [[-1, 1.0]]), ("held.theta", {"0": 1}),
        ("held.residual", [["Phi", 0.3]]), ("design.formula", "y ~ z + (x | g)"),
        ("design.formula", "y ~ x + (z | g)"), ("design.formula", "y ~ x + (x | half)"),
        ("design.formula", "y ~ x + (x || g)"), ("design.formula", "z ~ x + (x | g)"),
        ("design.formula", "y ~ x"), ("design.formula", ""), ("design.formula", "~" * 1000),
        ("design.formula", "y ~ x + (x | g) + (1 | half)"), ("design.formula", "(" * 10**5),
        ("design.formula", f"y ~ {OPEN} + (x | g)"), ("design.formula", "y ~ x + (cs(x) | g)"),
        ("design.formula", "y ~ x + x:x + offset(x) + (x | g)"), ("design.formula", None),
        ("design.formula", "log(y) ~ x + (x | g)"), ("design.formula", "y ~ I(x) + (x | g)"),
        ("design.formula", "y ~ (x + 1)^99999 + (x | g)"), ("design.response", "z"),
        ("design.response", "x" * 10**6), ("design.x_names", ["Intercept"]),
        ("design.x_names", ["x", "Intercept"]), ("design.x_names", ["Intercept", "x", "z"]),
        ("design.x_names", "Ix"), ("design.dropped", ["z"]), ("design.na_action", "pass"),
        ("design.findings", [["a", "b", "c"]]),
        ("design.findings", [["a", "info"]]), 
        ("design.index.range", [0, 72, 0]), ("design.index.range", [0, 71, 1]),
        ("design.index.range", [0.0, 72, 1]), ("design.index", {"values": [], "dtype": "int64"}),
        ("design.index.name", {"dict": []}), ("design.groupings", []),
        ("design.groupings.0.name", "half"), ("design.groupings.0.levels.values", [0]),
        ("design.groupings.0.components", []),
        ("design.groupings.0.levels.dtype", "category"), ("design.blocks", []),
        ("design.blocks.0.grouping", 1), ("design.blocks.0.grouping", -1),
        ("design.blocks.0.names", ["x", "Intercept"]), ("design.blocks.0.names", ["x"]),
        ("design.blocks.0.split", True), ("design.blocks.0.structure.name", "Diagonal"),
        ("design.blocks.0.structure.options.k", 3), ("design.blocks.0.structure.options.k", 10**9),
        ("design.recipe", None), ("design.recipe.parts.fixed", OPEN),
        ("design.recipe.parts.fixed", "1 + z"), ("design.recipe.parts.random0", "1 + z"),
        ("design.recipe.parts.fixed", "1 + x + C(x, levels=range(10**9))"),
        ("design.recipe.parts.fixed", "1 + x * 10**10**10"), ("design.recipe.parts", {}),
        ("design.recipe.kept", [True]), ("design.recipe.kept", [1, 1]),
        ("design.recipe.kept", [True, False]), ("design.recipe.groups", []),
        ("design.recipe.groups.0.factors", ["half"]), ("design.recipe.groups.0.factors", []),
        ("design.recipe.offsets", ["x"]), ("design.recipe.offset_array", True),
        ("design.recipe.offset_column", "o"), ("design.recipe.weights_column", "w"),
        ("design.recipe.columns", {}), ("design.recipe.columns.x.kind", "categorical"),
        ("design.recipe.columns.x.kind", "eval"), ("design.recipe.columns.x.coded", 0),
        ("design.recipe.columns.x.span", {"f": "0x1p+99999"}), ("design.recipe.context", "os"),
        ("design.recipe.columns.x.categories", {"tuple": ["a", "a"]}),
        ("design.recipe.transform_state", {"dict": [["x", {"f": "nan"}]]}),
        ("design.recipe.relations", {"array": [{"f": "inf"}], "shape": [1, 1]}),
        ("design.recipe.relations", {"array": [0], "shape": [2**62, 2**62]}),
        ("design.recipe.relations", {"array": [{"f": "0x1p+0"}] * 0, "shape": [0, 2]}),
        ("design.recipe.categories.fixed", {"x": {"tuple": [{"decimal": "1e999999999"}]}}),
        ("design.recipe.contrasts", {"x": {"name": "eval", "options": {}}}),
        ("design.residual", {}), ("generalized", {}), ("facts", {}), ("more", 1),
    ],
    "bases": [
        ("design.recipe.transform_state", {"dict": []}), ("design.x_names.1", "z"),
        ("design.recipe.parts.fixed", "1 + poly(x, 2) + bs(z, df=10**9) + scale(z):f"),
        ("design.formula", "y ~ poly(x, 3) + bs(z, df=4) + scale(z):f + (1 | g)"),
    ],
    "pedigree": [
        ("design.groupings.0.known.kind", "precision"), ("design.groupings.0.known.kind", "eval"),
        ("design.groupings.0.known", None), ("design.groupings.1.known", {"kind": "pedigree"}),
        
    ],
    "ar1": [
        ("design.residual.correlation", "cs(1 | g)"), ("design.residual.correlation", "us(t | g)"),
        ("design.residual.correlation", f"ar1({OPEN} | g)"), ("design.residual.correlation", None),
        ("design.residual.correlation", "ar1(t | half)"), ("design.residual.grouping", None),
        ("design.residual.names", ["k"]), ("design.residual.sd_text", 1),
        ("design.residual.listed", 1), ("design.residual.visits", {}), ("held.residual", "Phi"),
        ("held.residual", [["Phi", 5.0]]), ("held.residual", [["nobody", 0.5]]),
    ],
    "strata": [
        ("design.residual.sd_text", f"~ {OPEN}"), ("design.residual.names", ["z"]),
        ("design.residual.names", []), ("design.residual.names", ["z", "z"]),
        ("design.recipe.parts.residual_sd", OPEN), ("design.residual", None),
    ],
    "two columns": [
        ("generalized.family", "Beta"), ("generalized.family", "os"), ("generalized.family", None),
        ("generalized.family", "Poisson"), ("generalized.family", "Gaussian"),
        ("generalized.link", "nope"), ("generalized.link", "logit"), ("generalized.link", ["log"]),
        ("generalized.theta", 2.0), ("generalized.n_agq", -1), ("generalized.n_agq", 10**9),
        ("generalized.n_agq", 1), ("generalized.n_agq", 2.5), ("generalized.n_agq", True),
        ("generalized.information", "both"), ("generalized.success", 5), ("generalized", None),
        ("generalized.more", 1), ("held.sigma", None), ("held.sigma", 2.0),
        ("design.response", "left"), ("design.formula", "cbind(left, s) ~ x + (1 | g)"),
    ],
    "known size": [
        ("generalized.theta", 0.0), ("generalized.theta", -1.0), ("generalized.theta", 1e-320),
        ("generalized.theta", 2.5), ("generalized.theta", None), ("generalized.theta", "2"),
    ],
    "negative binomial": [("generalized.theta", 2.0), ("generalized.n_agq", 9)],
    "chunks": [
        ("facts.n", 0), ("facts.n", 2**63), ("facts.n", 73), ("facts.n", 72.0), ("facts.read", 71),
        ("facts.systematic", -1), ("facts.systematic", 10**6), ("facts.yty", -1.0),
        ("facts.yty", 0.0), ("facts.yty", "1"), ("facts.sum_log_weights", 5.0),
        ("facts.numbers", []), ("facts.numbers", [1.0] * 8), ("facts.numbers.0", "low"),
        ("facts.between", [1.0, 2.0]), ("facts.cells", [["nobody"]]), ("facts.cells", [[]]),
        ("facts.cells", [["f"] * 40]), ("facts.more", 1), ("facts", None),
    ],
    "sums": [
        ("format", "lmmsparse model"), ("facts.n", -1), ("facts.n", 0), ("facts.yty", -5.0),
        ("design.na_action", "exclude"), ("design.formula", "y ~ x * f + (z | g)"),
        ("design.formula", ""), ("facts.cells", [["f", "f"]]), ("optimum", {}), ("version", 2),
    ],
}  # fmt: skip


def put(meta: Any, path: str, value: Any) -> None:
    """Set what stands at a place such as ``design.blocks.0.names``."""
    *before, last = path.split(".")
    for key in before:
        meta = meta[int(key) if isinstance(meta, list) else key]
    meta[int(last) if isinstance(meta, list) else last] = value


@pytest.mark.parametrize("kind", FIELDS)
def test_fields_that_say_something_else(kind: str, tmp_path: Path) -> None:
    for path, value in FIELDS[kind]:
        meta, arrays = parts(saved(kind, tmp_path))
        put(meta, path, value)
        what = outcome(kind, signed(meta, arrays), tmp_path / "other")
        assert what == "refused", f"{path} = {value!r:.60}: {what}"


# Arrays that hold something else ------------------------------------------------------------------

Change = Callable[[Any], Any]


def at(place: Any, value: Any) -> Change:
    def change(values: Any) -> Any:
        values[place] = value
        return values

    return change


ARRAYS: dict[str, list[tuple[str, Change]]] = {
    "weights": [
        ("weights", at(0, 0.0)), ("weights", at(0, -1.0)), ("weights", at(0, np.inf)),
        ("weights", lambda w: w * 2), ("weights", lambda w: w[:-1]), ("weights", lambda w: 1 / w),
        ("offset", at(0, np.nan)), ("offset", lambda o: -o), ("rows", at(0, 1)),
        ("rows", lambda r: r[::-1]), ("beta", at(0, 9.0)), ("modes", lambda b: -b),
        ("optimum.x", at(0, -1.0)), ("optimum.x", at(0, 1e300)), ("optimum.trace", at(0, np.nan)),
        ("group0.codes", at(0, 11)), ("group0.codes", at(0, -1)), ("group0.codes", at(0, 99)),
        ("group0.combinations", at(0, 5)), ("X", lambda X: X[:, ::-1]), ("X", at((0, 1), 1e300)),
        ("block0.columns", lambda Z: Z * 2), ("block0.columns", lambda Z: Z * 0),
    ],
    "pedigree": [
        ("group0.sires", lambda s: np.arange(1, len(s) + 1)), ("group0.sires", at(0, 99)),
        ("group0.sires", lambda s: np.roll(np.arange(1, len(s) + 1), 1)),
        ("group0.sires", at(0, -1)), ("group0.sires", lambda s: s[:-1]),
        ("group0.dams", lambda d: d * 0), ("group0.dams", lambda d: d[::-1]),
    ],
    "precision": [
        ("group0.data", lambda d: -d), ("group0.data", lambda d: d * 0),
        ("group0.data", at(0, np.inf)), ("group0.data", at(1, 9.0)), ("group0.indices", at(0, 99)),
        ("group0.indptr", lambda p: p[::-1]), ("group0.indptr", at(-1, 0)),
        ("group0.indices", lambda i: i * 0), ("group0.data", lambda d: d * 4),
    ],
    "covariance": [
        ("group0.lower", at(0, -1.0)), ("group0.lower", lambda a: a * 0 + 1.0),
        ("group0.lower", at(1, 5.0)), ("group0.lower", lambda a: a[:-1]),
        ("group0.lower", lambda a: a * 4), ("group0.lower", at(2, np.nan)),
    ],
    "ar1": [
        ("residual.times", at(0, np.nan)), ("residual.times", lambda t: t * 0),
        ("residual.times", lambda t: t * 2), ("residual.codes", lambda c: c * 0),
        ("residual.columns", lambda c: np.ones((len(c), 1))), ("optimum.x", at(-1, 30.0)),
        ("weights", lambda w: w[::-1]),
    ],
    "us": [("visits.codes", lambda c: c * 0), ("visits.codes", lambda c: c[::-1])],
    "two columns": [
        ("trials", lambda t: -t), ("trials", at(0, 0.0)), 
        ("trials", lambda t: t[:-1]), ("y", lambda y: 1 - y),
        ("y", at(0, 1.5)), ("y", at(0, -0.5)), ("weights", lambda w: w * 2),
        ("hessian", lambda H: -H), ("hessian", lambda H: H * 4), ("hessian", lambda H: H * 0),
        ("hessian", at((0, 0), np.nan)), ("hessian", lambda H: H[:-1]), ("modes", lambda b: -b),
        ("u", lambda u: u[:-1]), ("u", at(0, np.inf)), ("optimum.x", at(0, 50.0)),
        ("optimum.x", at(-1, -0.5)), ("beta", at(0, 1.0)),
    ],
    "gamma": [("y", at(0, 0.0)), ("y", at(0, -1.0)), ("optimum.x", at(-1, 40.0))],
    "poisson": [("y", at(0, -1.0)), ("y", at(0, 0.5)), ("offset", lambda o: o + 1.0)],
    "chunks": [
        ("facts.basis", lambda R: R.T), ("facts.basis", lambda R: R * 0),
        ("facts.basis", lambda R: -R), ("facts.pair0.0.values", lambda v: -v),
        ("facts.pair0.0.rows", lambda r: r[::-1]), ("facts.pair0.0.cols", at(0, 3)),
        ("facts.ZtX", lambda Z: Z * 5), ("facts.Zty", lambda Z: -Z), ("facts.beta0", at(0, -1e308)),
        ("facts.cells0", lambda c: -c), ("facts.R", lambda R: R * 0), ("facts.R", lambda R: R.T),
    ],
    "sums": [
        ("facts.basis", lambda R: R * 0), ("facts.pair0.0.values", lambda v: -v),
        ("facts.pair0.0.values", lambda v: v * 0), ("facts.cells0", lambda c: -c),
        ("facts.ZtX", lambda Z: Z * 1e200), ("facts.beta0", at(0, 1e308)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_hold_something_else(kind: str, tmp_path: Path) -> None:
    for name, change in ARRAYS[kind]:
        meta, arrays = parts(saved(kind, tmp_path))
        values = change(np.load(io.BytesIO(arrays[name])))
        np.save(out := io.BytesIO(), np.ascontiguousarray(values))
        arrays[name] = out.getvalue()
        meta["arrays"][name].update(dtype=values.dtype.str, shape=list(values.shape))
        what = outcome(kind, signed(meta, arrays), tmp_path / "other")
        assert what == "refused", f"{name}, change {ARRAYS[kind].index((name, change))}: {what}"
