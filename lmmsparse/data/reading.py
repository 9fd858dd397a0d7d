"""The path of a data file, standard input, or the name of a shipped data set → a DataFrame."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pandas as pd

from lmmsparse.common.errors import DataError, LmmWarning
from lmmsparse.common.findings import warn
from lmmsparse.data.datasets import DATASETS, load_dataset

COMPRESSIONS = (".gz", ".bz2", ".zip", ".xz", ".zst")
READABLE = (
    "CSV (.csv), tab-separated (.tsv, .txt), Parquet (.parquet, .pq), Feather (.feather), Excel "
    "(.xlsx, .xls, .ods), Stata (.dta) and SPSS (.sav) files"
)
# Suffix → what stands between the columns of a text file, if not said otherwise.
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
# Suffix → the package that pandas reads such a file with, and what the file is called.
_READERS = {
    ".parquet": ("pyarrow", "A Parquet file"),
    ".pq": ("pyarrow", "A Parquet file"),
    ".feather": ("pyarrow", "A Feather file"),
    ".xlsx": ("openpyxl", "An Excel file"),
    ".xls": ("xlrd", "An old Excel file"),
    ".ods": ("odfpy", "An OpenDocument file"),
    ".dta": ("pandas", "A Stata file"),
    ".sav": ("pyreadstat", "An SPSS file"),
    ".zsav": ("pyreadstat", "An SPSS file"),
}
_MISSING = ("", "NA")  # in a column of text
_HEAD = 4096  # bytes that show which encoding it is
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f]")


@dataclass(frozen=True)
class _Source:
    """What is read, from its beginning each time.

    Attributes
    ----------
    name : str
        As the user has it.
    kind : str
        A suffix in lower case.
    content : bytes or None
        Of standard input; None for a file.
    """

    name: str
    kind: str
    content: bytes | None = None

    @property
    def place(self) -> Any:
        return self.name if self.content is None else io.BytesIO(self.content)


def read_data(
    source: str,
    missing: Sequence[str] = (),
    *,
    encoding: str | None = None,
    sep: str | None = None,
) -> pd.DataFrame:
    """Read a file by its suffix, or load the shipped data set of that name.

    Parameters
    ----------
    source : str
        Path of a file (text files may be compressed), ``"-"`` for CSV from standard input, or a
        name such as ``"sleepstudy"`` when there is no such file.
    missing : sequence of str, optional
        What stands for a missing value in text and Excel files, besides what pandas takes for one.
    encoding : str, optional
        Of a text file. If not given, UTF-8; where it is not, what it is taken for is said.
    sep : str, optional
        What stands between the columns of a text file. If not given, a comma in CSV, a semicolon
        where that is what the first line has, and tabs otherwise.

    Returns
    -------
    DataFrame
        Text columns stay text; missing values are what pandas takes for missing.
    """
    found = _standard_input() if source == "-" else _file(source)
    if found is None:
        return load_dataset(source)
    sep = {"\\t": "\t", "tab": "\t"}.get(sep or "", sep)
    if sep is not None and len(sep) != 1:
        raise DataError(f"sep must be one character, or tab, not {sep!r}.")
    try:
        if found.kind in _SEPARATORS:
            return _read_text(found, missing, encoding, sep)
        if found.kind in _READERS:
            return _read_other(found, missing)
    except ImportError as error:
        package, what = _READERS.get(found.kind, ("zstandard", "This"))
        raise DataError(
            f"The file {source!r} cannot be read: {what} needs the package {package}, which is "
            f"not installed. Run `pip install {package}`, or give the data as plain CSV."
        ) from error
    except MemoryError as error:
        raise DataError(
            f"The file {source!r} does not fit into memory. Keep the columns and rows that the "
            "model needs."
        ) from error
    except LookupError as error:
        if encoding is None or "unknown encoding" not in str(error):
            raise _unreadable(found, error) from error
        raise DataError(
            f"There is no encoding {encoding!r}. Write, for example, utf-8, utf-16, cp1252 "
            "(Western Europe) or cp1250 (Central Europe)."
        ) from error
    except UnicodeError as error:
        advice = (
            f"is not text in the encoding {encoding}. Leave out --encoding to have it guessed, or "
            if encoding
            else "is not text in any encoding that was tried. "
        )
        raise DataError(
            f"The file {source!r} {advice}{'s' if encoding else 'S'}ave it as UTF-8, for example "
            "as 'CSV UTF-8' in a spreadsheet program."
        ) from error
    except Exception as error:  # every reader and every kind of compression has its own
        raise _unreadable(found, error) from error
    raise DataError(
        f"The file {source!r} is of a kind that is not known. Save it as one of {READABLE}."
    )


def _unreadable(found: _Source, error: Exception) -> DataError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return DataError(
        f"The file {found.name!r} cannot be read as {found.kind}. The reader says: {reason}. Check "
        "that it holds what its suffix says, one row per observation under a row of column names."
    )


def _standard_input() -> _Source:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise DataError("The standard input is closed. Name a data file instead of '-'.")
    content = stream.read()
    if not content:
        raise DataError(
            "Nothing came from the standard input. Send CSV text to it, as in `cat data.csv | "
            "lmmsparse fit ... -`."
        )
    return _Source("-", ".csv", content)


def _file(source: str) -> _Source | None:
    """A file that is there; None where the name can only be that of a data set."""
    path = Path(source)
    there = os.path.exists(source)  # False also for names that no file can have
    if "~" in source and not there:
        raise DataError(
            f"{source!r} is a formula, but stands where the data file belongs. Write lmmsparse "
            'fit "formula" file.'
        )
    if not there:
        if source in DATASETS or (not path.suffix and path.name == source):
            return None
        raise DataError(
            f"There is no file {source!r}. Name a file that exists, or one of the shipped data "
            "sets that `lmmsparse datasets` lists."
        )
    if path.is_dir():
        raise DataError(
            f"{source!r} is a directory. Name a file in it; several files are read by "
            "pyarrow.dataset or polars in Python."
        )
    if not path.is_file():
        raise DataError(
            f"{source!r} is a pipe or a device. Write - to read CSV from the standard input, or "
            "write the data to a file with a suffix first."
        )
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS]
    return _Source(source, suffixes[-1] if suffixes else "")


def _read_other(found: _Source, missing: Sequence[str]) -> pd.DataFrame:
    kind, place = found.kind, found.place
    if kind in (".parquet", ".pq"):
        return _with_large_numbers(
            pd.read_parquet(place),
            lambda name: pd.read_parquet(place, columns=[name], dtype_backend="numpy_nullable"),
        )
    if kind == ".feather":
        return _with_large_numbers(
            pd.read_feather(place),
            lambda name: pd.read_feather(place, columns=[name], dtype_backend="numpy_nullable"),
        )
    if kind == ".dta":
        return pd.read_stata(place)
    if kind in (".sav", ".zsav"):
        return pd.read_spss(place)
    return pd.read_excel(place, na_values=[*missing])


def _read_text(
    found: _Source, missing: Sequence[str], encoding: str | None, sep: str | None
) -> pd.DataFrame:
    if encoding is not None:
        return _decoded(found, missing, encoding, sep)
    for guess in _encodings(found):
        try:
            frame = _decoded(found, missing, guess, sep)
        except UnicodeError:
            continue
        if _has_control_characters(frame):
            continue
        if guess != "utf-8":
            warn(
                f"The file {found.name!r} is not UTF-8 and was read as {guess}. If letters are "
                "wrong, name its encoding (--encoding), or save it as UTF-8.",
                LmmWarning,
            )
        return frame
    raise UnicodeError


def _encodings(found: _Source) -> Sequence[str]:
    """What a text may be written in, in the order in which it is tried.

    UTF-16 without its mark shows by zeros in every other place, of digits and commas at least: any
    other text of an even number of bytes can be read as such, as letters of the Far East.
    """
    if found.name.lower().endswith(".zst"):
        return ("utf-8", "utf-16", "cp1252")
    with _unpacked(found) as stream:
        head = stream.read(_HEAD)
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return ("utf-16",)
    even, odd = (head[start::2].count(0) for start in (0, 1))
    if max(even, odd) > max(len(head) // 40, 10 * min(even, odd)):
        return ("utf-16-le" if odd > even else "utf-16-be",)
    return ("utf-8", "cp1252")


def _unpacked(found: _Source) -> IO[bytes]:
    """The bytes of a text."""
    if found.content is not None:
        return io.BytesIO(found.content)
    name, suffix = found.name, Path(found.name).suffix.lower()
    if suffix == ".zip":
        archive = zipfile.ZipFile(name)
        return archive.open(archive.namelist()[0])
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast(IO[bytes], openers.get(suffix, open)(name, "rb"))


def _has_control_characters(frame: pd.DataFrame) -> bool:
    """Whether this is no text: judged by the names and the first rows."""
    head = frame.head(100)
    words = [str(name) for name in frame.columns]
    text = [not pd.api.types.is_numeric_dtype(dtype) for dtype in head.dtypes]
    words += map(str, head.loc[:, text].to_numpy().ravel())
    return any(_CONTROL.search(word) is not None for word in words)


def _decoded(
    found: _Source, missing: Sequence[str], encoding: str, sep: str | None
) -> pd.DataFrame:
    options = {"na_values": [*missing], "low_memory": False, "encoding": encoding}
    between = _SEPARATORS[found.kind] if sep is None else sep
    frame = _separated(found, {**options, "sep": between})
    if sep is None and between == "," and len(frame.columns) == 1:
        between = next((each for each in ";\t" if each in str(frame.columns[0])), ",")
        if between != ",":
            frame = _separated(found, {**options, "sep": between})
    if between == ";" and _n_numbers(frame) < len(frame.columns):
        commas = _separated(found, {**options, "sep": ";", "decimal": ","})
        return commas if _n_numbers(commas) > _n_numbers(frame) else frame
    return frame


def _n_numbers(frame: pd.DataFrame) -> int:
    return sum(pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes)


def _separated(found: _Source, options: dict[str, Any]) -> pd.DataFrame:
    return _with_large_numbers(
        _with_words(found, pd.read_csv(found.place, **options), options),
        lambda name: pd.read_csv(found.place, usecols=[name], dtype={name: "Int64"}, **options),
    )


def _with_words(found: _Source, frame: pd.DataFrame, options: dict[str, Any]) -> pd.DataFrame:
    """Words as they are: in a column of text None or null is a level, as in R."""
    gaps = frame.isna().to_numpy()
    words = ~np.array([pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes], dtype=bool)
    text = np.flatnonzero(gaps.all(axis=0) | (words & gaps.any(axis=0))).tolist()
    if not text or len(frame.index.names) != 1 or frame.index.dtype != np.int64:
        return frame  # a column of row names moves the others
    own = {**options, "keep_default_na": False, "na_values": [*_MISSING, *options["na_values"]]}
    again = pd.read_csv(found.place, usecols=text, **own)
    for name in again.columns:
        frame[name] = again[name]
    return frame


def _with_large_numbers(frame: pd.DataFrame, read: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """Whole numbers with a gap as such, where doubles could not tell them apart."""
    for name in frame.columns[frame.dtypes == np.float64]:
        values = frame[name].dropna()
        if len(values) and values.abs().max() > 2**53 and (values % 1 == 0).all():
            try:
                frame[name] = read(name)[name].astype("Int64")
            except (TypeError, ValueError, OverflowError):  # written as 1e20: doubles
                continue
    return frame
