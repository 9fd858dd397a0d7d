"""One BLAS thread during a fit, and the former number again afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Thread

import pytest
from threadpoolctl import ThreadpoolController

from lmmsparse.threads import one_thread

CONTROLLER = ThreadpoolController()


def blas_threads() -> set[int]:
    return {int(info["num_threads"]) for info in CONTROLLER.info() if info["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    with CONTROLLER.limit(limits=2, user_api="blas"):
        assert blas_threads() == {2}
        yield


def test_one_inside_and_two_again_outside() -> None:
    nested = one_thread(one_thread(blas_threads))
    assert nested() == {1}
    assert blas_threads() == {2}


def test_an_error_restores_too() -> None:
    @one_thread
    def fails() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fails()
    assert blas_threads() == {2}


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
