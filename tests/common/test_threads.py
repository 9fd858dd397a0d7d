"""What processes and threads share: BLAS threads, warning filters, fitted models."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Event, Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest
from joblib import Parallel, delayed, parallel_config
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


@cache
def crossed() -> pd.DataFrame:
    """Rows of two crossed factors that are not balanced."""
    rng = np.random.default_rng(4)
    a, b, x = rng.integers(0, 40, 400), rng.integers(0, 35, 400), rng.normal(size=400)
    f = np.array(["u", "v", "w"])[rng.integers(0, 3, 400)]
    y = x + rng.normal(size=40)[a] + 0.5 * rng.normal(size=40)[a] * x + rng.normal(size=35)[b]
    return pd.DataFrame({"y": y + rng.normal(size=400), "x": x, "f": f, "a": a, "b": b})


MODELS = {
    "CHOLMOD": ("y ~ x + f + (x | a) + (1 | b)", lmm.Cholmod()),
    "simplicial": ("y ~ x + f + (x | a) + (1 | b)", lmm.Cholmod(mode="simplicial")),
    "supernodal": ("y ~ x + f + (x | a) + (1 | b)", lmm.Cholmod(mode="supernodal")),
    "SuperLU": ("y ~ x + f + (x | a) + (1 | b)", lmm.SuperLU()),
    "blocked": ("y ~ x + f + (x | a) + (1 | b)", lmm.Blocked()),
    "one factor": ("y ~ x + f + (x | a)", None),
    "dense": ("y ~ x + (1 | b)", lmm.Dense()),
}
CALLS: dict[str, Callable[[lmm.LinearMixedModel], Any]] = {
    "vcov": lambda m: m.vcov,
    "modes": lambda m: m.ranef["b" if "b" in m.ranef else "a"],
    "conditional variances": lambda m: m.cond_var["b" if "b" in m.cond_var else "a"],
    "predictions": lambda m: m.predict(crossed().head(50), se=True).to_numpy(),
    "intervals": lambda m: m.predict(interval="prediction").to_numpy(),
    "refit": lambda m: m.refit(crossed()["y"] * 1.5 + crossed()["x"]).theta,
    "ML": lambda m: m.refit(crossed()["y"] - 2 * crossed()["x"]).fit.criterion,
    "many": lambda m: m.refit_many(m.simulate(3, rng=2)).iloc[:, :5],
    "simulate": lambda m: m.simulate(2, rng=1),
    "summary": lambda m: m.summary(),
    "table": lambda m: lmm.anova(m).to_frame(),
    "Kenward-Roger": lambda m: m.coef_table("kenward-roger").to_frame(),
    "Wald": lambda m: m.confint("wald"),
    "profile": lambda m: m.confint("profile", which="sigma"),
    "bootstrap": lambda m: m.bootstrap(3, rng=3, progress=False).to_frame(),
    "influence": lambda m: m.influence().to_frame(),
    "errors": lambda m: m.vcov_varcorr(),
    "verdict": lambda m: m.convergence.expected_decrease,
    "means": lambda m: m.contrast([0, 1] + [0] * (len(m.fixef) - 2)).to_frame(),
    "tidy": lambda m: m.tidy(),
    "r2": lambda m: m.r2(),
    "contribution": lambda m: m.drop1("F").to_frame(),
}


def plain(value: Any) -> Any:
    """A result in a form that compares by every digit."""
    if hasattr(value, "to_numpy"):
        return value.to_numpy().tolist()
    return value.tolist() if isinstance(value, np.ndarray) else str(value)


@cache
def kept(kind: str) -> bytes:
    """A fitted model, pickled: what was cached is not in it."""
    formula, solver = MODELS[kind]
    return pickle.dumps(lmm.lmer(formula, crossed(), solver=solver))


def fresh(kind: str) -> lmm.LinearMixedModel:
    model: lmm.LinearMixedModel = pickle.loads(kept(kind))
    return model


@cache
def serial(kind: str) -> dict[str, str]:
    """What every call gives on a model that nobody else uses."""
    return {name: repr(plain(call(fresh(kind)))) for name, call in CALLS.items()}


_NUMBER = re.compile(r"[-+]?\d+\.\d+(?:e[-+]?\d+)?")


def alike(found: str, expected: str) -> bool:
    """The same but for rounding: a BLAS with more threads, of a call nearby, adds otherwise."""
    if found == expected:
        return True
    numbers = [np.array(_NUMBER.findall(text), dtype=float) for text in (found, expected)]
    texts = [_NUMBER.sub("#", text) for text in (found, expected)]
    return texts[0] == texts[1] and bool(np.allclose(*numbers, rtol=1e-9, atol=1e-12))


def differing(kind: str, model: lmm.LinearMixedModel, calls: list[str], threads: int) -> list[str]:
    def one(name: str) -> bool:
        return alike(repr(plain(CALLS[name](model))), serial(kind)[name])

    serial(kind)
    with ThreadPoolExecutor(threads) as pool:
        same = list(pool.map(one, calls))
    return [name for name, right in zip(calls, same, strict=True) if not right]


@pytest.mark.long
@pytest.mark.parametrize("kind", MODELS)
def test_one_model_in_eight_threads(kind: str) -> None:
    """Results are those of serial calls, also where what is cached is asked for at once."""
    filters, number = list(warnings.filters), blas_threads()
    order = np.random.default_rng(len(kind)).permutation([*CALLS] * 2).tolist()
    assert differing(kind, fresh(kind), order, threads=8) == []
    assert (list(warnings.filters), blas_threads()) == (filters, number)


def fitted(i: int) -> float:
    formula, solver = MODELS[[*MODELS][i % len(MODELS)]]
    return float(lmm.lmer(formula, crossed(), solver=solver).fit.criterion)


def test_fits_in_threads() -> None:
    filters, number = list(warnings.filters), blas_threads()
    want = [fitted(i) for i in range(len(MODELS))]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(fitted, range(4 * len(MODELS))))
    assert found == want * 4
    assert (list(warnings.filters), blas_threads()) == (filters, number)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.parametrize("kind", ["CHOLMOD", "SuperLU", "one factor"])
def test_every_backend_of_joblib(kind: str, backend: str) -> None:
    model = fresh(kind)
    assert repr(plain(CALLS["intervals"](model))) == serial(kind)["intervals"]
    with quiet_forks(backend), parallel_config(backend=backend, n_jobs=2):
        found = Parallel()(delayed(in_a_child)(model, name) for name in CHILDREN)
    assert found == [serial(kind)[name] for name in CHILDREN]


CHILDREN = ["predictions", "refit", "errors", "profile", "summary"]


def in_a_child(model: lmm.LinearMixedModel, name: str) -> str:
    return repr(plain(CALLS[name](model)))


@contextmanager
def quiet_forks(backend: str) -> Iterator[None]:
    """Without Python's warning that a process with threads is forked: here they are idle."""
    with warnings.catch_warnings():
        if backend == "multiprocessing":
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", RuntimeWarning)  # of other packages that are loaded
        yield


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("kind", ["CHOLMOD", "one factor"])
def test_a_fork_while_nobody_computes(kind: str) -> None:
    """The child uses what the parent has fitted, and fits by itself."""
    model = fresh(kind)
    assert repr(plain(CALLS["predictions"](model))) == serial(kind)["predictions"]
    with quiet_forks("multiprocessing"):
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=lambda: queue.put([in_a_child(model, c) for c in CHILDREN]))
        child.start()
        found = queue.get(timeout=60)
        child.join(60)
    assert found == [serial(kind)[name] for name in CHILDREN]
    assert in_a_child(model, "refit") == serial(kind)["refit"]


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

    model = lmm.lmer(MODELS["CHOLMOD"][0], crossed(), solver=Halting())
    objective, theta = model.fit.objective, model.fit.theta
    want = objective(1.1 * theta)
    interrupted.append(True)
    with pytest.raises(KeyboardInterrupt):
        objective(0.7 * theta)
    interrupted.clear()
    assert objective(1.1 * theta) == want
    assert objective(0.7 * theta) != want
