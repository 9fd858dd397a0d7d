"""Tables or arrays → predictions of a linear mixed model, as a scikit-learn regressor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import MissingPackageError, OptionError
from lmmsparse.common.options import names_in
from lmmsparse.common.words import brief, listed
from lmmsparse.design import as_frame
from lmmsparse.formula.references import references
from lmmsparse.model.lmer import lmer

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_array, check_consistent_length, column_or_1d
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingPackageError(
        f"lmmsparse.interop.sklearn cannot be used ({error}). Run: pip install scikit-learn"
    ) from error


class LinearMixedModelRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A linear mixed model with scikit-learn's ``fit`` and ``predict``.

    Parameters
    ----------
    formula : str
        lme4's syntax without a left side, ``"~ Days + (Days | Subject)"``. Names are columns of
        `X`; those of an array are in `columns`. A left side is the name that ``y`` gets.
    reml : bool
        REML or maximum likelihood.
    weights : str, optional
        Column of prior weights.
    contrasts, context : mapping, optional
        As for `lmer`.
    columns : sequence of str, optional
        Names for the columns of an `X` that has none, such as the array that a scaler returns;
        ``x0, x1, …`` if not given.
    random : bool or str
        Random effects in predictions, as for `LinearMixedModel.predict`.
    new_levels : {"population", "raise", "nan"}
        What to predict for levels of a grouping factor that the fit has not seen, as they are in
        cross-validation over groups.

    Attributes
    ----------
    model_ : LinearMixedModel
    intercept_ : float
        Fixed intercept, 0 without one.
    coef_ : (coefficients,) array
        The other fixed effects.
    coef_names_ : (coefficients,) array
        Their names. A factor or a spline has several, so that there are not as many as features.
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array
        Only if `X` had column names.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> from lmmsparse.interop.sklearn import LinearMixedModelRegressor
    >>> from sklearn.model_selection import GroupKFold, cross_val_score
    >>> data = lmm.load_dataset("sleepstudy")
    >>> X, y = data[["Days", "Subject"]], data["Reaction"]
    >>> regressor = LinearMixedModelRegressor("~ Days + (Days | Subject)")
    >>> regressor.fit(X, y).model_.fixef.round(3).to_dict()
    {'Intercept': 251.405, 'Days': 10.467}
    >>> folds = GroupKFold(6)
    >>> scores = cross_val_score(regressor, X, y, groups=data["Subject"], cv=folds)
    >>> scores.shape
    (6,)
    """

    def __init__(
        self,
        formula: str,
        *,
        reml: bool = True,
        weights: str | None = None,
        contrasts: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        random: bool | str = True,
        new_levels: str = "population",
    ) -> None:
        self.formula = formula
        self.reml = reml
        self.weights = weights
        self.contrasts = contrasts
        self.context = context
        self.columns = columns
        self.random = random
        self.new_levels = new_levels

    def fit(self, X: Any, y: Any) -> LinearMixedModelRegressor:
        """Fit the model.

        Parameters
        ----------
        X : table or (n, features) array
            Predictors, grouping factors and what else the formula names.
        y : (n,) array
            The response.

        Returns
        -------
        LinearMixedModelRegressor
            Itself.

        Raises
        ------
        LmmError
            As `lmer`; for arrays also what scikit-learn raises.
        """
        if hasattr(X, "columns"):
            frame = self._table(X)
            validate_data(self, X, reset=True, skip_check_array=True)
            y = column_or_1d(check_array(y, ensure_2d=False, dtype="numeric"), warn=True)
            check_consistent_length(frame, y)
        else:
            X, y = validate_data(self, X, y, reset=True, y_numeric=True, ensure_min_samples=2)
            frame = self._named(X)
        left, formula = _response(self.formula, frame)
        self._check_names(X, frame)
        self.model_ = lmer(
            formula,
            frame.assign(**{left: np.asarray(y, dtype=np.float64)}),
            reml=self.reml,
            weights=self.weights,
            contrasts=self.contrasts,
            context=self.context,
        )
        effects = self.model_.fixef
        self.intercept_ = float(effects.get("Intercept", 0.0))
        others = effects.drop("Intercept", errors="ignore")
        self.coef_, self.coef_names_ = others.to_numpy(), np.array(others.index, dtype=object)
        return self

    def predict(self, X: Any) -> FloatArray:
        """Predict the response.

        Parameters
        ----------
        X : table or (m, features) array

        Returns
        -------
        (m,) array
            NaN in rows with a missing predictor.
        """
        check_is_fitted(self)
        if hasattr(X, "columns"):
            validate_data(self, X, reset=False, skip_check_array=True)
            frame = self._table(X)
        else:
            frame = self._named(validate_data(self, X, reset=False))
        values = self.model_.predict(frame, random=self.random, new_levels=self.new_levels)
        return np.asarray(values, dtype=np.float64)

    def _table(self, X: Any) -> pd.DataFrame:
        """A table as DataFrame; one without names for its columns gets those of an array."""
        return as_frame(X) if _has_names(X) else self._named(as_frame(X))

    def _named(self, X: FloatArray | pd.DataFrame) -> pd.DataFrame:
        n = X.shape[1]
        names = [f"x{j}" for j in range(n)]
        if self.columns is not None:
            advice = f"X has no column names and {n} columns: give a name for each."
            names = names_in("columns", self.columns, advice)
            if len(names) != n or len(set(names)) < n:
                raise OptionError(f"columns has {len(set(names))} different names. {advice}")
        return pd.DataFrame(X).set_axis(names, axis=1)

    def _check_names(self, X: Any, frame: pd.DataFrame) -> None:
        """Say what the columns of an array are called, where the formula names others."""
        if _has_names(X):
            return
        known = {*map(str, frame.columns), *(self.context or {})}
        right = self.formula.partition("~")[2]
        if unknown := [name for name in references(right).names if name not in known]:
            raise OptionError(
                f"The formula names {unknown[0]!r}, but X is an array, whose columns are "
                f"{listed(frame.columns)}. Write these names, pass columns=[...] with yours, or "
                "let the steps before give tables: pipeline.set_output(transform='pandas')."
            )


def _has_names(X: Any) -> bool:
    return hasattr(X, "columns") and any(isinstance(name, str) for name in X.columns)


def _response(formula: Any, frame: pd.DataFrame) -> tuple[str, str]:
    """The name of the response's column, and the formula with it."""
    if not isinstance(formula, str) or "~" not in formula:
        raise OptionError(
            f'formula must be a formula, not {brief(formula)}. Write for example "~ x + (1 | '
            'group)".'
        )
    left, _, right = formula.partition("~")
    name = left.strip().strip("`")
    if name and not name.isidentifier():
        raise OptionError(
            f"The left side {left.strip()!r} of the formula must be a name. Transform what fit() "
            "is given before, or use TransformedTargetRegressor."
        )
    if name in frame.columns:
        raise OptionError(
            f"The response {name!r} is a column of X. Leave the column out of X, or the left side "
            "out of the formula."
        )
    name = name or "y"
    while name in frame.columns:
        name += "_"
    return name, f"{name} ~{right}"
