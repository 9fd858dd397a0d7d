"""`LinearMixedModel` and its data → the model that the package marginaleffects works on.

Its functions are about the fixed effects: the estimates β and their covariance matrix. What else is
in a prediction (offset, and on request random effects) is a known number per row: a column with the
coefficient 1, which has no variance. So all is linear in the coefficients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import MissingPackageError, OptionError
from lmmsparse.common.words import brief
from lmmsparse.design import as_frame
from lmmsparse.inference.df.methods import denominator_df
from lmmsparse.model.linear import LinearMixedModel
from lmmsparse.report.tidy import fitted_rows
from lmmsparse.results.predict import warn_of_undetermined

try:
    import polars as pl
    from marginaleffects.classes import ModelAbstract, ModelVault
except ImportError as error:
    raise MissingPackageError(
        f"lmmsparse.interop.marginaleffects cannot be used ({error}). Run: pip install "
        "marginaleffects 'polars<2'"
    ) from error


@checked_keywords
def for_marginaleffects(
    model: LinearMixedModel, data: Any, *, random: bool | str = False
) -> ModelAbstract:
    """Make a model known to marginaleffects.

    Parameters
    ----------
    model : LinearMixedModel
        Made by `lmer`.
    data : table
        The data it was fitted to, in any order that its row labels tell; models do not keep them.
    random : bool or str
        Random effects in the predictions, as for `LinearMixedModel.predict`: none by default, so
        that they are about the population. Their uncertainty is not part of standard errors.

    Returns
    -------
    ModelAbstract
        To be passed to ``predictions``, ``comparisons``, ``slopes``, ``hypotheses`` and others. For
        Kenward and Roger's covariance matrix pass ``vcov="kenward-roger"`` to these. Tests use the
        normal distribution. For slopes pass ``eps_vcov=1``: predictions are linear in the
        estimates, so that any step gives their derivatives, and the small default loses digits.

    Raises
    ------
    OptionError
        For something else than a model made by `lmer`.
    DataError
        For other data than those of the fit.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> from lmmsparse.interop.marginaleffects import for_marginaleffects  # doctest: +SKIP
    >>> from marginaleffects import avg_slopes  # doctest: +SKIP
    >>> data = lmm.load_dataset("sleepstudy")
    >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", data)
    >>> avg_slopes(for_marginaleffects(m, data))["estimate"].item()  # doctest: +SKIP
    10.467
    """
    if not isinstance(model, LinearMixedModel) or model.fit.design.recipe is None:
        raise OptionError(
            "for_marginaleffects() needs a model made by lmm.lmer. Fit with a formula and data."
        )
    frame = fitted_rows(model.fit, data)
    return _Model(model, frame, random)


def _predictors(model: LinearMixedModel) -> list[str]:
    """Columns of the data that the fixed effects use, in the order of the formula."""
    recipe = model.fit.design.recipe
    assert recipe is not None
    return list(recipe.matrices.variables["fixed"])


class _Model(ModelAbstract):  # type: ignore[misc]
    """What marginaleffects asks a model for."""

    df_resid = np.inf

    def __init__(self, model: LinearMixedModel, frame: pd.DataFrame, random: bool | str) -> None:
        self._random = random
        design = model.fit.design
        predictors = _predictors(model)
        response = design.response.strip("`")
        kept = frame.reset_index(drop=True)
        for name in kept.columns:  # levels that are numbers, where nothing depends on them
            if random is False and name not in predictors and _text_of_levels(kept[name]):
                kept[name] = kept[name].astype(object).infer_objects()
        data = pl.DataFrame({str(name): _column(kept[name]) for name in kept.columns})
        # Levels are text in polars; numbers that were levels become numbers again in `get_exog`.
        self._levels = {str(name): _text_of_levels(kept[name]) for name in kept.columns}
        self._model = model
        self._more = random is not False or bool(np.any(design.offset_or_zero))
        names = [*model.fixef.index, *(["offset"] if self._more else [])]
        vault = ModelVault(
            coef=np.append(model.fixef.to_numpy(), [1.0] * self._more),
            coefnames=np.array(names, dtype=object),
            modeldata=data,
            package="lmmsparse",
            vcov=self._widened(model.vcov.to_numpy()),
            variable_names=[response, *predictors],
            # A function: the formula's grammar is not the one that marginaleffects reads.
            formula=self._matrices,
        )
        super().__init__(model, vault)

    def _widened(self, covariance: FloatArray) -> FloatArray:
        return np.pad(covariance, (0, int(self._more)))

    def _matrices(self, newdata: Any) -> tuple[None, FloatArray]:
        return None, self.get_exog(newdata)

    def get_exog(self, newdata: Any) -> FloatArray:
        """X and, where something is added to Xβ, that as its last column."""
        frame = as_frame(newdata).copy()
        for name in frame.columns:
            if levels := self._levels.get(name):
                text = frame[name].astype(object)
                frame[name] = text.map(lambda value, known=levels: known.get(value, value))
        recipe = self._model.fit.design.recipe
        assert recipe is not None
        X, undetermined = recipe.fixed(frame)
        warn_of_undetermined(self._model.fit, undetermined)
        if not self._more:
            return X
        whole = self._model.predict(frame, random=self._random, new_levels="population")
        return np.column_stack([X, whole.to_numpy() - X @ self._model.fit.beta])

    def get_predict(self, params: FloatArray, newdata: Any) -> pl.DataFrame:
        exog = newdata if isinstance(newdata, np.ndarray) else self.get_exog(newdata)
        values = exog @ np.asarray(params)
        rows = pl.Series(range(len(values)), dtype=pl.Int32)
        return pl.DataFrame({"rowid": rows, "estimate": values})

    def get_vcov(self, vcov: Any = True) -> FloatArray | None:
        if vcov is None or vcov is False:
            return None
        if isinstance(vcov, str):
            if vcov not in ("satterthwaite", "kenward-roger"):
                raise OptionError(
                    f"vcov={brief(vcov)} does not exist for a mixed model. Use True, "
                    "'kenward-roger', or a matrix."
                )
            return self._widened(np.asarray(denominator_df(self._model.fit, vcov).covariance))
        return self._widened(self._model.vcov.to_numpy())

    def get_autodiff_args(self) -> dict[str, Any]:
        return {"model_type": "linear", "family": None, "link": None}


def _text_of_levels(values: pd.Series) -> dict[str, Any]:
    """Text of a level → the level, for columns whose levels are not text."""
    if not isinstance(values.dtype, pd.CategoricalDtype) and values.dtype != object:
        return {}
    levels = values.astype("category").cat.categories
    return {str(level): level for level in levels if not isinstance(level, str)}


def _column(values: pd.Series) -> pl.Series:
    """A column as polars has it: text and categories as an Enum with their order."""
    if isinstance(values.dtype, pd.CategoricalDtype) or values.dtype == object:
        factor = values.astype("category")
        levels = [str(level) for level in factor.cat.categories]
        text = [None if code < 0 else levels[code] for code in factor.cat.codes]
        return pl.Series(text, dtype=pl.Enum(levels))
    if pd.api.types.is_string_dtype(values.dtype):
        return _column(values.astype(object))
    if not isinstance(values.dtype, np.dtype):
        missing = values.isna()
        return pl.Series(values.astype(object).where(~missing, None).tolist())
    return pl.Series(values.to_numpy())
