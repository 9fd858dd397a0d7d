"""The path of a data file, or the name of a shipped data set → a DataFrame."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.errors import DataError
from lmmsparse.data.datasets import DATASETS, load_dataset

COMPRESSIONS = (".gz", ".bz2", ".zip", ".xz", ".zst")
READABLE = "CSV (.csv), tab-separated (.tsv, .txt) and Parquet (.parquet, .pq) files"


def read_data(source: str, missing: Sequence[str] = ()) -> pd.DataFrame:
    """Read a file by its suffix, or load the shipped data set of that name.

    Parameters
    ----------
    source : str
        Path of a CSV, tab-separated or Parquet file (text files may be compressed), or a name such
        as ``"sleepstudy"`` when there is no such file.
    missing : sequence of str, optional
        What stands for a missing value in text files, besides what pandas takes for one.
    """
    path = Path(source)
    there = os.path.exists(source)  # False also for names that no file can have
    if "~" in source and not there:
        raise DataError(
            f"{source!r} is a formula, but stands where the data file belongs. Write lmmsparse "
            'fit "formula" file.'
        )
    if not there:
        if source in DATASETS or (not path.suffix and path.name == source):
            return load_dataset(source)
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
            f"{source!r} is a pipe or a device. Write the data to a file with a suffix first."
        )
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS]
    kind = suffixes[-1] if suffixes else ""
    try:
        if kind == ".csv":
            frame = _read_text(path, missing)
            if len(frame.columns) == 1 and ";" in str(frame.columns[0]):
                return _read_text(path, missing, sep=";", decimal=",")
            return frame
        if kind in (".tsv", ".txt"):
            return _read_text(path, missing, sep="\t")
        if kind in (".parquet", ".pq"):
            return _with_large_numbers(
                pd.read_parquet(path),
                lambda name: pd.read_parquet(path, columns=[name], dtype_backend="numpy_nullable"),
            )
    except ImportError as error:
        package, what = (
            ("pyarrow", "A Parquet file") if kind in (".parquet", ".pq") else ("zstandard", "This")
        )
        raise DataError(
            f"The file {source!r} cannot be read: {what} needs the package {package}, which is "
            f"not installed. Run `pip install {package}`, or give the data as plain CSV."
        ) from error
    except MemoryError as error:
        raise DataError(
            f"The file {source!r} does not fit into memory. Keep the columns and rows that the "
            "model needs."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"The file {source!r} is not UTF-8 text. Save it as UTF-8, for example as 'CSV UTF-8' "
            "in a spreadsheet program."
        ) from error
    except Exception as error:  # every reader and every kind of compression has its own
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(
            f"The file {source!r} cannot be read as {kind}. The reader says: {reason}. Check that "
            "it holds what its suffix says, one row per observation under a row of column names."
        ) from error
    raise DataError(
        f"The file {source!r} is of a kind that is not known. Save it as one of {READABLE}."
    )


def _read_text(path: Path, missing: Sequence[str], **options: Any) -> pd.DataFrame:
    options = {"na_values": [*missing], "low_memory": False, **options}
    return _with_large_numbers(
        pd.read_csv(path, **options),
        lambda name: pd.read_csv(path, usecols=[name], dtype={name: "Int64"}, **options),
    )


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
