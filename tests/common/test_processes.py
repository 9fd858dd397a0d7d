"""Other processes: what is not wanted any more ends without a word, whatever is on its way."""

from __future__ import annotations

import threading
import time
from typing import Any

import joblib.externals.loky.process_executor as loky
import pytest
from joblib import parallel_config

from lmmsparse.common.processes import elsewhere
from lmmsparse.common.progress import run


def double(x: int) -> int:
    return 2 * x


def threads() -> list[str]:
    return sorted(each.name for each in threading.enumerate())


@pytest.mark.long
@pytest.mark.parametrize("wanted", [1, 2, 5])
def test_calls_on_their_way_do_not_trip_the_thread_that_hands_them_out(
    wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has just sent for another call when all are withdrawn: the moment is made long here."""
    manager = loky._ExecutorManagerThread
    process, errors = manager.process_result_item, []

    def slowly(self: Any, item: Any) -> None:
        process(self, item)
        time.sleep(0.1)

    monkeypatch.setattr(manager, "process_result_item", slowly)
    monkeypatch.setattr(threading, "excepthook", lambda args: errors.append(args.exc_type))
    list(elsewhere(double, [(i,) for i in range(4)], 2))
    before = threads()
    results = elsewhere(double, [(i,) for i in range(60)], 2)
    assert [next(results) for _ in range(wanted)] == [2 * i for i in range(wanted)]
    results.close()
    assert errors == []
    assert len(threads()) <= len(before)
    assert list(elsewhere(double, [(3,), (4,)], 2)) == [6, 8]


@pytest.mark.parametrize("backend", ["threading", "sequential"])
def test_the_backend_is_the_users(backend: str) -> None:
    with parallel_config(backend=backend):
        found = run(threading.get_native_id, [()] * 9, "x", unit="x", n_jobs=2).results
    assert len(found) == 9
    assert all(each in range(2**31) for each in found)
