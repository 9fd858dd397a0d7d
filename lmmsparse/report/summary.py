"""`Fit` and its verdict → the printout an lme4 user expects, as text, HTML, Markdown and LaTeX."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.render import Grid, Section, Shown, aligned, markdown_of
from lmmsparse.common.table import Table, as_precise_as, number
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.held import theta_names
from lmmsparse.fit.not_identified import briefly
from lmmsparse.fit.singular import ranks
from lmmsparse.fit.verdict import Convergence
from lmmsparse.inference.df.methods import check_ddf
from lmmsparse.inference.intervals.wald import coefficient_table
from lmmsparse.results.likelihood import criteria, loglik
from lmmsparse.results.residuals import of_the_rows_kept
from lmmsparse.results.varcorr import VarCorr, variance_components

_CORRELATIONS_UP_TO = 12
_WIDTH = 88
_SHORT = ("singular", "not-identified")
_FIXED = {
    "none": "Fixed effects:",
    "satterthwaite": "Fixed effects (t-tests with Satterthwaite's degrees of freedom):",
    "kenward-roger": "Fixed effects (Kenward-Roger's standard errors and degrees of freedom):",
    "residual": "Fixed effects (t-tests with residual degrees of freedom):",
    "asymptotic": "Fixed effects (tests by the normal approximation):",
}


@dataclass(frozen=True, eq=False, repr=False)
class Summary(Shown):
    """A printable summary that keeps its numbers.

    Attributes
    ----------
    coefficients : Table
    varcorr : VarCorr
    sections : tuple of Section
        The printout in parts.
    """

    coefficients: Table
    varcorr: VarCorr
    sections: tuple[Section, ...]

    @property
    def _sections(self) -> tuple[Section, ...]:
        return self.sections

    @checked_keywords
    def to_markdown(self) -> str:
        """The whole summary in GitHub's Markdown."""
        return markdown_of(self.sections)

    @checked_keywords
    def to_latex(self) -> str:
        """Fixed effects and variances as two LaTeX tabulars, which need the package booktabs."""
        return f"{self.coefficients.to_latex()}\n\n{self.varcorr.to_latex()}"


def _heading(fit: Fit) -> tuple[str, ...]:
    method = "REML" if fit.reml else "maximum likelihood"
    formula = fit.design.formula or (
        f"{fit.design.response} ~ {' + '.join(fit.design.x_names) or '0'} + "
        + " + ".join(block.source for block in fit.design.blocks)
    )
    lines = [f"Linear mixed model fit by {method}", f"Formula: {' '.join(formula.split())}"]
    if fit.design.weights is not None:
        lines.append("Weights: prior weights (residual variance σ²/w)")
    return tuple(lines)


def _criteria(fit: Fit) -> Grid:
    aic, bic = criteria(fit)
    df = fit.design.n - fit.npar
    if fit.reml:
        head = ["REML criterion", "AIC", "BIC", "logLik"]
        row = [fit.criterion, aic, bic, loglik(fit)]
    else:
        head = ["AIC", "BIC", "logLik", "deviance"]
        row = [aic, bic, loglik(fit), fit.criterion]
    cells = [number(v, 1) if max(map(abs, row)) >= 100 else number(v, 3) for v in row]
    return Grid((*head, "df.resid"), ((*cells, str(df)),), left=0)


def quantiles_of(scaled: FloatArray) -> Grid:
    """Quartiles of residuals."""
    quantiles = np.quantile(scaled, [0, 0.25, 0.5, 0.75, 1])
    cells = tuple(number(float(v), 4) for v in quantiles)
    return Grid(("Min", "1Q", "Median", "3Q", "Max"), (cells,), left=0)


def counts_of(fit: Fit) -> str:
    """Rows and levels, and what is held."""
    groups = "; ".join(
        f"{name}, {fit.design.blocks[terms[0]].n_levels}"
        for name, terms in fit.design.groups.items()
    )
    text = f"Number of obs: {fit.design.n}, groups: {groups}"
    names = theta_names(fit.design)
    held = [f"{names[i]} = {value:g}" for i, value in fit.held.theta]
    held += (
        [] if fit.held.sigma is None or not fit.has_residuals else [f"sigma = {fit.held.sigma:g}"]
    )
    return f"{text}\nNot estimated but fixed: {', '.join(held)}" if held else text


def correlations_of(fit: Fit) -> Grid | None:
    """Correlations of the fixed effects, unless there are too many."""
    p = fit.design.p
    if not 1 < p <= _CORRELATIONS_UP_TO:
        return None
    sd = np.sqrt(np.diag(fit.vcov))
    cor = fit.vcov / np.outer(sd, sd)
    names = list(fit.design.x_names)
    heads = [name if len(name) <= 12 else name[:11] + "…" for name in names[:-1]]
    rows = tuple(
        (names[i], *(number(cor[i, j], 3) for j in range(i)), *[""] * (p - 1 - i))
        for i in range(1, p)
    )
    width = max(map(len, names)) + sum(max(6, len(head)) + 1 for head in heads)
    if width > _WIDTH or len(set(heads)) < len(heads):
        heads = _abbreviated(names[:-1])
    return Grid(("", *heads), rows)


def _abbreviated(names: Sequence[str], length: int = 6) -> list[str]:
    """Names cut to a few letters: vowels go first, then other small letters, from the end.

    Names that would become equal keep more letters.
    """
    out = []
    for name in names:
        word = re.sub(r"\[T\.|[^\w.]", "", name)
        for droppable in ("aeiou", "bcdfghjklmnpqrstvwxyz"):
            for i in range(len(word) - 1, 0, -1):
                if len(word) > length and word[i] in droppable:
                    word = word[:i] + word[i + 1 :]
        out.append(word)
    clear = len(set(out)) == len(out) or length > 30
    return out if clear else _abbreviated(names, length + 2)


def verdict_of(fit: Fit, convergence: Convergence) -> str:
    """The verdict in a line."""
    if not convergence.converged:
        return "Convergence: the optimum has not been reached."
    if not convergence.singular:
        return "Convergence: the optimum has been reached; the fit is not singular."
    text = f"Convergence: the optimum has been reached. The fit is singular: {ranks(fit)}."
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ")


def notes_of(fit: Fit, convergence: Convergence) -> tuple[str, ...]:
    """What deserves attention, with advice; in short what fitting has warned of."""
    findings = convergence.findings
    notes = [f.message for f in findings if f.level != "info" and f.code not in _SHORT]
    notes += briefly(fit, findings)
    notes += [f.message for f in findings if f.code == "missing-rows"]
    return tuple(
        textwrap.fill(f"Note: {note}", _WIDTH, subsequent_indent="  ")
        for note in dict.fromkeys(notes)
    )


def summarize(fit: Fit, convergence: Convergence, ddf: str) -> Summary:
    """Compose the summary, with the coefficient table of a method."""
    ddf = check_ddf(ddf)
    table = coefficient_table(fit, ddf)
    quantiles = quantiles_of(of_the_rows_kept(fit, "pearson") / fit.sigma)
    title = "Scaled residuals"
    if fit.design.sample is not None and fit.design.sample.n != fit.design.n:
        title += f" of {fit.design.sample.n} rows"
    first = (
        Section(lines=_heading(fit)),
        Section(grid=_criteria(fit)),
        Section(f"{title}:", quantiles),
    )
    return composed(fit, convergence, first, (), _FIXED[ddf], table)


def composed(
    fit: Fit,
    convergence: Convergence,
    first: Sequence[Section],
    below_random: Sequence[str],
    title: str,
    table: Table,
) -> Summary:
    """A summary from its first sections, lines below the random effects and coefficients."""
    varcorr, shown = variance_components(fit), table.section
    sections = [
        *first,
        Section("Random effects:", varcorr.grid, (counts_of(fit), *below_random)),
        Section(title, shown.grid, shown.lines) if fit.design.p else Section("No fixed effects"),
    ]
    correlations = correlations_of(fit)
    if correlations is not None:
        sections.append(Section("Correlation of fixed effects:", correlations))
    sections.append(Section(lines=(verdict_of(fit, convergence), *notes_of(fit, convergence))))
    return Summary(table, varcorr, tuple(sections))


def _wrapped(names: Sequence[str], cells: Sequence[str], width: int = 80) -> list[str]:
    """Names above numbers, in as many pairs of lines as the width asks for."""
    lines, start = [], 0
    while start < len(names):
        stop, used = start, 0
        while stop < len(names):
            used += max(len(names[stop]), len(cells[stop])) + 1
            if used > width + 1 and stop > start:
                break
            stop += 1
        lines.append(aligned(names[start:stop], [cells[start:stop]], left=0))
        start = stop
    return lines


def short_print(fit: Fit, convergence: Convergence) -> str:
    """What ``print(model)`` shows: criterion, standard deviations, fixed effects."""
    name = "REML criterion" if fit.reml else "Deviance"
    return printed(fit, convergence, (*_heading(fit), f"{name} at convergence"), ())


def printed(
    fit: Fit, convergence: Convergence, first: Sequence[str], below_random: Sequence[str]
) -> str:
    """A short printout: lines, of which the last names the criterion, estimates and notes."""
    parts = [
        *first[:-1],
        f"{first[-1]}: {number(fit.criterion, 4)}",
        "Random effects:",
        str(variance_components(fit)),
        counts_of(fit),
        *below_random,
    ]
    notes = notes_of(fit, convergence)
    if convergence.singular and convergence.converged:
        notes = (*notes, verdict_of(fit, convergence))
    if fit.design.p:
        se = np.sqrt(np.diag(fit.vcov))
        cells = as_precise_as(se[np.isfinite(se)].tolist())(fit.beta.tolist())
        parts += ["Fixed effects:", *_wrapped(fit.design.x_names, cells)]
    return "\n".join([*parts, "", *notes] if notes else parts)
