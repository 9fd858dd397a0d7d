"""`GeneralizedPlots`: the plots of one fitted generalized model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmmsparse.common.calls import checked_keywords, explained_members, not_called
from lmmsparse.common.options import check_level
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.generalized.means import generalized_basis
from lmmsparse.inference.generalized.profile import generalized_profile
from lmmsparse.inference.intervals.bootstrap import Bootstrap
from lmmsparse.inference.intervals.profile.profile import Profile
from lmmsparse.inference.means.tables import Wanted
from lmmsparse.report.plots.caterpillar import plot_caterpillar
from lmmsparse.report.plots.densities import plot_bootstrap
from lmmsparse.report.plots.effects import Look, plot_effects
from lmmsparse.report.plots.pairs import plot_pairs
from lmmsparse.report.plots.profiles import plot_profile
from lmmsparse.report.plots.qq import plot_qq
from lmmsparse.report.plots.residuals import plot_residuals, plot_scale_location

_LINEAR = "It is for linear mixed models."


@explained_members
@not_called("There are several plots of a model. Name one, for example m.plot.caterpillar().")
class GeneralizedPlots:
    """The plots of a generalized model, found under ``m.plot``.

    Every plot takes ``ax=`` and returns the axes it has drawn on, as those of a linear model do.
    Residuals are quantile residuals: standard normal if the model holds, whatever the family; for
    discrete responses they are randomized.

    Parameters
    ----------
    fit : GeneralizedFit

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> cbpp = lmm.load_dataset("cbpp")
    >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    >>> m = lmm.glmer(formula, cbpp, "binomial")
    >>> ax = m.plot.residuals()
    >>> ax.get_xlabel()
    'Linear predictor (logit)'
    """

    _instead = {  # noqa: RUF012
        "shrinkage": f"{_LINEAR} Write m.plot.caterpillar().",
    }

    def __init__(self, fit: GeneralizedFit) -> None:
        self._fit = fit

    def __repr__(self) -> str:
        names = [name for name in dir(type(self)) if not name.startswith("_")]
        return f"Plots of the model: {', '.join(f'.{name}()' for name in names)}"

    @checked_keywords
    def residuals(self, *, smooth: bool = True, rng: Any = None, ax: Any = None) -> Any:
        """Quantile residuals against the linear predictor.

        Parameters
        ----------
        smooth : bool
            Draw a robust local regression (lowess).
        rng : numpy Generator or int, optional
            For randomized residuals; seed 0 if not given.
        ax : Axes, optional
        """
        return plot_residuals(self._fit, smooth, ax, rng)

    @checked_keywords
    def scale_location(self, *, smooth: bool = True, rng: Any = None, ax: Any = None) -> Any:
        """Roots of absolute quantile residuals against the linear predictor.

        Parameters
        ----------
        smooth, rng, ax
            As for `residuals`.
        """
        return plot_scale_location(self._fit, smooth, ax, rng)

    @checked_keywords
    def qq(
        self, group: str | None = None, *, level: float = 0.95, rng: Any = None, ax: Any = None
    ) -> Any:
        """Normal quantile plot of quantile residuals, or of the random effects of a group.

        Parameters
        ----------
        group, level
            As for `lmmsparse.report.plots.ModelPlots.qq`.
        rng : numpy Generator or int, optional
            For randomized residuals; seed 0 if not given.
        ax : Axes or array of Axes, optional
        """
        return plot_qq(self._fit, group, level, ax, rng)

    @checked_keywords
    def caterpillar(
        self,
        group: str | None = None,
        *,
        level: float = 0.95,
        order: str | None = None,
        ax: Any = None,
    ) -> Any:
        """The random effects of a group in order, with conditional intervals, on the link's scale.

        Parameters
        ----------
        group, level, order, ax
            As for `lmmsparse.report.plots.ModelPlots.caterpillar`.
        """
        return plot_caterpillar(self._fit, group, level, order, ax)

    @checked_keywords
    def effects(
        self,
        specs: str | Sequence[str] | None = None,
        *,
        by: str | None = None,
        at: Mapping[str, Any] | None = None,
        level: float = 0.95,
        type: str = "response",
        weights: str | Mapping[str, Any] = "equal",
        lines: bool | None = None,
        data: Any = None,
        ax: Any = None,
    ) -> Any:
        """Means along predictors, with confidence limits as bars or bands.

        Parameters
        ----------
        specs, by, at, level, weights, lines, ax
            As for `lmmsparse.report.plots.ModelPlots.effects`.
        type : {"response", "link"}
            Probabilities, rates or means of a level whose random effects are zero, or the same on
            the scale of the link.
        data : table, optional
            The data of the fit, to draw its responses under the means.
        """
        wanted = Wanted(at=at, level=check_level(level), weights=weights)
        look = Look(type, lines, data)
        return plot_effects(generalized_basis(self._fit), specs, by, wanted, look, ax)

    @checked_keywords
    def profile(
        self,
        profile: Profile | str | Sequence[str] | None = None,
        *,
        kind: str = "zeta",
        level: float = 0.95,
        ax: Any = None,
    ) -> Any:
        """Profiles of −2 log-likelihood, one panel per parameter, with the interval shaded.

        Parameters
        ----------
        profile : Profile, or names of parameters, optional
            From ``m.profile()``; names, or nothing for all parameters, are profiled first.
        kind, level, ax
            As for `lmmsparse.report.plots.ModelPlots.profile`.
        """
        return plot_profile(self._fit, self._profiled(profile), kind, level, ax)

    @checked_keywords
    def profile_pairs(
        self,
        profile: Profile | Sequence[str] | None = None,
        *,
        levels: float | Sequence[float] = (0.5, 0.8, 0.95),
        ax: Any = None,
    ) -> Any:
        """Contours of joint confidence regions of two parameters, for all pairs of a profile.

        Parameters
        ----------
        profile : Profile, or names of parameters, optional
            From ``m.profile()``, made without ``level=``.
        levels, ax
            As for `lmmsparse.report.plots.ModelPlots.profile_pairs`.
        """
        return plot_pairs(self._fit, self._profiled(profile), levels, ax)

    def _profiled(self, given: Any) -> Any:
        if given is None or isinstance(given, (str, Sequence)):
            return generalized_profile(self._fit, given, None, 1, None)
        return given

    @checked_keywords
    def bootstrap(
        self,
        bootstrap: Bootstrap,
        *,
        which: str | Sequence[str] | None = None,
        level: float = 0.95,
        kind: str = "percentile",
        ax: Any = None,
    ) -> Any:
        """Densities of bootstrap replicates, with the estimate and the interval shaded.

        Parameters
        ----------
        bootstrap : Bootstrap
            From ``m.bootstrap(n, rng=...)``.
        which, level, kind, ax
            As for `lmmsparse.report.plots.ModelPlots.bootstrap`.
        """
        return plot_bootstrap(self._fit, bootstrap, which, level, kind, ax)
