"""A fit and a source → values of its rows, batch by batch: predictions, residuals, simulations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.chunks.batch import Batch, Source, check_columns
from lmmsparse.chunks.options import Chunks
from lmmsparse.chunks.plan import response_recipe
from lmmsparse.chunks.rows import response_of
from lmmsparse.chunks.source import source_of
from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.options import as_generator, one_of, whole_number
from lmmsparse.common.progress import bar
from lmmsparse.design import Recipe
from lmmsparse.design.recipe import column_or_array
from lmmsparse.fit.fit import Fit
from lmmsparse.results.predict import NEW_LEVELS, new_rows, predict, select_effects
from lmmsparse.results.residuals import KINDS
from lmmsparse.results.simulate import kept_effects


@dataclass
class Reader:
    """The batches of a source with the columns that a model needs, and where they are.

    Attributes
    ----------
    rows : int
        Of a batch.
    """

    fit: Fit
    data: Any
    rows: int
    label: str
    progress: bool | None
    others: tuple[str, ...] = ()
    response: bool = False
    source: Source = field(init=False)
    recipe: Recipe = field(init=False)

    def __post_init__(self) -> None:
        recipe = self.fit.design.recipe
        if recipe is None:
            raise OptionError(
                "The model was fitted from arrays and cannot find its columns in a table. Fit with "
                "lmm.lmer and a formula, or compute X @ m.fixef and add the rows of m.ranef."
            )
        self.rows = Chunks(rows=self.rows).rows
        self.source = source_of(self.data)
        if self.response:
            recipe = response_recipe(recipe, self.fit.design.response)
        self.recipe = recipe
        check_columns(self.source.names, sorted(self.columns()), f"{self.source.what} has")

    def columns(self) -> set[str]:
        """What is read."""
        used = set().union(*self.recipe.matrices.variables.values())
        context = self.recipe.matrices.context
        names = {n for n in self.recipe.names if n not in context}
        responses = set(self.recipe.matrices.columns) - used  # those of the response
        return (names - (responses if not self.response else set())) | set(self.others)

    def __iter__(self) -> Iterator[tuple[Batch, pd.Index]]:
        start, parts = 0, self.source.partitions(self.columns(), self.rows)
        total = self.source.n_rows
        with bar(self.label, total, "rows", self.progress) as shown:
            for part in parts:
                for batch in part.batches():
                    index = batch.index
                    if index is None:
                        index = pd.RangeIndex(start, start + len(batch))
                    yield batch, index
                    start += len(batch)
                    shown.update(len(batch))


def predict_batches(
    fit: Fit,
    data: Any,
    random: bool | str,
    new_levels: str,
    rows: int,
    progress: bool | None,
) -> Iterator[pd.Series]:
    """Predictions for the rows of a source; see `LinearMixedModel.predict_batches`."""
    one_of("new_levels", new_levels, NEW_LEVELS)
    select_effects(fit, random)
    reader = Reader(fit, data, rows, "predicting", progress)
    return (
        pd.Series(predict(fit, batch.frame, random, new_levels)[0], index=index, name="predicted")
        for batch, index in reader
    )


def residual_batches(
    fit: Fit, data: Any, kind: str, scaled: bool, rows: int, progress: bool | None
) -> Iterator[pd.Series]:
    """Residuals of the rows of a source; see `LinearMixedModel.residual_batches`."""
    one_of("kind", kind, tuple(KINDS))
    reader = Reader(fit, data, rows, "residuals", progress, response=True)
    scale = fit.sigma if scaled else 1.0

    def of(batch: Batch) -> FloatArray:
        frame = batch.frame
        values = response_of(reader.recipe, fit.design.response, frame)
        values = values - predict(fit, frame, new_levels="nan")[0]
        if fit.design.weights is not None:
            w = column_or_array("weights", reader.recipe.weights_column, frame)
            values = np.where(w > 0, values * (np.sqrt(w) if kind == "pearson" else 1.0), np.nan)
        return np.asarray(values / scale)

    return (pd.Series(of(batch), index=index, name="residuals") for batch, index in reader)


def simulate_batches(
    fit: Fit, data: Any, n: int, rng: Any, random: str, rows: int, progress: bool | None
) -> Iterator[pd.DataFrame]:
    """Responses drawn for the rows of a source; see `LinearMixedModel.simulate_batches`."""
    draws = _Draws(fit, whole_number("n", n), as_generator(rng), random)
    reader = Reader(fit, data, rows, "simulating", progress)
    names = pd.Index([f"sim_{i + 1}" for i in range(draws.n)], dtype=object)
    return (pd.DataFrame(draws.of(batch), index=index, columns=names) for batch, index in reader)


def _check_there(fit: Fit, t: int, missing: BoolArray) -> None:
    if missing.any():
        raise DataError(
            f"The grouping factor {fit.design.blocks[t].group!r} is missing in "
            f"{int(missing.sum())} rows of the data. Fill them in."
        )


class _Draws:
    """Random effects that are drawn once, for known levels at first and others as they appear."""

    def __init__(self, fit: Fit, n: int, generator: np.random.Generator, random: str) -> None:
        self._fit, self.n, self._generator = fit, n, generator
        self._kept = kept_effects(fit, random)
        self._new: list[dict[str, int]] = [{} for _ in fit.design.blocks]
        self._factors = fit.template.factors(fit.theta)
        self._effects = []
        modes = fit.split(fit.b)
        for t, block in enumerate(fit.design.blocks):
            effects = self._drawn(t, block.n_levels)
            effects[:, self._kept[t]] = modes[t][:, self._kept[t], None]
            self._effects.append(effects)

    def _drawn(self, t: int, levels: int) -> FloatArray:
        T = self._factors[t]
        z = self._generator.standard_normal((levels, T.shape[0], self.n))
        return np.asarray(self._fit.sigma * np.einsum("rc,lcn->lrn", T, z))

    def of(self, batch: Batch) -> FloatArray:
        """Responses of a batch, (rows, n)."""
        fit, frame = self._fit, batch.frame
        rows = new_rows(fit, frame, select_effects(fit, True), "population")
        values = np.repeat((rows.X @ fit.beta + rows.offset)[:, None], self.n, axis=1)
        recipe = fit.design.recipe
        assert recipe is not None
        for t, columns in rows.columns.items():
            codes = rows.codes[t]
            where = np.flatnonzero(codes < 0)
            if len(where):
                _, missing, shown = recipe.levels(t, frame)
                _check_there(fit, t, missing)
                codes = self._known(t, codes, where, shown.astype(str).iloc[where].tolist())
            effects = self._effects[t]
            for j in range(columns.shape[1]):
                values += columns[:, j, None] * effects[codes, j]
        noise = self._generator.standard_normal(values.shape)
        w = np.ones(len(frame)) if fit.design.weights is None else recipe.weights(frame)
        return np.asarray(values + fit.sigma * noise / np.sqrt(w)[:, None])

    def _known(self, t: int, codes: IntArray, where: IntArray, labels: Any) -> IntArray:
        """Codes with those of new levels, for which effects are drawn."""
        known = self._new[t]
        levels = self._fit.design.blocks[t].n_levels
        fresh = [label for label in dict.fromkeys(labels) if label not in known]
        for label in fresh:
            known[label] = levels + len(known)
        if fresh:
            more = self._drawn(t, len(fresh))
            more[:, self._kept[t]] = 0.0
            self._effects[t] = np.concatenate([self._effects[t], more])
        out = codes.copy()
        out[where] = [known[label] for label in labels]
        return out
