"""Whatever table the data come in, the model is the same, and the index is that of the data."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.cli.main import main
from lmmsparse.common.errors import DataError
from lmmsparse.data.reading import read_data

pa = pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")

FORMULA = "size ~ dose * arm + (dose | site)"
N = 120


def table(**change: Any) -> pd.DataFrame:
    """Text, numbers, whole numbers, truth values and dates."""
    rng = np.random.default_rng(11)
    site = rng.integers(0, 12, N)
    frame = pd.DataFrame(
        {
            "dose": rng.normal(size=N),
            "arm": np.array(["low", "high", "none"])[rng.integers(0, 3, N)],
            "site": np.array([f"s{i:02}" for i in range(12)])[site],
            "count": rng.integers(0, 9, N),
            "old": rng.random(N) < 0.4,
            "day": pd.Timestamp("2024-03-01") + pd.to_timedelta(rng.integers(0, 90, N), "D"),
        }
    )
    slope = rng.normal(size=12)
    frame["size"] = 3 + (1 + slope[site]) * frame["dose"] + rng.normal(size=12)[site]
    frame["size"] += (frame["arm"] == "low") + 0.5 * frame["old"] + rng.normal(size=N)
    return frame.assign(**change)


def same(m: lmm.LinearMixedModel, want: lmm.LinearMixedModel) -> None:
    assert m.fixef.index.tolist() == want.fixef.index.tolist()
    np.testing.assert_allclose(m.fixef, want.fixef, rtol=1e-9)
    np.testing.assert_allclose(m.theta, want.theta, rtol=1e-7)
    for group, effects in want.ranef.items():
        assert [str(v) for v in m.ranef[group].index] == [str(v) for v in effects.index]


_OPEN = []  # a relation of an older DuckDB dies with the last name of its connection


def _connection() -> Any:
    _OPEN.append(pytest.importorskip("duckdb").connect())
    return _OPEN[-1]


def duck(frame: pd.DataFrame) -> Any:
    connection = _connection()
    connection.register("frame", frame)
    return connection.sql("SELECT * FROM frame")


def duck_result(frame: pd.DataFrame) -> Any:
    connection = _connection()
    connection.register("frame", frame)
    return connection.execute("SELECT * FROM frame")


SOURCES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "polars": pl.from_pandas,
    "polars lazy": lambda frame: pl.from_pandas(frame).lazy(),
    "polars categories": lambda frame: pl.from_pandas(frame).with_columns(
        pl.col("arm", "site").cast(pl.Categorical)
    ),
    "polars enum": lambda frame: pl.from_pandas(frame).with_columns(
        pl.col("arm").cast(pl.Enum(["high", "low", "none"]))
    ),
    "pyarrow": pa.Table.from_pandas,
    "pyarrow batch": pa.RecordBatch.from_pandas,
    "pyarrow stream": lambda frame: pa.Table.from_pandas(frame).to_reader(),
    "pyarrow dictionaries": lambda frame: pa.Table.from_pandas(
        frame.assign(arm=frame["arm"].astype("category"), site=frame["site"].astype("category"))
    ),
    "pandas on Arrow": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "pandas nullable": lambda frame: frame.convert_dtypes(),
    "DuckDB relation": duck,
    "DuckDB result": duck_result,
    "records": lambda frame: frame.to_dict("records"),
    "numpy records": lambda frame: frame.to_records(index=False),
    "mapping": lambda frame: {name: frame[name].to_numpy() for name in frame},
    "mapping of lists": lambda frame: {name: frame[name].tolist() for name in frame},
    "objects": lambda frame: frame.astype(object),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("formula", [FORMULA, "size ~ count + old + (1 | site:arm)"])
def test_every_table_gives_the_same_model(source: str, formula: str) -> None:
    want = lmm.lmer(formula, table())
    data = SOURCES[source](table())
    m = lmm.lmer(formula, data)
    same(m, want)
    new = SOURCES[source](table().head(9))
    np.testing.assert_allclose(m.predict(new), want.fitted.iloc[:9], rtol=1e-7)


@pytest.mark.parametrize("source", [s for s in SOURCES if "enum" not in s])
def test_missing_values_are_missing_in_every_table(source: str) -> None:
    frame = table()
    for j, name in enumerate(["dose", "arm", "site", "size"]):
        frame.loc[7 * j, name] = None
    want = lmm.lmer(FORMULA, frame.dropna())
    m = lmm.lmer(FORMULA, SOURCES[source](frame))
    assert m.nobs == N - 4
    same(m, want)


def test_a_data_set_of_several_files(tmp_path: Path) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    for part in range(3):
        table().iloc[40 * part : 40 * (part + 1)].to_parquet(tmp_path / f"{part}.parquet")
    same(lmm.lmer(FORMULA, dataset.dataset(tmp_path)), lmm.lmer(FORMULA, table()))


# Columns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_categories_keep_their_order(ordered: bool) -> None:
    levels = ["none", "low", "high", "never"]
    arm = pd.Categorical(table()["arm"], levels, ordered=ordered)
    m = lmm.lmer("size ~ arm + (1 | site)", table(arm=arm))
    assert m.fixef.index.tolist() == ["Intercept", "arm[T.low]", "arm[T.high]"]
    assert lmm.lmer("size ~ 1 + (1 | arm)", table(arm=arm)).ranef["arm"].index.tolist() == [
        "none",
        "low",
        "high",
    ]


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "int8", "uint64", "float32"])
def test_numbers_of_any_kind(dtype: str) -> None:
    m = lmm.lmer("size ~ count + (1 | site)", table(count=table()["count"].astype(dtype)))
    same(m, lmm.lmer("size ~ count + (1 | site)", table()))


@pytest.mark.parametrize("dtype", ["bool", "boolean", object])
def test_truth_values_are_factors(dtype: Any) -> None:
    m = lmm.lmer("size ~ old + (1 | site)", table(old=table()["old"].astype(dtype)))
    assert m.fixef.index.tolist() == ["Intercept", "old[T.True]"]
    with_numbers = lmm.lmer("size ~ x + (1 | site)", table(x=table()["old"].astype(float)))
    np.testing.assert_allclose(m.fixef, with_numbers.fixef, rtol=1e-9)


def test_dates_are_numbers_once_they_are_days() -> None:
    days = (table()["day"] - pd.Timestamp("2024-01-01")).dt.days
    want = lmm.lmer("size ~ days + (1 | site)", table(days=days))
    start = pd.Timestamp("2024-01-01")
    m = lmm.lmer(
        "size ~ since(day) + (1 | site)",
        table(),
        context={"since": lambda day: (day - start).dt.days},
    )
    np.testing.assert_allclose(m.fixef, want.fixef, rtol=1e-9)
    np.testing.assert_allclose(m.predict(table().head(3)), want.fitted.iloc[:3], rtol=1e-9)
    with pytest.raises(DataError, match="days since the start"):
        lmm.lmer("size ~ day + (1 | site)", table())


NAMES = {"size": "Größe (cm)", "dose": "剂量", "arm": "my arm", "site": "lieu d'étude"}


def test_names_with_spaces_signs_and_letters_of_any_script() -> None:
    frame = table().rename(columns=NAMES).replace({"my arm": {"low": "niedrig – ü"}})
    m = lmm.lmer("`Größe (cm)` ~ 剂量 * `my arm` + (剂量 | `lieu d'étude`)", frame)
    want = lmm.lmer(FORMULA, table())
    np.testing.assert_allclose(m.loglik, want.loglik, rtol=1e-10)
    assert "剂量:my arm[T.niedrig – ü]" in m.fixef.index
    assert list(m.ranef) == ["lieu d'étude"]
    np.testing.assert_allclose(m.predict(frame.head(5)), want.fitted.iloc[:5], rtol=1e-6)
    assert "剂量" in str(m.summary())
    assert m.emmeans("my arm").to_frame().shape[0] == 3
    assert "my arm" in str(lmm.anova(m))


# The way out --------------------------------------------------------------------------------------

INDEXES = {
    "text": [f"r{i}" for i in range(N)],
    "dates": pd.date_range("2024-01-01", periods=N, freq="h"),
    "repeated": [0] * N,
    "backwards": np.arange(N)[::-1],
    "several levels": pd.MultiIndex.from_product([range(12), list("abcdefghij")]),
}


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("na_action", ["omit", "exclude"])
def test_results_have_the_index_of_the_data(name: str, na_action: str) -> None:
    frame = table().set_axis(INDEXES[name], axis=0)
    frame.iloc[[3, 50], 0] = np.nan
    m = lmm.lmer(FORMULA, frame, na_action=na_action)
    want = frame.index if na_action == "exclude" else frame.index.delete([3, 50])
    for values in (m.fitted, m.residuals, m.weights, m.predict(), m.influence().leverage):
        assert values.index.equals(want)
    assert m.simulate(2, rng=1).index.equals(want)
    assert m.predict(frame).index.equals(frame.index)
    assert m.predict(frame, se=True).index.equals(frame.index)


# Files --------------------------------------------------------------------------------------------

WRITERS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "a.csv": lambda frame, path: frame.to_csv(path, index=False),
    "a.csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "a.tsv": lambda frame, path: frame.to_csv(path, sep="\t", index=False),
    "b.csv": lambda frame, path: frame.to_csv(path, sep=";", decimal=",", index=False),
    "a.parquet": lambda frame, path: frame.to_parquet(path),
    "b.parquet": lambda frame, path: pl.from_pandas(frame).write_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_files_are_read(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = table().rename(columns=NAMES)
    WRITERS[name](frame, tmp_path / name)
    formula = "`Größe (cm)` ~ 剂量 * `my arm` + (剂量 | `lieu d'étude`)"
    same(lmm.lmer(formula, read_data(str(tmp_path / name))), lmm.lmer(formula, frame))
    assert main(["fit", formula, str(tmp_path / name)]) == 0
    assert "剂量" in capsys.readouterr().out


def test_a_file_of_another_encoding_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress("größe,x\n1,2\n".encode("latin-1")))
    assert main(["fit", "größe ~ x + (1|x)", str(path)]) == 2
    assert "UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "formula", ["size ~ month(day) + (1 | site)", "size ~ f(gap) + (1 | site)"]
)
def test_parts_of_dates_and_durations_predict(formula: str) -> None:
    frame = table(gap=table()["day"] - pd.Timestamp("2024-01-01"))
    own = {"month": lambda day: day.dt.month, "f": lambda gap: gap.dt.days}
    m = lmm.lmer(formula, frame, context=own)
    np.testing.assert_allclose(m.predict(frame.head(7)), m.fitted.iloc[:7], rtol=1e-10)


def test_a_directory_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "y ~ x + (1|g)", str(tmp_path)]) == 2
    assert "is a directory" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint32", "uint64", "float16", "float32"])
@pytest.mark.parametrize(
    "formula",
    [
        "size ~ I(count - 5) + I(count**3) + (1 | site)",
        "size ~ dose + offset(count - 5) + (1 | site)",
        "size ~ poly(count, 2) + (I(count - 5) | site)",
        "I(count - 5) ~ dose + (1 | site)",
    ],
)
@pytest.mark.filterwarnings("ignore::lmmsparse.errors.LmmWarning")
def test_numbers_of_few_bits_do_not_overflow(formula: str, kind: str) -> None:
    """Counts of polars are of 32 bits without a sign, and 2 − 5 is not 4294967293."""
    wide = lmm.lmer(formula, table())
    frame = table(count=table()["count"].astype(kind))
    for data in (frame, pl.from_pandas(frame)) if kind != "float16" else (frame,):
        model = lmm.lmer(formula, data)
        assert model.reml_criterion == pytest.approx(wide.reml_criterion, rel=1e-9)
        np.testing.assert_allclose(model.predict(data.head(9)), wide.fitted[:9], rtol=1e-6)


@pytest.mark.parametrize("sep", [",", "\t", ";"])
def test_only_na_and_nothing_are_missing_words(tmp_path: Path, sep: str) -> None:
    words = ["None", "null", "NA", "", "n/a", "nan", "yes", "NULL"]
    rows = [sep.join([word, number, "1"]) for word, number in zip(words, "12345678", strict=True)]
    rows[1] = rows[1].replace(f"{sep}2{sep}", f"{sep}NaN{sep}")
    path = tmp_path / "words.csv"
    path.write_text("\n".join([sep.join(["word", "number", "one"]), *rows]) + "\n")
    frame = read_data(str(path))
    assert frame["word"].isna().tolist() == [word in ("NA", "") for word in words]
    assert frame["word"].dropna().tolist() == [word for word in words if word not in ("NA", "")]
    assert frame["number"].isna().tolist() == [i == 1 for i in range(8)]
    assert frame["one"].tolist() == [1] * 8
    other = read_data(str(path), missing=["yes"])
    assert other["word"].isna().sum() == 3
