"""`Fit` and predictors → estimated means over their values, with confidence limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import DesignWarning, OptionError
from lmmsparse.common.findings import warn
from lmmsparse.common.options import mapping, names_in, one_of
from lmmsparse.common.words import brief
from lmmsparse.design.terms import chosen_values, covariates, factor_levels
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.means.grid import Weights
from lmmsparse.inference.means.tables import Basis, Wanted, emmeans_table, linear_basis
from lmmsparse.report.plots import figure
from lmmsparse.report.plots.figure import INK, SERIES, Axes

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


def plot_effects(
    fit: Fit,
    specs: str | Sequence[str] | None,
    by: str | None,
    at: Mapping[str, Any] | None,
    level: float,
    ddf: str,
    ax: Any,
    kind: str = "link",
    weights: Weights = "equal",
) -> Any:
    """One panel per predictor, in each one curve per value of `by`."""
    values = _values(fit, by, at)
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
    one_of("type", kind, ("link", "response"), "It is the scale of the means.")
    basis, options = linear_basis(fit, ddf), Wanted(at=at, level=level, weights=weights)
    drawn = [effect_curves(basis, name, by, values, options, kind) for name in wanted]
    back = kind == "response" and basis.scale is not None
    response = basis.scale.target if back and basis.scale else fit.design.response
    axes = figure.panels(len(wanted), ax, (3.8, 3.3), sharey=True)
    groups = [None] if by is None else list(values[by])
    for j, (each, name, curves) in enumerate(zip(axes, wanted, drawn, strict=True)):
        for i, (curve, group) in enumerate(zip(curves, groups, strict=True)):
            colour = INK if by is None else SERIES[i % len(SERIES)]
            label = None if by is None else figure.plain(_short(group))
            shift = 0.0 if len(curves) == 1 else 0.3 * (i / (len(curves) - 1) - 0.5)
            _draw(each, curve, colour, label, shift)
        if not curves[0].numeric:
            places = range(len(curves[0].values))
            long = max(len(str(v)) for v in curves[0].values) * len(places) > 36
            each.set_xticks(
                places, figure.listed_levels([_short(v) for v in curves[0].values]),
                rotation=30 if long else 0, ha="right" if long else "center",
            )  # fmt: skip
            each.set_xlim(-0.5, len(places) - 0.5)
        side_by_side = 3 if ax is None else 1
        figure.dress(each, name, f"Mean {response}" if j % side_by_side == 0 else "")
    if by is not None:
        figure.legend(axes[-1], by, beside=True)
    return figure.one_or_all(axes)


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


def _draw(ax: Axes, curve: EffectCurve, colour: str, label: str | None, shift: float) -> None:
    if curve.numeric:
        along = np.array(curve.values, dtype=np.float64)
        ax.fill_between(along, curve.lower, curve.upper, color=colour, alpha=0.15, linewidth=0)
        ax.plot(along, curve.mean, color=colour, linewidth=1.6, label=label)
        return
    x = np.arange(len(curve.values)) + shift
    ax.vlines(x, curve.lower, curve.upper, color=colour, linewidth=1.4)
    ax.plot(x, curve.mean, "o", color=colour, markersize=5, label=label)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
