"""Cluster-robust standard errors of models fitted in chunks are those of models in memory."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chunked import crossed

import lmmsparse as lmm
from lmmsparse.chunks import clusters as pass_of_clusters

CHUNKS = lmm.Chunks(rows=200, processes=1)
FORMULA = "y ~ x * f + (1 + x | school) + (1 | klass)"
KINDS = ("CR0", "CR1", "CR2", "CR3")


def _nested(n: int = 600, schools: int = 24, seed: int = 1) -> pd.DataFrame:
    """Pupils in no order, classes within schools within regions, one value missing."""
    r = np.random.default_rng(seed)
    school = r.integers(0, schools, n)
    klass = school * 4 + r.integers(0, 4, n)
    data = pd.DataFrame(
        {
            "school": school * 3 + 100,
            "klass": [f"class {k}" for k in klass],
            "region": [f"region {s % 12}" for s in school],
            "x": r.normal(5, 2, n),
            "f": r.choice(list("abc"), n),
            "w": r.uniform(0.5, 2.0, n),
            "o": r.normal(size=n),
        }
    )
    slopes = 0.4 + 0.2 * r.normal(size=schools)[school]
    effects = r.normal(size=schools)[school] + 0.5 * r.normal(size=4 * schools)[klass]
    data["y"] = slopes * data["x"] + effects + data["o"] + r.normal(size=n)
    data.loc[5, "x"] = np.nan
    return data


DATA = _nested()


def _both(formula: str, data: pd.DataFrame, **options: Any) -> tuple[Any, Any]:
    """A fit in memory, and one in chunks at the same θ."""
    m = lmm.lmer(formula, data, **options)
    held = dict(zip(m.theta.index, m.theta, strict=True))
    found = lmm.lmer(formula, data, chunks=CHUNKS, fixed=held, **options)
    return m, found


MEMORY, CHUNKED = _both(FORMULA, DATA, offset="o")


def _same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    assert a.index.equals(b.index)
    assert a.columns.equals(b.columns)
    np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "cluster"),
    [*((kind, name) for kind in KINDS for name in ("school", "region")), ("CR1", None)],
)
def test_tables_are_those_in_memory(kind: str, cluster: str | None) -> None:
    labels = DATA["region"] if cluster == "region" else cluster
    _same(CHUNKED.vcov_robust(cluster, kind), MEMORY.vcov_robust(labels, kind))
    found = CHUNKED.coef_table(robust=kind, cluster=cluster).to_frame()
    _same(found, MEMORY.coef_table(robust=kind, cluster=labels).to_frame())
    if cluster != "school":
        return
    joint = lmm.anova(CHUNKED, robust=kind, cluster=cluster).to_frame()
    wanted = lmm.anova(MEMORY, robust=kind, cluster=labels).to_frame()
    np.testing.assert_allclose(joint.astype(float), wanted.astype(float), rtol=1e-8)


@pytest.mark.parametrize("kind", ["CR0", "CR1", "CR3"])
def test_weights(kind: str) -> None:
    m, found = _both(FORMULA, DATA, weights="w", reml=False)
    _same(found.vcov_robust("school", kind), m.vcov_robust("school", kind))
    with pytest.raises(lmm.OptionError, match=r"CR2 .* weights .* 'CR3' or 'CR1'"):
        found.vcov_robust("school", "CR2")


@pytest.mark.parametrize("kind", KINDS)
def test_small_clusters_and_columns_of_single_ones(kind: str) -> None:
    """Fewer rows than columns, coefficients that one cluster tells alone, columns far from 0."""
    r = np.random.default_rng(4)
    g = np.repeat(np.arange(60), r.integers(1, 5, 60))
    data = pd.DataFrame({"g": g, "t": 2.45e3 + r.normal(size=len(g)), "z": 1.0 * (g == 7)})
    data["f"] = np.where(g < 30, "a", "b")
    data["y"] = data["t"] + r.normal(size=60)[g] + r.normal(size=len(g))
    data = data.sample(frac=1.0, random_state=2, ignore_index=True)
    m, found = _both("y ~ t * f + z + (1 | g)", data)
    size = np.abs(m.vcov_robust("g", kind)).max().max()
    np.testing.assert_allclose(
        found.vcov_robust("g", kind), m.vcov_robust("g", kind), rtol=1e-7, atol=1e-9 * size
    )
    df = [each.coef_table(robust=kind, cluster="g")["df"] for each in (found, m)]
    np.testing.assert_allclose(df[0], df[1], rtol=1e-8)


def test_categories_that_no_row_has_are_no_clusters() -> None:
    categories = ["never", *sorted(DATA["region"].unique()), "nowhere"]
    data = DATA.assign(region=pd.Categorical(DATA["region"], categories=categories))
    sums = CHUNKED.cluster_sums(data, "region", chunks=CHUNKS)
    assert sums.count == 12
    for kind in ("CR1", "CR2"):
        _same(CHUNKED.vcov_robust(sums, kind), MEMORY.vcov_robust(DATA["region"], kind))


def test_other_tables_and_the_printout() -> None:
    for call in (
        lambda m: m.contrast({"x": 1.0}, robust="CR2", cluster="school"),
        lambda m: m.emmeans("f", robust="CR2", cluster="school"),
        lambda m: m.joint_tests(robust="CR2", cluster="school"),
    ):
        found, wanted = (call(m).to_frame().select_dtypes("number") for m in (CHUNKED, MEMORY))
        np.testing.assert_allclose(found, wanted, rtol=1e-8)
    shown = str(CHUNKED.summary(robust="CR1", cluster="school"))
    assert "CR1 standard errors by school: 24 clusters." in shown
    assert CHUNKED.tidy(robust="CR2", cluster="school")["df"].between(5, 25).all()


def test_the_source_is_read_once_for_all_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    m = lmm.lmer("y ~ x + (1 | school)", DATA, chunks=CHUNKS)
    passes = []
    fold = pass_of_clusters.fold
    monkeypatch.setattr(pass_of_clusters, "fold", lambda *a: passes.append(1) or fold(*a))
    m.vcov_robust("school", "CR1")
    m.coef_table(robust="CR2", cluster="school")
    assert len(passes) == 1


def test_files_and_models_that_were_saved(tmp_path: Path) -> None:
    for i, part in enumerate(np.array_split(np.arange(len(DATA)), 3)):
        DATA.iloc[part].to_parquet(tmp_path / f"{i}.parquet")
    path = str(tmp_path / "*.parquet")
    held = dict(zip(MEMORY.theta.index, MEMORY.theta, strict=True))
    m = lmm.lmer(FORMULA, path, offset="o", chunks=CHUNKS, fixed=held)
    for cluster in ("school", "region"):
        labels = DATA["region"] if cluster == "region" else cluster
        _same(m.vcov_robust(cluster, "CR2"), MEMORY.vcov_robust(labels, "CR2"))
    m.save(tmp_path / "m.lmm")
    for again in (lmm.load(tmp_path / "m.lmm"), pickle.loads(pickle.dumps(m))):
        with pytest.raises(lmm.LmmError, match=r"m\.cluster_sums\(source, 'column'\)"):
            again.vcov_robust("school")
        sums = again.cluster_sums(path, "school")
        _same(again.vcov_robust(sums, "CR2"), MEMORY.vcov_robust("school", "CR2"))


@pytest.mark.long
def test_the_number_of_processes_does_not_matter() -> None:
    two = CHUNKED.cluster_sums(DATA, "region", chunks=lmm.Chunks(rows=200, processes=2))
    assert two is not CHUNKED.cluster_sums(DATA, "region", chunks=CHUNKS)
    np.testing.assert_array_equal(CHUNKED.vcov_robust(two), CHUNKED.vcov_robust("region"))


def test_sums_of_models_in_memory() -> None:
    sums = MEMORY.cluster_sums(DATA, "school", chunks=CHUNKS)
    _same(MEMORY.vcov_robust(sums, "CR2"), MEMORY.vcov_robust("school", "CR2"))
    other = lmm.lmer("y ~ x + (1 | school)", DATA)
    with pytest.raises(lmm.OptionError, match="another model"):
        other.vcov_robust(sums)


def test_what_is_refused() -> None:
    m = CHUNKED
    with pytest.raises(lmm.OptionError, match=r"Did you mean 'school'\?"):
        m.vcov_robust("schol")
    with pytest.raises(lmm.OptionError, match=r"'school' cross the clusters of 'klass'.* in 4 of"):
        m.vcov_robust("klass")
    with pytest.raises(lmm.OptionError, match="cross the clusters of 'f'"):
        m.vcov_robust("f")
    with pytest.raises(lmm.OptionError, match="must be the name of a column"):
        m.coef_table(robust="CR1", cluster=DATA["school"])
    with pytest.raises(lmm.DataError, match="does not have the rows that the model was fitted to"):
        m.cluster_sums(DATA.drop(index=3), "school")
    with pytest.raises(lmm.DataError, match="does not have the rows"):
        m.cluster_sums(DATA.assign(y=DATA["y"].sample(frac=1, random_state=1).to_numpy()))
    with pytest.raises(lmm.DataError, match="missing in 1 rows"):
        m.cluster_sums(DATA.assign(region=DATA["region"].where(DATA.index != 9)), "region")
    with pytest.raises(lmm.DataError, match="one label only"):
        m.cluster_sums(DATA.assign(all="a"), "all")
    data = crossed(1000, groups=40)
    two = lmm.lmer("y ~ x + (1 | g) + (1 | h)", data, chunks=CHUNKS)
    with pytest.raises(lmm.OptionError, match=r"cluster= is needed: none of .* holds all others"):
        two.vcov_robust()


def test_blocks_that_memory_would_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    m = lmm.lmer("y ~ x + (1 | school)", DATA, chunks=CHUNKS)
    want = m.coef_table("asymptotic", robust="CR1", cluster="school").to_frame()
    monkeypatch.setattr(pass_of_clusters, "free_memory", lambda: 100.0)
    sums = m.cluster_sums(DATA, "school", chunks=CHUNKS)
    _same(m.coef_table("asymptotic", robust="CR1", cluster=sums).to_frame(), want)
    for kind, ddf in (("CR1", "satterthwaite"), ("CR3", "asymptotic")):
        with pytest.raises(lmm.OptionError, match=r"Use 'CR1' with ddf='asymptotic'\."):
            m.coef_table(ddf, robust=kind, cluster=sums)
