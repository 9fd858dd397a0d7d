"""Dask clients: the same sums, also when a worker dies."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chunked import FORMULA, crossed

import lmmsparse as lmm

DATA = crossed(4000)
ONE = lmm.lmer(FORMULA, DATA, chunks=lmm.Chunks(rows=250, processes=1))


def same_sums(model: lmm.LinearMixedModel, other: lmm.LinearMixedModel) -> None:
    a, b = model.fit.products, other.fit.products
    assert np.array_equal(a.ZtX, b.ZtX)
    assert all(np.array_equal(x.values, y.values) for x, y in zip(a.pairs, b.pairs, strict=True))
    assert np.array_equal(model.fit.theta, other.fit.theta)


def test_any_executor() -> None:
    with ThreadPoolExecutor(2) as pool:
        m = lmm.lmer(FORMULA, DATA, chunks=lmm.Chunks(rows=250, client=pool))
    same_sums(m, ONE)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0
        ) as cluster,
        distributed.Client(cluster) as made,
    ):
        yield made


pytestmark = pytest.mark.filterwarnings("ignore")  # of what a cluster says when it ends


@pytest.mark.long
def test_a_dask_client(client: Any) -> None:
    m = lmm.lmer(FORMULA, DATA, chunks=lmm.Chunks(rows=250, client=client))
    same_sums(m, ONE)


def test_a_dask_frame_is_read_on_its_client(client: Any) -> None:
    frame = pytest.importorskip("dask.dataframe").from_pandas(DATA, npartitions=4)
    m = lmm.lmer("y ~ x + (1 | g)", frame)
    np.testing.assert_allclose(m.fixef, lmm.lmer("y ~ x + (1 | g)", DATA).fixef, rtol=1e-6)


class Deadly:
    """A function of a formula that ends its process once."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, values: Any) -> Any:
        if self.mark.exists() and os.environ.get("DASK_PARENT") != str(os.getpid()):
            self.mark.unlink()
            time.sleep(0.2)
            os._exit(1)
        return values


@pytest.mark.long
def test_a_process_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_PARENT", str(os.getpid()))
    mark = tmp_path / "alive"
    mark.touch()
    with pytest.raises(lmm.OptionError, match="memory ran out"):
        lmm.lmer(
            "y ~ plain(x) + (1 | g)",
            DATA,
            chunks=lmm.Chunks(rows=250, processes=2),
            context={"plain": Deadly(mark)},
        )


@pytest.mark.long
def test_a_worker_that_dies(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_PARENT", str(os.getpid()))
    mark = tmp_path / "alive"
    options: Any = {"context": {"plain": Deadly(mark)}}
    formula = FORMULA.replace("x + f", "plain(x) + f")
    wanted = lmm.lmer(formula, DATA, chunks=lmm.Chunks(rows=250, processes=1), **options)
    mark.touch()
    found = lmm.lmer(formula, DATA, chunks=lmm.Chunks(rows=250, client=client), **options)
    assert not mark.exists()
    same_sums(found, wanted)
