"""Fits of several models → one table with the models side by side, as papers print it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import LmmError, OptionError
from lmmsparse.common.options import a_text, check_level, names_in, one_of, path_or_stream
from lmmsparse.common.render import Grid, Section, Shown, latex_of, markdown_of
from lmmsparse.common.table import as_precise_as, fixed, number, p_values, significant
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.verdict import Convergence
from lmmsparse.inference.df.methods import check_ddf
from lmmsparse.inference.generalized.wald import z_table
from lmmsparse.inference.intervals.wald import coefficient_table
from lmmsparse.report.comparable import not_comparable
from lmmsparse.report.generalized import approximation
from lmmsparse.results.generalized import covariance_names, covariance_values
from lmmsparse.results.likelihood import criteria, loglik
from lmmsparse.results.parameters import parameter_labels, parameter_names, parameter_values
from lmmsparse.results.variance_explained import r_squared

BESIDE = ("se", "interval", "p", "none")
_SAID = {"se": " (standard errors)", "p": " (p-values)", "none": ""}
_PARTS = {"fixed": "Fixed effects", "random": "Random effects", "model": "Model"}
_FRAME = ("part", "term", "statistic")
_RESIDUAL = "Residual SD"
_DIGITS, _WIDTH, _FAR = 3, 88, 8.0


@dataclass(frozen=True, eq=False)
class Column:
    """What one model says.

    Attributes
    ----------
    fixed : dict of str to dict
        Coefficient → ``estimate, std_error, conf_low, conf_high, p_value``.
    spread : dict of str to float
        Standard deviations, correlations and the family's own parameter, by their labels.
    facts : dict of (str, str) to float
        (Term, statistic) → counts, criteria and R².
    words : dict of str to str
        How it was fitted.
    """

    name: str
    fit: Fit
    fixed: dict[str, dict[str, float]]
    spread: dict[str, float]
    facts: dict[tuple[str, str], float]
    words: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Shown):
    """Models side by side, made by `compare`.

    Attributes
    ----------
    names : tuple of str
        Of the models.
    notes : tuple of str
        Which model is which, and what of the table cannot be compared.
    """

    names: tuple[str, ...]
    notes: tuple[str, ...]
    _columns: tuple[Column, ...] = field(repr=False)
    _beside: str = "se"
    _level: float = 0.95

    @property
    def _sections(self) -> tuple[Section, ...]:
        return (self._section(self.notes),)

    def _section(self, notes: Sequence[str]) -> Section:
        lines = [textwrap.fill(note, _WIDTH, subsequent_indent="  ") for note in notes]
        return Section(grid=self._grid(), lines=tuple(lines))

    def _grid(self) -> Grid:
        said = _SAID.get(self._beside, f" ({100 * self._level:g} % intervals)")
        parts = {
            "fixed": [(name, self._coefficient(name)) for name in self._terms("fixed")],
            "random": [(name, self._spread(name)) for name in self._terms("spread")],
            "model": [(self._fact_label(key), self._fact(key)) for key in self._facts()],
        }
        parts["model"] += [
            (word, [(column.words[word], "") for column in self._columns])
            for word in ("Fitted by", "Family")
            if word == "Fitted by" or not all(c.fit.has_residuals for c in self._columns)
        ]
        labels: list[str] = []
        cells: list[list[tuple[str, str]]] = []
        starts: list[int] = []
        for part, rows in parts.items():
            if not rows:
                continue
            starts.append(len(labels))
            labels.append(_PARTS[part] + (said if part == "fixed" else ""))
            cells.append([("", "")] * len(self._columns))
            for name, row in rows:
                labels.append(f"  {name}")
                cells.append(row)
        joined = [_joined([row[j] for row in cells]) for j in range(len(self._columns))]
        rows_of_text = tuple(zip(labels, *joined, strict=True))
        return Grid(("", *self.names), rows_of_text, centred=True, parts=tuple(starts[1:]))

    def _terms(self, part: str) -> list[str]:
        names = _merged([list(getattr(column, part)) for column in self._columns])
        return sorted(names, key=lambda name: name == _RESIDUAL)  # at the end

    def _facts(self) -> list[tuple[str, str]]:
        return _merged([list(column.facts) for column in self._columns])

    def _coefficient(self, name: str) -> list[tuple[str, str]]:
        found = [column.fixed.get(name, {}) for column in self._columns]

        def get(key: str) -> list[float]:
            return [each.get(key, np.nan) for each in found]

        def show(key: str) -> list[str]:
            return _alike(get(key), get("std_error"))

        beside = {
            "se": [f"({text})" for text in show("std_error")],
            "interval": [
                f"[{a}, {b}]" for a, b in zip(show("conf_low"), show("conf_high"), strict=True)
            ],
            "p": [f"({text})" if text else "" for text in p_values(get("p_value"))],
            "none": [""] * len(found),
        }[self._beside]
        return [
            (text, also if np.isfinite(each["std_error"]) else "") if each else ("", "")
            for text, also, each in zip(show("estimate"), beside, found, strict=True)
        ]

    def _spread(self, name: str) -> list[tuple[str, str]]:
        values = [column.spread.get(name, np.nan) for column in self._columns]
        if name.startswith("Correlation"):
            texts = fixed(2)(values)
        else:
            texts = [significant([value], _DIGITS + 1)[0] for value in values]
        there = [name in column.spread for column in self._columns]
        return [(text if own else "", "") for text, own in zip(texts, there, strict=True)]

    def _fact_label(self, key: tuple[str, str]) -> str:
        term, statistic = key
        return f"{term}: levels" if statistic == "n_levels" else _FACTS[statistic]

    def _fact(self, key: tuple[str, str]) -> list[tuple[str, str]]:
        values = [column.facts.get(key, np.nan) for column in self._columns]
        statistic = key[1]
        decimals = 0
        if statistic.startswith("r2"):
            decimals = 3
        elif statistic in ("logLik", "AIC", "BIC"):
            decimals = 1 if max(abs(v) for v in values if np.isfinite(v)) >= 100 else 2
        return [(number(v, decimals) if np.isfinite(v) else "", "") for v in values]

    @checked_keywords
    def to_frame(self) -> pd.DataFrame:
        """The numbers with all their digits.

        Returns
        -------
        DataFrame
            Columns ``part, term, statistic`` and one per model. Of a coefficient there are
            ``estimate, std_error, conf_low, conf_high, p_value``, of a standard deviation ``sd``
            and ``variance``; NaN where a model does not have it.
        """
        rows: list[tuple[Any, ...]] = []
        nothing: dict[str, float] = {}
        for name in self._terms("fixed"):
            for statistic in ("estimate", "std_error", "conf_low", "conf_high", "p_value"):
                own = [c.fixed.get(name, nothing).get(statistic, np.nan) for c in self._columns]
                rows.append(("fixed", name, statistic, *own))
        for name in self._terms("spread"):
            values = np.array([column.spread.get(name, np.nan) for column in self._columns])
            if "SD" in name.split():
                rows.append(("random", name, "sd", *values.tolist()))
                rows.append(("random", name, "variance", *np.square(values).tolist()))
            else:
                kind = "correlation" if name.startswith("Correlation") else "estimate"
                rows.append(("random", name, kind, *values.tolist()))
        for key in self._facts():
            own = [column.facts.get(key, np.nan) for column in self._columns]
            rows.append(("model", *key, *own))
        return pd.DataFrame(rows, columns=[*_FRAME, *self.names])

    @checked_keywords
    def to_markdown(self) -> str:
        """The printed table and its notes in GitHub's Markdown."""
        return markdown_of(self._sections)

    @checked_keywords
    def to_latex(self, *, caption: str = "", label: str = "") -> str:
        """The printed table as a LaTeX tabular, which needs the package booktabs.

        Parameters
        ----------
        caption, label : str
            With either, a floating table with the notes below it.
        """
        caption, label = a_text("caption", caption), a_text("label", label)
        section = self._section(self.notes if caption or label else ())
        return latex_of([section], caption, label)

    @checked_keywords
    def to_html(self) -> str:
        """The printed table as HTML, as notebooks show it."""
        return self._repr_html_()

    @checked_keywords
    def to_csv(self, path: Any = None) -> str | None:
        """The numbers of `to_frame` as CSV: written to a path, or returned."""
        text: str | None = self.to_frame().to_csv(
            path_or_stream(path), index=False, lineterminator="\n"
        )
        return text


_FACTS = {
    "nobs": "Observations",
    "npar": "Parameters",
    "logLik": "logLik",
    "AIC": "AIC",
    "BIC": "BIC",
    "r2_marginal": "R² marginal",
    "r2_conditional": "R² conditional",
}


def _alike(values: Sequence[float], errors: Sequence[float]) -> list[str]:
    """Values of a row with common decimals, unless their scales are far apart."""
    known = [error for error in errors if np.isfinite(error) and error > 0]
    if not known or max(known) < _FAR * min(known):
        return as_precise_as(known, _DIGITS)(values)
    return [as_precise_as([e], _DIGITS)([v])[0] for v, e in zip(values, errors, strict=True)]


def _joined(cells: Sequence[tuple[str, str]]) -> list[str]:
    """Estimates and what stands beside them, each below the other, as one text per row."""
    first = max(len(a) for a, _ in cells)
    second = max(len(b) for _, b in cells)
    numbers = [(f"{a:>{first}} {b:<{second}}" if second else f"{a:>{first}}") for a, b in cells]
    return [text if a else "" for text, (a, _) in zip(numbers, cells, strict=True)]


def _merged(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """All names, new ones before the next that is there already, otherwise at the end."""
    out: list[Any] = []
    for names in lists:
        for i, name in enumerate(names):
            if name not in out:
                following = [out.index(each) for each in names[i + 1 :] if each in out]
                out.insert(following[0] if following else len(out), name)
    return out


def compared_models(
    models: Sequence[tuple[Fit, Convergence]], names: Any, beside: str, level: float, ddf: str
) -> Comparison:
    """Put models side by side; see `lmmsparse.compare`."""
    beside = one_of("beside", beside, BESIDE, "It stands beside the estimates.")
    level, ddf = check_level(level), check_ddf(ddf)
    labels = _labels(names, len(models))
    columns = tuple(
        _column(label, fit, level, ddf) for label, (fit, _) in zip(labels, models, strict=True)
    )
    notes = [f"{column.name}: {_formula(column.fit)}" for column in columns]
    for label, (_, convergence) in zip(labels, models, strict=True):
        if not convergence.converged:
            notes.append(f"{label} has not reached its optimum.")
        elif convergence.singular:
            notes.append(f"{label} is a singular fit.")
        if any(finding.code == "monte-carlo" for finding in convergence.findings):
            notes.append(f"{label} has a Monte Carlo error: see m.monte_carlo.")
    notes += not_comparable([(column.name, column.fit) for column in columns])
    if beside == "interval" and any(column.spread for column in columns):
        notes.append("Intervals are those of the Wald tests of fixed effects.")
    linear = [column.fit.has_residuals for column in columns]
    if any(linear) and not all(linear):
        notes.append(
            "Standard deviations and R² of generalized models are on the scale of the link."
        )
    return Comparison(tuple(labels), tuple(notes), columns, beside, level)


def _formula(fit: Fit) -> str:
    design = fit.design
    text = " ".join((design.formula or design.response).split())
    return text if design.residual is None else f"{text}, residuals {design.residual.text}"


def _labels(names: Any, count: int) -> list[str]:
    if names is None:
        return [f"m{i + 1}" for i in range(count)]
    use = "Give one name per model."
    labels = names_in("names", names, use)
    if len(labels) != count:
        raise OptionError(f"names holds {len(labels)} names for {count} models. {use}")
    if len(set(labels)) < count or set(labels) & set(_FRAME):
        raise OptionError(
            f"names must be different, and none of {', '.join(map(repr, _FRAME))}, which are "
            "columns of the table already. Choose others."
        )
    return labels


def _column(name: str, fit: Fit, level: float, ddf: str) -> Column:
    facts = {("", "nobs"): float(fit.design.n)}
    for group, terms in fit.design.groups.items():
        facts[group, "n_levels"] = float(fit.design.blocks[terms[0]].n_levels)
    aic, bic = criteria(fit)
    facts |= {("", "npar"): float(fit.npar), ("", "logLik"): loglik(fit)}
    facts |= {("", "AIC"): float(aic), ("", "BIC"): float(bic)}
    if isinstance(fit, GeneralizedFit):
        table = z_table(fit, level)
        values = dict(zip(covariance_names(fit), covariance_values(fit), strict=True))
        how = approximation(fit)
        words = {"Fitted by": how.partition(" approximation")[0].partition(",")[0].capitalize()}
        words["Family"] = str(fit.family)
    else:
        words = {"Fitted by": "REML" if fit.reml else "ML", "Family": "gaussian(identity)"}
        table = coefficient_table(fit, ddf, level)
        known = parameter_values(fit, fit.theta, fit.sigma)
        values = dict(zip(parameter_names(fit), known, strict=True))
    marginal, conditional = _r_squared(fit)
    facts |= {("", "r2_marginal"): marginal, ("", "r2_conditional"): conditional}
    labels = parameter_labels(fit)
    spread = {_short(labels.get(key, key.capitalize())): float(v) for key, v in values.items()}
    return Column(name, fit, _coefficients(table.columns, fit.design.x_names), spread, facts, words)


def _r_squared(fit: Fit) -> tuple[float, float]:
    """Marginal and conditional; NaN where the model without predictors cannot be fitted."""
    try:
        marginal, conditional = r_squared(fit).tolist()
    except LmmError:
        return np.nan, np.nan
    return marginal, conditional


def _short(label: str) -> str:
    """The label of a parameter with fewer letters, for a table."""
    return label.replace("SD of ", "SD ", 1).replace("Correlation of ", "Correlation ", 1)


def _coefficients(columns: Any, names: Sequence[str]) -> dict[str, dict[str, float]]:
    new = {"Estimate": "estimate", "Std. Error": "std_error", "Pr(>|t|)": "p_value"}
    new |= {"lower.CL": "conf_low", "upper.CL": "conf_high", "Pr(>|z|)": "p_value"}
    return {
        name: {new[old]: float(values[i]) for old, values in columns.items() if old in new}
        for i, name in enumerate(names)
    }
