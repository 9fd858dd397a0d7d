"""Named columns of numbers → cells of text and a DataFrame; the only place that formats numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.render import Grid, Section, Shown, markdown_of

Formatter = Callable[[Sequence[float]], list[str]]


def significant(values: Sequence[float], digits: int = 4) -> list[str]:
    """One column with common decimals, so that every number shows at least `digits` digits.

    A number more than four orders of magnitude below the largest does not set the decimals; it is
    shown in scientific notation where they would hide it. So is a whole column of very large or
    very small numbers.
    """
    sizes = [abs(v) for v in values if np.isfinite(v) and v != 0]
    if not sizes:
        return [number(v, 0) for v in values]
    top = max(sizes)
    if top >= 1e9 or top < 1e-5:
        return [f"{v:.{digits - 1}e}" if np.isfinite(v) else number(v, 0) for v in values]
    decimals = max(_decimals(v, digits) for v in sizes if v >= 1e-4 * top)
    out = []
    for v in values:
        tiny = np.isfinite(v) and v != 0 and abs(v) < min(1e-4 * top, 10.0**-decimals)
        out.append(f"{v:.{digits - 1}e}" if tiny else number(v, decimals))
    return out


def _decimals(value: float, digits: int) -> int:
    """Decimals that show `digits` significant digits of a number, fewer if the others are zero."""
    text = f"{value:.{digits - 1}e}"
    mantissa, exponent = text.split("e")
    exact = abs(float(text) - value) <= 1e-9 * abs(value)
    used = len(mantissa.replace(".", "").rstrip("0")) if exact else digits
    return max(0, used - 1 - int(exponent))


def number(value: float, decimals: int) -> str:
    """A number with fixed decimals, without the sign of what is rounded to zero."""
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text


def fixed(decimals: int) -> Formatter:
    """A formatter with a given number of decimals."""
    return lambda values: [number(v, decimals) for v in values]


def as_precise_as(reference: Sequence[float], digits: int = 4) -> Formatter:
    """A formatter with the decimals that show every reference number (a standard error) well.

    Where those are more than eight, each column chooses its own.
    """
    sizes = [abs(v) for v in reference if np.isfinite(v) and v != 0]
    if not sizes or max(sizes) >= 1e9:
        return significant
    decimals = max(_decimals(v, digits) for v in sizes)
    usual = max(decimals, digits - 1 - int(f"{min(sizes):.{digits - 1}e}".split("e")[1]))
    if usual > 8:
        return fixed(decimals) if decimals <= 8 else significant

    def apply(values: Sequence[float]) -> list[str]:
        # That all references end in zeros is no reason to cut others short.
        cut = any(abs(v - round(v, decimals)) > 1e-9 * abs(v) for v in values if np.isfinite(v))
        return fixed(usual if cut and decimals < usual else decimals)(values)

    return apply


def label_text(value: Any) -> str:
    """A level, or a value of a predictor, as tables show it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def p_values(values: Sequence[float]) -> list[str]:
    """p-values: four decimals, tiny ones in scientific notation or as a bound."""
    out = []
    for p in values:
        if np.isnan(p):
            out.append("")
        elif p < 2.2e-16:
            out.append("<2e-16")
        else:
            out.append(f"{p:.4f}" if p >= 1e-3 else f"{p:.2e}")
    return out


def degrees(values: Sequence[float]) -> list[str]:
    """Degrees of freedom: whole numbers if all of them are, otherwise two decimals for all."""
    finite = [v for v in values if np.isfinite(v)]
    whole = all(abs(v - round(v)) < 1e-5 * max(1.0, abs(v)) for v in finite)
    return ["" if np.isnan(v) else number(v, 0 if whole else 2) for v in values]


def counts(values: Sequence[float]) -> list[str]:
    """Whole numbers where they are whole, otherwise two decimals; missing ones stay empty."""
    return ["" if np.isnan(v) else number(v, 0 if float(v).is_integer() else 2) for v in values]


def blanks(formatter: Formatter) -> Formatter:
    """The same formatter with empty cells for missing numbers."""

    def apply(values: Sequence[float]) -> list[str]:
        return ["" if t == "NaN" else t for t in formatter(values)]

    return apply


# What a column of such a name looks like, if nothing else is said.
_USUAL: dict[str, Formatter] = {
    **dict.fromkeys(("npar", "Df", "NumDF", "df1"), counts),
    **dict.fromkeys(("df", "DenDF", "df2"), degrees),
    **dict.fromkeys(("AIC", "BIC", "logLik", "deviance", "-2*log(L)"), fixed(2)),
    **dict.fromkeys(("t value", "t.ratio", "z.ratio"), fixed(3)),
    **dict.fromkeys(("F value", "F.ratio", "Chisq", "LRT"), blanks(fixed(4))),
    **dict.fromkeys(("Pr(>|t|)", "Pr(>F)", "Pr(>Chisq)", "p.value"), p_values),
}


@dataclass(frozen=True, eq=False, repr=False)
class Table(Shown):
    """A printable table of numbers.

    Parameters
    ----------
    columns : mapping
        Column name → values, one per row.
    index : sequence of str
        Row labels.
    title : str
        A line above the table.
    notes : sequence of str
        Lines below it.
    formats : mapping
        Column name → formatter of the whole column; by the name if not given, else `significant`.
    beside : mapping
        More columns of numbers, which notes tell of; ``table[name]`` gives them like the others.
    labels : mapping
        Column name → values that say what a row is about, such as levels of factors. They stand
        before the numbers, and are shown in place of the row labels.

    Examples
    --------
    >>> print(Table({"Estimate": [1.5, -0.25]}, ["a", "b"]))
      Estimate
    a     1.50
    b    -0.25
    """

    columns: Mapping[str, Sequence[float]]
    index: Sequence[str]
    title: str = ""
    notes: Sequence[str] = ()
    formats: Mapping[str, Formatter] = field(default_factory=dict)
    beside: Mapping[str, Sequence[float]] = field(default_factory=dict)
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __getitem__(self, column: str) -> pd.Series:
        """One column, also of those beside the table, as a Series."""
        if column in self.beside:
            index = pd.Index(list(self.index), dtype=object)
            return pd.Series(np.asarray(self.beside[column]), index=index, name=column)
        return self.to_frame()[column]

    @checked_keywords
    def to_frame(self) -> pd.DataFrame:
        """The numbers as a DataFrame with exactly these column names."""
        index = pd.Index(list(self.index), dtype=object)
        labels = {
            name: pd.Series(list(values), index, dtype=object).infer_objects()
            for name, values in self.labels.items()
        }
        columns = {name: np.asarray(values) for name, values in self.columns.items()}
        return pd.DataFrame({**labels, **columns}, index=index)

    @property
    def section(self) -> Section:
        """The table as text in cells, with its title and notes."""
        columns = [
            (self.formats.get(name) or _USUAL.get(name, significant))([float(v) for v in values])
            for name, values in self.columns.items()
        ]
        named = [[label_text(v) for v in values] for values in self.labels.values()]
        cells = named or [[str(label) for label in self.index]]
        grid = Grid(
            (*(self.labels or ("",)), *self.columns),
            tuple(zip(*cells, *columns, strict=True)),
            len(cells),
        )
        return Section(self.title, grid, tuple(self.notes))

    @property
    def _sections(self) -> tuple[Section, ...]:
        return (self.section,)

    @checked_keywords
    def to_markdown(self) -> str:
        """The table in GitHub's Markdown, with its title above and its notes below.

        Returns
        -------
        str

        Examples
        --------
        >>> print(Table({"Estimate": [1.5, -0.25]}, ["a", "b"]).to_markdown())
        |  | Estimate |
        | :--- | ---: |
        | a | 1.50 |
        | b | -0.25 |
        """
        return markdown_of([self.section])

    @checked_keywords
    def to_latex(self) -> str:
        """The cells as a LaTeX tabular, which needs the package booktabs; no title, no notes.

        Returns
        -------
        str
        """
        grid = self.section.grid
        assert grid is not None
        return grid.latex()
