"""Simulations of a study → a table of its power, and a curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.render import Section, Shown
from lmmsparse.common.table import Table, fixed
from lmmsparse.inference.power.power import Question, Repeated
from lmmsparse.report.plots.power import plot_power


@dataclass(frozen=True, eq=False, repr=False)
class Power(Shown):
    """Power by simulation, for one or several numbers of levels of a grouping factor.

    Attributes
    ----------
    question : Question
        What was asked.
    repeated : Repeated
        What came of the simulations, in numbers.
    """

    question: Question
    repeated: Repeated

    @property
    def table(self) -> Table:
        """``nobs, power, lower, upper, simulations, unconverged, singular, failed``.

        The number of levels stands before them, where it varies. Limits are those of the Monte
        Carlo error, by Clopper and Pearson.
        """
        question, found = self.question, self.repeated
        with np.errstate(invalid="ignore"):
            share = found.significant / found.done
        columns = {
            "nobs": found.nobs,
            "power": share,
            "lower": found.lower,
            "upper": found.upper,
            "simulations": found.done,
            "unconverged": found.unconverged,
            "singular": found.singular,
            "failed": found.failed,
        }
        labels = {question.along: found.n.astype(int).tolist()} if question.along else {}
        index = [str(int(n)) for n in found.n] if question.along else [question.term]
        counts = ("nobs", "simulations", "unconverged", "singular", "failed")
        return Table(
            {name: values.tolist() for name, values in columns.items()},
            index,
            title=f"Power of {question.term}, {question.test}, α = {question.alpha:g}",
            notes=self._notes,
            formats={
                **dict.fromkeys(("power", "lower", "upper"), fixed(3)),
                **dict.fromkeys(counts, fixed(0)),
            },
            labels=labels,
        )

    @property
    def _notes(self) -> list[str]:
        question, found = self.question, self.repeated
        effects = ", ".join(f"{name} = {value:.4g}" for name, value in question.effects.items())
        notes = [f"Effect: {effects}. Monte Carlo limits of {question.level:g}."]
        if not question.given:
            notes.append(
                "The effect is the estimate: power at it says no more than the p-value. Give the "
                "smallest effect that matters as effect=."
            )
        if question.along:
            notes.append(f"New levels of {question.along} have the rows of those in the data.")
        if found.failed.any():
            notes.append("Simulations that failed count as not significant.")
        if found.unconverged.any():
            notes.append("Fits that did not reach their optimum are counted as they are.")
        return notes

    @property
    def _sections(self) -> tuple[Section, ...]:
        return (self.table.section,)

    def __getitem__(self, column: str) -> pd.Series:
        """One column of the table."""
        return self.table[column]

    @checked_keywords
    def to_frame(self) -> pd.DataFrame:
        """The table as a DataFrame."""
        return self.table.to_frame()

    @checked_keywords
    def plot(self, ax: Any = None, *, target: float | None = 0.8) -> Any:
        """Power against the number of levels, with Monte Carlo limits; needs matplotlib.

        Parameters
        ----------
        ax : Axes, optional
            Where to draw; a new figure if not given.
        target : float, optional
            A power to mark by a line.

        Returns
        -------
        Axes
        """
        return plot_power(self.question, self.repeated, ax, target)
