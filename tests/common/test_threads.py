"""What processes and threads share: BLAS threads, warning filters, fitted models."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier, Event, Thread
from typing import Any

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from shared_models import CALLS, MODELS, SLOPES, alike, answer, crossed
from threadpoolctl import ThreadpoolController

import lmmsparse as lmm
from lmmsparse.common.threads import filtered, one_thread

CONTROLLER = ThreadpoolController()


def blas_threads() -> set[int]:
    return {int(info["num_threads"]) for info in CONTROLLER.info() if info["user_api"] == "blas"}


@pytest.fixture
def two_threads() -> Iterator[None]:
    with CONTROLLER.limit(limits=2, user_api="blas"):
        assert blas_threads() == {2}
        yield


@pytest.mark.usefixtures("two_threads")
def test_one_inside_and_two_again_outside() -> None:
    nested = one_thread(one_thread(blas_threads))
    assert nested() == {1}
    assert blas_threads() == {2}


@pytest.mark.usefixtures("two_threads")
def test_an_error_restores_too() -> None:
    @one_thread
    def fails() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fails()
    assert blas_threads() == {2}


@pytest.mark.usefixtures("two_threads")
def test_calls_that_overlap_in_several_threads() -> None:
    """The first to come is the first to leave: the second must not keep the limit for ever."""
    inside, left = Event(), Event()

    @one_thread
    def second() -> None:
        inside.set()
        assert left.wait(10)

    @one_thread
    def first(thread: Thread) -> None:
        thread.start()
        assert inside.wait(10)

    thread = Thread(target=second)
    first(thread)
    left.set()
    thread.join()
    assert blas_threads() == {2}


def test_overlapping_threads_that_no_other_controls() -> None:
    """The former number comes back whichever thread was first, last, or has ended by then."""
    number = blas_threads()
    for _ in range(20):
        first, second = Event(), Event()

        @one_thread
        def early(second: Event = second, first: Event = first) -> None:
            first.set()
            assert second.wait(10)

        @one_thread
        def late(second: Event = second) -> None:
            second.set()

        threads = [Thread(target=early), Thread(target=lambda e=first, f=late: e.wait(10) and f())]
        run_all(threads)
        assert blas_threads() == number


def run_all(threads: list[Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


# Warnings -----------------------------------------------------------------------------------------


def test_filters_are_of_the_thread_that_set_them() -> None:
    inside, done, heard = Event(), Event(), []

    def quiet() -> None:
        with filtered(("ignore", UserWarning)):
            inside.set()
            assert done.wait(10)
            warnings.warn("not heard", UserWarning, stacklevel=1)

    thread = Thread(target=quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        thread.start()
        assert inside.wait(10)
        try:
            warnings.warn("heard", UserWarning, stacklevel=1)
        except UserWarning as error:
            heard.append(str(error))
        done.set()
        thread.join(10)
    assert heard == ["heard"]


def test_the_first_rule_that_fits_decides() -> None:
    with filtered(("ignore", Warning)), filtered(("error", UserWarning), ("ignore", FutureWarning)):
        warnings.warn("ignored", FutureWarning, stacklevel=1)
        warnings.warn("ignored outside", RuntimeWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
    with pytest.raises(FutureWarning):
        warnings.warn("heard again", FutureWarning, stacklevel=1)


def test_overlapping_filters_leave_none() -> None:
    before = list(warnings.filters)
    for _ in range(20):
        first, second = Event(), Event()

        def early(first: Event = first, second: Event = second) -> None:
            with filtered(("ignore", Warning), ("error", UserWarning)):
                first.set()
                assert second.wait(10)

        def late(first: Event = first, second: Event = second) -> None:
            assert first.wait(10)
            with filtered(("error", Warning)):
                second.set()

        run_all([Thread(target=early), Thread(target=late)])
    assert list(warnings.filters) == before


# Models -------------------------------------------------------------------------------------------


# Kinds that go one way each: what the others share is theirs.
FEW = ("CHOLMOD", "levels", "Krylov", "ar1", "binomial, crossed")
# What is computed when it is first asked for.
FIRST = ("vcov", "ranef", "cond_var", "convergence", "fitted", "summary", "refit", "predict se")
# Each of these takes seconds, and does what others do too.
LENGTHY = {"all_fit", "check", "compare", "influence of rows", "plot effects", "power"}
MIX = [name for name in CALLS if name not in LENGTHY]
PROMPTLY = 1e-6


@cache
def kept(kind: str) -> bytes:
    """A fitted model, pickled: what was cached is not in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        return pickle.dumps(MODELS[kind]())


def fresh(kind: str) -> Any:
    return pickle.loads(kept(kind))


@cache
def serial(kind: str, name: str) -> str:
    """What a call gives on a model that nobody else uses."""
    return answer(fresh(kind), name)


def differing(kind: str, queues: list[list[str]]) -> list[str]:
    """What threads hear from one model, each asking all of a queue, that a lone one does not."""
    for name in {name for queue in queues for name in queue}:
        serial(kind, name)
    model, barrier, bad = fresh(kind), Barrier(len(queues)), []

    def ask(queue: list[str]) -> None:
        barrier.wait(60)
        for name in queue:
            found = answer(model, name)
            if not alike(found, serial(kind, name)):
                bad.append(f"{name}: {found:.200}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(PROMPTLY)
    try:
        with ThreadPoolExecutor(len(queues)) as pool:
            list(pool.map(ask, queues))
    finally:
        sys.setswitchinterval(interval)
    return bad


@pytest.mark.filterwarnings("ignore::lmmsparse.LmmWarning")
@pytest.mark.parametrize("kind", FEW)
def test_what_is_cached_is_asked_for_at_once(kind: str) -> None:
    if kind in MODELS:
        assert differing(kind, [[*FIRST[i:], *FIRST[:i]] for i in (0, 0, 2, 6)]) == []


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::lmmsparse.LmmWarning")
@pytest.mark.parametrize("kind", MODELS)
def test_one_model_in_eight_threads(kind: str) -> None:
    """Results are those of serial calls, also where what is cached is asked for at once."""
    filters, number = list(warnings.filters), blas_threads()
    rng = np.random.default_rng(len(kind))
    first = str(rng.choice(MIX))
    assert differing(kind, [[first, *rng.choice(MIX, 12).tolist()] for _ in range(8)]) == []
    assert (list(warnings.filters), blas_threads()) == (filters, number)


def test_the_mix_asks_for_all_members() -> None:
    """A member that nobody put on the list would not be asked for by several threads."""
    asked = {name.split()[0] for name in CALLS} | {"plot"}
    for kind in (lmm.LinearMixedModel, lmm.GeneralizedLinearMixedModel):
        assert {name for name in dir(kind) if not name.startswith("_")} <= asked


FITTED = ("CHOLMOD", "supernodal", "SuperLU", "blocked", "levels", "dense", "binomial, levels")


def fitted(i: int) -> float:
    return float(MODELS[FITTED[i % len(FITTED)]]().fit.criterion)


def test_fits_in_threads() -> None:
    filters, number = list(warnings.filters), blas_threads()
    want = [fitted(i) for i in range(len(FITTED))]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(fitted, range(4 * len(FITTED))))
    assert found == want * 4
    assert (list(warnings.filters), blas_threads()) == (filters, number)


@pytest.mark.filterwarnings("ignore::lmmsparse.LmmWarning")
@pytest.mark.long
@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.parametrize("kind", ["CHOLMOD", "SuperLU", "levels", "binomial, crossed", "ar1"])
def test_every_backend_of_joblib(kind: str, backend: str) -> None:
    model = fresh(kind)
    assert answer(model, "predict") == serial(kind, "predict")
    with quiet_forks(backend), parallel_config(backend=backend, n_jobs=2):
        found = Parallel()(delayed(in_a_child)(model, name) for name in CHILDREN)
    assert found == [serial(kind, name) for name in CHILDREN]


CHILDREN = ["predict", "refit", "cond_var", "confint wald", "summary"]


def in_a_child(model: Any, name: str) -> str:
    return answer(model, name)


@contextmanager
def quiet_forks(backend: str) -> Iterator[None]:
    """Without Python's warning that a process with threads is forked: here they are idle."""
    with warnings.catch_warnings():
        if backend == "multiprocessing":
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", RuntimeWarning)  # of other packages that are loaded
        yield


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("kind", ["CHOLMOD", "levels", "binomial, crossed"])
def test_a_fork_while_nobody_computes(kind: str) -> None:
    """The child uses what the parent has fitted, and fits by itself."""
    model = fresh(kind)
    assert answer(model, "predict") == serial(kind, "predict")
    with quiet_forks("multiprocessing"):
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=lambda: queue.put([in_a_child(model, c) for c in CHILDREN]))
        child.start()
        found = queue.get(timeout=60)
        child.join(60)
    assert found == [serial(kind, name) for name in CHILDREN]
    assert answer(model, "refit") == serial(kind, "refit")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_while_another_thread_is_limited() -> None:
    """The child limits its own BLAS and gives the former number back."""
    inside, done = Event(), Event()

    @one_thread
    def busy() -> None:
        inside.set()
        assert done.wait(60)

    number = blas_threads()
    thread = Thread(target=busy)
    thread.start()
    assert inside.wait(10)
    with quiet_forks("multiprocessing"):
        context = multiprocessing.get_context("fork")
        queue = context.Queue()

        def look() -> None:
            queue.put((one_thread(blas_threads)(), blas_threads()))

        child = context.Process(target=look)
        child.start()
        found = queue.get(timeout=60)
        child.join(60)
    done.set()
    thread.join(10)
    assert found == ({1}, number)
    assert blas_threads() == number


def test_interrupted_factorizations_are_made_anew() -> None:
    interrupted: list[bool] = []

    class Halting(lmm.Cholmod):
        def analyze(self, lower: Any, several: bool = True) -> Any:
            factor, title = super().analyze(lower, several)

            class Interrupted(type(factor)):  # type: ignore[misc]
                def factorize(self, lower: Any) -> None:
                    super().factorize(lower)
                    if interrupted:
                        raise KeyboardInterrupt

            factor.__class__ = Interrupted
            return factor, title

    model = lmm.lmer(SLOPES, crossed(), solver=Halting())
    objective, theta = model.fit.objective, model.fit.theta
    want = objective(1.1 * theta)
    interrupted.append(True)
    with pytest.raises(KeyboardInterrupt):
        objective(0.7 * theta)
    interrupted.clear()
    assert objective(1.1 * theta) == want
    assert objective(0.7 * theta) != want
