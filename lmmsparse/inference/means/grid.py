"""`Fit` → its columns at every combination of predictor values, and averages over some of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.options import mapping, names_in
from lmmsparse.common.words import brief, close_match, listed
from lmmsparse.design.recipe import Recipe
from lmmsparse.design.terms import covariates, factor_levels, formula_terms, grid
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.means.averages import Averages
from lmmsparse.inference.means.cells import cell_counts
from lmmsparse.inference.means.nested import (
    Nesting,
    averaging_order,
    nesting_of,
    occurring,
)
from lmmsparse.inference.means.scale import Scale
from lmmsparse.inference.means.weights import given_weights, named_weights

Weights = str | Mapping[str, Any]
_LARGEST = 3e8
# Central differences of eighth order: exact for polynomials, and where a column is smooth.
_DIFFERENCES = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
_STEP = 1e-3


class ReferenceGrid:
    """The combinations of predictor values that means are averages over.

    Parameters
    ----------
    fit : Fit
    at : mapping or None
        Predictor → values; otherwise all levels of a factor, the mean of a covariate.
    what : str
        Who asks, for messages.
    scale : Scale, optional
        On whose response means are formed before they are averaged; if not given, on the scale of
        the linear predictor.
    """

    def __init__(
        self,
        fit: Fit,
        at: Mapping[str, Any] | None,
        what: str = "Marginal means",
        scale: Scale | None = None,
    ) -> None:
        if fit.design.recipe is None:
            raise OptionError(
                f"{what} need predictors, and a model made from arrays has none. Fit with "
                "lmm.lmer and a formula, or use m.contrast."
            )
        self.fit = fit
        self.recipe: Recipe = fit.design.recipe
        self.scale = scale
        matrices = self.recipe.matrices
        self.levels = factor_levels(matrices, "fixed")
        self.spans = covariates(matrices, "fixed")
        self.values: dict[str, tuple[Any, ...]] = dict(self.levels)
        self.values.update({name: (span[0],) for name, span in self.spans.items()})
        self._have_levels()
        self._set(mapping("at", at, "Write at={'column': [1, 2]}."))

    def _set(self, at: Mapping[str, Any]) -> None:
        for name, chosen in at.items():
            self.known(name)
            one = isinstance(chosen, str) or np.ndim(chosen) == 0
            values = (chosen,) if one else tuple(np.asarray(chosen, dtype=object).tolist())
            if not values:
                raise DataError(f"at={{{name!r}: ...}} is empty. Give at least one value.")
            if pd.isna(pd.Series(values, dtype=object)).any():
                raise DataError(f"at={{{name!r}: ...}} contains a missing value. Leave it out.")
            self.values[name] = values

    def _have_levels(self) -> None:
        """Move means of which expressions make no level, as of C(year % 4), to the next value."""
        columns = self.recipe.matrices.columns
        made = {n: columns[n].values for n in self.spans if columns[n].values}
        if not made or np.isfinite(self._matrix(self._rows())).all(axis=1).any():
            return
        for name, values in made.items():
            self.values[name] = (min(values or (), key=lambda v: abs(v - self.spans[name][0])),)

    def known(self, name: Any) -> None:
        """Refuse what is no predictor, with a hint for R's ways to write several."""
        if name in self.values:
            return
        hint = ""
        if isinstance(name, str) and any(sign in name for sign in "~|:*+"):
            hint = (
                "Give names instead of a formula: emmeans(['a', 'b']) for combinations, by='b' for "
                "what stands after the bar, pairwise=True for differences. "
            )
        hint = hint or f"{close_match(str(name), self.values)} ".lstrip()
        raise OptionError(
            f"{name!r} is not a predictor of the model's fixed effects. {hint}Marginal means are "
            f"for {', '.join(map(repr, self.values)) or 'models with predictors'}. Name one of "
            "them."
        )

    def names(self, option: str, value: Any) -> list[str]:
        """Some predictors, each once."""
        use = f"Name one or several of {', '.join(map(repr, self.values))}."
        names = names_in(option, value, use)
        for name in names:
            self.known(name)
        if len(set(names)) < len(names):
            raise OptionError(f"{option} names a predictor twice: {brief(value)}. Name each once.")
        return names

    @property
    def axes(self) -> list[str]:
        """The predictors, one per axis; the first column of a grid varies fastest."""
        return list(reversed(self.values))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(self.values[name]) for name in self.axes)

    @cached_property
    def columns(self) -> FloatArray:
        """All columns of the formula in every cell, an axis per predictor and one of columns."""
        X = self._mapped(self._matrix(self._rows()))
        return X.reshape(*self.shape, X.shape[1])

    def _matrix(self, rows: pd.DataFrame) -> FloatArray:
        return self.recipe.matrices.matrix("fixed", rows, may_be_unseen=True)[0]

    def _mapped(self, X: FloatArray) -> FloatArray:
        """The columns or, on the response, the derivatives of its means by β and these means."""
        if self.scale is None:
            return X
        eta = X[:, self.recipe.kept] @ self.fit.beta + self.shift
        with np.errstate(all="ignore"):
            mean, slope = self.scale.inverse(eta), self.scale.slope(eta)
        return np.column_stack([slope[:, None] * X, mean])

    @cached_property
    def shift(self) -> float:
        """The mean of the offset."""
        facts = self.fit.design.facts
        return float(
            np.mean(self.fit.design.offset_or_zero if facts is None else facts.mean_offset)
        )

    def _left_open(self) -> FloatArray:
        """1 in cells whose own mean the data do not determine and which a mean is mapped from."""
        if self.scale is None:
            return np.zeros((*self.shape, 1))
        there = self.recipe.determines(self._matrix(self._rows()))
        return (~there).astype(np.float64).reshape(*self.shape, 1)

    def slopes(self, variable: str) -> FloatArray:
        """Their derivatives by a covariate."""
        if variable not in self.spans:
            raise OptionError(
                f"var={brief(variable)} is not a covariate of the fixed effects."
                f"{close_match(variable, self.spans)} "
                + (
                    f"Name one of {', '.join(map(repr, self.spans))}."
                    if self.spans
                    else "The model has none: emmeans() is for its factors."
                )
            )
        rows = self._rows()
        _, low, high = self.spans[variable]
        step = _STEP * (high - low if high > low else max(1.0, abs(high)))
        total: Any = 0.0
        at = rows[variable].to_numpy(dtype=np.float64)
        for k, weight in _DIFFERENCES.items():
            ends = [
                self._mapped(self._matrix(rows.assign(**{variable: at + sign * step})))
                for sign in (k, -k)
            ]
            total = total + weight * (ends[0] - ends[1])
        return np.asarray(total / step).reshape(*self.shape, total.shape[1])

    def _rows(self) -> pd.DataFrame:
        cells = float(np.prod(self.shape, dtype=np.float64))
        if cells * len(self.recipe.kept) > _LARGEST:
            raise OptionError(
                f"The grid of {listed(self.values)} has {cells:.3g} combinations. Hold some of the "
                "predictors with at=."
            )
        return grid(self.values)

    @cached_property
    def _counts(self) -> tuple[FloatArray, int]:
        """Rows of the data per cell, an axis per predictor; covariates have an axis of length 1."""
        factors = {name: self.values[name] for name in self.axes if name in self.levels}
        counts, unknown = cell_counts(self.fit.design, factors)
        shape = [len(self.values[name]) if name in factors else 1 for name in self.axes]
        return counts.reshape(shape), unknown

    @cached_property
    def nesting(self) -> Nesting:
        """Which factors are nested in which."""
        several = {n: levels for n, levels in self.levels.items() if len(levels) > 1}
        if len(several) < 2:
            return {}
        terms = formula_terms(self.recipe.matrices, "fixed")
        plain = {name for term in terms if not term.numbers for name in term.variables}
        if self.recipe.relations is None and set(several) <= plain:
            # Levels that occur within others would have made columns of X depend on others.
            counts = np.ones([len(levels) for levels in several.values()])
        else:
            counts, _ = cell_counts(self.fit.design, several)
        return nesting_of(list(several), counts, terms)

    def average(
        self,
        specs: Sequence[str],
        by: Sequence[str] = (),
        weights: Weights = "equal",
        variable: str | None = None,
    ) -> Averages:
        """Averages over the predictors that are not named, one for every combination of the others.

        Parameters
        ----------
        specs, by : sequence of str
            What is shown; groups of rows that are compared are those alike in `by`.
        weights : {"equal", "proportional"} or mapping
        variable : str, optional
            A covariate: slopes along it rather than means.
        """
        nesting = {n: outer for n, outer in self.nesting.items() if len(self.values[n]) > 1}
        by = self._with_outer(by, nesting)
        specs = [n for n in self._with_outer([*specs, *by], nesting) if n not in by]
        shown = [*specs, *by]
        over = [name for name in self.values if name not in shown]
        notes = self._interaction(shown, over, variable)
        weights = named_weights(weights)
        given = given_weights(weights, over, self.values)
        F = self.columns if variable is None else self.slopes(variable)
        F = _with_flags(F, self._left_open())
        inner = averaging_order(over, nesting)
        for k, name in enumerate(inner):
            F = self._over_nested(F, name, [*nesting[name], *inner[k + 1 :]], weights, given)
        outer = [name for name in over if name not in inner]
        W, said = self._weights(outer, weights, given)
        axes = tuple(self.axes.index(name) for name in outer)
        F = (F * W[..., None]).sum(axis=axes, keepdims=True)
        order = [self.axes.index(name) for name in reversed(shown)]
        order += [i for i in range(len(self.axes)) if i not in order]
        F = F.transpose(*order, F.ndim - 1).reshape(-1, F.shape[-1])
        rows = grid({name: self.values[name] for name in shown})
        labels = {name: rows[name].tolist() for name in shown}
        keep = self._occurs(shown, nesting)
        if keep is not None:
            F = F[keep]
            labels = {n: [v for v, k in zip(labels[n], keep, strict=True) if k] for n in shown}
        said += [f"Averaged over {n}: its levels within {listed(nesting[n])}." for n in inner]
        undefined, open_ = F[:, -2] == 0, F[:, -1] == 0
        F, shift, values = F[:, :-2], self.shift if variable is None else 0.0, None
        if self.scale is not None:
            F, values = F[:, :-1], F[:, -1]
        notes = [*said, *notes]
        return Averages(labels, F, undefined, open_, shift, tuple(notes), tuple(by), values)

    def _with_outer(self, names: Sequence[str], nesting: Nesting) -> list[str]:
        """Names with the factors that nested ones among them are nested in."""
        out = list(names)
        for name in names:
            out += [outer for outer in nesting.get(name, ()) if outer not in out]
        return out

    def _interaction(
        self, shown: Sequence[str], over: Sequence[str], variable: str | None
    ) -> list[str]:
        """A note on averages over what interacts with what is shown."""
        several = {name for name in over if len(self.values[name]) > 1}
        own = {*shown, *([variable] if variable else [])}
        terms = formula_terms(self.recipe.matrices, "fixed")
        met = [
            n
            for n in self.values
            if n in several and any(n in t.variables and t.variables & own for t in terms)
        ]
        if not met:
            return []
        one = variable or " and ".join(shown)
        return [f"Averages over an interaction: {one} may differ between levels of {listed(met)}."]

    def _occurs(self, shown: Sequence[str], nesting: Nesting) -> BoolArray | None:
        """Rows of nested factors that occur; None where all are shown."""
        nested = [name for name in shown if name in nesting]
        if not nested:
            return None
        counts, _ = self._counts
        keep = np.ones([len(self.values[n]) for n in reversed(shown)], dtype=bool)
        for name in nested:
            own = occurring(counts, self.axes, (name, *nesting[name]))
            order = [self.axes.index(n) for n in reversed(shown)]
            order += [i for i in range(len(self.axes)) if i not in order]
            own = own.transpose(order).reshape([own.shape[i] for i in order[: len(shown)]])
            keep &= own
        return keep.ravel()

    def _over_nested(
        self,
        F: FloatArray,
        name: str,
        within: Sequence[str],
        weights: Weights,
        given: Mapping[str, FloatArray],
    ) -> FloatArray:
        """The average over a nested factor: over the levels that occur within those of others."""
        counts, _ = self._counts
        axis = self.axes.index(name)
        W = occurring(counts, self.axes, [name, *within]).astype(np.float64)
        if isinstance(weights, str) and weights == "proportional":
            rest = tuple(i for i, n in enumerate(self.axes) if n not in (name, *within))
            W = counts.sum(axis=rest, keepdims=True)
        elif name in given:
            W = W * self._along(name, given[name])
        total = W.sum(axis=axis, keepdims=True)
        W = np.divide(W, total, out=np.zeros_like(W), where=total > 0)
        F = (F * W[..., None]).sum(axis=axis, keepdims=True)
        F[..., -1] += total == 0
        return F

    def _along(self, name: str, values: FloatArray) -> FloatArray:
        return values.reshape([-1 if n == name else 1 for n in self.axes])

    def _weights(
        self, over: Sequence[str], weights: Weights, given: Mapping[str, FloatArray]
    ) -> tuple[FloatArray, list[str]]:
        """Weights of the cells that are averaged over, which sum to one; what is said of them."""
        shape = [len(self.values[n]) if n in over else 1 for n in self.axes]
        W = np.ones(shape)
        several = [n for n in over if len(self.values[n]) > 1]
        how, notes = "with equal weights", []
        if isinstance(weights, str) and weights == "proportional":
            counts, unknown = self._counts
            rest = tuple(i for i, n in enumerate(self.axes) if n not in over)
            sums = counts.sum(axis=rest, keepdims=True)
            W = np.broadcast_to(sums, shape) if sums.any() else W
            how = "in proportion to the rows of the data"
            if unknown and several:
                notes.append(
                    f"{unknown} rows are left out of the weights: what interacts with a factor is "
                    "zero there, so that the model does not know its level."
                )
        elif given:
            for name in over:
                W = W * self._along(name, given[name]) if name in given else W
            how = "with the weights given"
        said = [f"Averaged over {listed(several)} {how}."] if several else []
        return W / W.sum(), [*said, *notes]


def _with_flags(X: FloatArray, open_: FloatArray) -> FloatArray:
    """Columns, zero where undefined, and two more that are not zero where a mean cannot be given.

    The first of them marks what is undefined, the second what is not determined or does not occur;
    averages keep both.
    """
    bad = ~np.isfinite(X).all(axis=-1, keepdims=True)
    return np.concatenate([np.where(bad, 0.0, X), bad, open_], axis=-1)
