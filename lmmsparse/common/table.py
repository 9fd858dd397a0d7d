"""Named columns of numbers → cells of text and a DataFrame; the only place that formats numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import MissingPackageError, UnknownColumnError
from lmmsparse.common.habits import no_column, no_member
from lmmsparse.common.options import a_text, path_or_stream, refused, several
from lmmsparse.common.render import Grid, Section, Shown, latex_of, markdown_of

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


def by_width(lower: Sequence[float], upper: Sequence[float], digits: int = 3) -> Formatter:
    """A formatter of interval limits: in each row the decimals that its width deserves."""
    decimals = []
    for low, high in zip(lower, upper, strict=True):
        sizes = [abs(high - low), abs(low), abs(high)]
        size = next((v for v in sizes if np.isfinite(v) and v > 0), 1.0)
        decimals.append(digits - 1 - int(f"{size:.{digits - 1}e}".split("e")[1]))

    def apply(values: Sequence[float]) -> list[str]:
        return [
            number(v, max(0, d)) if d <= 8 else significant([v])[0]
            for v, d in zip(values, decimals, strict=True)
        ]

    return apply


def label_text(value: Any) -> str:
    """A level, or a value of a predictor, as tables show it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def p_values(values: Sequence[float]) -> list[str]:
    """p-values with the decimals of the smallest that is no less than 0.0001: four to six.

    Smaller ones are in scientific notation, below 2.2e-16 a bound.
    """
    shown = [p for p in values if p >= 1e-4]
    decimals = 4 if not shown or min(shown) >= 1e-3 else 6
    out = []
    for p in values:
        if np.isnan(p):
            out.append("")
        elif p < 2.2e-16:
            out.append("<2e-16")
        else:
            out.append(f"{p:.{decimals}f}" if p >= 1e-4 else f"{p:.2e}")
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
    **dict.fromkeys(("npar", "Df", "NumDF", "df1", "nobs", "df_residual"), counts),
    **dict.fromkeys(("df", "DenDF", "df2"), degrees),
    **dict.fromkeys(("AIC", "BIC", "logLik", "deviance", "-2*log(L)"), fixed(2)),
    **dict.fromkeys(("t value", "z value", "t.ratio", "z.ratio", "statistic"), blanks(fixed(3))),
    **dict.fromkeys(("F value", "F.ratio", "Chisq", "LRT"), blanks(fixed(4))),
    **dict.fromkeys(("Pr(>|t|)", "Pr(>|z|)", "Pr(>F)", "Pr(>Chisq)"), p_values),
    **dict.fromkeys(("p.value", "p_value"), p_values),
}
# Frames with these columns: a standard error, and what is shown as precisely; limits.
_WITH_ERRORS = {
    "se": ("fit", "se", "lower", "upper"),
    "std_error": ("estimate", "std_error", "conf_low", "conf_high"),
    "SE": ("emmean", "estimate", "response", "ratio", "odds.ratio", "SE", "lower.CL", "upper.CL"),
    "Std. Error": ("Estimate", "Std. Error", "lower.CL", "upper.CL"),
}
_LIMITS = ("lower", "upper")


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
    a      1.50
    b     -0.25
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
        names = [*self.labels, *self.columns]
        if column not in names:
            raise UnknownColumnError(no_column(column, [*names, *self.beside], self.index))
        return self.to_frame()[column]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(no_member(name, self.__dict__.get("columns", ())), name=name)

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

    @classmethod
    @checked_keywords
    def from_frame(
        cls, frame: pd.DataFrame | pd.Series, *, title: str = "", notes: Sequence[str] = ()
    ) -> Table:
        """A data frame, or a part of one, as a table with as many digits as deserve to be read.

        Estimates are shown as precisely as their standard errors ask for, limits as the width
        between them does, other columns with four digits.

        Parameters
        ----------
        frame : DataFrame or Series
            For example of ``m.confint()``, ``m.predict(new, interval="prediction")`` or
            ``m.tidy()``. Columns that hold no numbers become labels.
        title, notes
            As for the table.

        Examples
        --------
        >>> frame = pd.DataFrame({"lower": [237.680690], "upper": [265.129520]}, ["Intercept"])
        >>> print(Table.from_frame(frame))
                   lower  upper
        Intercept  237.7  265.1
        """
        if isinstance(frame, pd.Series):
            frame = frame.to_frame(frame.name if frame.name is not None else "value")
        if not isinstance(frame, pd.DataFrame) or not frame.columns.is_unique:
            wanted = "a pandas DataFrame or Series, with columns of different names"
            raise refused("frame", wanted, frame)
        columns: dict[str, list[float]] = {}
        labels: dict[str, list[Any]] = {}
        for i, name in enumerate(map(str, frame.columns)):
            values = frame.iloc[:, i]
            kind = pd.api.types
            if kind.is_numeric_dtype(values.dtype) and not kind.is_bool_dtype(values.dtype):
                columns[name] = values.to_numpy(dtype=np.float64, na_value=np.nan).tolist()
            else:
                labels[name] = ["" if pd.isna(v) else v for v in values]
        index = [
            ", ".join(map(str, row)) if isinstance(row, tuple) else str(row) for row in frame.index
        ]
        if labels and not isinstance(frame.index, pd.RangeIndex):
            labels = {"": index, **labels}
        lines = tuple(a_text("notes", note) for note in several(notes))
        return cls(columns, index, a_text("title", title), lines, _formats_of(columns), {}, labels)

    @property
    def section(self) -> Section:
        """The table as text in cells, with its title and notes."""
        columns = [self._texts(name) for name in self.columns]
        named = [[label_text(v) for v in values] for values in self.labels.values()]
        cells = named or [[str(label) for label in self.index]]
        grid = Grid(
            (*(self.labels or ("",)), *self.columns),
            tuple(zip(*cells, *columns, strict=True)),
            len(cells),
        )
        return Section(self.title, grid, tuple(self.notes))

    def _texts(self, name: str) -> list[str]:
        """The cells of a column of numbers."""
        formatter = self.formats.get(name) or _USUAL.get(name, significant)
        return formatter([float(v) for v in self.columns[name]])

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
    def to_latex(self, *, caption: str = "", label: str = "") -> str:
        """The cells as a LaTeX tabular, which needs the package booktabs.

        Parameters
        ----------
        caption, label : str
            With either, a floating table with the notes below the cells.

        Returns
        -------
        str
        """
        caption, label = a_text("caption", caption), a_text("label", label)
        section = self.section
        notes = section.lines if caption or label else ()
        return latex_of([Section(grid=section.grid, lines=notes)], caption, label)

    @checked_keywords
    def to_html(self) -> str:
        """The table as HTML that takes its colours from the page, as notebooks show it.

        Returns
        -------
        str
        """
        return self._repr_html_()

    @checked_keywords
    def to_csv(self, path: Any = None) -> str | None:
        """The numbers with all their digits as CSV.

        Parameters
        ----------
        path : str or Path, optional
            Where to write it; the text is returned if not given.

        Returns
        -------
        str or None
        """
        path, named = path_or_stream(path), not self.labels
        text: str | None = self.to_frame().to_csv(path, index=named, lineterminator="\n")
        return text

    @property
    def style(self) -> Any:
        """A Styler of pandas with the numbers, shown with this table's digits; needs jinja2.

        Raises
        ------
        MissingPackageError
            Without jinja2.
        """
        frame = self.to_frame()
        try:
            if self.labels or not frame.index.is_unique:
                frame = frame.reset_index(drop=bool(self.labels))
            styler = frame.style
        except (ImportError, AttributeError) as error:
            raise MissingPackageError(
                "Styled tables need jinja2, which is not installed. Run `pip install jinja2`."
            ) from error
        shown = {
            name: dict(zip([float(v).hex() for v in values], self._texts(name), strict=True))
            for name, values in self.columns.items()
        }
        return styler.format({name: _reader(texts) for name, texts in shown.items()})


def _reader(texts: Mapping[str, str]) -> Callable[[Any], str]:
    return lambda value: texts[float(value).hex()]


def _formats_of(columns: Mapping[str, Sequence[float]]) -> dict[str, Formatter]:
    """How the columns of a frame of ours are shown, where their names say so."""
    for error, names in _WITH_ERRORS.items():
        if error in columns:
            precise = blanks(as_precise_as([v for v in columns[error] if np.isfinite(v)]))
            return {name: precise for name in names if name in columns}
    if all(name in columns for name in _LIMITS):
        return dict.fromkeys(_LIMITS, by_width(columns["lower"], columns["upper"]))
    return {}
