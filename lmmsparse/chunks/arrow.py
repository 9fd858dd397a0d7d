"""Parquet and CSV files, and Arrow data sets → batches; the only module that knows Arrow."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

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
    reading,
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
    """Files of one name, of a pattern with * and ?, in a directory, or of a list of all these."""
    if isinstance(path, (list, tuple)):
        text, found = f"The list of {len(path)} paths", [f for each in path for f in _found(each)]
    else:
        text, found = str(path), _found(path)
    kinds = {_kind(each) for each in found}
    if len(kinds) > 1 or None in kinds:
        raise DataError(
            f"{text!r} does not name files that are all Parquet, or all CSV, by the ends of their "
            "names. Name files of one of these kinds, for example 'folder/*.parquet'. Read others "
            "first, for example with pandas.read_feather."
        )
    kind = str(next(iter(kinds)))
    keys = _keys(found)
    if not keys:
        return ArrowSource([f for each in found for f in _fragments(each, kind)], text)
    dataset, form = _dataset(), _format(kind)
    try:
        named = dataset.partitioning(flavor="hive")
        whole = dataset.dataset(found, format=form, partitioning=named)
    except (OSError, ValueError) as error:
        raise DataError(f"{text} cannot be read: {error}. Check the files.") from error
    fields = [whole.schema.field(key) for key in keys]
    return ArrowSource(list(whole.get_fragments()), text, keys=fields)


def _found(path: Any) -> list[str]:
    """The files that a path names."""
    text = os.path.expanduser(str(path))
    if text.startswith("file://"):
        text = url2pathname(urlsplit(text).path)
    if "://" in text:
        raise DataError(
            f"{text!r} is the address of another machine. Pass a data set, for example "
            f"pyarrow.dataset.dataset({text!r})."
        )
    if Path(text).is_dir():
        found = _in_directory(Path(text))
    elif Path(text).exists():
        found = [text]
    else:
        matches = (Path(each) for each in sorted(glob.glob(text, recursive=True)))
        found = [f for m in matches for f in (_in_directory(m) if m.is_dir() else [str(m)])]
        found = list(dict.fromkeys(found))
    if not found and text in DATASETS:
        raise DataError(
            f"There are no files {text!r}. The data set of this name is lmm.load_dataset({text!r})."
        )
    if not found:
        reader = "read_parquet" if _kind(text) == "parquet" else "read_csv"
        raise DataError(
            f"There are no files {text!r}. Check the path, or read the data first, for example "
            f"with pandas.{reader}({text!r})."
        )
    return found


def _in_directory(folder: Path) -> list[str]:
    """Its Parquet and CSV files, without those that others keep for themselves."""
    found = (each for each in folder.rglob("*") if _kind(each.name) and each.is_file())
    own = (each for each in found if not _is_hidden(each.relative_to(folder)))
    return sorted(map(str, own))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) and "=" not in part for part in path.parts)


def _keys(files: Sequence[str]) -> list[str]:
    """Columns whose values are in the names of directories, such as year=2024/part.parquet."""
    common: list[str] | None = None
    for each in files:
        own = [part.partition("=")[0] for part in Path(each).parts[:-1] if "=" in part[1:]]
        common = own if common is None else [key for key in common if key in own]
    return list(dict.fromkeys(common or []))


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
    try:
        return list(_dataset().dataset(path, format=_format(kind)).get_fragments())
    except (OSError, ValueError) as error:
        raise DataError(f"{path!r} cannot be read: {error}. Check the file.") from error


def _format(kind: str) -> Any:
    if kind != "csv":
        return kind
    dataset = _dataset()
    import pyarrow.csv

    options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
    return dataset.CsvFileFormat(convert_options=options)


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

        return [Stream(start, self.what)]


class ArrowSource:
    """Files of the same columns.

    Parameters
    ----------
    fragments : sequence
        Arrow's, one per file.
    schema : object, optional
        Arrow's, where the user has given one.
    keys : sequence
        Arrow's fields that are in the names of directories and not in the files.
    """

    def __init__(
        self, fragments: Sequence[Any], what: str, schema: Any = None, keys: Sequence[Any] = ()
    ) -> None:
        self.what = what
        self._fragments, self._given = list(fragments), schema
        if not self._fragments:
            raise DataError(f"{what} has no files. Check how it was made.")
        try:
            self._schemas = [each.physical_schema for each in self._fragments]
        except (OSError, ValueError) as error:
            raise DataError(f"{what}: a file cannot be read: {error}. Check it.") from error
        first = self._schemas[0] if schema is None else schema
        self._keys = {f.name: f for f in keys if all(f.name not in s.names for s in self._schemas)}
        self.names = tuple(dict.fromkeys([*first.names, *self._keys]))

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
            there = {*schema.names, *self._keys, *self._without(fragment)}
            check_columns(there, names, f"{fragment.path} has")
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

    def _without(self, fragment: Any) -> list[str]:
        """Columns of the user's schema that a file need not have."""
        if self._given is None:
            return []
        keys = _dataset().get_partition_keys(fragment.partition_expression)
        nowhere = {n for n in self._given.names if all(n not in s.names for s in self._schemas)}
        return [*keys, *nowhere]

    def _unified(self, names: Iterable[str]) -> Any:
        """One schema for all files, with types that hold the values of each."""
        pa = _arrow()
        if self._given is not None:
            return self._given
        fields = []
        for name in names:
            if name in self._keys:
                fields.append(self._keys[name])
                continue
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
        return reading(
            lambda: arrow_batches(self._record_batches(), self.rows),
            "The files",
            "Check that they are there, whole, and as they were when the model was called for. "
            "Where columns differ in type, or a CSV file changes a type on the way, name the "
            "types: pass pyarrow.dataset.dataset(path, schema=...).",
        )

    def _record_batches(self) -> Iterator[Any]:
        for fragment in self.fragments:
            scanner = _scanner(fragment, self.names, self.schema, self.rows)
            yield from scanner.to_batches()
        _arrow().default_memory_pool().release_unused()


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
