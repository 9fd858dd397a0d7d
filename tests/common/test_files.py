"""Where files are written: whole or not at all, and nothing else is left."""

from __future__ import annotations

import gzip
import io
import os
import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import lmmsparse as lmm
from lmmsparse.common.files import write_whole

FORMULA = "Reaction ~ Days + (Days | Subject)"


@cache
def model() -> lmm.LinearMixedModel:
    return lmm.lmer(FORMULA, lmm.load_dataset("sleepstudy"))


@cache
def sums() -> Any:
    return lmm.cross_products(FORMULA, lmm.load_dataset("sleepstudy"))


WRITERS: dict[str, Callable[[Any], Any]] = {
    "model": lambda path: model().save(path),
    "sums": lambda path: sums().save(path),
    "table": lambda path: model().coef_table().to_csv(path),
    "variances": lambda path: model().varcorr.to_csv(path),
    "comparison": lambda path: lmm.compare(model()).to_csv(path),
}
PLACES: dict[str, Callable[[Path], Any]] = {
    "a directory": lambda folder: folder,
    "a directory to be": lambda folder: f"{folder}/new/",
    "no directory": lambda folder: folder / "none" / "m",
    "below a file": lambda folder: folder / "old" / "m",
    "a zero": lambda folder: f"{folder}/a\0b",
    "half a character": lambda folder: f"{folder}/a\ud800b",
    "a long name": lambda folder: folder / ("a" * 300),
    "a loop of links": lambda folder: folder / "loop",
    "a pipe": lambda folder: folder / "pipe",
    "no path": lambda folder: 3,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_places_where_nothing_can_be_written(writer: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    for name, place in PLACES.items():
        with pytest.raises(lmm.StorageError):
            WRITERS[writer](place(tmp_path))
        assert sorted(os.listdir(tmp_path)) == before, name


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_keeps_its_links_and_its_mode(writer: str, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o4640)
    link.symlink_to(target.name)
    with target.open() as reading:
        WRITERS[writer](link)
        assert reading.read() == "old"
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(28, "No space left")])
def test_what_was_there_stays_when_writing_ends_early(error: Any, tmp_path: Path) -> None:
    def write(file: Any) -> None:
        file.write(b"half")
        raise error

    (path := tmp_path / "old").write_text("old")
    with pytest.raises(lmm.StorageError if isinstance(error, OSError) else error):
        write_whole(path, write)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["old"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="of Linux")
def test_a_model_does_not_take_the_place_of_an_open_file(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out, pytest.raises(lmm.StorageError, match="open file"):
        model().save(f"/dev/fd/{out.fileno()}")
    with (tmp_path / "out").open("w") as out:
        model().coef_table().to_csv(f"/dev/fd/{out.fileno()}")
    assert (tmp_path / "out").read_text() == model().coef_table().to_csv()


def test_csv_is_written_as_it_is_returned(tmp_path: Path) -> None:
    table = model().coef_table()
    for name, read in (
        ("a.csv", Path.read_bytes),
        ("a.csv.gz", lambda p: gzip.decompress(p.read_bytes())),
    ):
        assert table.to_csv(tmp_path / name) is None
        assert read(tmp_path / name).decode() == table.to_csv()
    table.to_csv(buffer := io.StringIO())
    assert buffer.getvalue() == table.to_csv()
