"""`ModelPlots`: the plots of one fitted model, each a line over a function of the fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmmsparse.common.calls import checked_keywords, explained_members, not_called
from lmmsparse.common.options import check_level
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.intervals.bootstrap import Bootstrap
from lmmsparse.inference.intervals.profile.profile import Profile
from lmmsparse.inference.means.basis import linear_basis
from lmmsparse.inference.means.tables import Wanted
from lmmsparse.report.plots.caterpillar import plot_caterpillar
from lmmsparse.report.plots.densities import plot_bootstrap
from lmmsparse.report.plots.effects import Look, plot_effects
from lmmsparse.report.plots.pairs import plot_pairs
from lmmsparse.report.plots.profiles import plot_profile
from lmmsparse.report.plots.qq import plot_qq
from lmmsparse.report.plots.residuals import plot_residuals, plot_scale_location
from lmmsparse.report.plots.shrinkage import plot_shrinkage
from lmmsparse.results.rows_needed import with_rows


@explained_members
@not_called("There are several plots of a model. Name one, for example m.plot.caterpillar().")
class ModelPlots:
    """The plots of a model, found under ``m.plot``.

    Every plot takes ``ax=`` (axes to draw on; an array of them where there are several panels) and
    returns the axes it has drawn on: one, or an array with one per panel. Without ``ax=`` it makes
    a new figure. matplotlib's global settings are left as they are.

    Parameters
    ----------
    fit : Fit

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
    >>> ax = m.plot.residuals()
    >>> ax.get_xlabel()
    'Fitted Reaction'
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    def __repr__(self) -> str:
        names = [name for name in dir(type(self)) if not name.startswith("_")]
        return f"Plots of the model: {', '.join(f'.{name}()' for name in names)}"

    @checked_keywords
    def residuals(self, *, smooth: bool = True, ax: Any = None) -> Any:
        """Residuals against fitted values; residuals times √weight for a weighted fit.

        A smoother that stays near zero says that the mean is modelled well.

        Parameters
        ----------
        smooth : bool
            Draw a robust local regression (lowess).
        ax : Axes, optional

        Returns
        -------
        Axes
        """
        return plot_residuals(self._fit, smooth, ax)

    @checked_keywords
    def scale_location(self, *, smooth: bool = True, ax: Any = None) -> Any:
        """Roots of absolute standardized residuals against fitted values.

        A smoother that rises says that the residual variance grows with the mean. Residuals are
        divided by their own standard deviation, σ √((1 − h)/w) with leverage h.

        Parameters
        ----------
        smooth : bool
        ax : Axes, optional

        Returns
        -------
        Axes
        """
        return plot_scale_location(self._fit, smooth, ax)

    @checked_keywords
    def qq(self, group: str | None = None, *, level: float = 0.95, ax: Any = None) -> Any:
        """Normal quantile plot of standardized residuals, or of the random effects of a group.

        The band holds all points of a normal sample at once with probability `level`. It takes
        points for independent, which makes it somewhat wide where groups are few.

        Parameters
        ----------
        group : str, optional
            A grouping factor: one panel per effect, each divided by its standard deviation,
            √(Var(b) − Var(b | y)). The five levels that lie furthest outside the band are named.
        level : float
        ax : Axes or array of Axes, optional

        Returns
        -------
        Axes or array of Axes
        """
        return plot_qq(self._fit, group, level, ax)

    @checked_keywords
    def caterpillar(
        self,
        group: str | None = None,
        *,
        level: float = 0.95,
        order: str | None = None,
        ax: Any = None,
    ) -> Any:
        """The random effects of a group in order, with conditional intervals.

        Intervals that do not reach zero are dark. Levels are named up to sixty of them.

        Parameters
        ----------
        group : str, optional
            May be left out in a model with one grouping factor.
        level : float
            Of the intervals b̂ ± z √Var(b | y), each by itself.
        order : str, optional
            The effect that puts the levels in order; the first if not given.
        ax : Axes or array of Axes, optional
            One per effect.

        Returns
        -------
        Axes or array of Axes
        """
        return plot_caterpillar(self._fit, group, level, order, ax)

    @checked_keywords
    def profile(
        self,
        profile: Profile | str | Sequence[str] | None = None,
        *,
        kind: str = "zeta",
        level: float = 0.95,
        ax: Any = None,
    ) -> Any:
        """Profiles of the deviance, one panel per parameter, with the confidence interval shaded.

        Parameters
        ----------
        profile : Profile, or names of parameters, optional
            From ``m.profile()``; names, or nothing for all parameters, are profiled first.
        kind : {"zeta", "density", "deviance"}
            The signed root ζ of the rise of the deviance, with a dotted line it would follow if
            the deviance were quadratic; the density whose intervals are the profile's,
            φ(ζ) dζ/dψ; or the rise of the deviance itself.
        level : float
        ax : Axes or array of Axes, optional

        Returns
        -------
        Axes or array of Axes

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> m = lmm.lmer("Yield ~ (1 | Batch)", lmm.load_dataset("Dyestuff"))
        >>> ax = m.plot.profile("sd_Intercept|Batch", kind="deviance")
        >>> ax.get_xlabel()
        'SD of Intercept | Batch'
        """
        return plot_profile(self._fit, profile, kind, level, ax)

    @checked_keywords
    def profile_pairs(
        self,
        profile: Profile | Sequence[str] | None = None,
        *,
        levels: float | Sequence[float] = (0.5, 0.8, 0.95),
        ax: Any = None,
    ) -> Any:
        """Contours of joint confidence regions of two parameters, for all pairs of a profile.

        Grey lines are the profile traces: the best value of one parameter for each value of the
        other. Contours are interpolated from these (Bates & Watts 1988, appendix A.6).

        Parameters
        ----------
        profile : Profile, or names of parameters, optional
            From ``m.profile()``, made without ``level=``.
        levels : float or sequence of float
            Of the joint regions, χ² with two degrees of freedom.
        ax : array of Axes, optional
            The pairs (2, 1), (3, 1), (3, 2), (4, 1), … in this order.

        Returns
        -------
        Axes or array of Axes
        """
        return plot_pairs(self._fit, profile, levels, ax)

    @checked_keywords
    def effects(
        self,
        specs: str | Sequence[str] | None = None,
        *,
        by: str | None = None,
        at: Mapping[str, Any] | None = None,
        level: float = 0.95,
        ddf: str = "satterthwaite",
        type: str = "link",
        weights: str | Mapping[str, Any] = "equal",
        lines: bool | None = None,
        data: Any = None,
        ax: Any = None,
    ) -> Any:
        """Means of the response along predictors, with confidence limits as bars or bands.

        Parameters
        ----------
        specs : str or sequence of str, optional
            Predictors, one panel each; all of them if not given. The others are averaged (factors,
            all levels alike) or at their mean (covariates), as `emmeans` does it.
        by : str, optional
            A predictor with one curve per level; a covariate at its least, mean and largest value.
        at : mapping, optional
            Column → values, as in `emmeans`.
        level : float
            Of the limits, each mean by itself.
        ddf : str
            As for `coef_table`.
        type : {"link", "response"}
            The scale of the model, or that of the response where the formula transforms it.
        weights : {"equal", "proportional"} or mapping
            Of levels that are averaged over, as in `emmeans`.
        lines : bool, optional
            Whether lines connect the levels of a factor; if not given, with `by` they do.
        data : table, optional
            The data of the fit, to draw its responses under the means.
        ax : Axes or array of Axes, optional

        Returns
        -------
        Axes or array of Axes
        """
        wanted = Wanted(at=at, level=check_level(level), weights=weights)
        basis = linear_basis(self._fit, ddf)
        return plot_effects(basis, specs, by, wanted, Look(type, lines, data), ax)

    @checked_keywords
    def shrinkage(
        self,
        group: str | None = None,
        *,
        effects: str | Sequence[str] | None = None,
        ax: Any = None,
    ) -> Any:
        """Coefficients of the levels of a group, partially pooled against each level alone.

        Two effects: an arrow per level from its own least-squares estimate to that of the model.
        One effect: the model's estimate against the level's own, areas by number of rows.

        Parameters
        ----------
        group : str, optional
            May be left out in a model with one grouping factor.
        effects : one or two of str, optional
            Effects of the group; its first two if not given.
        ax : Axes, optional

        Returns
        -------
        Axes

        Notes
        -----
        Least squares within a level hold other fixed effects, and the random effects of other
        groups, at their estimates. Levels whose rows do not determine their coefficients are left
        out; the title counts them.
        """
        fit = with_rows(self._fit, "m.plot.shrinkage()", "Use m.plot.caterpillar(group).")
        return plot_shrinkage(fit, group, effects, ax)

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
        which : str or sequence of str, optional
            Numbers of the statistic; all of them if not given.
        level : float
        kind : {"percentile", "basic", "normal"}
            Of the interval.
        ax : Axes or array of Axes, optional

        Returns
        -------
        Axes or array of Axes
        """
        return plot_bootstrap(self._fit, bootstrap, which, level, kind, ax)
