"""What a linear mixed model says of rows: fitted, predicted, simulated; other responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pandas as pd

from lmmsparse.chunks.after import predict_batches, residual_batches, simulate_batches
from lmmsparse.chunks.write import write_predictions
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import OptionError
from lmmsparse.common.findings import announce
from lmmsparse.common.options import check_level, is_whole, one_of
from lmmsparse.common.words import brief
from lmmsparse.fit.many.refit import refit_many
from lmmsparse.fit.refit import refit_response
from lmmsparse.inference.means.predictions import mapped_back
from lmmsparse.model.mixed import MixedModel
from lmmsparse.results.given import given_parameters
from lmmsparse.results.predict import predict
from lmmsparse.results.prediction_error import predict_with_error
from lmmsparse.results.residuals import residuals
from lmmsparse.results.rows_needed import ANOTHER, PREDICT, RESIDUALS, with_rows
from lmmsparse.results.simulate import simulate


class LinearRows(MixedModel):
    """Methods of a linear mixed model about rows of its data, new rows, and other responses."""

    @property
    def fitted(self) -> pd.Series:
        """Fitted values Xβ + Zb + offset on the data's index."""
        return self._per_row(with_rows(self._fit, "m.fitted", PREDICT).fitted, "fitted")

    @property
    def residuals(self) -> pd.Series:
        """Response minus fitted values."""
        return self.residuals_of()

    @checked_keywords
    def residuals_of(self, kind: str = "response", scaled: bool = False) -> pd.Series:
        """Residuals of a kind.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized"}
            y − ŷ; √w (y − ŷ), or y − ŷ over its own standard deviation relative to σ where these
            differ; or divided by the factor of the residuals' covariance matrix, so that they are
            independent with variance one if the model holds.
        scaled : bool
            Divide by σ, which normalized residuals are in any case.

        Returns
        -------
        Series

        Raises
        ------
        OptionError
            For another kind.
        """
        values = residuals(with_rows(self._fit, "m.residuals", RESIDUALS), kind)
        scaled = scaled and kind != "normalized"
        return self._per_row(values / self._fit.sigma if scaled else values, "residuals")

    @checked_keywords
    def predict(
        self,
        newdata: Any = None,
        *,
        type: str = "link",
        random: bool | str = True,
        new_levels: str = "raise",
        offset: Any = None,
        se: bool = False,
        interval: str | None = None,
        level: float = 0.95,
        theta_draws: int = 0,
        rng: Any = None,
    ) -> pd.Series | pd.DataFrame:
        """Predictions for the data of the fit or for new data.

        Parameters
        ----------
        newdata : table, optional
            The columns the model uses; the response is not needed.
        type : {"link", "response"}
            On the scale of the model, or mapped back where the formula transforms the response:
            ``log(y)``, ``np.sqrt(y)``. What is mapped back from a mean is a median.
        random : bool or str
            All random effects (True), none (False), or those of a one-sided formula such as
            ``"~(1|Subject)"``.
        new_levels : {"raise", "population", "nan"}
            What to do with levels of a grouping factor the fit has not seen, or missing ones.
        offset : str or (rows,) array, optional
            Offset of the new rows, in place of the fit's ``offset=`` argument.
        se : bool
            Also give standard errors and confidence limits.
        interval : {"confidence", "prediction"}, optional
            Limits for the predicted mean, or for a new observation.
        level : float
            Confidence level of the limits.
        theta_draws : int
            With standard errors or limits: average over so many draws of the covariance parameters
            from their asymptotic distribution (200 are plenty), which widens the limits by their
            uncertainty. By default they are taken as known, as in lme4.
        rng : numpy Generator or int, optional
            For these draws; seed 0 if not given.

        Returns
        -------
        Series, or DataFrame with columns ``fit, se, lower, upper``
            On the index of the data; NaN where a predictor is missing.

        Raises
        ------
        DataError, FormulaError, OptionError
        """
        one_of("type", type, ("link", "response"), "It is the scale of the predictions.")
        fit = self._fit if newdata is not None else with_rows(self._fit, "m.predict()", PREDICT)
        found: pd.Series | pd.DataFrame
        if se or interval is not None:
            found = predict_with_error(
                fit,
                newdata,
                random,
                new_levels,
                offset,
                interval,
                check_level(level),
                theta_draws,
                rng,
            )
        elif not is_whole(theta_draws) or theta_draws != 0:
            raise OptionError(
                f"theta_draws={brief(theta_draws)} goes with standard errors or limits. The "
                "prediction itself does not depend on it. Pass se=True or interval= too."
            )
        else:
            values, index = predict(fit, newdata, random, new_levels, offset)
            found = pd.Series(values, index=index, name="predicted")
        return mapped_back(fit.design, found) if type == "response" else found

    @checked_keywords
    def simulate(
        self,
        n: int = 1,
        *,
        rng: Any,
        random: str = "new",
        newdata: Any = None,
        beta: Any = None,
        theta: Any = None,
        sigma: float | None = None,
    ) -> pd.DataFrame:
        """Draw responses from the fitted model.

        Parameters
        ----------
        n : int
            How many.
        rng : numpy Generator or int
        random : str
            ``"new"`` random effects, ``"keep"`` the estimated ones, or a one-sided formula of the
            terms to keep.
        newdata : table, optional
        beta, theta : mapping, Series or array, optional
            Fixed effects, and covariance parameters as in `theta`, in place of the estimates; a
            mapping need not name all.
        sigma : float, optional
            Residual standard deviation in place of the estimate. θ is relative to it: with the same
            θ the standard deviations of the random effects change in the same proportion.

        Returns
        -------
        DataFrame
            One row per observation, one column per draw. The residual variance is σ²/w.
        """
        fit = self._fit
        at = given_parameters(fit, beta, theta, sigma)
        if newdata is None:
            fit = with_rows(fit, "m.simulate()", "Use m.simulate_batches(source, n, rng=...).")
        values, index = simulate(fit, n, rng, random, newdata, at)
        names = pd.Index([f"sim_{i + 1}" for i in range(values.shape[1])], dtype=object)
        return pd.DataFrame(values, index=index, columns=names)

    @checked_keywords
    def predict_batches(
        self,
        source: Any,
        *,
        random: bool | str = True,
        new_levels: str = "raise",
        rows: int = 1_000_000,
        progress: bool | None = None,
    ) -> Iterator[pd.Series]:
        """Predictions for data that are read in chunks, one chunk after the other.

        Parameters
        ----------
        source : path, table, or any other data that `lmer` reads
            Offset and weights are those of its columns.
        random, new_levels
            As for `predict`.
        rows : int
            Rows of a chunk, at most.
        progress : bool, optional
            As for `influence`.

        Returns
        -------
        iterator of Series
            Labelled by the number of the row, or as a table in memory is. NaN where a predictor is
            missing.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> sleep = lmm.load_dataset("sleepstudy")
        >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", sleep, chunks=lmm.Chunks(rows=60))
        >>> [len(part) for part in m.predict_batches(sleep, rows=100)]
        [100, 80]
        """
        return predict_batches(self._fit, source, random, new_levels, rows, progress)

    @checked_keywords
    def residual_batches(
        self,
        source: Any,
        *,
        kind: str = "response",
        scaled: bool = False,
        rows: int = 1_000_000,
        progress: bool | None = None,
    ) -> Iterator[pd.Series]:
        """Residuals of data that are read in chunks, one chunk after the other.

        Parameters
        ----------
        source, rows, progress
            As for `predict_batches`; with the response among the columns.
        kind, scaled
            As for `residuals_of`.

        Returns
        -------
        iterator of Series
            NaN in rows with a missing value, or a level that the fit has not seen.
        """
        return residual_batches(self._fit, source, kind, scaled, rows, progress)

    @checked_keywords
    def simulate_batches(
        self,
        source: Any,
        n: int = 1,
        *,
        rng: Any,
        random: str = "new",
        rows: int = 1_000_000,
        progress: bool | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Draw responses for data that are read in chunks, one chunk after the other.

        Parameters
        ----------
        source, rows, progress
            As for `predict_batches`.
        n, rng, random
            As for `simulate`. The random effects are drawn once, for all chunks; the draws do not
            depend on `rows` where all levels are those of the fit.

        Returns
        -------
        iterator of DataFrame
            One row per observation, one column per draw.
        """
        return simulate_batches(self._fit, source, n, rng, random, rows, progress)

    @checked_keywords
    def write_predictions(
        self,
        source: Any,
        folder: Any,
        *,
        columns: str | Sequence[str] = (),
        random: bool | str = True,
        new_levels: str = "raise",
        rows: int = 1_000_000,
        progress: bool | None = None,
    ) -> list[Path]:
        """Write predictions for data that are read in chunks to Parquet files.

        Parameters
        ----------
        source, random, new_levels, rows, progress
            As for `predict_batches`.
        folder : path
            Is made, with one file per chunk, and is there when all are complete: nothing is left
            of what Ctrl-C or an error ends.
        columns : sequence of str
            Columns of the source to write beside ``predicted``.

        Returns
        -------
        list of Path
            The files, in the order of the rows.
        """
        return write_predictions(
            self._fit, source, folder, columns, random, new_levels, rows, progress
        )

    @checked_keywords
    def refit(self, y: Any, weights: Any = None) -> Self:
        """Fit the same design to another response.

        Parameters
        ----------
        y : array
            One value per fitted row, or per row of the original data. Missing values drop rows. A
            Series goes to the rows by its labels.
        weights : array, optional
            New prior weights, in the same layout; the old ones if not given.

        Returns
        -------
        LinearMixedModel
        """
        model = type(self)(refit_response(with_rows(self._fit, "m.refit", ANOTHER), y, weights).fit)
        announce(model.convergence.findings, self._fit.design.findings)
        return model

    @checked_keywords
    def refit_many(self, Y: Any, n_jobs: int = 1, progress: bool | None = None) -> pd.DataFrame:
        """Fit the same design to many responses; no warnings, the verdicts are in the table.

        Parameters
        ----------
        Y : (rows, m) array or DataFrame
            One response per column, one row per fitted row or per row of the original data; a
            DataFrame by its row labels. A column with missing values is refitted without these
            rows.
        n_jobs : int
            Processes for responses that are refitted one by one: those with missing values, and
            all of models with several grouping factors. −1 for all processors. The responses of a
            model with one grouping factor are searched together, in this process.
        progress : bool, optional
            A bar for these at once (True), never (False), or by default after two seconds if
            standard error is a terminal or a notebook. After Ctrl-C the others have a `problem`.

        Returns
        -------
        DataFrame
            One row per column of `Y`: ``criterion``, θ (named as in `theta`), ``sigma``, the fixed
            effects and their standard errors ``se_<name>``, ``converged``, ``singular`` and
            ``problem``. A response that cannot be fitted has NaN, and in ``problem`` the reason,
            which is empty otherwise.

        Raises
        ------
        DataError
            If `Y` has the wrong number of rows or does not hold numbers.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
        >>> table = m.refit_many(m.simulate(200, rng=1))
        >>> table.shape, bool(table["converged"].all())
        ((200, 12), True)
        """
        return refit_many(with_rows(self._fit, "m.refit_many", ANOTHER), Y, n_jobs, progress)
