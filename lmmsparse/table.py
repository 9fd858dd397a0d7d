"""Named columns of numbers → text, HTML and DataFrame; the only place that formats."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

Formatter = Callable[[Sequence[float]], list[str]]


def number(value: float, decimals: int) -> str:
    """A number with fixed decimals; "NaN" stays empty-handed as "NaN"."""
    return "NaN" if np.isnan(value) else f"{value:.{decimals}f}"


def significant(values: Sequence[float], digits: int = 4) -> list[str]:
    """One column with common decimals, so that every number shows at least `digits` digits.

    A number more than four orders of magnitude below the largest does not set the decimals; it is
    shown in scientific notation where they would hide it. So is a whole column of very large or
    very small numbers.
    """
    sizes = [abs(v) for v in values if np.isfinite(v) and v != 0]
    if not sizes:
        return [_plain(v, 0) for v in values]
    top = max(sizes)
    if top >= 1e9 or top < 1e-5:
        return [f"{v:.{digits - 1}e}" if np.isfinite(v) else _plain(v, 0) for v in values]
    decimals = max(_decimals(v, digits) for v in sizes if v >= 1e-4 * top)
    out = []
    for v in values:
        tiny = np.isfinite(v) and v != 0 and abs(v) < min(1e-4 * top, 10.0**-decimals)
        out.append(f"{v:.{digits - 1}e}" if tiny else _plain(v, decimals))
    return out


def _decimals(value: float, digits: int) -> int:
    """Decimals that show `digits` significant digits of a number, trailing zeros left out."""
    text = f"{value:.{digits - 1}e}"
    mantissa, exponent = text.split("e")
    used = len(mantissa.replace(".", "").rstrip("0"))
    return max(0, used - 1 - int(exponent))


def _plain(value: float, decimals: int) -> str:
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    return f"{value:.{decimals}f}"


def fixed(decimals: int) -> Formatter:
    """A formatter with a given number of decimals."""
    return lambda values: [_plain(v, decimals) for v in values]


def as_precise_as(reference: Sequence[float], digits: int = 4) -> Formatter:
    """A formatter with the decimals that show every reference number (a standard error) well.

    Where those are more than eight, each column chooses its own.
    """
    sizes = [abs(v) for v in reference if np.isfinite(v) and v != 0]
    if not sizes or max(sizes) >= 1e9:
        return significant
    decimals = max(_decimals(v, digits) for v in sizes)
    return fixed(decimals) if decimals <= 8 else significant


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


def coefficient_formats(se: Sequence[float]) -> dict[str, Formatter]:
    """Formatters of a table of estimates with t tests, as precise as the standard errors."""
    precise = as_precise_as(se)
    return {
        "Estimate": precise,
        "Std. Error": precise,
        "df": degrees,
        "t value": fixed(3),
        "Pr(>|t|)": p_values,
    }


def degrees(values: Sequence[float]) -> list[str]:
    """Degrees of freedom: whole numbers if all of them are, otherwise two decimals for all."""
    finite = [v for v in values if np.isfinite(v)]
    whole = all(abs(v - round(v)) < 1e-5 * max(1.0, abs(v)) for v in finite)
    return ["" if np.isnan(v) else _plain(v, 0 if whole else 2) for v in values]


def counts(values: Sequence[float]) -> list[str]:
    """Whole numbers where they are whole, otherwise two decimals; missing ones stay empty."""
    return [
        "" if np.isnan(v) else (f"{v:.0f}" if float(v).is_integer() else f"{v:.2f}") for v in values
    ]


def blanks(formatter: Formatter) -> Formatter:
    """The same formatter with empty cells for missing numbers."""

    def apply(values: Sequence[float]) -> list[str]:
        return ["" if t == "NaN" else t for t in formatter(values)]

    return apply


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns padded to equal width: the first `left` flush left, the others flush right."""
    widths = [max(len(str(row[j])) for row in [head, *rows]) for j in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            str(cell).ljust(w) if j < left else str(cell).rjust(w)
            for j, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(" ".join(cells).rstrip())
    return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Table:
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
        Column name → formatter of the whole column; `significant` if not given.

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

    def __getitem__(self, column: str) -> pd.Series:
        """One column as a Series."""
        return self.to_frame()[column]

    def to_frame(self) -> pd.DataFrame:
        """The numbers as a DataFrame with exactly these column names."""
        return pd.DataFrame(
            {name: np.asarray(values) for name, values in self.columns.items()},
            index=pd.Index(list(self.index), dtype=object),
        )

    def _cells(self) -> list[list[str]]:
        columns = [
            self.formats.get(name, significant)([float(v) for v in values])
            for name, values in self.columns.items()
        ]
        return [[str(label), *row] for label, *row in zip(self.index, *columns, strict=True)]

    def __str__(self) -> str:
        body = aligned(["", *self.columns], self._cells())
        parts = [self.title] if self.title else []
        return "\n".join([*parts, body, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *self.columns])
        rows = "".join(
            "<tr><th style='text-align:left'>"
            + html.escape(row[0])
            + "</th>"
            + "".join(f"<td style='text-align:right'>{html.escape(c)}</td>" for c in row[1:])
            + "</tr>"
            for row in self._cells()
        )
        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self.notes)
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{notes}"
