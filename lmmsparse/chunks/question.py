"""What a formula asks of every batch: its columns, complete rows, groupings, what is learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.chunks.batch import Batch, Source, check_columns
from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import FormulaError, OptionError
from lmmsparse.common.options import mapping, one_of
from lmmsparse.design.asked import Asked, asked_of
from lmmsparse.design.expressions import labels_in, learning_calls
from lmmsparse.design.rows import Extras, extra_columns, fitted_extras, rows_left_out
from lmmsparse.design.variables import Variables
from lmmsparse.formula.expression import read_expression, spelled
from lmmsparse.formula.parts import read_part


@dataclass(frozen=True, eq=False)
class Question:
    """A model as far as it can be read without the data.

    Attributes
    ----------
    columns : tuple of str
        All columns that are read.
    predictors : tuple of str
        Those among them that make columns of X, Z or the response.
    labels : frozenset of str
        Columns of which every value is a level, also if they are numbers.
    groupings : mapping
        Factors → name of the grouping.
    learnt : tuple of str
        Calls that learn from the data, such as ``scale(x)``.
    counts_meetings : bool
        Whether it is found out how many levels of crossed factors meet.
    """

    asked: Asked
    weights: str | None
    offset: str | None
    na_action: str
    contrasts: Mapping[str, Any] | None
    columns: tuple[str, ...]
    predictors: tuple[str, ...]
    labels: frozenset[str]
    groupings: Mapping[tuple[str, ...], str]
    learnt: tuple[str, ...]
    counts_meetings: bool = True

    @property
    def effects(self) -> int:
        """Random effects per level, about, of the term with most."""
        used = (len(names) for part, names in self.asked.uses.items() if part.startswith("random"))
        return 1 + max(used, default=0)

    @property
    def context(self) -> dict[str, Any]:
        return self.asked.own

    def complete(self, batch: Batch) -> Complete:
        """The rows of a batch that can be fitted."""
        frame = batch.frame
        table = Variables.of(frame, sorted(self.asked.needed))
        offsets = self.asked.parsed.offsets
        extras = extra_columns(self.weights, self.offset, offsets, frame, table, self.context)
        groups = self.asked.groups
        missing, zero, counts = rows_left_out(table, extras, self.context, groups)
        rows = None
        left_out = missing | zero
        if left_out.any():
            rows = np.flatnonzero(~left_out)
            frame = frame.iloc[rows].reset_index(drop=True)
        else:
            rows = np.arange(len(frame))
        extras = fitted_extras(extras, rows) if len(rows) < len(missing) else _checked(extras)
        kept = Batch(frame, batch.text)
        return Complete(kept, extras, rows, int(missing.sum()), int(zero.sum()), counts)


def _checked(extras: Extras) -> Extras:
    return fitted_extras(extras, slice(None))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Complete:
    """Rows that can be fitted.

    Attributes
    ----------
    rows : int array
        Their positions in the batch.
    missing, zero : int
        How many others lack a value, or have weight zero.
    counts : mapping
        Missing values by column.
    """

    batch: Batch
    extras: Extras
    rows: IntArray
    missing: int
    zero: int
    counts: Mapping[str, int]

    @property
    def frame(self) -> pd.DataFrame:
        return self.batch.frame

    @property
    def weights(self) -> FloatArray | None:
        return self.extras.weights

    @property
    def offset(self) -> FloatArray | None:
        return self.extras.offset


def question_of(
    formula: Any,
    source: Source,
    weights: Any,
    offset: Any,
    na_action: str,
    contrasts: Mapping[str, Any] | None,
    context: Mapping[str, Any] | None,
) -> Question:
    """Read what a model asks of a source; refuse what can be refused at once."""
    one_of("na_action", na_action, ("omit", "exclude", "raise"))
    if na_action == "exclude":
        raise OptionError(
            "na_action='exclude' shows rows that were left out in fitted values and residuals, "
            "which a model fitted in chunks does not keep. Use na_action='omit'; "
            "m.residual_batches(source) and m.predict_batches(source) have NaN in such rows."
        )
    for name, value in (("weights", weights), ("offset", offset)):
        if value is not None and not isinstance(value, str):
            raise OptionError(
                f"{name}= must be the name of a column where data are read in chunks, not an "
                f"array. Put the values into the data and write {name}='column'."
            )
    coded = mapping("contrasts", contrasts, "Write contrasts={'column': 'sum'}.")
    asked = asked_of(formula, pd.DataFrame({name: [np.nan] for name in source.names}), context)
    extra = [name for name in (weights, offset) if name is not None]
    check_columns(source.names, extra, f"{source.what} has")
    columns = tuple(sorted({*asked.needed, *extra}))
    predictors = sorted(set().union(*asked.uses.values()))
    parts = asked.parts.values()
    return Question(
        asked=asked,
        weights=weights,
        offset=offset,
        na_action=na_action,
        contrasts=_of_columns(coded, source, columns),
        columns=columns,
        predictors=tuple(predictors),
        labels=frozenset(labels_in(parts) | set(coded)) & set(predictors),
        groupings={term.factors: term.group for term in asked.parsed.random},
        learnt=_learnt(parts),
    )


def _of_columns(
    contrasts: Mapping[str, Any], source: Source, columns: tuple[str, ...]
) -> dict[str, Any]:
    """The contrasts of columns that are read, and of those that are not there."""
    return {n: each for n, each in contrasts.items() if n in columns or n not in source.names}


def _learnt(parts: Any) -> tuple[str, ...]:
    calls: dict[str, None] = {}
    for text in parts:
        for term in read_part(text):
            for variable in term:
                calls.update(dict.fromkeys(learning_calls(variable.expression)))
    return tuple(calls)


def argument_of(call: str) -> str:
    """The text of the first argument of a call."""
    tree: Any = read_expression(call).tree
    if not tree.args and not tree.keywords:
        raise FormulaError(f"{call} is called without a column. Write a column in it.")
    return spelled(tree.args[0] if tree.args else tree.keywords[0].value)
