"""One model from every kind of source, and what is said of sources that cannot be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from chunked import CHUNKS, FORMULA, crossed, same_fit

import lmmsparse as lmm
from lmmsparse.chunks import choose

duckdb = pytest.importorskip("duckdb")

DATA = crossed(3000, groups=80)
MEMORY = lmm.lmer(FORMULA, DATA)
TEXT = DATA.assign(k=DATA["k"].astype(str))  # categories have an order of their own


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for i in range(3):
        part = DATA.iloc[1000 * i : 1000 * (i + 1)]
        part.to_parquet(folder / f"part{i}.parquet", row_group_size=300)
    DATA.to_csv(folder / "all.csv", index=False)
    return folder


def _dask(frame: pd.DataFrame) -> Any:
    return pytest.importorskip("dask.dataframe").from_pandas(frame, npartitions=5)


SOURCES: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "pattern": (lambda f: str(f / "part*.parquet"), True),
    "path": (lambda f: f / "all.csv", False),
    "dataset": (lambda f: ds.dataset([str(f / f"part{i}.parquet") for i in range(3)]), True),
    "scan": (lambda f: pl.scan_parquet(f / "part*.parquet"), False),
    "lazy": (lambda f: pl.from_pandas(TEXT).lazy(), False),
    "relation": (lambda f: duckdb.sql(f"SELECT * FROM '{f}/part*.parquet'"), False),
    "dask": (lambda f: _dask(DATA), True),
    "dask text": (lambda f: _dask(TEXT), False),
    "pandas": (lambda f: DATA, True),
    "polars": (lambda f: pl.from_pandas(DATA), False),
    "arrow": (lambda f: pa.Table.from_pandas(DATA), True),
}


def _pieces(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    return (frame.iloc[i : i + 700] for i in range(0, len(frame), 700))


SOURCES["batches"] = (lambda f: lmm.Batches(lambda: _pieces(DATA)), True)
SOURCES["record batches"] = (
    lambda f: lmm.Batches(lambda: pq.ParquetFile(f / "whole.parquet").iter_batches(500)),
    True,
)


@pytest.mark.parametrize("name", SOURCES)
def test_sources_give_the_same_model(name: str, files: Path) -> None:
    if name == "record batches":
        DATA.to_parquet(files / "whole.parquet")
    make, categories = SOURCES[name]
    reference = MEMORY if categories else lmm.lmer(FORMULA, TEXT)
    found = lmm.lmer(FORMULA, make(files), chunks=CHUNKS)
    same_fit(found, reference)
    assert str(found) == str(reference)
    again = pd.concat(list(found.predict_batches(make(files), rows=700)))
    np.testing.assert_allclose(again, reference.fitted, rtol=1e-6)


def test_a_path_is_read_in_chunks(files: Path) -> None:
    m = lmm.lmer(FORMULA, str(files / "part*.parquet"))
    assert m.fit.design.facts is not None
    same_fit(m, MEMORY)


@pytest.mark.parametrize("name", ["dataset", "scan", "relation"])
def test_sources_that_fit_in_memory_are_read_into_it(
    name: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SOURCES[name][0](files)
    m = lmm.lmer(FORMULA, source)
    assert m.fit.design.facts is None
    said = {f.code: f for f in m.convergence.findings}
    assert said["read-in-memory"].level == "info"
    monkeypatch.setattr(choose, "free_memory", lambda: 1e6)
    m = lmm.lmer(FORMULA, source)
    assert m.fit.design.facts is not None
    assert "read-in-chunks" in {f.code for f in m.convergence.findings}


def test_a_filtered_dataset(files: Path) -> None:
    data = ds.dataset(str(files / "part0.parquet")).filter(ds.field("x") > 4)
    reference = lmm.lmer("y ~ x + (1 | g)", DATA.iloc[:1000].query("x > 4"))
    same_fit(lmm.lmer("y ~ x + (1 | g)", data, chunks=CHUNKS), reference)


def _write(folder: Path, *frames: pd.DataFrame) -> str:
    for i, frame in enumerate(frames):
        frame.to_parquet(folder / f"p{i}.parquet")
    return str(folder / "*.parquet")


def test_types_that_differ_between_files(tmp_path: Path) -> None:
    first, second = DATA.iloc[:1500], DATA.iloc[1500:]
    whole = first.assign(x=first["x"].round().astype("int32"), f=first["f"].astype("category"))
    path = _write(tmp_path, whole, second.assign(g=second["g"].astype("int32")))
    reference = lmm.lmer("y ~ x + f + (1 | g)", pd.concat([whole.assign(f=first["f"]), second]))
    same_fit(lmm.lmer("y ~ x + f + (1 | g)", path), reference)
    path = _write(tmp_path, first, second.assign(g=second["g"].astype(str)))
    with pytest.raises(lmm.DataError, match=r"'g' is of type int64 in .*p0.* and of type .*string"):
        lmm.lmer("y ~ x + (1 | g)", path)


def test_a_column_that_one_file_lacks(tmp_path: Path) -> None:
    path = _write(tmp_path, DATA.iloc[:1500], DATA.iloc[1500:].drop(columns="x"))
    with pytest.raises(lmm.DataError, match=r"p1.parquet has no column 'x'"):
        lmm.lmer("y ~ x + (1 | g)", path)
    same_fit(lmm.lmer("y ~ f + (1 | g)", path), lmm.lmer("y ~ f + (1 | g)", DATA))


def test_empty_files(tmp_path: Path) -> None:
    path = _write(tmp_path, DATA.iloc[:0], DATA, DATA.iloc[:0])
    same_fit(lmm.lmer("y ~ x + f + (1 | g)", path), lmm.lmer("y ~ x + f + (1 | g)", DATA))
    (tmp_path / "p3.parquet").touch()
    with pytest.raises(lmm.DataError, match=r"p3.parquet"):
        lmm.lmer("y ~ x + (1 | g)", path)
    with pytest.raises(lmm.DataError, match="no rows"):
        lmm.lmer("y ~ x + (1 | g)", str(tmp_path / "p0.parquet"))
    with pytest.raises(lmm.DataError, match="no files"):
        lmm.lmer("y ~ x + (1 | g)", str(tmp_path / "nothing*.parquet"))


def test_levels_in_the_last_file_only(tmp_path: Path) -> None:
    last = DATA.iloc[2000:].copy()
    last.loc[last.index[:40], "h"] = "a late item"
    last.loc[last.index[30:70], "f"] = "late"
    last.loc[last.index[:30], "g"] = 5
    frames = [DATA.iloc[:1000], DATA.iloc[1000:2000], last]
    path = _write(tmp_path, *frames)
    formula = "y ~ x + f + (1 + x | g) + (1 | h)"
    same_fit(lmm.lmer(formula, path, chunks=CHUNKS), lmm.lmer(formula, pd.concat(frames)))


def test_what_can_be_read_once() -> None:
    with pytest.raises(lmm.DataError, match=r"lmm\.Batches"):
        lmm.lmer("y ~ x + (1 | g)", _pieces(DATA))
    with pytest.raises(lmm.OptionError, match="function"):
        lmm.Batches(_pieces(DATA))  # type: ignore[arg-type]
    once = _pieces(DATA)
    with pytest.raises(lmm.DataError):
        lmm.lmer("y ~ x + (1 | g)", lmm.Batches(lambda: once))
    with pytest.raises(lmm.DataError, match="not batches"):
        lmm.lmer("y ~ x + (1 | g)", lmm.Batches(lambda: DATA))


@pytest.mark.parametrize("change", ["rows", "response", "levels"])
def test_a_source_that_changes_between_the_passes(change: str) -> None:
    calls = []

    def batches() -> Iterator[pd.DataFrame]:
        calls.append(1)
        data = DATA
        if len(calls) > 2:  # the first is for the names
            data = {
                "rows": DATA.iloc[:-5],
                "response": DATA.assign(y=DATA["y"] + 1e-4),
                "levels": DATA.assign(g=DATA["g"] + 1),
            }[change]
        return _pieces(data)

    with pytest.raises(lmm.DataError, match="has changed between"):
        lmm.lmer("y ~ x + (1 | g)", lmm.Batches(batches))


def test_columns_of_mixed_types() -> None:
    parts = [DATA.iloc[:1500], DATA.iloc[1500:].assign(g=DATA["g"].astype(str))]
    with pytest.raises(lmm.DataError, match="'g' holds"):
        lmm.lmer("y ~ x + (1 | g)", lmm.Batches(lambda: parts))


def test_generalized_models_are_not_read_in_chunks(files: Path) -> None:
    sources = [str(files / "part0.parquet"), lmm.Batches(lambda: _pieces(DATA))]
    for source in [*sources, _dask(DATA)]:
        with pytest.raises(lmm.DataError, match=r"lmm.glmer does not read"):
            lmm.glmer("k ~ x + (1 | g)", source, "binomial")


def test_messages_about_data_say_what_they_are(files: Path) -> None:
    with pytest.raises(lmm.DataError, match=r"pandas.read_parquet\('x.parquet'\)"):
        lmm.build_design("y ~ x + (1 | g)", "x.parquet")
    with pytest.raises(lmm.DataError, match="DuckDB connection"):
        lmm.lmer("y ~ x + (1 | g)", duckdb.connect())
    with pytest.raises(lmm.DataError, match=r"pyarrow.*ParquetFile"):
        lmm.lmer("y ~ x + (1 | g)", pq.ParquetFile(files / "part0.parquet"))
    with pytest.raises(lmm.DataError, match="Dask DataFrame"):
        lmm.build_design("y ~ x + (1 | g)", _dask(DATA))
    with pytest.raises(lmm.DataError, match=r"lmm.Batches\(lambda: tables\)"):
        lmm.lmer("y ~ x + (1 | g)", [DATA, DATA])


def test_values_that_change_between_the_passes() -> None:
    other = {
        "x": lambda d: d.assign(x=d["x"].to_numpy()[::-1]),
        "g": lambda d: d.assign(g=d["g"].to_numpy()[::-1]),
        "f": lambda d: d.assign(f=d["f"].map({"a": "b", "b": "c", "c": "a"})),
        "w": lambda d: d.assign(w=d["w"].to_numpy()[::-1]),
    }
    for name, change in other.items():
        calls: list[int] = []

        def batches(calls: list[int] = calls, change: Any = change) -> Iterator[pd.DataFrame]:
            calls.append(1)
            return _pieces(DATA if len(calls) <= 2 else change(DATA))

        with pytest.raises(lmm.DataError, match=f"other values of '{name}"):
            lmm.lmer("y ~ x + f + (1 | g)", lmm.Batches(batches), weights="w")


@pytest.mark.parametrize("kind", ["pattern", "dataset", "scan", "relation", "dask"])
def test_a_file_that_is_gone_when_it_is_read_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmmsparse.chunks import design

    path = _write(tmp_path, DATA.iloc[:1500], DATA.iloc[1500:])
    source = {
        "pattern": lambda: path,
        "dataset": lambda: ds.dataset(str(tmp_path)),
        "scan": lambda: pl.scan_parquet(path),
        "relation": lambda: duckdb.sql(f"SELECT * FROM '{path}'"),
        "dask": lambda: pytest.importorskip("dask.dataframe").read_parquet(path),
    }[kind]()
    plan_of = design.plan_of

    def broken(*args: Any) -> Any:
        (tmp_path / "p1.parquet").write_bytes(b"")
        return plan_of(*args)

    monkeypatch.setattr(design, "plan_of", broken)
    with pytest.raises(lmm.DataError, match="cannot be read"):
        lmm.lmer("y ~ x + (1 | g)", source, chunks=CHUNKS)


def test_where_files_lie(tmp_path: Path) -> None:
    reference = lmm.lmer("y ~ x + f + (1 | g)", DATA)
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    DATA.iloc[:1500].to_parquet(tmp_path / "deep" / "a[1].parquet")
    DATA.iloc[1500:].to_parquet(folder / "b.PARQUET")
    for name in ("_metadata.parquet", ".part.parquet"):
        DATA.to_parquet(tmp_path / "deep" / name)
    paths = [tmp_path / "deep" / "a[1].parquet", str(folder)]
    for source in (tmp_path / "deep", (tmp_path / "deep").as_uri(), paths):
        same_fit(lmm.lmer("y ~ x + f + (1 | g)", source), reference)
    with pytest.raises(lmm.DataError, match=r"pyarrow.dataset.dataset\('s3://bucket"):
        lmm.lmer("y ~ x + (1 | g)", "s3://bucket/file.parquet")


@pytest.mark.parametrize("key", ["f", "g"])
def test_columns_in_the_names_of_directories(key: str, tmp_path: Path) -> None:
    pq.write_to_dataset(pa.Table.from_pandas(DATA), str(tmp_path / "d"), partition_cols=[key])
    for path in ("d", "d/*/*.parquet"):
        m = lmm.lmer("y ~ x + f + (1 | g)", str(tmp_path / path))
        same_fit(m, lmm.lmer("y ~ x + f + (1 | g)", DATA))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint64", "float32", "datetime64[ms, UTC]"])
def test_labels_of_many_types(dtype: str) -> None:
    numbers = (DATA["g"] - 1003) // 7 * 3
    numbers = numbers - 128 if dtype == "int8" else numbers
    numbers = numbers.astype("uint64") + np.uint64(2**63) if dtype == "uint64" else numbers
    data = DATA.assign(
        g=pd.to_datetime(numbers, unit="D", utc=True) if "date" in dtype else numbers
    )
    data["g"] = data["g"].astype(dtype)
    formula = "y ~ x + (1 | g) + (1 | h)"
    same_fit(lmm.lmer(formula, data, chunks=CHUNKS), lmm.lmer(formula, data))


def test_labels_that_have_lost_digits(tmp_path: Path) -> None:
    DATA.assign(g=DATA["g"].astype("uint64") + np.uint64(2**63)).to_csv(tmp_path / "a.csv")
    with pytest.raises(lmm.DataError, match="do not tell neighbours apart"):
        lmm.lmer("y ~ x + (1 | g)", tmp_path / "a.csv")


def test_odd_batches() -> None:
    twice = pd.concat([DATA, DATA[["x"]]], axis=1)
    for source in (lmm.Batches(lambda: [twice]), twice):
        with pytest.raises(lmm.DataError, match="more than one column named 'x'"):
            lmm.lmer("y ~ x + (1 | g)", source, chunks=CHUNKS)
    lists = DATA.assign(g=DATA["g"].map(lambda v: [v]))
    with pytest.raises(lmm.DataError, match="cannot be levels"):
        lmm.lmer("y ~ x + (1 | g)", lmm.Batches(lambda: [lists]))
    with pytest.raises(lmm.OptionError, match="must not need arguments"):
        lmm.Batches(lambda path: [path])  # type: ignore[arg-type, misc]
    exact = DATA.assign(x=[Decimal(str(round(v, 3))) for v in DATA["x"]])
    m = lmm.lmer("y ~ x + (1 | g)", lmm.Batches(lambda: _pieces(exact)))
    same_fit(m, lmm.lmer("y ~ x + (1 | g)", exact))
