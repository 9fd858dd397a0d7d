"""Bars where somebody watches, and what Ctrl-C leaves behind."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from functools import cache
from itertools import pairwise
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common import progress
from lmmsparse.common.progress import bar, run


@cache
def sleep() -> lmm.LinearMixedModel:
    return lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))


def halt_at(count: int, value: Any = None) -> Any:
    """A function that is interrupted at its call of that number."""
    calls = []

    def function(*_: Any) -> Any:
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt
        return len(calls) if value is None else value

    return function


# The run ------------------------------------------------------------------------------------------


def double(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_results_are_in_order(n_jobs: int) -> None:
    done = run(double, [(i,) for i in range(20)], "x", unit="x", n_jobs=n_jobs)
    assert done.results == list(range(0, 40, 2))
    assert not done.interrupted


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_run_can_end_early(n_jobs: int) -> None:
    calls = [(i,) for i in range(20)]
    done = run(double, calls, "x", unit="x", n_jobs=n_jobs, until=lambda value: value == 8)
    assert done.results == [0, 2, 4, 6, 8]
    assert not done.interrupted


def test_interruption_leaves_a_prefix() -> None:
    done = run(halt_at(4), [()] * 9, "x", unit="x")
    assert done.results == [1, 2, 3]
    assert done.interrupted


def test_interruption_before_any_result_is_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(halt_at(1), [()] * 9, "x", unit="x")


# The bar ------------------------------------------------------------------------------------------


class Stream:
    """Standard error of some kind."""

    def __init__(self, terminal: bool) -> None:
        self.text, self.terminal = "", terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def shown(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, progress: bool | None, seconds: float
) -> str:
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with bar("work", 4, "steps", progress) as it:
        for _ in range(4):
            time.sleep(seconds / 4)
            it.update()
    return stream.text


def test_a_bar_comes_after_a_while_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.05)
    text = shown(monkeypatch, True, None, 0.2)
    assert "work" in text
    assert "steps" in text
    monkeypatch.setattr(progress, "_PATIENCE", 60.0)
    assert shown(monkeypatch, True, None, 0.0) in ("", "\r")


@pytest.mark.parametrize(("terminal", "choice"), [(False, None), (True, False), (False, False)])
def test_no_bar_where_nobody_watches(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, choice: bool | None
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    assert shown(monkeypatch, terminal, choice, 0.0) == ""


def test_a_bar_that_is_asked_for_comes_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "4/4" in shown(monkeypatch, False, True, 0.0)


def test_without_standard_error_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with bar("work", 1, "steps") as it:
        it.update()


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.all_fit(progress=True),
        lambda m: m.influence("Subject", progress=True),
        lambda m: m.ranova(progress=True),
        lambda m: m.step(progress=True),
        lambda m: m.drop1(progress=True),
        lambda m: lmm.bootstrap_lrt(
            lmm.lmer("Reaction ~ Days + (1 | Subject)", lmm.load_dataset("sleepstudy")),
            m,
            9,
            1,
            progress=True,
        ),
    ],
)
def test_long_methods_have_one(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    call(sleep())
    assert "100%" in capsys.readouterr().err


def test_a_long_kenward_roger_has_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    sleep().coef_table("kenward-roger")
    assert "/18 " in capsys.readouterr().err


# What is left -------------------------------------------------------------------------------------


def test_an_interrupted_bootstrap_holds_what_it_had() -> None:
    whole = sleep().bootstrap(40, rng=1, statistic=lambda m: m.sigma)
    statistic = halt_at(20)
    with pytest.warns(lmm.InterruptedWarning, match="after 15 of 40 replicates") as caught:
        part = sleep().bootstrap(40, rng=1, statistic=lambda m: m.sigma if statistic(m) else None)
    assert caught[0].filename == __file__
    pd.testing.assert_frame_equal(part.to_frame(), whole.to_frame().iloc[:15])
    assert part.confint().notna().all(axis=None)
    assert [finding.code for finding in part.findings] == ["interrupted"]
    assert "15 of 40" in str(part)
    assert (part.requested, len(part.to_frame())) == (40, 15)
    assert (whole.requested, len(whole.to_frame())) == (40, 40)
    assert "Bootstrap, 15 of 40 replicates (0 failed)" in str(part)
    assert "Bootstrap, 40 replicates (0 failed)" in str(whole)


def test_an_interrupted_profile_holds_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmmsparse.inference.intervals.profile import profile as module

    follow, halt = module._follow, halt_at(3)
    names = ["sigma", "Intercept", "Days"]
    whole = sleep().profile(names).to_frame()
    monkeypatch.setattr(module, "_follow", lambda *args: halt() and follow(*args))
    with pytest.warns(lmm.InterruptedWarning, match="after 2 of 3 parameters") as caught:
        part = sleep().profile(names)
    assert caught[0].filename == __file__
    assert part.confint().index.tolist() == names[:2]
    beginning = whole[whole["parameter"].isin(names[:2])]
    assert len(beginning) < len(whole)
    pd.testing.assert_frame_equal(part.to_frame(), beginning, check_exact=True)
    assert "2 of 3" in str(part)


def test_an_interrupted_influence_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "bar", lambda *_: Interrupting(5))
    part = sleep().influence("Subject")
    assert part.cooks_distance.notna().tolist() == [True] * 5 + [False] * 13
    assert len(part.problems) == 13


def test_interrupted_refits_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    m = lmm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", lmm.load_dataset("Penicillin"))
    monkeypatch.setattr(progress, "bar", lambda *_: Interrupting(2))
    table = m.refit_many(m.simulate(40, rng=1))
    assert 0 < table["sigma"].notna().sum() == table["problem"].eq("").sum() < 40
    assert table["problem"].iloc[-1].startswith("Interrupted")


def test_interrupted_searches_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sleep().all_fit().to_frame()
    monkeypatch.setattr(progress, "bar", lambda *_: Interrupting(2))
    table = sleep().all_fit()
    numbers = [name for name in whole if name != "seconds"]
    pd.testing.assert_frame_equal(table.to_frame()[numbers], whole[numbers].iloc[:2])
    assert f"Interrupted after 2 of {len(whole)}" in str(table)


class Interrupting:
    """A bar that is interrupted when it is told of a result of that number."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __enter__(self) -> Interrupting:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: int) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@cache
def penicillin() -> lmm.LinearMixedModel:
    return lmm.lmer(
        "diameter ~ 1 + (1 | plate) + (1 | sample)", lmm.load_dataset("Penicillin"), reml=False
    )


def crossed_bootstrap(n_jobs: int) -> pd.DataFrame:
    return penicillin().bootstrap(20, rng=3, n_jobs=n_jobs).to_frame()


LONG: dict[str, Any] = {
    "bootstrap": lambda n: sleep().bootstrap(300, rng=3, n_jobs=n).to_frame(),
    "semiparametric bootstrap": lambda n: (
        sleep().bootstrap(300, rng=3, n_jobs=n, kind="semiparametric").to_frame()
    ),
    "bootstrap of a statistic": lambda n: (
        sleep().bootstrap(20, rng=3, n_jobs=n, statistic=spread).to_frame()
    ),
    "bootstrap one by one": crossed_bootstrap,
    "profile": lambda n: sleep().profile(n_jobs=n).to_frame(),
    "refits": lambda n: (
        penicillin().refit_many(penicillin().simulate(20, rng=1), n_jobs=n).query("problem == ''")
    ),
}


def spread(m: lmm.LinearMixedModel) -> float:
    return m.sigma


@cache
def whole_of(what: str) -> pd.DataFrame:
    return LONG[what](1)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::lmmsparse.InterruptedWarning")
@pytest.mark.parametrize(
    ("what", "n_jobs", "counts"),
    [
        *((what, 1, (1, 2, 4)) for what in LONG),
        ("bootstrap", 2, (2, 4)),
        # Processes start anew after an interrupt, which takes seconds.
        *((what, 2, (2,)) for what in ("bootstrap of a statistic", "profile", "refits")),
    ],
)
def test_what_is_left_is_the_beginning(
    what: str, n_jobs: int, counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last digit, wherever it was interrupted and however many processes there were."""
    whole = whole_of(what)
    lengths = []
    for count in counts:
        monkeypatch.setattr(progress, "bar", lambda *_, count=count: Interrupting(count))
        part = LONG[what](n_jobs)
        lengths.append(len(part))
        pd.testing.assert_frame_equal(part, whole.iloc[: len(part)], check_exact=True)
    assert 0 < lengths[0] <= lengths[-1] < len(whole)
    assert lengths[0] < lengths[-1] or len(counts) == 1


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_interrupted_bootstrap_test_counts_what_it_had(
    n_jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = lmm.lmer("Reaction ~ Days + (1 | Subject)", lmm.load_dataset("sleepstudy"))
    monkeypatch.setattr(progress, "bar", lambda *_: Interrupting(2))
    table = lmm.bootstrap_lrt(small, sleep(), 300, 1, n_jobs=n_jobs)
    assert "Interrupted after 48 of 300" in str(table)


@pytest.mark.long
@pytest.mark.parametrize(
    ("total", "largest", "first"), [(0, 8, 1), (1, 8, 1), (40, 8, 1), (500, 128, 16), (3, 1, 4)]
)
def test_parts_grow_to_the_largest(total: int, largest: int, first: int) -> None:
    parts = progress.growing(total, largest, first)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(total))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes, default=0) <= largest
    assert sizes[:1] <= [first]
    assert all(b <= 2 * a for a, b in pairwise(sizes))


ENDLESS = """
import signal
import lmmsparse as lmm
if __name__ == "__main__":
    # Where this runs in the background, Ctrl-C may be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
    b = m.bootstrap(60_000, rng=1, n_jobs=N_JOBS)
    print(len(b.to_frame()) > 0, b.findings[0].code, b.confint().shape, flush=True)
"""


@pytest.mark.long
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_control_c_at_a_terminal(n_jobs: int, tmp_path: Any) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS.replace("N_JOBS", str(n_jobs)))
    reading, writing = pty.openpty()
    termios.tcsetwinsize(writing, (24, 80) if n_jobs == 1 else (0, 0))  # some say they have none
    running = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
        start_new_session=True,  # and no preexec_fn, whose fork threads of other packages forbid
    )
    os.close(writing)
    shown: list[bytes] = []

    def watch() -> None:
        with suppress(OSError):  # the other end is closed
            while text := os.read(reading, 4096):
                shown.append(text)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        deadline = time.monotonic() + 90
        while b"bootstrap:" not in b"".join(shown) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)  # what a terminal does
        out, _ = running.communicate(timeout=60)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
        watcher.join()
        os.close(reading)
    assert b"replicates" in b"".join(shown)
    assert out == "True interrupted (6, 2)\n"


def test_the_bar_is_no_part_of_the_result() -> None:
    m = sleep()
    np.testing.assert_array_equal(
        m.bootstrap(5, rng=3, progress=False).to_frame(), m.bootstrap(5, rng=3).to_frame()
    )
