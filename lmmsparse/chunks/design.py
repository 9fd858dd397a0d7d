"""A formula and a source → a `Design` with the sums of all rows and a sample of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.chunks import learn as first_pass
from lmmsparse.chunks import sums as second_pass
from lmmsparse.chunks import transforms
from lmmsparse.chunks.batch import Partition, Source
from lmmsparse.chunks.finish import better_coordinates, finished
from lmmsparse.chunks.learn import SAMPLE, Learnt
from lmmsparse.chunks.options import Chunks
from lmmsparse.chunks.plan import Plan, design_of_sample, plan_of, sample_frame, with_spans
from lmmsparse.chunks.question import Question, question_of
from lmmsparse.chunks.room import Meeting, about_room, fits_surely, free_memory
from lmmsparse.chunks.run import fold
from lmmsparse.chunks.sums import Sums
from lmmsparse.common.errors import DataError, Finding
from lmmsparse.common.memory import give_back
from lmmsparse.design import Design
from lmmsparse.design.rows import about_missing, about_zero_weights
from lmmsparse.design.without_rows import design_without_rows

_ATTEMPTS = 4
_SAME = 1e-9


def design_in_chunks(
    formula: Any,
    source: Source,
    chunks: Chunks,
    *,
    weights: Any = None,
    offset: Any = None,
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    findings: Sequence[Finding] = (),
) -> Design:
    """Read a source twice and sum its rows; see `build_design` for the arguments.

    Parameters
    ----------
    findings : sequence of Finding
        What is said beside what is found.
    """
    question = question_of(formula, source, weights, offset, na_action, contrasts, context)
    few = fits_surely(source.n_rows, question.effects, free_memory())
    question = replace(question, counts_meetings=not few)
    reading = _Reading(source, question, chunks)
    learnt = reading.learnt()
    said = about_missing(learnt.rows, learnt.missing, learnt.counts, na_action)
    said += about_zero_weights(learnt.zero, learnt.n > 0)
    plan, sums = reading.sums(learnt)
    _check_same(learnt, sums, question, source)
    facts = finished(sums, plan, sum(map(len, learnt.pieces.places)), learnt.rows)
    del sums
    sample = plan.sample
    assert sample.recipe is not None
    matrices = with_spans(sample.recipe.matrices, learnt)
    sample = replace(sample, recipe=replace(sample.recipe, matrices=matrices))
    design = design_without_rows(sample, facts, [*said, *reading.said, *findings])
    del learnt, plan, sample, reading
    give_back()
    return design


class _Reading:
    """The passes over a source."""

    def __init__(self, source: Source, question: Question, chunks: Chunks) -> None:
        self._source, self._question, self._chunks = source, question, chunks
        self._parts: list[Partition] = source.partitions(question.columns, chunks.rows)
        self.said: list[Finding] = []

    def _fold(
        self, work: Any, arguments: tuple[Any, ...], merge: Any, label: str, merge_here: Any = None
    ) -> Any:
        parts, chunks = self._parts, self._chunks
        return fold(work, parts, arguments, merge, chunks, label, merge_here=merge_here)

    def learnt(self) -> Learnt:
        """The first pass."""
        most = max(100, SAMPLE // max(1, len(self._parts)))
        if not self._parts:
            raise DataError(f"{self._source.what} has no rows. Check the data.")
        found: Learnt = self._fold(
            first_pass.learn, (self._question, most), first_pass.joined, "learning levels"
        )
        if not found.rows:
            raise DataError(
                f"{self._source.what} has no rows. Check how the data were made and filtered."
            )
        return found

    def sums(self, learnt: Learnt) -> tuple[Plan, Sums]:
        """The second pass, once more where the sample has not shown all that there is."""
        calls = transforms.calls_of(self._question)
        state = transforms.by_moments(calls, learnt)
        more: list[pd.DataFrame] = []
        for _ in range(_ATTEMPTS):
            frame = sample_frame(self._question, learnt, more)
            design = design_of_sample(self._question, learnt, frame, state)
            rest = [c for c in transforms.needs_pass(calls) if c.text not in state]
            if rest:
                state |= self._gathered(rest, learnt, design)
                design = design_of_sample(self._question, learnt, frame, state)
            plan = plan_of(self._question, learnt, design)
            self.said = about_room(meetings_of(plan, learnt), free_memory())
            sums = self._summed(plan)
            if sums.astray:
                more += sums.astray
                continue
            better = better_coordinates(sums, plan.coordinates)
            if better is not None:
                plan = replace(plan, coordinates=better)
                sums = self._summed(plan)
            return plan, sums
        raise DataError(
            "Columns of the fixed effects depend on each other in most rows, but not in all, and "
            "some of these rows are not found. Leave out columns that nearly repeat others."
        )

    def _summed(self, plan: Plan) -> Sums:
        blocks = plan.sample.blocks
        simple = all(b.k == 1 and np.ptp(b.columns) == 0 for b in blocks)
        simple = simple and len({block.group for block in blocks}) == len(blocks)
        sums: Sums = self._fold(
            second_pass.accumulate,
            (plan.sent, simple),
            second_pass.joined,
            "summing rows",
            partial(second_pass.joined, keep=False),
        )
        return sums

    def _gathered(
        self, calls: list[transforms.Call], learnt: Learnt, design: Design
    ) -> dict[str, Any]:
        assert design.recipe is not None
        sample = design.recipe.matrices.transform_state
        found = transforms.Gathered()
        if any(transforms.reads(call) for call in calls):
            found = self._fold(
                transforms.gather,
                (self._question, calls, sample),
                transforms.gathered,
                "learning transforms",
            )
        return transforms.from_pass(calls, found, learnt, sample)


def meetings_of(plan: Plan, learnt: Learnt) -> list[Meeting]:
    """Terms of different factors whose levels meet."""
    groups, out = plan.recipe.groups, []
    for s, a in enumerate(groups):
        for t, b in enumerate(groups[:s]):
            found = learnt.meetings.get((b.factors, a.factors)) or learnt.meetings.get(
                (a.factors, b.factors)
            )
            if found is not None:
                numbers = plan.numbers_of(s, t)
                out.append(Meeting((b.name, a.name), found.count, numbers))
    return out


def _check_same(learnt: Learnt, sums: Sums, question: Question, source: Source) -> None:
    """Refuse a source that has changed between the passes."""
    n = int(sums.numbers["n"])
    moments = learnt.numbers.get(question.asked.response.strip("`"))
    same = n == learnt.n
    if same and moments is not None:
        deviation = np.sqrt(moments.squares / max(moments.n, 1)) + abs(moments.mean) * _SAME
        mean = sums.numbers["raw"] / n + sums.numbers["center"]
        same = abs(mean - moments.mean) <= _SAME * deviation + 1e-12 * abs(moments.mean)
    what = "other responses" if n == learnt.n else f"{learnt.n} rows at first, then {n}"
    if same and (other := learnt.seen.differs(sums.seen)) is not None:
        same, what = False, f"other values of {other!r}"
    if not same:
        raise DataError(
            f"{source.what} has changed between the two passes ({what}). Data in chunks are read "
            "twice: read from files that stay as they are, or pass lmm.Batches(function) with a "
            "function that starts again and gives the same batches each time."
        )
