"""`GeneralizedFit` → what marginal means, slopes and joint tests of it rest on."""

from __future__ import annotations

import math

from lmmsparse.engine.families import Binomial
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.df.methods import denominator_df
from lmmsparse.inference.means.basis import Basis
from lmmsparse.inference.means.scale import Scale
from lmmsparse.inference.robust.clusters import Robust


def generalized_basis(fit: GeneralizedFit, robust: Robust | None = None) -> Basis:
    """Tests by the normal distribution on the scale of the link."""
    family = fit.family
    odds = isinstance(family, Binomial) and family.link == "logit"
    base = math.e if odds or family.link == "log" else None
    scale = Scale(family.link, family.mean, family.mean_slope, base, odds)
    title = "" if robust is None else f", {robust.words}"
    return Basis(fit, denominator_df(fit, "asymptotic", robust), title, scale, link=True)
