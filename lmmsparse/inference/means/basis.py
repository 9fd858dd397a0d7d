"""A fit with its tests and the scale of its response; what tables say about that scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import refused
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.df.methods import (
    DenominatorDF,
    check_ddf,
    denominator_df,
    method_name,
)
from lmmsparse.inference.means.scale import Scale, no_way_back, response_scale
from lmmsparse.inference.robust.clusters import Robust


@dataclass(frozen=True, eq=False)
class Basis:
    """A fit and how its linear functions are tested.

    Attributes
    ----------
    fit : Fit
    method : DenominatorDF
    title : str
        The method in words.
    scale : Scale or None
        Of the linear predictor.
    link : bool
        Whether the scale is that of a link.
    normal : bool
        Whether tests are by the normal distribution, without degrees of freedom.
    """

    fit: Fit
    method: DenominatorDF
    title: str
    scale: Scale | None
    link: bool = False
    normal: bool = False

    def tests(self, t: FloatArray) -> dict[str, FloatArray]:
        return {"z.ratio" if self.normal else "t.ratio": t}

    def df(self, df: FloatArray) -> dict[str, FloatArray]:
        return {} if self.normal else {"df": df}


def linear_basis(fit: Fit, ddf: str, robust: Robust | None = None) -> Basis:
    """The basis of a linear model."""
    ddf = check_ddf(ddf)
    title = f", {method_name(ddf, robust)}"
    return Basis(fit, denominator_df(fit, ddf, robust), title, response_scale(fit.design))


def regrid_scale(basis: Basis, regrid: Any) -> Scale | None:
    """The scale that means are mapped from before they are averaged; None to average first."""
    if regrid is None or regrid is False:
        return None
    if regrid is not True and not (isinstance(regrid, str) and regrid == "response"):
        raise refused("regrid", "'response' or None", regrid)
    unknown = "" if basis.scale is not None else no_way_back(basis.fit.design)
    if unknown:
        raise OptionError(
            f"regrid='response' needs the way back from {unknown}, which is not known. Leave "
            "it out."
        )
    return basis.scale


def on_response(basis: Basis, columns: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Means and limits on the scale of the response; standard errors by the delta method."""
    scale = basis.scale
    if scale is None:
        return columns
    eta = columns["emmean"]
    with np.errstate(all="ignore"):
        ends = [scale.inverse(columns[side]) for side in ("lower.CL", "upper.CL")]
        own = {
            "response": scale.inverse(eta),
            "SE": np.abs(scale.slope(eta)) * columns["SE"],
            "lower.CL": np.minimum(*ends),
            "upper.CL": np.maximum(*ends),
        }
    rest = {name: own.get(name, values) for name, values in columns.items() if name != "emmean"}
    return {"response": own["response"], **rest}


def _sum_to_zero(W: FloatArray) -> bool:
    return bool((np.abs(W.sum(axis=1)) < 1e-6 * np.abs(W).max(axis=1, initial=1e-300)).all())


def as_ratios(
    basis: Basis, columns: dict[str, FloatArray], names: list[str], W: FloatArray
) -> tuple[dict[str, FloatArray], list[str]]:
    """Differences of logarithms as ratios; others stay what they are."""
    scale = basis.scale
    if scale is None or scale.base is None or not _sum_to_zero(W):
        return columns, names
    rate = np.log(scale.base)
    with np.errstate(over="ignore"):
        ratio = np.exp(rate * columns["estimate"])
        own = {side: np.exp(rate * columns[side]) for side in ("lower.CL", "upper.CL")}
    own["SE"] = rate * ratio * columns["SE"]
    out = {
        (scale.ratio if n == "estimate" else n): own.get(n, ratio if n == "estimate" else v)
        for n, v in columns.items()
    }
    return out, [name.replace(" - ", " / ") for name in names]


def scale_notes(basis: Basis, kind: str) -> list[str]:
    """On which scale means are."""
    scale = basis.scale
    if scale is None:
        unknown = no_way_back(basis.fit.design)
        if not unknown:
            return []
        return [f"On the scale of {unknown}" + (
            ", whose way back is not known." if kind == "response" else ".")]  # fmt: skip
    of = _of(basis, scale)
    if kind == "link":
        return [f"On the scale of {of}, not of the response."]
    notes = [
        f"Mapped from the scale of {of}" + (", random effects at zero." if basis.link else ".")
    ]
    if scale.target and not scale.target.isidentifier():
        notes.append(f"The response is {scale.target}.")
    return notes


def difference_notes(basis: Basis, kind: str, W: FloatArray) -> list[str]:
    """On which scale differences are."""
    scale = basis.scale
    if scale is None or kind == "link":
        return scale_notes(basis, "link")
    of = _of(basis, scale)
    if scale.base is None or not _sum_to_zero(W):
        return [f"Differences are on the scale of {of}."]
    return [f"Tests are on the scale of {of}."]


def regrid_notes(basis: Basis) -> list[str]:
    """How means were mapped before they were averaged."""
    scale = basis.scale
    assert scale is not None
    zero = ", random effects at zero" if basis.link else ""
    notes = [
        f"Mapped from the scale of {_of(basis, scale)} before averaging{zero}.",
        "Standard errors by the delta method.",
    ]
    if scale.target and not scale.target.isidentifier():
        notes.append(f"The response is {scale.target}.")
    return notes


def _of(basis: Basis, scale: Scale) -> str:
    return f"the {scale.name} link" if basis.link else f"the {scale.name} transformation"
