"""What linear and generalized linear mixed models have in common: a `Fit` with names on it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.options import check_level, is_number, refused
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.held import theta_names
from lmmsparse.fit.singular import is_singular
from lmmsparse.fit.storage import save_fit
from lmmsparse.fit.verdict import Convergence
from lmmsparse.model.update import update_model
from lmmsparse.optimize import Optimum
from lmmsparse.report.plots import plot_check
from lmmsparse.results.by_group import ByGroup
from lmmsparse.results.likelihood import criteria, loglik
from lmmsparse.results.ranef import (
    coefficients_by_level,
    conditional_covariances,
    conditional_modes,
    effect_names,
)
from lmmsparse.results.rows_needed import with_rows
from lmmsparse.results.varcorr import VarCorr, principal_components, variance_components


class MixedModel:
    """A fitted mixed model; never changes.

    Parameters
    ----------
    fit : Fit
        The numbers.
    """

    _fit: Fit

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    @property
    def fit(self) -> Fit:
        """The arrays behind the model."""
        return self._fit

    @property
    def formula(self) -> str:
        """The formula as it was written; empty for a model made from arrays."""
        return self._fit.design.formula

    @property
    def nobs(self) -> int:
        """Number of rows that were fitted."""
        return self._fit.design.n

    @property
    def n_groups(self) -> dict[str, int]:
        """Grouping factor → number of levels."""
        design = self._fit.design
        return {name: design.blocks[t[0]].n_levels for name, t in design.groups.items()}

    def _coefficients(self, values: FloatArray, name: str) -> pd.Series:
        index = pd.Index(self._fit.design.x_names, dtype=object)
        return pd.Series(np.array(values), index=index, name=name)

    @property
    def fixef(self) -> pd.Series:
        """Fixed-effects estimates, (p,)."""
        return self._coefficients(self._fit.beta, "Estimate")

    @property
    def se(self) -> pd.Series:
        """Standard errors of the fixed effects, (p,)."""
        return self._coefficients(np.sqrt(np.diag(self._fit.vcov)), "Std. Error")

    @property
    def vcov(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects, (p, p)."""
        return self._covariance(self._fit.vcov)

    def _covariance(self, values: FloatArray) -> pd.DataFrame:
        names = pd.Index(self._fit.design.x_names, dtype=object)
        return pd.DataFrame(np.array(values), index=names, columns=names)

    @property
    def theta(self) -> pd.Series:
        """Covariance parameters: per term the column-major lower triangle of T, relative to σ.

        In a generalized model there is no σ, and T is the factor of the covariance itself.
        """
        index = pd.Index(theta_names(self._fit.design), dtype=object)
        return pd.Series(np.array(self._fit.theta), index=index, name="theta")

    @property
    def varcorr(self) -> VarCorr:
        """Variances, standard deviations and correlations of the random effects."""
        return variance_components(self._fit)

    def _by_level(self, values: Mapping[str, FloatArray]) -> dict[str, pd.DataFrame]:
        design = self._fit.design
        names = effect_names(self._fit)
        out: dict[str, pd.DataFrame] = ByGroup()
        for group, matrix in values.items():
            index = design.blocks[design.groups[group][0]].levels.rename(group)
            columns = pd.Index(names[group], dtype=object)
            out[group] = pd.DataFrame(matrix, index=index, columns=columns)
        return out

    @property
    def ranef(self) -> dict[str, pd.DataFrame]:
        """Conditional modes of the random effects: group → (levels × effects)."""
        return self._by_level(conditional_modes(self._fit))

    @cached_property
    def cond_var(self) -> dict[str, FloatArray]:
        """Conditional covariance of the random effects: group → (levels, k, k)."""
        return ByGroup(conditional_covariances(self._fit))

    @property
    def coef(self) -> dict[str, pd.DataFrame]:
        """`fixef` + `ranef` per level (`a:b` is `b:a`); a purely random effect has fixed part 0."""
        out: dict[str, pd.DataFrame] = ByGroup()
        for group, (names, values) in coefficients_by_level(self._fit).items():
            index = self._fit.design.blocks[self._fit.design.groups[group][0]].levels
            columns = pd.Index(names, dtype=object)
            out[group] = pd.DataFrame(values, index=index.rename(group), columns=columns)
        return out

    @property
    def loglik(self) -> float:
        """Log-likelihood (ML fit) or restricted log-likelihood (REML fit)."""
        return loglik(self._fit)

    @property
    def aic(self) -> float:
        """Akaike's criterion, from the criterion that was fitted."""
        return criteria(self._fit)[0]

    @property
    def aicc(self) -> float:
        """`aic` corrected for few observations, with npar and nobs; infinite without any to spare.

        References
        ----------
        Hurvich & Tsai (1989), Biometrika 76, 297–307.
        """
        k, spare = self.npar, self.nobs - self.npar - 1
        return float(self.aic + 2.0 * k * (k + 1) / spare) if spare > 0 else float("inf")

    @property
    def bic(self) -> float:
        """Schwarz's criterion, with log(nobs), from the criterion that was fitted."""
        return float(criteria(self._fit)[1])

    @property
    def npar(self) -> int:
        """Number of parameters: fixed effects, covariance parameters, and σ or the family's own."""
        return self._fit.npar

    @property
    def df_resid(self) -> int:
        """Nobs − npar."""
        return self.nobs - self.npar

    def _per_row(self, values: FloatArray, name: str) -> pd.Series:
        design = self._fit.design
        return pd.Series(np.array(design.pad(values)), index=design.output_index(), name=name)

    @property
    def weights(self) -> pd.Series:
        """Prior weights, 1 if none were given."""
        fit = with_rows(self._fit, "m.weights", "Read its column of the data.")
        return self._per_row(fit.design.weights_or_one, "weights")

    @property
    def offset(self) -> pd.Series:
        """Offset, 0 if none was given."""
        fit = with_rows(self._fit, "m.offset", "Read its column of the data.")
        return self._per_row(fit.design.offset_or_zero, "offset")

    @checked_keywords
    def is_singular(self, tol: float = 1e-4) -> bool:
        """Whether some covariance of random effects is singular.

        Parameters
        ----------
        tol : float
            A contribution to the response with a standard deviation below tol · σ counts as zero.

        Raises
        ------
        OptionError
            If it is not a number, or negative.
        """
        if not is_number(tol) or not tol >= 0:
            raise refused("tol", "a non-negative number", tol, "Use, for example, tol=1e-4.")
        return is_singular(self._fit, tol)

    @checked_keywords
    def rank_pca(self) -> dict[str, pd.DataFrame]:
        """Principal components of each group's random effects, relative to σ, and their weights."""
        return ByGroup(principal_components(self._fit))

    @property
    def convergence(self) -> Convergence:
        """The verdict on the fit, with its findings."""
        raise NotImplementedError

    @property
    def converged(self) -> bool:
        """Whether the search has reached an optimum; `convergence` says more."""
        return self.convergence.converged

    @checked_keywords
    def check(self, *, level: float = 0.95, rng: Any = None, ax: Any = None) -> Any:
        """Draw the usual diagnostics in one figure; each title says what to look for.

        Residuals (quantile residuals of a generalized model) against fitted values, their spread
        and distribution; the response beside responses the model draws; influence of rows (linear
        models); the random effects, the first six of them. Needs matplotlib.

        Parameters
        ----------
        level : float
            Of the bands of quantile plots, in which all points lie with this probability.
        rng : numpy Generator or int, optional
            For draws and randomized residuals; seed 0 if not given.
        ax : array of Axes, optional
            One per panel.

        Returns
        -------
        array of Axes

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> m = lmm.lmer("Reaction ~ Days + (1 | Subject)", lmm.load_dataset("sleepstudy"))
        >>> [ax.get_title() for ax in m.check()][:2]
        ['Mean: the line stays near zero', 'Spread: the line stays level']
        """
        return plot_check(self._fit, check_level(level), rng, ax)

    @property
    def optimum(self) -> Optimum:
        """What the search did."""
        return self._fit.optimum

    @checked_keywords
    def update(self, formula: str | None = None, data: Any = None, **options: Any) -> Self:
        """Fit the model again with another formula, other data or other options.

        Parameters
        ----------
        formula : str, optional
            A whole formula, or changes of the model's own: ``". ~ . + x - (x | g) + (1 | g)"``, in
            which ``.`` is what there was on that side. The model's own if not given.
        data : table, optional
            If not given, the table of the fit, as long as your program holds it: models keep no
            data.
        **options
            Those of `lmer` or `glmer`, such as ``reml=False``; the others stay.

        Returns
        -------
        LinearMixedModel or GeneralizedLinearMixedModel

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> sleep = lmm.load_dataset("sleepstudy")
        >>> m = lmm.lmer("Reaction ~ Days + (1 | Subject)", sleep)
        >>> m.update(". ~ . - (1 | Subject) + (Days | Subject)", reml=False).formula
        'Reaction ~ Days + (Days | Subject)'
        """
        model: Self = update_model(self._fit, formula, data, options)
        return model

    @checked_keywords
    def save(self, path: str | Path) -> None:
        """Write the model to one file (arrays and JSON; no pickle), readable by `load`."""
        save_fit(self._fit, path)
