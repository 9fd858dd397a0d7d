"""Hypotheses Lβ = r and a method for degrees of freedom → t or F test."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import f_tail, t_quantile, t_tail
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.options import check_level
from lmmsparse.common.table import Table, as_precise_as
from lmmsparse.design.arguments import numbers
from lmmsparse.design.terms import coefficients_of
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.df.methods import (
    denominator_df,
    joint_notes,
    method_notes,
    standard_errors,
)
from lmmsparse.inference.robust.clusters import Robust


def hypothesis_matrix(fit: Fit, L: Any) -> FloatArray:
    """L as an (m, p) array: given as such, as one row, or as a mapping of names to weights."""
    names = list(fit.design.x_names)
    if hasattr(L, "items"):
        L = {_coefficient(fit, name): weight for name, weight in L.items()}
        unknown = [name for name in L if name not in names]
        if unknown and unknown[0] in fit.design.dropped:
            raise OptionError(
                f"L names {unknown[0]!r}, which was dropped: the data do not determine it. Combine "
                f"only {', '.join(names)}, or fit without what repeats other effects."
            )
        if unknown:
            raise OptionError(
                f"L names {unknown[0]!r}, which is not a fixed effect. The fixed effects are "
                f"{', '.join(names)}."
            )
        row = np.zeros(len(names))
        for name, weight in L.items():
            try:
                row[names.index(name)] = float(weight)
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"L gives {name!r} the weight {weight!r}, which is not a number. Give a number."
                ) from error
        return hypothesis_matrix(fit, row)
    if isinstance(L, str):
        named = [name for name in fit.design.x_names if name in L] or [*fit.design.x_names]
        raise OptionError(
            f"L must be weights, not the text {L!r}. Give them by name, for example "
            f"contrast({{{max(named, key=len, default='x')!r}: 1}}), and what it is compared with "
            "as rhs=."
        )
    use = "Give every effect a finite weight, 0 for those that do not take part."
    matrix = np.atleast_2d(_finite("L", L, use))
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise DataError(
            f"L has shape {np.shape(L)}, but the model has {len(names)} fixed effects "
            f"({', '.join(names)}). Give rows of that many weights."
        )
    return matrix


def _finite(what: str, given: Any, use: str) -> FloatArray:
    values = numbers(what, given, use)
    if not np.isfinite(values).all():
        raise DataError(f"{what} contains missing or infinite values. {use}")
    return values


def _right_side(rhs: Any, rows: int) -> FloatArray:
    values = _finite("rhs", rhs, "Give one finite number, or one per row.")
    if values.ndim > 1 or (values.ndim == 1 and len(values) not in (1, rows)):
        raise DataError(
            f"rhs has shape {values.shape}, but L has {rows} {'row' if rows == 1 else 'rows'}. "
            "Give one number, or one per row."
        )
    return np.asarray(np.broadcast_to(values, (rows,)))


def _coefficient(fit: Fit, name: Any) -> Any:
    """A coefficient's name, also for a term that has a single one."""
    if not isinstance(name, str) or name in fit.design.x_names or name in fit.design.dropped:
        return name
    found = coefficients_of(fit.design, name)
    if len(found) > 1:
        raise OptionError(
            f"L names {name!r}, a term of {len(found)} coefficients: {', '.join(found)}. Give each "
            "its weight; lmm.anova tests the term, m.emmeans compares means."
        )
    return found[0] if found else name


def contrast(
    fit: Fit, L: Any, rhs: Any, ddf: str, level: float = 0.95, robust: Robust | None = None
) -> Table:
    """Test Lβ = rhs: one row by t, several rows jointly by F; see `LinearMixedModel.contrast`."""
    matrix, level = hypothesis_matrix(fit, L), check_level(level)
    right = _right_side(rhs, len(matrix))
    rank = int(np.linalg.matrix_rank(matrix))
    if rank == 0:
        raise DataError(
            "All weights in L are zero, so there is no hypothesis to test. Give at least one "
            "effect a nonzero weight."
        )
    method = denominator_df(fit, ddf, robust)
    difference = matrix @ fit.beta - right
    if len(matrix) == 1:
        se = standard_errors(method, matrix)
        df = method.single(matrix)
        t = difference / se
        estimate, half = matrix @ fit.beta, t_quantile(0.5 + level / 2.0, df) * se
        columns = {
            "Estimate": estimate.tolist(),
            "Std. Error": se.tolist(),
            "df": df.tolist(),
            "t value": t.tolist(),
            "Pr(>|t|)": (2.0 * t_tail(np.abs(t), df)).tolist(),
            "lower.CL": (estimate - half).tolist(),
            "upper.CL": (estimate + half).tolist(),
        }
        sized = ("Estimate", "Std. Error", "lower.CL", "upper.CL")
        formats = dict.fromkeys(sized, as_precise_as(se.tolist()))
        notes = [f"Confidence level {level:g}.", *method_notes(method, matrix)]
        return Table(columns, ["L"], notes=notes, formats=formats)
    if np.linalg.matrix_rank(np.column_stack([matrix, right])) > rank:
        raise DataError(
            "The rows of L and rhs contradict each other: no coefficients can fulfil them all. "
            "Check the values of rhs."
        )
    F, scale, den = f_statistic(matrix, difference, method)
    columns = {
        "F value": [F * scale],
        "NumDF": [float(rank)],
        "DenDF": [den],
        "Pr(>F)": [float(f_tail(F * scale, rank, den))],
    }
    notes = [*method_notes(method, matrix), *joint_notes(method, [rank], [F * scale])]
    return Table(columns, ["L"], notes=notes)


def f_statistic(L: FloatArray, difference: FloatArray, method: Any) -> tuple[float, float, float]:
    """Wald F of Lβ − r, its scale and denominator degrees of freedom."""
    rank = int(np.linalg.matrix_rank(L))
    scale, den = method.joint(L)
    with np.errstate(invalid="ignore"):
        V = L @ method.covariance @ L.T
    if not np.isfinite(V).all():  # the likelihood does not bound what is tested
        return np.nan, scale, den
    middle = np.linalg.pinv(V, rcond=1e-10, hermitian=True)
    F = float(difference @ middle @ difference) / rank
    return F, scale, den
