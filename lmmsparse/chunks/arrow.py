"""Parquet and CSV files, and Arrow data sets → batches; the only module that knows Arrow."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.chunks.batch import (
    Batch,
    Partition,
    Source,
    Stream,
    check_columns,
    grouped,
    number_of_parts,
)
from lmmsparse.common.errors import DataError, MissingPackageError
from lmmsparse.data.datasets import DATASETS
from lmmsparse.design import as_frame


def _dataset() -> Any:
    try:
        import pyarrow.dataset
    except ImportError as error:
        raise MissingPackageError(
            "Files are read in chunks with pyarrow, which is not installed: pip install pyarrow."
        ) from error
    return pyarrow.dataset


def _arrow() -> Any:
    _dataset()
    import pyarrow

    return pyarrow


def files_source(path: Any) -> ArrowSource:
    """Files of one name, of a pattern with * and ?, or in a directory."""
    text = str(path)
    if any(sign in text for sign in "*?["):
        found = sorted(glob.glob(text, recursive=True))
    elif Path(text).is_dir():
        found = sorted(str(each) for each in Path(text).rglob("*") if _kind(each.name))
    else:
        found = [text] if Path(text).exists() else []
    if not found:
        reader = "read_parquet" if _kind(text) == "parquet" else "read_csv"
        if text in DATASETS:
            raise DataError(
                f"There are no files {text!r}. The data set of this name is "
                f"lmm.load_dataset({text!r})."
            )
        raise DataError(
            f"There are no files {text!r}. Check the path, or read the data first, for example "
            f"with pandas.{reader}({text!r})."
        )
    kinds = {_kind(each) for each in found}
    if len(kinds) > 1 or None in kinds:
        raise DataError(
            f"{text!r} does not name files that are all Parquet, or all CSV, by the ends of their "
            "names. Name files of one of these kinds, for example 'folder/*.parquet'. Read others "
            "first, for example with pandas.read_feather."
        )
    return ArrowSource(
        tuple(f for each in found for f in _fragments(each, str(next(iter(kinds))))), text
    )


def _kind(name: str) -> str | None:
    low = name.lower()
    return next(
        (
            kind
            for kind, ends in (("parquet", (".parquet", ".pq")), ("csv", (".csv", ".csv.gz")))
            if low.endswith(ends)
        ),
        None,
    )


def _fragments(path: str, kind: str) -> list[Any]:
    dataset = _dataset()
    form: Any = kind
    if kind == "csv":
        import pyarrow.csv

        options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
        form = dataset.CsvFileFormat(convert_options=options)
    try:
        return list(dataset.dataset(path, format=form).get_fragments())
    except (OSError, ValueError) as error:
        raise DataError(f"{path!r} cannot be read: {error}. Check the file.") from error


def dataset_source(data: Any) -> Source:
    """A pyarrow Dataset; with a filter it is read from its beginning to its end."""
    try:
        fragments = tuple(data.get_fragments())
    except ValueError:
        return FilteredSource(data)
    return ArrowSource(fragments, "The data set", data.schema)


class FilteredSource:
    """A pyarrow Dataset with a filter."""

    what = "The data set"
    n_rows: int | None = None

    def __init__(self, data: Any) -> None:
        self._data = data
        self.names = tuple(data.schema.names)

    def count(self) -> int:
        return int(self._data.count_rows())

    def partitions(self, columns: Iterable[str], rows: int) -> list[Partition]:
        names = sorted(columns)

        def start() -> Iterator[Batch]:
            read = self._data.to_batches(columns=names, batch_size=rows, **_SLOWLY)
            return arrow_batches(read, rows)

        return [Stream(start)]


class ArrowSource:
    """Files of the same columns.

    Parameters
    ----------
    fragments : sequence
        Arrow's, one per file.
    schema : object, optional
        Arrow's, where the user has given one.
    """

    def __init__(self, fragments: Sequence[Any], what: str, schema: Any = None) -> None:
        self.what = what
        self._fragments, self._given = list(fragments), schema
        if not self._fragments:
            raise DataError(f"{what} has no files. Check how it was made.")
        try:
            self._schemas = [each.physical_schema for each in self._fragments]
        except (OSError, ValueError) as error:
            raise DataError(f"{what}: a file cannot be read: {error}. Check it.") from error
        first = self._schemas[0] if schema is None else schema
        self.names = tuple(first.names)

    @cached_property
    def n_rows(self) -> int | None:
        if any(not hasattr(f, "row_groups") for f in self._fragments):
            return None
        return int(sum(f.metadata.num_rows for f in self._fragments))

    def count(self) -> int:
        return sum(f.count_rows() for f in self._fragments)

    def partitions(self, columns: Iterable[str], rows: int) -> list[Partition]:
        names = sorted(columns)
        for fragment, schema in zip(self._fragments, self._schemas, strict=True):
            if self._given is None:
                check_columns(schema.names, names, f"{fragment.path} has")
        schema = self._unified(names)
        total = self.n_rows
        pieces, sizes = [], []
        for fragment in self._fragments:
            own = [fragment]
            if hasattr(fragment, "row_groups") and total:
                own = fragment.split_by_row_group()
            pieces += own
            counted = total is not None
            sizes += [sum(g.num_rows for g in each.row_groups) if counted else 1 for each in own]
        parts = number_of_parts(total, rows)
        return [
            ArrowPartition(tuple(pieces[i] for i in group), names, schema, rows)
            for group in grouped(sizes, parts)
        ]

    def _unified(self, names: Iterable[str]) -> Any:
        """One schema for all files, with types that hold the values of each."""
        pa = _arrow()
        if self._given is not None:
            return self._given
        fields = []
        for name in names:
            types = [s.field(name).type for s in self._schemas if name in s.names]
            try:
                fields.append(pa.field(name, _one_type(pa, types)))
            except (ValueError, TypeError) as error:
                other = next(i for i, each in enumerate(types) if each != types[0])
                raise DataError(
                    f"The column {name!r} is of type {types[0]} in {self._fragments[0].path} and "
                    f"of type {types[other]} in {self._fragments[other].path}. Make it one type "
                    "in all files."
                ) from error
        return pa.schema(fields)


def _one_type(pa: Any, types: Sequence[Any]) -> Any:
    """A type that holds the values of all; texts with and without a dictionary are texts."""
    if all(each == types[0] for each in types):
        return types[0]
    kinds = pa.types
    plain = [each.value_type if kinds.is_dictionary(each) else each for each in types]
    if all(kinds.is_string(t) or kinds.is_large_string(t) or kinds.is_null(t) for t in plain):
        return pa.string()
    if any(kinds.is_dictionary(each) for each in types):
        raise TypeError("levels and values")
    schemas = [pa.schema([pa.field("x", each)]) for each in types]
    return pa.unify_schemas(schemas, promote_options="permissive").field("x").type


# Two batches in memory, and not as many as the disk can give.
_SLOWLY = {"batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}


def _scanner(fragment: Any, names: list[str], schema: Any, rows: int) -> Any:
    return _dataset().Scanner.from_fragment(
        fragment, schema=schema, columns=names, batch_size=rows, **_SLOWLY
    )


@dataclass(frozen=True, eq=False)
class ArrowPartition:
    """Consecutive row groups."""

    fragments: tuple[Any, ...]
    names: list[str]
    schema: Any
    rows: int

    def batches(self) -> Iterator[Batch]:
        try:
            yield from arrow_batches(self._record_batches(), self.rows)
        except (OSError, ValueError) as error:
            if type(error).__module__.partition(".")[0] != "pyarrow":
                raise
            raise DataError(
                f"The files cannot be read: {error}. If a column of a CSV file changes its type "
                "on the way, name its types: pass pyarrow.dataset.dataset(path, schema=...), or "
                "write the data as Parquet."
            ) from error

    def _record_batches(self) -> Iterator[Any]:
        for fragment in self.fragments:
            scanner = _scanner(fragment, self.names, self.schema, self.rows)
            yield from scanner.to_batches()


def arrow_batches(record_batches: Iterable[Any], rows: int) -> Iterator[Batch]:
    """Batches of so many rows from Arrow's, which may be smaller or larger."""
    pa = _arrow()
    waiting: list[Any] = []
    count = 0
    for each in record_batches:
        waiting.append(each)
        count += len(each)
        while count >= rows:
            table = pa.Table.from_batches(waiting)
            yield arrow_batch(table.slice(0, rows))
            waiting = table.slice(rows).to_batches()
            count -= rows
    if count:
        yield arrow_batch(pa.Table.from_batches(waiting))


def arrow_batch(table: Any) -> Batch:
    """A batch of an Arrow table: no text is made for every row."""
    kinds = _arrow().types
    columns: dict[str, Any] = {}
    text, others = set(), []
    for name in table.schema.names:
        column = table.column(name)
        kind = column.type
        if kinds.is_string(kind) or kinds.is_large_string(kind) or str(kind) == "string_view":
            text.add(name)
            column = column.cast("large_string") if str(kind) == "string_view" else column
            columns[name] = _categorical(column.dictionary_encode())
        elif kinds.is_dictionary(kind) and not str(kind).startswith("dictionary<values=extension"):
            columns[name] = _categorical(column)
        elif kinds.is_integer(kind) and column.null_count:
            zero = np.array(column.fill_null(0).to_numpy())
            columns[name] = pd.arrays.IntegerArray(zero, np.array(column.is_null().to_numpy()))
        elif kinds.is_integer(kind) or kinds.is_floating(kind):
            columns[name] = column.to_numpy()
        else:
            others.append(name)
            columns[name] = None
    if others:
        frame = as_frame(table.select(others))
        columns.update({name: frame[name] for name in others})
    return Batch(pd.DataFrame(columns, index=pd.RangeIndex(len(table))), frozenset(text))


def _categorical(column: Any) -> pd.Categorical:
    """A dictionary-encoded column of Arrow's, its parts with one dictionary."""
    column = column.unify_dictionaries().combine_chunks()
    if hasattr(column, "chunks"):  # of several parts still, or of none
        column = column.chunk(0) if column.num_chunks else column
    labels = pd.Index(column.dictionary.to_pandas())
    codes = column.indices
    codes = codes.fill_null(-1) if codes.null_count else codes
    return pd.Categorical.from_codes(
        codes.to_numpy(zero_copy_only=False), labels, ordered=column.type.ordered, validate=False
    )
