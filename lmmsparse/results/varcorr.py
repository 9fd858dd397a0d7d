"""`Fit` → variances, standard deviations and correlations of the random effects, and their rank."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import (
    checked_construction,
    checked_keywords,
    explained_members,
    not_called,
)
from lmmsparse.common.options import a_text, path_or_stream
from lmmsparse.common.render import Grid, Section, Shown, latex_of
from lmmsparse.common.table import number, significant
from lmmsparse.fit.fit import Fit
from lmmsparse.results.by_group import ByGroup
from lmmsparse.results.residual_covariance import ResidualCovariance, residual_covariance


@dataclass(frozen=True, eq=False)
class TermCovariance:
    """Covariance of one term's random effects.

    Attributes
    ----------
    covariance : (k, k) array
        σ² T T'.
    correlated : bool
        Whether correlations are parameters of the model.
    """

    group: str
    names: tuple[str, ...]
    covariance: FloatArray
    correlated: bool

    @property
    def sd(self) -> FloatArray:
        """Standard deviations, (k,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlation(self) -> FloatArray:
        """Correlation matrix (k, k), NaN where a standard deviation is zero."""
        sd = self.sd
        with np.errstate(invalid="ignore", divide="ignore"):
            out = self.covariance / np.outer(sd, sd)
        return np.clip(out, -1.0, 1.0)


@partial(explained_members, section="tables")
@not_called("The variances are a member, not a method. Write m.varcorr without parentheses.")
@checked_construction
class VarCorr(Shown):
    """Estimated variances and correlations, printed as lme4 prints them.

    Parameters
    ----------
    terms : tuple of TermCovariance
        One per random-effects term, in the order of the printout. Each has its ``group``, the
        ``names`` of its k effects, ``covariance`` (k, k), ``sd`` (k,), ``correlation`` (k, k), and
        ``correlated``: whether correlations are parameters of the model.
    sigma : float or None
        Residual standard deviation (of an observation of weight 1); None in a generalized model.
    residual : ResidualCovariance or None
        Correlations and standard deviations of the residuals, where they have a structure.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
    >>> term = m.varcorr.terms[0]
    >>> term.group, term.names, term.covariance.round(1).tolist()
    ('Subject', ('Intercept', 'Days'), [[612.1, 9.6], [9.6, 35.1]])
    >>> m.varcorr["Subject"].round(1).loc["Intercept", "Days"]
    np.float64(9.6)
    """

    def __init__(
        self,
        terms: tuple[TermCovariance, ...],
        sigma: float | None,
        residual: ResidualCovariance | None = None,
    ) -> None:
        self.terms = terms
        self.sigma = sigma
        self.residual = residual

    def __getitem__(self, group: str) -> pd.DataFrame:
        """Covariance matrix of the random effects of a grouping factor."""
        parts = ByGroup[list[TermCovariance]]()
        for term in self.terms:
            parts.setdefault(term.group, []).append(term)
        own = parts[group]
        names = pd.Index([name for term in own for name in term.names], dtype=object)
        matrix = sla.block_diag(*(term.covariance for term in own))
        return pd.DataFrame(matrix, index=names, columns=names)

    @checked_keywords
    def to_frame(self) -> pd.DataFrame:
        """One row per variance, then per covariance of a term, last the residual.

        Returns
        -------
        DataFrame
            Columns ``group, var1, var2, vcov, sdcor``.
        """
        rows: list[tuple[str, str | None, str | None, float, float]] = []
        for term in self.terms:
            sd, cor = term.sd, term.correlation
            for i, name in enumerate(term.names):
                rows.append((term.group, name, None, float(sd[i] ** 2), float(sd[i])))
            if not term.correlated:
                continue
            for j in range(len(sd)):
                for i in range(j + 1, len(sd)):
                    cov = float(term.covariance[i, j])
                    rows.append((term.group, term.names[j], term.names[i], cov, float(cor[i, j])))
        if self.sigma is not None:
            rows.append(("Residual", None, None, self.sigma**2, self.sigma))
        frame = pd.DataFrame(rows, columns=["group", "var1", "var2", "vcov", "sdcor"])
        return frame.astype({"group": object, "var1": object, "var2": object})

    @property
    def grid(self) -> Grid:
        """The printed table as text in cells."""
        labels, variances, sds, correlations = [], [], [], []
        for term in self.terms:
            cor = term.correlation
            for i, name in enumerate(term.names):
                labels.append((term.group if i == 0 else "", name))
                variances.append(float(term.sd[i] ** 2))
                sds.append(float(term.sd[i]))
                shown = range(i) if term.correlated else ()
                correlations.append([number(float(cor[i, j]), 2) for j in shown])
        if self.sigma is not None:
            labels.append(("Residual", ""))
            variances.append(self.sigma**2)
            sds.append(self.sigma)
            correlations.append([])
        width = max(len(row) for row in correlations)
        rows = [
            [*label, v, s, *row, *[""] * (width - len(row))]
            for label, v, s, row in zip(
                labels, significant(variances), significant(sds), correlations, strict=True
            )
        ]
        head = ["Groups", "Name", "Variance", "Std.Dev.", *(["Corr"] if width else [])]
        head += [""] * (4 + width - len(head))
        return Grid(tuple(head), tuple(map(tuple, rows)), left=2)

    @property
    def _sections(self) -> tuple[Section, ...]:
        first = Section(grid=self.grid)
        return (first,) if self.residual is None else (first, self.residual.section)

    @checked_keywords
    def to_markdown(self) -> str:
        """The printed table in GitHub's Markdown."""
        return self.grid.markdown()

    @checked_keywords
    def to_latex(self, *, caption: str = "", label: str = "") -> str:
        """The printed table as a LaTeX tabular, which needs the package booktabs.

        Parameters
        ----------
        caption, label : str
            With either, a floating table.
        """
        return latex_of(self._sections, a_text("caption", caption), a_text("label", label))

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


def variance_components(fit: Fit) -> VarCorr:
    """The estimated covariance matrices of all terms.

    Notes
    -----
    Cov(b) = σ² T T' within a level (Bates et al. 2015, eq. 4).
    """
    terms = []
    for block, T in zip(fit.design.blocks, fit.template.factors(fit.theta), strict=True):
        covariance = fit.sigma2 * T @ T.T
        correlated = block.structure.correlated
        terms.append(TermCovariance(block.group, block.names, covariance, correlated))
    sigma = fit.sigma if fit.has_residuals else None
    return VarCorr(tuple(terms), sigma, residual_covariance(fit))


def principal_components(fit: Fit) -> dict[str, pd.DataFrame]:
    """Principal components of the relative covariance of each grouping factor (lme4's rePCA).

    Returns
    -------
    dict
        Group → DataFrame with rows ``PC1, PC2, …`` and columns ``sd`` (relative to σ),
        ``cumulative`` (share of variance) and the weight of each effect.
    """
    out = {}
    factors = fit.template.factors(fit.theta)
    for group, terms in fit.design.groups.items():
        T = sla.block_diag(*(factors[t] for t in terms))
        U, s, _ = sla.svd(T)
        total = float((s**2).sum())
        share = np.cumsum(s**2) / total if total > 0 else np.full(len(s), np.nan)
        index = pd.Index([f"PC{i + 1}" for i in range(len(s))])
        names = [name for t in terms for name in fit.design.blocks[t].names]
        frame = pd.DataFrame({"sd": s, "cumulative": share}, index=index)
        # The largest weight of a component is positive.
        signs = np.sign(U[np.abs(U).argmax(axis=0), np.arange(len(s))])
        out[group] = frame.join(pd.DataFrame((U * signs).T, index=index, columns=names))
    return out
