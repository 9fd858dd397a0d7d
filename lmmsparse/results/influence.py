"""`Fit` → how much each row, or each group of rows, moves the estimates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import DataError, Finding, LmmError, OptionError
from lmmsparse.common.findings import announce
from lmmsparse.common.progress import run
from lmmsparse.common.render import Section, Shown
from lmmsparse.common.table import Table
from lmmsparse.common.threads import one_thread
from lmmsparse.common.words import listed
from lmmsparse.engine.linalg import chunks
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.monte_carlo import require_exact
from lmmsparse.fit.refit import again, subset, warm_start
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.fit.settle import Settled, about_given, findings_about, settle
from lmmsparse.results.by_group import own_name
from lmmsparse.results.residuals import residuals
from lmmsparse.results.row_forms import (
    EffectsOfRows,
    conditional_forms,
    projected_rows,
    pulled_columns,
)
from lmmsparse.results.row_labels import row_labels

_SHOWN = 5


@dataclass(frozen=True, eq=False, repr=False)
class Influence(Shown):
    """Measures of influence, by row or by deleted group.

    Attributes
    ----------
    cooks_distance : Series
    dfbeta : DataFrame
        Estimates without the row or group minus estimates with it, one column per fixed effect.
    problems : mapping
        Level → why the model could not be fitted without it (its measures are NaN), or why its
        measures may be off.
    findings : tuple of Finding
        What is to be said of the fit and of all refits.
    unconverged : tuple
        Levels whose refit did not reach its optimum; their measures may be off.
    """

    cooks_distance: pd.Series
    dfbeta: pd.DataFrame
    problems: dict[Any, str]
    findings: tuple[Finding, ...]
    unconverged: tuple[Any, ...] = ()
    _group: str = ""
    _leverage: pd.Series | None = None
    _rstudent: pd.Series | None = None

    @property
    def leverage(self) -> pd.Series:
        """Diagonal of the hat matrix that maps the response to the fitted values.

        Raises
        ------
        OptionError
            For deleted groups.
        """
        return self._by_row(self._leverage, "leverage")

    @property
    def rstudent(self) -> pd.Series:
        """Residuals divided by their standard deviation, √w r / (σ √(1 − h)).

        Raises
        ------
        OptionError
            For deleted groups.
        """
        return self._by_row(self._rstudent, "rstudent")

    def _by_row(self, values: pd.Series | None, name: str) -> pd.Series:
        if values is None:
            raise OptionError(
                f"{name} is a measure of single rows, not of groups={self._group!r}. Use "
                f"m.influence().{name}."
            )
        return values

    @checked_keywords
    def to_frame(self) -> pd.DataFrame:
        """All measures side by side: ``leverage, rstudent`` (by row), ``cooks_distance``, dfbeta.

        Returns
        -------
        DataFrame
        """
        parts = [self._leverage, self._rstudent, self.cooks_distance]
        columns = [part for part in parts if part is not None]
        return pd.concat([*columns, self.dfbeta.add_prefix("dfbeta_")], axis=1)

    @property
    def _sections(self) -> tuple[Section, ...]:
        what = f"of levels of {self._group}" if self._group else "of single rows"
        largest = self.cooks_distance.nlargest(_SHOWN)
        missing = len(set(self.problems) - set(self.unconverged))
        table = Table(
            {"Cook's distance": largest.tolist()},
            [str(label) for label in largest.index],
            title=f"Influence {what}, the {len(largest)} largest of {len(self.cooks_distance)}",
            notes=[
                *([f"Without measures, see problems: {missing}."] if missing else []),
                *(finding.message for finding in self.findings),
            ],
        )
        return (table.section,)


def influence(fit: Fit, groups: Any = None, progress: bool | None = None) -> Influence:
    """Influence of every row, or of every level of a grouping."""
    require_exact(fit, "Influence needs", "Refit without the rows in question")
    return influence_of_rows(fit) if groups is None else influence_of_groups(fit, groups, progress)


@one_thread
def influence_of_rows(fit: Fit) -> Influence:
    """Leverage, studentized residuals, Cook's distance and dfbeta of every row.

    Notes
    -----
    With x̃ = x − X'WZΛM⁻¹Λ'z, the leverage is h = w [z'ΛM⁻¹Λ'z + |R_X⁻ᵀx̃|²]. Deleting a row while θ
    is held moves β̂ by exactly −(X'V⁻¹X)⁻¹ x̃ w r / (1 − h). With residuals of covariance σ²R, R⁻¹
    takes the place of w: w r is an element of R⁻¹r, and w (1 − h) one of P's diagonal. Cook's
    distance is w r² h / (p σ² (1 − h)²), NaN without fixed effects. For the last three see Cook &
    Weisberg (1982), chapter 3.
    """
    require_exact(fit, "Leverages need", "Use residuals that need none, kind='pearson'")
    design, p = fit.design, fit.design.p
    found = of_correlated_rows(fit) if isinstance(fit, ResidualFit) else _of_rows(fit)
    leverage = found.leverage
    with np.errstate(divide="ignore", invalid="ignore"):
        student = found.scaled / (fit.sigma * np.sqrt(found.left))
        cook = student**2 * leverage / ((p or np.nan) * (1.0 - leverage))
        dfbeta = -found.moved * (found.scaled / found.left)[:, None]
    index = design.output_index()

    def series(values: FloatArray, name: str) -> pd.Series:
        return pd.Series(np.array(design.pad(values)), index=index, name=name)

    columns = {name: design.pad(dfbeta[:, j]) for j, name in enumerate(design.x_names)}
    findings = about_given(fit)
    announce(findings)
    return Influence(
        cooks_distance=series(cook, "cooks_distance"),
        dfbeta=pd.DataFrame(columns, index=index),
        problems={},
        findings=findings,
        _leverage=series(leverage, "leverage"),
        _rstudent=series(student, "rstudent"),
    )


@dataclass(frozen=True, eq=False)
class _OfRows:
    """What measures of rows are made of, with P = V⁻¹ − V⁻¹X(X'V⁻¹X)⁻¹X'V⁻¹.

    Attributes
    ----------
    leverage : (n,) array
    scaled, left : (n,) arrays
        Elements of Py, and of the diagonal of P.
    moved : (n, p) array
        (X'V⁻¹X)⁻¹X'V⁻¹ column by column.
    """

    leverage: FloatArray
    scaled: FloatArray
    left: FloatArray
    moved: FloatArray


def _of_rows(fit: Fit) -> _OfRows:
    w = fit.design.weights_or_one
    leverage, moved = _leverage(fit)
    return _OfRows(leverage, w * residuals(fit), w * (1.0 - leverage), w[:, None] * moved)


def of_correlated_rows(fit: ResidualFit) -> _OfRows:
    """The same with R⁻¹ for the weights: rows of a group share its columns R⁻¹[Z X]."""
    design, structure, phi = fit.design, fit.structure, fit.phi
    X, Z = design.X, [block.shifted_columns for block in design.blocks]
    RX = structure.precision_times(phi, X)
    RZ = [structure.precision_times(phi, columns) for columns in Z]

    def forms(X: FloatArray, Z: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
        rows = EffectsOfRows(dict(enumerate(Z)), {t: b.codes for t, b in enumerate(design.blocks)})
        out = conditional_forms(fit, rows) if Z else np.zeros(design.n)
        half = projected_rows(fit, X, rows, pulled_columns(fit))
        return out + np.einsum("pn,pn->n", half, half), half

    def mixed(sign: float) -> FloatArray:
        return forms(X + sign * RX, [a + sign * b for a, b in zip(Z, RZ, strict=True)])[0]

    taken, half = forms(RX, RZ)
    own = structure.precision_diagonal(phi)
    internal = sla.solve_triangular(fit.modes.solution.RX, half, check_finite=False)
    moved = fit.products.basis.coefficients(internal).T if design.p else np.zeros((design.n, 0))
    scaled = structure.precision_times(phi, residuals(fit)[:, None])[:, 0]
    return _OfRows(0.25 * (mixed(1.0) - mixed(-1.0)), scaled, own - taken, moved)


def _leverage(fit: Fit) -> tuple[FloatArray, FloatArray]:
    """Diagonal of the hat matrix, (n,), and (X'V⁻¹X)⁻¹ x̃ of every row, (n, p)."""
    design, basis = fit.design, fit.products.basis
    blocks = dict(enumerate(design.blocks))
    rows = EffectsOfRows(
        {t: block.shifted_columns for t, block in blocks.items()},
        {t: block.codes for t, block in blocks.items()},
    )
    h = conditional_forms(fit, rows)
    moved = np.zeros((design.n, design.p))
    pulled = pulled_columns(fit) if design.p else []
    for part in chunks(design.n, design.p * max(b.k for b in design.blocks)) if pulled else ():
        x = design.fixed[part]
        x = x if isinstance(x, np.ndarray) else x.toarray()
        half = projected_rows(fit, x, rows.of(part), pulled)
        h[part] += np.einsum("pn,pn->n", half, half)
        internal = sla.solve_triangular(fit.modes.solution.RX, half, check_finite=False)
        moved[part] = basis.coefficients(internal).T
    return design.weights_or_one * h, moved


@one_thread
def influence_of_groups(fit: Fit, groups: Any, progress: bool | None = None) -> Influence:
    """Cook's distance and dfbeta of every level of a grouping, by refits without it.

    Notes
    -----
    Every refit starts from θ of the fit. Cook's distance is dfbeta' Cov(β̂)⁻¹ dfbeta / p, NaN
    without fixed effects.
    """
    design = fit.design
    codes, levels, name = grouping_of(fit, groups)
    if len(levels) < 2:
        raise DataError(
            f"The grouping {name!r} has one level only, without which no row is left to fit. "
            "Choose a grouping with several levels."
        )
    start = warm_start(fit)
    dfbeta = np.full((len(levels), design.p), np.nan)
    problems: dict[Any, str] = {}
    off: dict[Any, Settled] = {}
    labels = list(levels)

    def leave_out(level: int) -> None:
        label = labels[level]
        try:
            refit = again(fit, subset(design, codes != level), start=start)
            settled = settle(refit, warm=True)
            left = settled.fit
            if settled.trouble:
                off[label] = settled
                problems[label] = f"the refit has not reached its optimum: {settled.trouble}"
            kept = [design.x_names.index(name) for name in left.design.x_names]
            dfbeta[level, kept] = left.beta - fit.beta[kept]
            if len(kept) < design.p:
                lost = [name for j, name in enumerate(design.x_names) if j not in kept]
                problems[label] = f"without it {listed(lost)} cannot be estimated"
        except (LmmError, np.linalg.LinAlgError) as error:
            problems[label] = str(error)

    calls = [(level,) for level in range(len(labels))]
    done = run(leave_out, calls, "influence", unit="levels", progress=progress)
    if done.interrupted:
        dfbeta[len(done.results) :] = np.nan
        for label in labels[len(done.results) :]:
            problems[label] = "interrupted before it was left out"
    findings = about_given(fit)
    findings += findings_about([(str(label), each) for label, each in off.items()])
    announce(findings)
    cook = np.einsum("li,li->l", dfbeta, np.linalg.solve(fit.vcov, dfbeta.T).T)
    cook = cook / (design.p or np.nan)
    index = levels.rename(name)
    return Influence(
        cooks_distance=pd.Series(cook, index=index, name="cooks_distance"),
        dfbeta=pd.DataFrame(dfbeta, index=index, columns=pd.Index(design.x_names, dtype=object)),
        problems=problems,
        findings=findings,
        unconverged=tuple(off),
        _group=name,
    )


def grouping_of(fit: Fit, groups: Any) -> tuple[IntArray, pd.Index, str]:
    """Codes of the fitted rows, levels and name of a grouping."""
    design = fit.design
    if isinstance(groups, str):
        groupings = design.groupings
        groups = own_name(groups, groupings)
        if groups not in groupings:
            raise OptionError(
                f"groups={groups!r} is not a grouping factor of the model. Its grouping factors "
                f"are {listed(groupings)}. Name one of them, or pass the labels of the rows, "
                "for example groups=data['column']."
            )
        grouping = groupings[groups]
        present, codes = np.unique(grouping.codes, return_inverse=True)
        return codes.astype(np.intp), grouping.levels[present], groups
    labels = row_labels(design, "groups", groups)
    codes, levels = pd.factorize(labels, sort=True)
    name = labels.name if isinstance(labels.name, str) else "groups"
    return codes.astype(np.intp), pd.Index(levels), name
