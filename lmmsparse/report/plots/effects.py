"""`Fit` and predictors → estimated means over their values, with confidence limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import DataError, DesignWarning, OptionError
from lmmsparse.common.findings import warn
from lmmsparse.common.options import mapping, names_in, one_of, yes_or_no
from lmmsparse.common.words import brief
from lmmsparse.design.terms import chosen_values, covariates, factor_levels
from lmmsparse.engine.families import Binomial
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.means.basis import Basis
from lmmsparse.inference.means.tables import Wanted, emmeans_table
from lmmsparse.report.plots import figure
from lmmsparse.report.plots.figure import GREY, INK, SERIES, Axes
from lmmsparse.report.tidy import rows_as_fitted

_POINTS = 41


@dataclass(frozen=True, eq=False)
class EffectCurve:
    """Estimated means along one predictor.

    Attributes
    ----------
    values : tuple
        Of the predictor: levels, or numbers in increasing order.
    mean, lower, upper : (values,) arrays
    """

    values: tuple[Any, ...]
    numeric: bool
    mean: FloatArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True, eq=False)
class Look:
    """How means are drawn.

    Attributes
    ----------
    kind : {"link", "response"}
        The scale.
    lines : bool or None
        Whether the levels of a factor are connected; None: where there are several curves.
    data : table, optional
        The data of the fit, whose responses are drawn below the means.
    """

    kind: str = "link"
    lines: bool | None = None
    data: Any = None


def plot_effects(
    basis: Basis,
    specs: str | Sequence[str] | None,
    by: str | None,
    options: Wanted,
    look: Look,
    ax: Any,
) -> Any:
    """One panel per predictor, in each one curve per value of `by`."""
    fit = basis.fit
    values = _values(fit, by, options.at)
    wanted = _wanted(values, specs, by)
    one_of("type", look.kind, ("link", "response"), "It is the scale of the means.")
    if look.lines is not None:
        yes_or_no("lines", look.lines)
    drawn = [effect_curves(basis, name, by, values, options, look.kind) for name in wanted]
    raw = None if look.data is None else raw_data(basis, look, [*wanted, *([by] if by else [])])
    label = figure.wrapped(_response_label(basis, look.kind), 36)
    label += f"\nwith {100 * options.level:g} % confidence limits"
    axes = figure.panels(len(wanted), ax, (3.8, 3.3), sharey=True)
    groups = [None] if by is None else list(values[by])
    lines = by is not None if look.lines is None else look.lines
    for j, (each, name, curves) in enumerate(zip(axes, wanted, drawn, strict=True)):
        colours = [INK] if by is None else [SERIES[i % len(SERIES)] for i in range(len(groups))]
        shifts = 0.3 * (np.linspace(0, 1, len(curves)) - 0.5) if len(curves) > 1 else np.zeros(1)
        if raw is not None:
            _draw_raw(each, raw, curves[0], name, by, groups, colours, shifts)
        for curve, group, colour, shift in zip(curves, groups, colours, shifts, strict=True):
            named = None if by is None else figure.plain(_short(group))
            _draw(each, curve, colour, named, float(shift), lines)
        if not curves[0].numeric:
            places = range(len(curves[0].values))
            long = max(len(str(v)) for v in curves[0].values) * len(places) > 36
            each.set_xticks(
                places, figure.listed_levels([_short(v) for v in curves[0].values]),
                rotation=30 if long else 0, ha="right" if long else "center",
            )  # fmt: skip
            each.set_xlim(-0.5, len(places) - 0.5)
        side_by_side = 3 if ax is None else 1
        figure.dress(each, name, label if j % side_by_side == 0 else "")
    if by is not None:
        figure.legend(axes[-1], by, beside=True)
    return figure.one_or_all(axes)


def _wanted(
    values: Mapping[str, tuple[Any, ...]], specs: str | Sequence[str] | None, by: str | None
) -> list[str]:
    """The predictors that have a panel."""
    if not values:
        raise OptionError(
            "The model has no predictors among its fixed effects. For the random effects see "
            "m.plot.caterpillar()."
        )
    if by is not None:
        one_of("by", by, list(values))
    wanted = [name for name in values if name != by]
    if specs is not None:
        wanted = names_in("specs", specs, f"Name some of {', '.join(map(repr, values))}.")
    for name in wanted:
        if name not in values:
            raise OptionError(
                f"{name!r} is not a predictor of the fixed effects. Name one of "
                f"{', '.join(map(repr, values))}."
            )
    if not wanted or by in wanted:
        raise OptionError(
            f"specs={brief(specs)} with by={brief(by)} leaves nothing to draw. Name a predictor "
            "of the fixed effects other than by=."
        )
    return wanted


def _response_label(basis: Basis, kind: str) -> str:
    """What the means are means of, and on which scale."""
    fit, scale = basis.fit, basis.scale
    if isinstance(fit, GeneralizedFit):
        binomial = isinstance(fit.family, Binomial)
        mean = f"Probability of {_success(fit)}" if binomial else f"Mean {fit.design.response}"
        unchanged = kind == "response" or fit.family.link == "identity"
        return mean if unchanged else f"{fit.family.link.capitalize()} of the {mean.lower()}"
    if kind == "response" and scale is not None:
        return f"Mean {scale.target}, mapped back"
    return f"Mean {fit.design.response}"


def _success(fit: GeneralizedFit) -> str:
    """What a binomial model gives the probability of, in few words."""
    counted = re.fullmatch(r"cbind\(([^,()]+),.*\)", fit.design.response)
    if counted:
        return counted[1].strip()
    return fit.problem.success or fit.design.response


@dataclass(frozen=True, eq=False)
class RawData:
    """Responses on the scale that is drawn, and the predictors beside them."""

    y: FloatArray
    columns: pd.DataFrame


def raw_data(basis: Basis, look: Look, names: Sequence[str]) -> RawData:
    """The responses of the fit with their predictors."""
    fit, scale = basis.fit, basis.scale
    rows = rows_as_fitted(fit, look.data)
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise DataError(
            f"data has no column {missing[0]!r}. Pass the data the model was fitted to."
        )
    if np.any(fit.design.offset_or_zero != 0):
        raise OptionError(
            "The model has an offset, which differs from row to row: its responses cannot be "
            "drawn beside means at one offset. Leave out data=."
        )
    y = np.asarray(fit.design.y)
    if isinstance(fit, GeneralizedFit):
        if look.kind == "link" and fit.family.link != "identity":
            raise OptionError(
                f"data= shows responses, which have no value on the scale of the "
                f"{fit.family.link} link. Write type='response' too."
            )
        y = np.asarray(fit.seen.y)
        if np.isin(y, (0.0, 1.0)).all():  # many lie on each other
            y = y + np.random.default_rng(1).uniform(-0.02, 0.02, len(y))
    elif look.kind == "response" and scale is not None:
        y = scale.inverse(y)
    return RawData(y, rows)


def _draw_raw(
    ax: Axes,
    raw: RawData,
    curve: EffectCurve,
    name: str,
    by: str | None,
    groups: Sequence[Any],
    colours: Sequence[str],
    shifts: FloatArray,
) -> None:
    """Responses as small dots in the colour of their curve; grey where they belong to none."""
    column = raw.columns[name]
    if curve.numeric:
        x = column.to_numpy(dtype=np.float64)
    else:
        places = {str(value): float(i) for i, value in enumerate(curve.values)}
        x = np.array([places.get(str(value), np.nan) for value in column])
        x = x + np.random.default_rng(0).uniform(-0.07, 0.07, len(x))
    belongs = np.full(len(x), -1)
    if by is not None:
        known = {str(group): i for i, group in enumerate(groups)}
        belongs = np.array([known.get(str(value), -1) for value in raw.columns[by]])
    n = len(x)
    size, alpha = (12, 0.4) if n <= 500 else (6, 0.25) if n <= 5_000 else (3, 0.1)
    for i, colour, shift in [
        (-1, GREY, 0.0),
        *zip(range(len(groups)), colours, shifts, strict=True),
    ]:
        own = belongs == i
        if own.any():
            moved = x[own] if curve.numeric else x[own] + shift
            ax.scatter(
                moved, raw.y[own], s=size, color=colour, alpha=alpha, linewidths=0, zorder=0,
                rasterized=n > 2_000,
            )  # fmt: skip


def _values(fit: Fit, by: str | None, at: Mapping[str, Any] | None) -> dict[str, tuple[Any, ...]]:
    """The values of every predictor that are drawn: levels, or a grid of numbers."""
    recipe = fit.design.recipe
    if recipe is None:
        raise OptionError(
            "Effects are drawn along the variables of a formula, and the model was made from "
            "arrays. Fit with lmm.lmer and a formula."
        )
    out: dict[str, tuple[Any, ...]] = dict(factor_levels(recipe.matrices, "fixed"))
    numbers = covariates(recipe.matrices, "fixed")
    for name, (mean, low, high) in numbers.items():
        few = isinstance(by, str) and name == by
        out[name] = (low, mean, high) if few else tuple(np.linspace(low, high, _POINTS).tolist())
    at = mapping("at", at, "Write at={'column': [1, 2]}.")
    order = recipe.matrices.variables["fixed"]
    out = {name: out[name] for name in sorted(out, key=order.index)}
    for name, chosen in at.items():
        if name in out:
            out[name] = chosen_values(chosen)
            if name in numbers:
                out[name] = tuple(sorted(out[name]))
    return out


def effect_curves(
    basis: Basis,
    name: str,
    by: str | None,
    values: Mapping[str, tuple[Any, ...]],
    options: Wanted,
    kind: str = "link",
) -> list[EffectCurve]:
    """The marginal means along a predictor, one curve per value of `by`."""
    recipe = basis.fit.design.recipe
    assert recipe is not None
    numeric = name not in factor_levels(recipe.matrices, "fixed")
    specs = [name] if by is None else [name, by]
    places = {**(options.at or {}), **{each: list(values[each]) for each in specs}}
    table = emmeans_table(basis, specs, replace(options, at=places), kind)
    column = "response" if "response" in table.columns else "emmean"
    numbers = zip(*(table.columns[c] for c in (column, "lower.CL", "upper.CL")), strict=True)
    # Of nested factors only some combinations are there.
    found = dict(zip(zip(*(table.labels[n] for n in specs), strict=True), numbers, strict=True))
    rows = [() if by is None else (group,) for group in ((None,) if by is None else values[by])]
    missing = (np.nan,) * 3
    drawn = np.array(
        [[found.get((value, *row), missing) for value in values[name]] for row in rows],
        dtype=np.float64,
    )
    holes = np.isnan(drawn[:, :, 0])
    if holes.any():
        warn(
            f"{int(holes.sum())} of {holes.size} means along {name!r} are not drawn: the data do "
            "not determine them, as combinations of levels do not occur.",
            DesignWarning,
        )
    return [EffectCurve(values[name], numeric, *curve.T) for curve in drawn]


def _draw(
    ax: Axes, curve: EffectCurve, colour: str, label: str | None, shift: float, lines: bool
) -> None:
    if curve.numeric:
        along = np.array(curve.values, dtype=np.float64)
        ax.fill_between(along, curve.lower, curve.upper, color=colour, alpha=0.15, linewidth=0)
        ax.plot(along, curve.mean, color=colour, linewidth=1.6, label=label)
        return
    x = np.arange(len(curve.values)) + shift
    ax.vlines(x, curve.lower, curve.upper, color=colour, linewidth=1.4)
    style = "o-" if lines else "o"
    ax.plot(x, curve.mean, style, color=colour, markersize=5, linewidth=1.0, label=label)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
