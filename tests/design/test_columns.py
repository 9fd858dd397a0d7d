"""Columns as people have them: labels stay what they are, rows find each other, numbers count."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import lmmsparse as lmm
from lmmsparse.common.errors import DataError, LmmError, OptionError
from lmmsparse.data.reading import read_data
from lmmsparse.design.grouping import make_grouping

pa = pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")
pytestmark = pytest.mark.filterwarnings("ignore::lmmsparse.errors.LmmWarning")

N, LEVELS = 120, 12
CODES = np.repeat(np.arange(LEVELS), 10)


@cache
def data() -> pd.DataFrame:
    """Do not modify."""
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"k": CODES, "x": rng.gamma(2.0, size=N), "h": np.tile(list("abcde"), 24)})
    frame["y"] = 2 * rng.normal(size=LEVELS)[CODES] + frame["x"] + rng.normal(size=N)
    for name in ("b1", "b2", "b3", "my b"):
        frame[name] = rng.random(N) < 0.5
    frame["w"] = rng.uniform(0.3, 3.0, N)
    frame["o"] = rng.normal(size=N)
    return frame


@cache
def by_codes(formula: str) -> lmm.LinearMixedModel:
    return lmm.lmer(formula, data())


def labelled(labels: Any) -> pd.DataFrame:
    """The data with a label for each of the twelve levels."""
    return data().assign(g=pd.Series(labels).iloc[CODES].array)


# Large whole numbers ------------------------------------------------------------------------------

LARGE: dict[str, tuple[int, Callable[[list[Any]], Any]]] = {
    "int64": (10**17, lambda v: pd.Series(v, dtype="int64")),
    "uint64": (2**63 + 5, lambda v: pd.Series(v, dtype="uint64")),
    "Int64": (10**17, lambda v: pd.array(v, dtype="Int64")),
    "Int64 with a gap": (-(10**17), lambda v: pd.array([None, *v[1:]], dtype="Int64")),
    "UInt64 with a gap": (2**63 + 5, lambda v: pd.array([None, *v[1:]], dtype="UInt64")),
    "Arrow with a gap": (10**17, lambda v: pd.array([None, *v[1:]], dtype="int64[pyarrow]")),
    "objects": (10**17, lambda v: pd.Series(v, dtype=object)),
    "objects with a gap": (10**17, lambda v: pd.Series([None, *v[1:]], dtype=object)),
    "objects beyond 64 bits": (2**70, lambda v: pd.Series(v, dtype=object)),
    "Decimal": (10**17, lambda v: pd.Series([Decimal(i) for i in v])),
    "Decimal with a gap": (10**25, lambda v: pd.Series([None, *map(Decimal, v[1:])], dtype=object)),
    "Arrow's decimals": (
        10**25,
        lambda v: pd.array([Decimal(i) for i in v], dtype=pd.ArrowDtype(pa.decimal128(38, 0))),
    ),
}


@pytest.mark.parametrize("table", ["pandas", "polars", "arrow"])
@pytest.mark.parametrize("kind", LARGE)
def test_large_whole_numbers_are_told_apart(kind: str, table: str, tmp_path: Path) -> None:
    base, make = LARGE[kind]
    if table != "pandas" and kind == "objects beyond 64 bits":
        pytest.skip("these tables do not hold them")
    ids = [base + int(k) for k in CODES]
    frame = data().assign(g=make(ids))
    convert = {"pandas": lambda f: f, "polars": pl.from_pandas, "arrow": pa.Table.from_pandas}
    part = slice(60, 90)
    for formula in ("y ~ x + (1 | g)", "y ~ x + C(g) + (1 | h)", "y ~ x + (1 | g:h)"):
        m = lmm.lmer(formula, convert[table](frame))
        want = lmm.lmer(formula.replace("g", "k"), data()[frame["g"].notna().to_numpy()])
        assert m.loglik == pytest.approx(want.loglik, abs=1e-8)
        fitted = want.fitted.loc[60:89]
        np.testing.assert_allclose(m.predict(frame[part]), fitted, rtol=1e-7)
        for other in (lambda v: pd.Series(v, dtype=object), lambda v: [Decimal(i) for i in v]):
            new = data()[part].assign(g=list(other(ids[part])))
            np.testing.assert_allclose(m.predict(new), fitted, rtol=1e-7)
        m.save(tmp_path / "m")
        loaded = lmm.load(tmp_path / "m")
        np.testing.assert_allclose(loaded.predict(frame[part]), fitted, rtol=1e-7)
        for group in m.ranef:
            pd.testing.assert_index_equal(loaded.ranef[group].index, m.ranef[group].index)
    m = lmm.lmer("y ~ x + (1 | g)", convert[table](frame))
    assert m.ranef["g"].index.tolist() == sorted(set(ids))
    assert m.coef["g"].index.tolist() == sorted(set(ids))
    unseen = data()[part].assign(g=base + 5000)
    with pytest.raises(DataError, match="has not seen"):
        m.predict(unseen)


@pytest.mark.parametrize(
    "table",
    [
        lambda ids, y: {"y": y, "g": [None, *ids[1:]]},
        lambda ids, y: [{"y": b, "g": a} for a, b in zip([None, *ids[1:]], y, strict=True)],
        lambda ids, y: pl.DataFrame({"y": y, "g": [None, *ids[1:]]}),
        lambda ids, y: pa.table({"y": y, "g": [None, *ids[1:]]}),
    ],
    ids=["lists", "records", "polars", "arrow"],
)
def test_a_gap_in_a_table_made_by_hand(table: Any) -> None:
    m = lmm.lmer("y ~ 1 + (1 | g)", table([10**17 + int(k) for k in CODES], data()["y"].tolist()))
    assert m.n_groups == {"g": LEVELS}


def test_large_numbers_of_duckdb() -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    frame = data().assign(g=[10**17 + int(k) for k in CODES])
    connection.register("frame", frame)
    for kind, factor in (("BIGINT", 1), ("HUGEINT", 10**6)):
        query = f"SELECT y, CASE WHEN k = 3 THEN NULL ELSE g::{kind} * {factor} END AS g FROM frame"
        for source in (connection.sql(query), connection.cursor().execute(query)):
            m = lmm.lmer("y ~ 1 + (1 | g)", source)
            assert m.ranef["g"].index.tolist() == sorted(
                {(10**17 + int(k)) * factor for k in CODES} - {(10**17 + 3) * factor}
            )


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet"])
def test_large_numbers_in_files(name: str, tmp_path: Path) -> None:
    frame = data()[["y"]].assign(g=pd.array([None, *(10**17 + CODES[1:])], dtype="Int64"))
    path = tmp_path / name
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    assert lmm.lmer("y ~ 1 + (1 | g)", read_data(str(path))).n_groups == {"g": LEVELS}


def test_numbers_in_objects_are_still_numbers() -> None:
    for values in ([Decimal(str(round(v, 3))) for v in data()["x"]], list(data()["x"].round(3))):
        m = lmm.lmer(
            "y ~ z + I(z**2) + log(z) + (1 | k)", data().assign(z=pd.Series(values, dtype=object))
        )
        want = lmm.lmer("y ~ z + I(z**2) + log(z) + (1 | k)", data().assign(z=data()["x"].round(3)))
        np.testing.assert_allclose(m.fixef, want.fixef, rtol=1e-9)
    huge = data().assign(z=pd.Series([10**20 + 10**16 * int(k) for k in CODES], dtype=object))
    m = lmm.lmer("y ~ I((z - 10**20) / 10**16) + (1 | h)", huge)
    np.testing.assert_allclose(m.fixef, by_codes("y ~ k + (1 | h)").fixef, rtol=1e-7)


# Other labels -------------------------------------------------------------------------------------

DAYS = pd.date_range("2020-02-01", periods=LEVELS, freq="30D")
LABELS: dict[str, Any] = {
    "bytes": [b"1", b"01", b"2", b"02", *(b"%d" % i for i in range(3, 11))],
    "time zone": DAYS.tz_localize("Europe/Berlin"),
    "time zone in seconds": DAYS.tz_localize("America/New_York").as_unit("s"),
    "offset": DAYS.tz_localize("+05:30"),
    "moments": DAYS,
    "seconds": DAYS.as_unit("s"),
    "nanoseconds": DAYS.as_unit("ns") + pd.Timedelta(1, "ns"),
    "durations": DAYS - DAYS[0],
    "months": pd.period_range("2020-01", periods=LEVELS, freq="M"),
    "weeks": pd.period_range("2020-01", periods=LEVELS, freq="W-TUE"),
    "intervals": pd.interval_range(0.0, 1.0, periods=LEVELS, closed="left"),
    "intervals of days": pd.IntervalIndex.from_breaks(
        pd.date_range("2020-03-20", periods=LEVELS + 1, tz="Europe/Berlin")
    ),
    "dates": pd.Series([day.date() for day in DAYS], dtype=object),
    "datetimes": pd.Series([day.to_pydatetime() for day in DAYS], dtype=object),
    "times": pd.Series([datetime.time(i, 5) for i in range(LEVELS)], dtype=object),
    "decimals": [Decimal(i) / 10 for i in range(LEVELS)],
    "narrow": pd.Series(range(LEVELS), dtype="int8"),
    "Arrow's moments": pd.array(
        DAYS.tz_localize("Europe/Berlin"), dtype="timestamp[us, tz=Europe/Berlin][pyarrow]"
    ),
    "Arrow's dates": pd.array([day.date() for day in DAYS], dtype="date32[day][pyarrow]"),
}
LABELS |= {f"categories of {name}": pd.Series(v).astype("category") for name, v in LABELS.items()}
LABELS["categories in an order"] = pd.Categorical(
    DAYS, categories=pd.DatetimeIndex(list(DAYS[::-1])), ordered=True
)


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_unchanged_by_files(name: str, tmp_path: Path) -> None:
    frame = labelled(LABELS[name])
    for formula in ("y ~ x + (1 | g)", "y ~ x + (1 | g:h)"):
        m = lmm.lmer(formula, frame)
        assert m.loglik == pytest.approx(by_codes(formula.replace("g", "k")).loglik, abs=1e-8)
        m.save(tmp_path / "m")
        loaded = lmm.load(tmp_path / "m")
        pd.testing.assert_frame_equal(loaded.augment(), m.augment())
        for group in m.ranef:
            pd.testing.assert_index_equal(
                loaded.ranef[group].index, m.ranef[group].index, exact=True
            )
        for model in (m, loaded):
            np.testing.assert_allclose(model.predict(frame.tail(30)), m.fitted.iloc[-30:])


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", [n for n in LABELS if n != "decimals"])
def test_an_index_is_unchanged_by_files(name: str, several: bool, tmp_path: Path) -> None:
    frame = labelled(LABELS[name])
    index = pd.Index(frame.pop("g"))
    frame.index = pd.MultiIndex.from_arrays([index, np.arange(N)]) if several else index
    m = lmm.lmer("y ~ x + (1 | k)", frame)
    m.save(tmp_path / "m")
    pd.testing.assert_index_equal(lmm.load(tmp_path / "m").fitted.index, m.fitted.index)


def test_bytes_are_labels() -> None:
    frame = labelled(LABELS["bytes"])
    m = lmm.lmer("y ~ x + (1 | g)", frame)
    assert m.ranef["g"].index.tolist() == sorted(LABELS["bytes"])
    fixed = lmm.lmer("y ~ x + g + (1 | h)", frame)
    assert len(fixed.fixef) == 2 + LEVELS - 1
    assert fixed.fixef.index[2] == "g[T.b'02']"
    np.testing.assert_allclose(fixed.predict(frame.head(7)), fixed.fitted.iloc[:7])
    polars = pl.DataFrame({"y": data()["y"].to_list(), "g": frame["g"].to_list()})
    assert lmm.lmer("y ~ 1 + (1 | g)", polars).n_groups == {"g": LEVELS}
    with pytest.raises(DataError, match="mixes values"):
        lmm.lmer("y ~ 1 + (1 | g)", frame.assign(g=[b"1", *(["1"] * (N - 1))]))


def test_columns_of_other_packages() -> None:
    want = by_codes("y ~ x + (1 | k)").loglik
    arm = pd.Series(data()["h"])
    words = pa.array(arm).dictionary_encode()
    for h in (pd.Series(words, dtype=pd.ArrowDtype(words.type)), words.to_pandas()):
        m = lmm.lmer("y ~ h + (1 | k)", data().assign(h=h))
        assert m.loglik == pytest.approx(by_codes("y ~ h + (1 | k)").loglik, abs=1e-8)
        assert m.fixef.index[1] == "h[T.b]"
    intervals = labelled(pd.interval_range(0, LEVELS))[["y", "x", "g"]]
    for frame in (intervals, intervals.assign(g=intervals["g"].astype("category"))):
        tables = [pa.Table.from_pandas(frame)]
        if frame is intervals and int(pl.__version__.split(".")[0]) >= 2:
            tables.append(pl.from_pandas(frame))  # former ones know no intervals
        for table in tables:
            m = lmm.lmer("y ~ x + (1 | g)", table)
            assert m.loglik == pytest.approx(want, abs=1e-8)
            assert m.ranef["g"].index[0] == pd.Interval(0, 1)
    table = pl.DataFrame(
        {
            "y": data()["y"].to_list(),
            "x": data()["x"].to_list(),
            "duration": [datetime.timedelta(days=int(k)) for k in CODES],
            "enum": pl.Series(
                [f"{k:02}" for k in CODES], dtype=pl.Enum([f"{k:02}" for k in range(20)])
            ),
            "category": pl.Series([f"{k:02}" for k in CODES], dtype=pl.Categorical),
            "zoned": pl.Series(
                [datetime.datetime(2020, 1, 1 + int(k)) for k in CODES]
            ).dt.replace_time_zone("Europe/Berlin"),
        }
    )
    for name in ("duration", "enum", "category", "zoned"):
        m = lmm.lmer(f"y ~ x + (1 | {name})", table)
        assert m.loglik == pytest.approx(want, abs=1e-8)
    assert m.ranef["zoned"].index[0] == pd.Timestamp("2020-01-01", tz="Europe/Berlin")


# Labels of new data -------------------------------------------------------------------------------

EQUAL: dict[str, Callable[[pd.Series], Any]] = {
    "float": lambda k: k.astype(float),
    "int8": lambda k: k.astype("int8"),
    "Int64": lambda k: k.astype("Int64"),
    "Arrow": lambda k: k.astype("int64[pyarrow]"),
    "objects": lambda k: k.astype(object),
    "categories": lambda k: k.astype("category"),
    "Decimal": lambda k: [Decimal(int(v)) for v in k],
}
UNEQUAL: dict[str, Callable[[pd.Series], Any]] = {
    "text": lambda k: k.astype(str),
    "text of floats": lambda k: k.astype(float).astype(str),
    "bytes": lambda k: [b"%d" % v for v in k],
    "categories of text": lambda k: k.astype(str).astype("category"),
}


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize(
    "formula", ["y ~ x + (1 | k)", "y ~ x + (1 | k:h)", "y ~ x + C(k) + (1 | h)"]
)
def test_equal_labels_of_another_type_are_found(formula: str, name: str) -> None:
    m, new = by_codes(formula), data().tail(30)
    new = new.assign(k=EQUAL[name](new["k"]))
    np.testing.assert_allclose(m.predict(new), m.fitted.iloc[-30:], rtol=1e-9)


@pytest.mark.parametrize("name", UNEQUAL)
@pytest.mark.parametrize("new_levels", ["raise", "population", "nan"])
@pytest.mark.parametrize("formula", ["y ~ x + (1 | k)", "y ~ x + (1 | k:h)"])
def test_labels_that_only_look_equal_are_refused(formula: str, new_levels: str, name: str) -> None:
    m, new = by_codes(formula), data().tail(30)
    new = new.assign(k=UNEQUAL[name](new["k"]))
    with pytest.raises(DataError, match=r"'k' holds .*9.* in the new data and 9 \(int\)"):
        m.predict(new, new_levels=new_levels)
    with pytest.raises(DataError, match="different types"):
        m.simulate(2, rng=1, newdata=new)


def test_levels_that_do_not_look_equal_are_new() -> None:
    m, new = by_codes("y ~ x + (1 | k)"), data().head(3).assign(k="nobody")
    np.testing.assert_allclose(
        m.predict(new, new_levels="population"), m.predict(new, random=False), rtol=1e-12
    )
    dates = lmm.lmer("y ~ x + (1 | g)", labelled(DAYS))
    with pytest.raises(DataError, match="different types"):
        dates.predict(data().head(3).assign(g="2020-02-01"), new_levels="population")


def test_a_fixed_factor_shows_the_type_of_its_levels() -> None:
    m = lmm.lmer("y ~ g + (1 | h)", data().assign(g=data()["k"].map(str)))
    with pytest.raises(DataError, match=r"holds 1 \(int\) in the new data and '1' \(str\)"):
        m.predict(data().head(20).assign(g=1))
    with pytest.raises(DataError, match=r"level 77, .*\(levels: .0., .1., .10., "):
        m.predict(data().head(20).assign(g=77))


# Interactions of many groups ----------------------------------------------------------------------


@pytest.mark.parametrize("factors", [2, 3, 4, 6])
def test_interactions_of_large_factors(factors: int) -> None:
    """200,000 levels each: the fourth power is beyond 64 bits."""
    rng = np.random.default_rng(4)
    levels = 200_000
    base = rng.permutation(levels)
    columns = [pd.Series(np.roll(base, 7 * j)) for j in range(factors)]
    grouping = make_grouping("a", columns)
    assert len(grouping.levels) == levels
    rows = np.arange(0, levels, 997)
    shown = [":".join(str(c[i]) for c in columns) for i in rows]
    assert grouping.levels[grouping.codes[rows]].tolist() == shown
    codes, missing = grouping.key.encode([c[rows] for c in columns])
    np.testing.assert_array_equal(codes, grouping.codes[rows])
    assert not missing.any()
    changed = [c[rows].reset_index(drop=True) for c in columns]
    changed[0] = changed[0].sample(frac=1, random_state=1, ignore_index=True)
    codes, _ = grouping.key.encode(changed)
    same = changed[0].to_numpy() == columns[0][rows].to_numpy()
    assert ((codes >= 0) == same).all()
    ordered = np.lexsort(grouping.key.combinations.T[::-1])
    np.testing.assert_array_equal(ordered, np.arange(levels))


def test_an_interaction_of_groups_in_files_and_refits(tmp_path: Path) -> None:
    frame = data().assign(a=CODES % 4, b=CODES % 3)
    m = lmm.lmer("y ~ x + (1 | a:b:h)", frame)
    m.save(tmp_path / "m")
    np.testing.assert_allclose(lmm.load(tmp_path / "m").predict(frame), m.fitted, rtol=1e-12)
    y = data()["y"].where(CODES != 5)
    again = m.refit(y)
    want = lmm.lmer("y ~ x + (1 | a:b:h)", frame[CODES != 5])
    assert again.loglik == pytest.approx(want.loglik, abs=1e-7)
    assert again.ranef["a:b:h"].index.equals(want.ranef["a:b:h"].index)
    np.testing.assert_allclose(
        again.predict(frame[CODES == 4]), want.predict(frame[CODES == 4]), rtol=1e-5
    )


# Truth values -------------------------------------------------------------------------------------

COUNTED = {
    "y ~ I(b1 + b2 + b3) + (1 | k)": None,
    "y ~ x + (I(b1 + b2) | k)": None,
    "I(b1 + b2 + b3) ~ x + (1 | k)": None,
    "b1 ~ x + (1 | k)": None,
    "y ~ x + offset(b1 + b2) + (1 | k)": None,
    "y ~ x + offset(b1) + (1 | k)": None,
    "y ~ log(b1 + b2 + 1) + exp(b1) + (1 | k)": None,
    "y ~ np.exp(b1) + np.log1p(b2) + (1 | k)": None,
    "y ~ I(b1 - b2) + I(-b3) + (1 | k)": None,
    "y ~ I(`my b` + b1) + (1 | k)": None,
    "y ~ b1 + I(b1 + b2) + (b1 | k)": None,
    "y ~ poly(b1 + b2 + b3, 2) + center(b1) + (1 | k)": None,
    "y ~ x + (1 | k:I(b1 + b2))": None,
    "y ~ I((b1 & b2) + b3) + (1 | k)": None,
    "y ~ I((x > 1) + (x > 2)) + (1 | k)": "y ~ I((x > 1) * 1 + (x > 2) * 1) + (1 | k)",
    "y ~ I(np.isin(k, [1, 2]) + np.isin(k, [2, 3])) + (1 | h)": (
        "y ~ I(np.where(k == 2, 2, np.where(k == 1, 1, np.where(k == 3, 1, 0)))) + (1 | h)"
    ),
    "y ~ x * b1 + C(b2) + (1 | k)": None,
}
TRUTHS = ["b1", "b2", "b3", "my b"]


@pytest.mark.parametrize("dtype", ["bool", "boolean", "bool[pyarrow]", "object"])
@pytest.mark.parametrize("formula", COUNTED)
def test_truth_values_count(formula: str, dtype: str, tmp_path: Path) -> None:
    frame = data().astype(dict.fromkeys(TRUTHS, dtype))
    numbers = data().astype(dict.fromkeys(TRUTHS, int))
    m = lmm.lmer(formula, frame)
    want = lmm.lmer(COUNTED[formula] or formula, numbers)
    assert m.loglik == pytest.approx(want.loglik, abs=1e-7)
    m.save(tmp_path / "m")
    for model in (m, lmm.load(tmp_path / "m")):
        for new in (frame, numbers):
            np.testing.assert_allclose(
                model.predict(new.iloc[5:60]), m.fitted.iloc[5:60], rtol=1e-7
            )


def test_a_truth_value_by_itself_is_a_factor() -> None:
    m = lmm.lmer("y ~ b1 + C(b2) + factor(b3) + (1 | k)", data())
    assert m.fixef.index.tolist()[1:] == ["b1[T.True]", "C(b2)[T.True]", "factor(b3)[T.True]"]


# Names --------------------------------------------------------------------------------------------

NAMES = [
    "np",
    "log",
    "C",
    "I",
    "poly",
    "center",
    "scale",
    "offset",
    "factor",
    "contr",
    "sqrt",
    "exp",
]
USES = [
    ("y ~ {} + (1 | k)", "x"),
    ("y ~ {} + log({}) + (1 | k)", "x"),
    ("y ~ np.log({}) + scale({}) + (1 | k)", "x"),
    ("y ~ poly({}, 2) + I({} ** 2 + 1) + ({} | k)", "x"),
    ("log({}) ~ y + (1 | k)", "x"),
    ("y ~ x + offset(log({})) + (1 | k)", "x"),
    ("y ~ x + (1 | {})", "k"),
    ("y ~ x + (1 | {}:h)", "k"),
    ("y ~ C({}) + (1 | h)", "k"),
    ("y ~ x + (1 | factor({}))", "k"),
]


@pytest.mark.parametrize("name", NAMES)
def test_columns_may_be_named_like_functions(name: str) -> None:
    for formula, column in USES:
        frame = data().assign(**{name: data()[column]})
        m = lmm.lmer(formula.replace("{}", name), frame)
        want = by_codes(formula.replace("{}", column))
        assert m.loglik == pytest.approx(want.loglik, abs=1e-8), formula
        np.testing.assert_allclose(m.predict(frame.head(9)), want.fitted.iloc[:9], rtol=1e-7)


def test_repeated_columns_matter_where_they_are_used() -> None:
    twice = pd.concat([data(), data()[["o"]]], axis=1)
    m = lmm.lmer("y ~ x + (1 | k)", twice)
    want = by_codes("y ~ x + (1 | k)")
    np.testing.assert_allclose(m.fixef, want.fixef, rtol=1e-12)
    np.testing.assert_allclose(m.predict(twice), want.fitted, rtol=1e-9)
    assert len(m.augment(twice)) == N
    for formula, options in (
        ("y ~ o + (1 | k)", {}),
        ("y ~ x + (1 | o)", {}),
        ("y ~ I(o + 1) + (1 | k)", {}),
        ("y ~ x + (1 | k)", {"weights": "o"}),
        ("y ~ x + (1 | k)", {"offset": "o"}),
        ("y ~ . + (1 | k)", {}),
    ):
        with pytest.raises(DataError, match="more than one column named 'o'"):
            lmm.lmer(formula, twice, **options)
    with pytest.raises(DataError, match="more than one column named 'x'"):
        m.predict(pd.concat([data(), data()[["x"]]], axis=1))


# Rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [range(N), [f"r{i}" for i in range(N)], range(7, N + 7)])
def test_values_find_their_rows_by_label(index: Any) -> None:
    frame = data().set_axis(pd.Index(index), axis=0)
    back = frame.sample(frac=1, random_state=3)
    formula = "y ~ x + (1 | k)"
    m = lmm.lmer(formula, frame, weights=frame["w"], offset=frame["o"])
    again = lmm.lmer(formula, frame, weights=back["w"], offset=back["o"])
    assert again.loglik == pytest.approx(m.loglik, abs=1e-9)
    assert m.refit(back["y"]).loglik == pytest.approx(m.loglik, abs=1e-7)
    assert m.refit(back[["y"]]).loglik == pytest.approx(m.loglik, abs=1e-7)
    plain = lmm.lmer(formula, frame, offset=frame["o"])
    assert plain.refit(back["y"], weights=back["w"]).loglik == pytest.approx(m.loglik, abs=1e-7)
    Y = m.simulate(3, rng=1)
    pd.testing.assert_frame_equal(m.refit_many(Y.loc[back.index]), m.refit_many(Y))
    new = m.predict(frame, offset=back["o"])
    np.testing.assert_allclose(new, m.fitted, rtol=1e-9)
    told = m.augment(back)
    assert told.index.equals(back.index)
    np.testing.assert_array_equal(told["_fitted"], m.fitted.loc[back.index])
    np.testing.assert_allclose(told["y"], told["_fitted"] + told["_resid"], rtol=1e-9)
    deleted = m.influence(back["k"]).cooks_distance
    pd.testing.assert_series_equal(deleted, m.influence(frame["k"]).cooks_distance)


def test_rows_of_arrays_find_each_other() -> None:
    back = data().iloc[::-1]
    want = lmm.fit_arrays(data()["y"], data()[["x"]], [(data()["k"], None)])
    for y, X, groups in (
        (data()["y"], back[["x"]], data()["k"]),
        (data()["y"], data()[["x"]], back["k"]),
        (back["y"], data()[["x"]], back["k"]),
        (back["y"].to_numpy(), back[["x"]], data()["k"]),
    ):
        assert lmm.fit_arrays(y, X, [(groups, None)]).loglik == pytest.approx(want.loglik, abs=1e-8)


@pytest.mark.parametrize("na_action", ["omit", "exclude"])
def test_rows_that_were_left_out_are_aligned_too(na_action: str) -> None:
    frame = data().assign(x=data()["x"].where(np.arange(N) % 11 != 3))
    m = lmm.lmer("y ~ x + (1 | k)", frame, na_action=na_action)
    for y in (frame["y"].iloc[::-1], frame["y"][frame["x"].notna()].iloc[::-1]):
        assert m.refit(y).loglik == pytest.approx(m.loglik, abs=1e-7)
    told = m.augment(frame.iloc[::-1])
    assert len(told) == (N if na_action == "exclude" else m.nobs)
    np.testing.assert_allclose(told["_fitted"].dropna(), m.fitted.dropna().iloc[::-1])


def test_labels_that_are_not_those_of_the_rows() -> None:
    frame = data().set_axis([f"r{i}" for i in range(N)], axis=0)
    m = lmm.lmer("y ~ x + (1 | k)", frame)
    other = frame["y"].set_axis([f"s{i}" for i in range(N)])
    calls: list[Callable[[], Any]] = [
        lambda: m.refit(other),
        lambda: m.refit(frame["y"], weights=other.abs()),
        lambda: m.refit_many(other.to_frame()),
        lambda: lmm.lmer("y ~ x + (1 | k)", frame, weights=other.abs()),
        lambda: m.predict(frame, offset=other),
        lambda: m.augment(frame.set_axis(other.index, axis=0)),
        lambda: m.influence(other),
    ]
    for call in calls:
        with pytest.raises(DataError, match="row labels of the data"):
            call()
    twice = frame["y"].set_axis([f"r{i // 2}" for i in range(N)])
    with pytest.raises(DataError, match="repeated"):
        m.refit(twice)
    # Labels 0, 1, 2, … that pandas has given are none.
    assert m.refit(frame["y"].reset_index(drop=True)).loglik == pytest.approx(m.loglik, abs=1e-7)
    assert m.refit(frame["y"].to_numpy()).loglik == pytest.approx(m.loglik, abs=1e-7)


def test_another_response_is_not_shown_beside_the_fit() -> None:
    m = by_codes("y ~ x + (1 | k)")
    with pytest.raises(DataError, match="differs from the response"):
        m.augment(data().assign(y=10 * data()["y"]))
    again = m.refit(10 * data()["y"])
    told = again.augment(data().assign(y=10 * data()["y"]))
    np.testing.assert_allclose(told["y"], told["_fitted"] + told["_resid"], rtol=1e-9)


# Complex numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda d, m: lmm.lmer("y ~ c + (1 | k)", d),
        lambda d, m: lmm.lmer("y ~ I(c) + (1 | k)", d),
        lambda d, m: lmm.lmer("c ~ x + (1 | k)", d),
        lambda d, m: lmm.lmer("I(c) ~ x + (1 | k)", d),
        lambda d, m: lmm.lmer("y ~ x + (c | k)", d),
        lambda d, m: lmm.lmer("y ~ x + offset(c) + (1 | k)", d),
        lambda d, m: lmm.lmer("y ~ x + (1 | k)", d, weights="c"),
        lambda d, m: lmm.lmer("y ~ x + (1 | k)", d, weights=d["c"].to_numpy()),
        lambda d, m: lmm.lmer("y ~ x + (1 | k)", d, offset=d["c"]),
        lambda d, m: lmm.lmer("y ~ x + (1 | k)", d, start=[1 + 1j]),
        lambda d, m: lmm.lmer("y ~ x + (1 | k)", d, fixed={"sigma": np.complex128(1 + 1j)}),
        lambda d, m: lmm.lmer("y ~ h + (1 | k)", d, contrasts={"h": np.eye(5)[:, 1:] * 1j}),
        lambda d, m: m.refit(d["c"]),
        lambda d, m: m.refit(d["y"], weights=d["c"].to_numpy()),
        lambda d, m: m.refit_many(d[["y", "c"]]),
        lambda d, m: m.refit_many(d[["c"]].to_numpy()),
        lambda d, m: m.predict(d.assign(x=d["c"])),
        lambda d, m: m.predict(d, offset=d["c"]),
        lambda d, m: m.contrast(np.array([1, 1j])),
        lambda d, m: lmm.fit_arrays(d["c"], d[["x"]], [(d["k"], None)]),
        lambda d, m: lmm.fit_arrays(d["y"], d[["c"]], [(d["k"], None)]),
        lambda d, m: lmm.fit_arrays(d["y"], d[["x"]], [(d["k"], d[["c"]])]),
        lambda d, m: lmm.fit_arrays(d["y"], d[["x"]], [(d["k"], None)], weights=d["c"]),
    ],
)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("objects", [False, True])
def test_complex_numbers_are_refused(call: Callable[..., Any], objects: bool) -> None:
    c = data()["x"] + 5j
    frame = data().assign(c=c.astype(object) if objects else c)
    with pytest.raises((DataError, OptionError)):
        call(frame, by_codes("y ~ x + (1 | k)"))


# What is said -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "hint"),
    [
        ("bs(x, knots=c(2, 3))", "square brackets, such as [2, 3]"),
        ("bs(x, knots=seq(2, 3))", "square brackets"),
        ("ns(x, 3)", "cr(x, df=5, constraints='center')"),
        ("rcs(x, 3)", "constraints='center'"),
    ],
)
def test_habits_of_r_are_explained(term: str, hint: str) -> None:
    with pytest.raises(LmmError) as error:
        lmm.lmer(f"y ~ {term} + (1 | k)", data())
    assert hint in str(error.value)
    assert "Did you mean" not in str(error.value)


def test_the_spline_that_is_recommended_has_full_rank() -> None:
    m = lmm.lmer("y ~ cr(x, df=5, constraints='center') + (1 | k)", data())
    assert not m.fit.design.dropped
    assert len(m.fixef) == 6


def test_a_spline_outside_its_range_says_how_to_go_on() -> None:
    m = lmm.lmer("y ~ bs(x, df=4) + (1 | k)", data())
    with pytest.raises(DataError, match="extrapolation='extend'"):
        m.predict(data().head(2).assign(x=99.0))
    more = lmm.lmer("y ~ bs(x, df=4, extrapolation='extend') + (1 | k)", data())
    assert np.isfinite(more.predict(data().head(2).assign(x=9.0))).all()


def test_guesses_that_help_nobody_are_not_made() -> None:
    m = by_codes("y ~ x + (1 | k)")
    for name in ("effect", "terms", "scores", "write", "load", "hessian", "eta"):
        with pytest.raises(AttributeError) as error:
            getattr(m, name)
        assert "Did you mean" not in str(error.value)


# Weights, offsets, gaps and new levels in results -----------------------------------------------


def test_single_precision_inside_calls() -> None:
    narrow = data().assign(x=data()["x"].astype("float32"))
    wide = narrow.assign(x=narrow["x"].astype(float))
    formula = "y ~ I(x**2) + log(x) + (1 | k)"
    m = lmm.lmer(formula, narrow)
    np.testing.assert_allclose(m.fixef, lmm.lmer(formula, wide).fixef, rtol=1e-9)
    np.testing.assert_allclose(m.predict(narrow), m.fitted, rtol=1e-9)


def test_arrays_with_rows_of_weight_zero() -> None:
    w = data()["w"].where(np.arange(N) % 7 != 2, 0.0)
    X = np.column_stack([np.ones(N), data()["x"]])
    m = lmm.fit_arrays(data()["y"], X, [(data()["k"], X)], weights=w)
    at = np.flatnonzero(w > 0)
    part = data().iloc[at]
    want = lmm.fit_arrays(part["y"], X[at], [(part["k"], X[at])], weights=w.iloc[at])
    assert m.nobs == len(at)
    assert m.loglik == pytest.approx(want.loglik, abs=1e-8)
    np.testing.assert_allclose(m.fitted, want.fitted, rtol=1e-6)
    assert m.fitted.index.equals(part.index)


def test_unseen_levels_of_either_factor_leave_a_hole() -> None:
    m = by_codes("y ~ x + (1 | k) + (1 | h)")
    new = data().iloc[[0, 30, 60, 90]].copy()
    new["k"] = [99, 3, 6, 99]
    new["h"] = ["a", "z", "a", "z"]
    found = m.predict(new, new_levels="nan")
    assert found.isna().tolist() == [True, True, False, True]
    assert found.iloc[2] == pytest.approx(m.predict(new.iloc[[2]]).iloc[0])
    one = m.predict(new, new_levels="nan", random="~(1|k)")
    assert one.isna().tolist() == [True, False, False, True]


def test_keep_gives_unseen_levels_no_effect() -> None:
    m = by_codes("y ~ x + (1 | k)")
    new = data().head(4).assign(k=[99, 99, 0, 0])
    draws = m.simulate(4000, rng=2, random="keep", newdata=new).to_numpy()
    np.testing.assert_allclose(draws.std(axis=1), m.sigma, rtol=0.05)
    want = m.predict(new, new_levels="population")
    np.testing.assert_allclose(draws.mean(axis=1), want, atol=5 * m.sigma / np.sqrt(4000))
    assert np.abs(np.corrcoef(draws)[0, 1]) < 0.08


def test_excluded_rows_after_loading(tmp_path: Path) -> None:
    frame = data().assign(x=data()["x"].where(np.arange(N) % 11 != 3))
    m = lmm.lmer("y ~ x + (1 | k)", frame, na_action="exclude", weights="w")
    m.save(tmp_path / "m")
    loaded = lmm.load(tmp_path / "m")
    for name in ("fitted", "residuals", "weights"):
        values = getattr(loaded, name)
        pd.testing.assert_series_equal(values, getattr(m, name))
        assert values.isna().tolist() == (np.arange(N) % 11 == 3).tolist()
    pd.testing.assert_frame_equal(loaded.augment(frame), m.augment(frame))


def test_augment_with_weights_and_offset() -> None:
    m = lmm.lmer("y ~ x + (1 | k)", data(), weights="w", offset="o")
    told = m.augment(data())
    b = m.ranef["k"]["Intercept"].reindex(data()["k"]).to_numpy()
    fixed = m.fixef["Intercept"] + m.fixef["x"] * data()["x"] + data()["o"]
    np.testing.assert_allclose(told["_fixed"], fixed, rtol=1e-10)
    np.testing.assert_allclose(told["_fitted"], fixed + b, rtol=1e-10)
    np.testing.assert_allclose(told["_mu"], fixed + b, rtol=1e-10)
    np.testing.assert_allclose(told["_resid"], data()["y"] - fixed - b, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        told["_wtres"], np.sqrt(data()["w"]) * (data()["y"] - fixed - b), rtol=1e-8, atol=1e-10
    )
    np.testing.assert_array_equal(told["_offset"], data()["o"])
    np.testing.assert_array_equal(told["_weights"], data()["w"])
    np.testing.assert_allclose(told["_sqrtXwt"], np.sqrt(data()["w"]))


def test_prediction_limits_know_the_weights() -> None:
    m = lmm.lmer("y ~ x + (1 | k)", data(), weights="w")
    found = m.predict(data(), interval="prediction", level=0.9)
    half = norm.ppf(0.95) * np.sqrt(found["se"] ** 2 + m.sigma**2 / data()["w"])
    np.testing.assert_allclose(found["upper"] - found["fit"], half, rtol=1e-9)
    np.testing.assert_allclose(found["fit"] - found["lower"], half, rtol=1e-9)


def test_means_hold_the_mean_offset() -> None:
    shifted = data().assign(y=data()["y"] + data()["o"] + 3.0, o=data()["o"] + 3.0)
    m = lmm.lmer("y ~ h + x + offset(o) + (1 | k)", shifted)
    want = lmm.lmer("y ~ h + x + (1 | k)", data()).emmeans("h").to_frame()
    found = m.emmeans("h").to_frame()
    mean = shifted["o"].mean()
    np.testing.assert_allclose(found["emmean"], want["emmean"] + mean, rtol=1e-7)


def test_limits_of_modes_are_normal() -> None:
    m = lmm.lmer("y ~ x + (x | k)", data(), weights="w")
    told = m.tidy("ran_vals", conf_int=True, level=0.8)
    se = np.sqrt(np.einsum("lii->il", m.cond_var["k"])).ravel()
    np.testing.assert_allclose(told["std_error"], se, rtol=1e-9)
    half = norm.ppf(0.9) * se
    np.testing.assert_allclose(told["conf_high"] - told["estimate"], half, rtol=1e-9)
    np.testing.assert_allclose(told["estimate"] - told["conf_low"], half, rtol=1e-9)


def test_codings_of_factors_that_the_formula_leaves_out_do_nothing() -> None:
    d = lmm.load_dataset("cake")
    half = {"recipe": {"A": -1.0, "B": 0.0, "C": 1.0}}
    with_it = lmm.lmer("angle ~ recipe + temp + (1 | replicate)", d, contrasts=half)
    without = lmm.lmer("angle ~ temp + (1 | replicate)", d, contrasts=half)
    assert without.formula == with_it.update(". ~ . - recipe").formula
    plain = lmm.lmer("angle ~ temp + (1 | replicate)", d)
    assert without.reml_criterion == pytest.approx(plain.reml_criterion, abs=1e-9)


@pytest.mark.parametrize(
    ("formula", "same"),
    [
        ("y ~ . - day - t - g + (1 | g)", "y ~ x + `a b` + (1 | g)"),
        ("y ~ . - day - t + x:g + (1 | g)", "y ~ x + `a b` + g + x:g + (1 | g)"),
        ("y ~ (. - day - t - g)^2 + (1 | g)", "y ~ (x + `a b`)^2 + (1 | g)"),
        ("y ~ 0 + . - day - t - g + (1 | g)", "y ~ 0 + x + `a b` + (1 | g)"),
        (
            "y ~ . - t - day - g + np.log(`a b`) + (1 | g)",
            "y ~ x + `a b` + np.log(`a b`) + (1 | g)",
        ),
    ],
)
def test_a_column_that_is_taken_away_again_is_not_looked_at(formula: str, same: str) -> None:
    """Dates and labels of rows are no predictors, and missing values in them drop no row."""
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"y": rng.normal(size=40), "x": rng.normal(size=40)})
    data["a b"], data["g"] = rng.uniform(1, 2, 40), np.arange(40) % 8
    data["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(data["g"], "D")
    data["t"] = [None, *(f"row {i}" for i in range(39))]
    one, other = lmm.build_design(formula, data), lmm.build_design(same, data)
    np.testing.assert_array_equal(one.X, other.X)
    assert one.x_names == other.x_names
