"""`Fit` and its verdict → the printout an lme4 user expects, as text, HTML, Markdown and LaTeX."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_keywords, explained_members
from lmmsparse.common.options import a_text
from lmmsparse.common.render import GAP, Grid, Section, Shown, latex_of, markdown_of
from lmmsparse.common.table import Table, as_precise_as, number
from lmmsparse.design import RandomBlock
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.held import theta_names
from lmmsparse.fit.monte_carlo import decimals_known
from lmmsparse.fit.not_identified import briefly
from lmmsparse.fit.singular import ranks
from lmmsparse.fit.verdict import Convergence
from lmmsparse.inference.df.methods import check_ddf, method_name
from lmmsparse.inference.intervals.wald import coefficient_table
from lmmsparse.inference.robust.clusters import Robust
from lmmsparse.results.likelihood import criteria, loglik
from lmmsparse.results.residuals import of_the_rows_kept
from lmmsparse.results.varcorr import VarCorr, variance_components

_CORRELATIONS_UP_TO = 12
_PRINTED = 40
_WIDTH = 88
_SHORT = ("singular", "not-identified")
# Said in another line of the printout, or of no consequence for what it shows.
_ELSEWHERE = (
    "missing-rows",
    "evaluation-limit",
    "slow-solver",
    "sequence",
    "read-in-chunks",
    "read-in-memory",
)
_FIXED = {
    "none": "Fixed effects:",
    "satterthwaite": "Fixed effects (t-tests with Satterthwaite's degrees of freedom):",
    "kenward-roger": "Fixed effects (Kenward-Roger's standard errors and degrees of freedom):",
    "residual": "Fixed effects (t-tests with residual degrees of freedom):",
    "asymptotic": "Fixed effects (tests by the normal approximation):",
}


@partial(explained_members, section="tables")
@dataclass(frozen=True, eq=False, repr=False)
class Summary(Shown):
    """A printable summary that keeps its numbers.

    Attributes
    ----------
    coefficients : Table
    varcorr : VarCorr
    sections : tuple of Section
        The printout in parts.
    counts : tuple of str
        The lines about rows and levels.
    """

    coefficients: Table
    varcorr: VarCorr
    sections: tuple[Section, ...]
    counts: tuple[str, ...] = ()

    @property
    def _sections(self) -> tuple[Section, ...]:
        return self.sections

    @checked_keywords
    def to_markdown(self) -> str:
        """The whole summary in GitHub's Markdown."""
        return markdown_of(self.sections)

    @checked_keywords
    def to_latex(self, *, caption: str = "", label: str = "") -> str:
        """Fixed effects, variances and counts in LaTeX, which needs the package booktabs.

        Parameters
        ----------
        caption, label : str
            With either, both tabulars are one floating table.
        """
        caption, label = a_text("caption", caption), a_text("label", label)
        shown = Section(grid=self.coefficients.section.grid), Section(grid=self.varcorr.grid)
        own = () if self.varcorr.residual is None else (self.varcorr.residual.section,)
        return latex_of((*shown, *own, Section(lines=self.counts)), caption, label)

    @checked_keywords
    def to_html(self) -> str:
        """The whole summary as HTML, as notebooks show it."""
        return self._repr_html_()


def _heading(fit: Fit) -> tuple[str, ...]:
    method = "REML" if fit.reml else "maximum likelihood"
    formula = fit.design.formula or (
        f"{fit.design.response} ~ {' + '.join(fit.design.x_names) or '0'} + "
        + " + ".join(block.source for block in fit.design.blocks)
    ).removesuffix(" + ")
    what = "Linear mixed model" if fit.design.blocks else "Generalized least squares"
    lines = [f"{what} fit by {method}", f"Formula: {' '.join(formula.split())}"]
    residual = fit.design.residual
    if residual is not None and residual.correlation is not None:
        lines.append(f"Residual correlation: {residual.correlation.text}")
    if residual is not None and residual.names:
        lines.append(f"Residual log standard deviation: {residual.sd_text}")
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
    decimals = decimals_known(fit, 1 if max(map(abs, row)) >= 100 else 3)
    cells = [number(v, decimals) for v in row]
    return Grid((*head, "df.resid"), ((*cells, str(df)),), left=0)


def quantiles_of(scaled: FloatArray) -> Grid:
    """Quartiles of residuals."""
    quantiles = np.quantile(scaled, [0, 0.25, 0.5, 0.75, 1])
    cells = tuple(number(float(v), 4) for v in quantiles)
    return Grid(("Min", "1Q", "Median", "3Q", "Max"), (cells,), left=0)


def _known_covariance(block: RandomBlock) -> str:
    """What is known of a factor's levels, and how many of them have no rows."""
    if block.known is None:
        return ""
    absent = block.n_levels - len(np.unique(block.codes))
    without = f", {absent} levels without rows" if absent else ""
    return f"{block.group} ({block.known.kind}{without})"


def counts_of(fit: Fit) -> str:
    """Rows and levels, whose covariance is known, and what is held."""
    groups = "; ".join(
        f"{name}, {fit.design.blocks[terms[0]].n_levels}"
        for name, terms in fit.design.groups.items()
    )
    design = fit.design
    gone = design.n_all - design.n
    missing = any(f.code == "missing-rows" and f.level == "info" for f in design.findings)
    why = ": values are missing" if missing else ""
    left_out = f" ({gone} of {design.n_all} rows left out{why})" if gone else ""
    text = f"Number of obs: {design.n}{left_out}" + (f", groups: {groups}" if groups else "")
    residual = design.residual
    if residual is not None and residual.grouping is not None:
        grouping = residual.grouping
        text += f"; residuals within {grouping.name}, {len(grouping.levels)}"
    known = [_known_covariance(design.blocks[terms[0]]) for terms in design.groups.values()]
    if any(known):
        text = f"{text}\nKnown covariance of levels: {'; '.join(filter(None, known))}"
    names = theta_names(fit.design)
    held = [f"{names[i]} = {value:g}" for i, value in fit.held.theta]
    held += [f"{name} = {value:g}" for name, value in fit.held.residual]
    held += (
        [] if fit.held.sigma is None or not fit.has_residuals else [f"sigma = {fit.held.sigma:g}"]
    )
    return f"{text}\nNot estimated but fixed: {', '.join(held)}" if held else text


def correlations_of(fit: Fit) -> Section | None:
    """Correlations of the fixed effects, unless there are too many.

    Where their names are too long to stand above the columns, numbers do; where they are too long
    beside the rows too, a list below says what the numbers are.
    """
    p = fit.design.p
    if not 1 < p <= _CORRELATIONS_UP_TO:
        return None
    sd = np.sqrt(np.diag(fit.vcov))
    cor = fit.vcov / np.outer(sd, sd)
    names = list(fit.design.x_names)
    numbered = [f"({i + 1})" for i in range(p)]
    width, notes = max(map(len, numbered)), list[str]()
    key = [f"{n:<{width}} {name}" for n, name in zip(numbered, names, strict=True)]
    if _width(names, names[:-1]) <= _WIDTH:
        rows, heads, first = names, names[:-1], 1
    elif _width(key, numbered[:-1]) <= _WIDTH:
        rows, heads, first = key, numbered[:-1], 0
    else:
        rows, heads, first = numbered, numbered[:-1], 1
        notes = key
    cells = tuple(
        (rows[i], *(number(cor[i, j], 3) for j in range(i)), *[""] * (p - 1 - i))
        for i in range(first, p)
    )
    return Section("Correlation of fixed effects:", Grid(("", *heads), cells), tuple(notes))


def _width(rows: Sequence[str], heads: Sequence[str]) -> int:
    return max(map(len, rows)) + sum(max(6, len(head)) + len(GAP) for head in heads)


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
    told = [f for f in findings if f.code not in _SHORT]
    notes = [f.message for f in told if f.level != "info"]
    notes += briefly(fit, findings)
    notes += [f.message for f in told if f.level == "info" and f.code not in _ELSEWHERE]
    return tuple(
        textwrap.fill(f"Note: {note}", _WIDTH, subsequent_indent="  ")
        for note in dict.fromkeys(notes)
    )


def summarize(
    fit: Fit, convergence: Convergence, ddf: str, robust: Robust | None = None
) -> Summary:
    """Compose the summary, with the coefficient table of a method."""
    ddf = check_ddf(ddf)
    table = coefficient_table(fit, ddf, robust=robust)
    quantiles = quantiles_of(of_the_rows_kept(fit, "pearson") / fit.sigma)
    title = "Scaled residuals"
    if fit.design.sample is not None and fit.design.sample.n != fit.design.n:
        title += f" of {fit.design.sample.n} rows"
    first = (
        Section(lines=_heading(fit)),
        Section(grid=_criteria(fit)),
        Section(f"{title}:", quantiles),
    )
    title = _FIXED[ddf] if robust is None else f"Fixed effects ({method_name(ddf, robust)}):"
    return composed(fit, convergence, first, (), title, table, correlated=robust is None)


def composed(
    fit: Fit,
    convergence: Convergence,
    first: Sequence[Section],
    below_random: Sequence[str],
    title: str,
    table: Table,
    correlated: bool = True,
) -> Summary:
    """A summary from its first sections, lines below the random effects and coefficients."""
    varcorr, shown = variance_components(fit), table.section
    counts = (counts_of(fit), *below_random)
    if varcorr.residual is None:
        variances = [Section("Random effects:", varcorr.grid, counts)]
    else:
        last, title_of = varcorr.residual.section, "Random effects:" if varcorr.terms else ""
        last = Section(last.title, last.grid, (*last.lines, *counts))
        variances = [Section(title_of, varcorr.grid), last]
    sections = [
        *first,
        *variances,
        Section(title, shown.grid, shown.lines) if fit.design.p else Section("No fixed effects"),
    ]
    correlations = correlations_of(fit) if correlated else None
    if correlations is not None:
        sections.append(correlations)
    sections.append(Section(lines=(verdict_of(fit, convergence), *notes_of(fit, convergence))))
    return Summary(table, varcorr, tuple(sections), (counts_of(fit), *below_random))


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
        f"{first[-1]}: {number(fit.criterion, decimals_known(fit, 4))}",
        "Random effects:" if fit.design.blocks else "Residuals:",
        str(variance_components(fit)),
        counts_of(fit),
        *below_random,
    ]
    notes = notes_of(fit, convergence)
    if convergence.singular and convergence.converged:
        notes = (*notes, verdict_of(fit, convergence))
    if fit.design.p:
        parts += ["Fixed effects:", _estimates(fit)]
    return "\n".join([*parts, "", *notes] if notes else parts)


def _estimates(fit: Fit) -> str:
    """Fixed effects with their standard errors, one below the other; of very many the first."""
    se = np.sqrt(np.diag(fit.vcov))
    precise = as_precise_as(se[np.isfinite(se)].tolist())
    p, shown = fit.design.p, slice(_PRINTED)
    grid = Table(
        {"Estimate": fit.beta[shown].tolist(), "Std. Error": se[shown].tolist()},
        fit.design.x_names[shown],
        formats=dict.fromkeys(("Estimate", "Std. Error"), precise),
    )
    return f"{grid}\n… ({p} in all: m.fixef)" if p > _PRINTED else str(grid)
