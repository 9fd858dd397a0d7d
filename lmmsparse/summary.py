"""`Fit` and its verdict → the printout an lme4 user expects."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmsparse.convergence import Convergence
from lmmsparse.fit import Fit
from lmmsparse.held import theta_names
from lmmsparse.inference.ddf import check_ddf
from lmmsparse.inference.lrt import information, loglik
from lmmsparse.inference.wald import coefficient_table
from lmmsparse.table import Table, aligned, as_precise_as, number
from lmmsparse.varcorr import VarCorr, variance_components

_CORRELATIONS_UP_TO = 12
_FIXED = {
    "none": "Fixed effects:",
    "satterthwaite": "Fixed effects (t-tests with Satterthwaite's degrees of freedom):",
    "kenward-roger": "Fixed effects (Kenward-Roger's standard errors and degrees of freedom):",
    "residual": "Fixed effects (t-tests with residual degrees of freedom):",
    "asymptotic": "Fixed effects (tests by the normal approximation):",
}


@dataclass(frozen=True, eq=False)
class Summary:
    """A printable summary that keeps its numbers.

    Attributes
    ----------
    text : str
    coefficients : Table
    varcorr : VarCorr
    """

    text: str
    coefficients: Table
    varcorr: VarCorr

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.text)}</pre>"


def _heading(fit: Fit) -> list[str]:
    method = "REML" if fit.reml else "maximum likelihood"
    formula = fit.design.formula or (
        f"{fit.design.response} ~ {' + '.join(fit.design.x_names) or '0'} + "
        + " + ".join(block.source for block in fit.design.blocks)
    )
    lines = [f"Linear mixed model fit by {method}", f"Formula: {' '.join(formula.split())}"]
    if fit.design.weights is not None:
        lines.append("Weights: prior weights (residual variance σ²/w)")
    return lines


def _criteria(fit: Fit) -> str:
    aic, bic = information(fit)
    df = fit.design.n - fit.npar
    if fit.reml:
        head = ["REML criterion", "AIC", "BIC", "logLik"]
        row = [fit.criterion, aic, bic, loglik(fit)]
    else:
        head = ["AIC", "BIC", "logLik", "deviance"]
        row = [aic, bic, loglik(fit), fit.criterion]
    cells = [number(v, 1) if abs(v) >= 100 else number(v, 3) for v in row]
    return aligned([*head, "df.resid"], [[*cells, str(df)]], left=0)


def _residuals(fit: Fit) -> str:
    design = fit.design
    scaled = np.sqrt(design.weights_or_one) * (design.y - fit.fitted) / fit.sigma
    quantiles = np.quantile(scaled, [0, 0.25, 0.5, 0.75, 1])
    cells = [number(float(v), 4) for v in quantiles]
    return aligned(["Min", "1Q", "Median", "3Q", "Max"], [cells], left=0)


def _counts(fit: Fit) -> str:
    groups = "; ".join(
        f"{name}, {fit.design.blocks[terms[0]].n_levels}"
        for name, terms in fit.design.groups.items()
    )
    text = f"Number of obs: {fit.design.n}, groups: {groups}"
    names = theta_names(fit.design)
    held = [f"{names[i]} = {value:g}" for i, value in fit.held.theta]
    held += [] if fit.held.sigma is None else [f"sigma = {fit.held.sigma:g}"]
    return f"{text}\nNot estimated but fixed: {', '.join(held)}" if held else text


def _correlations(fit: Fit) -> str | None:
    p = fit.design.p
    if not 1 < p <= _CORRELATIONS_UP_TO:
        return None
    sd = np.sqrt(np.diag(fit.vcov))
    cor = fit.vcov / np.outer(sd, sd)
    names = list(fit.design.x_names)
    short = [name if len(name) <= 12 else name[:11] + "…" for name in names]
    rows = [
        [names[i], *(number(cor[i, j], 3) for j in range(i)), *[""] * (p - 1 - i)]
        for i in range(1, p)
    ]
    return aligned(["", *short[:-1]], rows)


def _shared(fit: Fit, convergence: Convergence, parts: list[str]) -> str:
    notes = [f.message for f in convergence.findings if f.level != "info"]
    notes += [f.message for f in convergence.findings if f.code == "missing-rows"]
    if notes:
        parts.append("")
        for note in dict.fromkeys(notes):
            parts.append(textwrap.fill(f"Note: {note}", 88, subsequent_indent="  "))
    return "\n".join(parts)


def summarize(fit: Fit, convergence: Convergence, ddf: str) -> Summary:
    """Compose the summary.

    Parameters
    ----------
    fit : Fit
    convergence : Convergence
    ddf : str
        Method of the coefficient table.
    """
    ddf = check_ddf(ddf)
    varcorr = variance_components(fit)
    table = coefficient_table(fit, ddf)
    parts = [
        *_heading(fit),
        "",
        _criteria(fit),
        "",
        "Scaled residuals:",
        _residuals(fit),
        "",
        "Random effects:",
        str(varcorr),
        _counts(fit),
        "",
    ]
    parts += [_FIXED[ddf], str(table)] if fit.design.p else ["No fixed effects"]
    correlations = _correlations(fit)
    if correlations is not None:
        parts += ["", "Correlation of fixed effects:", correlations]
    return Summary(_shared(fit, convergence, parts), table, varcorr)


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
    varcorr = variance_components(fit)
    name = "REML criterion at convergence" if fit.reml else "Deviance at convergence"
    parts = [
        *_heading(fit),
        f"{name}: {number(fit.criterion, 4)}",
        "Random effects:",
        str(varcorr),
        _counts(fit),
    ]
    if fit.design.p:
        cells = as_precise_as(np.sqrt(np.diag(fit.vcov)).tolist())(fit.beta.tolist())
        parts += ["Fixed effects:", *_wrapped(fit.design.x_names, cells)]
    return _shared(fit, convergence, parts)
