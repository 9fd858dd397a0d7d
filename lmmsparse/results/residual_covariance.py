"""`ResidualFit` → the covariance of its residuals as a user reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import not_called
from lmmsparse.common.render import Grid, Section, Shown
from lmmsparse.common.table import number, significant
from lmmsparse.design import Design
from lmmsparse.design.residual import PART
from lmmsparse.engine.residual.unstructured import Unstructured
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit

_MOST_STRATA = 12


@not_called("The covariance is a member, not a method. Write m.residual without parentheses.")
@dataclass(frozen=True, eq=False, repr=False)
class ResidualCovariance(Shown):
    """The covariance of the residuals within a group.

    Attributes
    ----------
    structure : str
        As the model was asked for it.
    parameters : Series
        Correlations, ratios of standard deviations, and effects on their logarithm (``logsd.…``).
    sd : Series
        Residual standard deviations: of every visit of ``us()``, or of every stratum of
        ``residual_sd=``, if there are few; empty otherwise. That of the first is sigma.
    correlation : DataFrame or None
        Of the visits of ``us()``.
    """

    structure: str
    parameters: pd.Series
    sd: pd.Series
    correlation: pd.DataFrame | None

    @property
    def covariance(self) -> pd.DataFrame | None:
        """Of the visits of ``us()``; None for other structures."""
        if self.correlation is None:
            return None
        sd = self.sd.to_numpy()
        return self.correlation * np.outer(sd, sd)

    @property
    def section(self) -> Section:
        """The printout."""
        lines = []
        if self.correlation is None:
            own = ", ".join(f"{name} = {number(v, 4)}" for name, v in self.parameters.items())
            lines = [own] if own else []
        grid = self._grid()
        return Section(f"Residuals: {self.structure}", grid, tuple(lines))

    def _grid(self) -> Grid | None:
        if not len(self.sd):
            return None
        ratio = self.sd.to_numpy() / self.sd.iloc[0]
        head = ["", "Std.Dev.", "Ratio"]
        rows = [
            [str(label), sd, number(float(r), 3)]
            for label, sd, r in zip(
                self.sd.index, significant(self.sd.tolist()), ratio, strict=True
            )
        ]
        if self.correlation is not None:
            head += ["Corr", *[""] * (len(self.sd) - 2)]
            cor = self.correlation.to_numpy()
            for i, row in enumerate(rows):
                shown = [number(float(cor[i, j]), 3) for j in range(i)]
                row += [*shown, *[""] * (len(self.sd) - 1 - i)]
        return Grid(tuple(head), tuple(map(tuple, rows)), left=1)

    @property
    def _sections(self) -> tuple[Section, ...]:
        return (self.section,)


def residual_covariance(fit: Fit) -> ResidualCovariance | None:
    """The covariance of the residuals; None where they are independent and alike."""
    if not isinstance(fit, ResidualFit) or fit.design.residual is None:
        return None
    law, own = fit.structure.correlation, fit.structure.split(fit.phi)[0]
    names = pd.Index(fit.phi_names, dtype=object)
    parameters = pd.Series(fit.natural, index=names, name="estimate")
    correlation = None
    if isinstance(law, Unstructured):
        R = law.covariance(own)
        sd = np.sqrt(np.diag(R))
        labels = pd.Index(law.visits, dtype=object, name=fit.design.residual.correlation.time)  # type: ignore[union-attr]
        correlation = pd.DataFrame(R / np.outer(sd, sd), index=labels, columns=labels)
        deviations = pd.Series(fit.sigma * sd, index=labels, name="sd")
    else:
        deviations = _of_strata(fit, fit.structure.split(fit.phi)[1])
    return ResidualCovariance(fit.design.residual.text, parameters, deviations, correlation)


def _of_strata(fit: ResidualFit, gamma: FloatArray) -> pd.Series:
    """Standard deviations of the distinct rows of the columns, in the order of the levels."""
    residual = fit.design.residual
    assert residual is not None
    empty = pd.Series(np.zeros(0), index=pd.Index([], dtype=object), name="sd")
    if not residual.names:
        return empty
    rows = np.unique(residual.columns, axis=0)
    if len(rows) > _MOST_STRATA or not np.isin(rows, (0.0, 1.0)).all():
        return empty
    place = rows @ np.arange(1, rows.shape[1] + 1)
    rows = rows[np.argsort(place, kind="stable")]
    values = fit.sigma * np.exp(rows @ gamma)
    index = pd.Index(_labels(fit.design, rows, residual.names), dtype=object)
    return pd.Series(values, index=index, name="sd")


def _labels(design: Design, rows: FloatArray, names: tuple[str, ...]) -> list[str]:
    """What strata are called: by the levels of a factor, or by the columns that are one."""
    if design.recipe is not None:
        factors = {
            expression: levels
            for expression, levels in design.recipe.matrices.categories[PART].items()
            if levels is not None
        }
        levels = next(iter(factors.values()), ())
        if len(factors) == 1 and len(levels) == len(rows) == len(names) + 1:
            return [str(level) for level in levels]
    return [
        ", ".join(name for name, one in zip(names, row, strict=True) if one) or "(reference)"
        for row in rows
    ]
