"""`GeneralizedFit` → what marginal means, slopes and joint tests of it rest on."""

from __future__ import annotations

import math

import numpy as np

from lmmsparse.engine.families import Binomial
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.df.methods import Constant, denominator_df, method_name
from lmmsparse.inference.means.basis import Basis
from lmmsparse.inference.means.scale import Scale
from lmmsparse.inference.robust.clusters import Robust


def generalized_basis(fit: GeneralizedFit, robust: Robust | None = None) -> Basis:
    """Tests on the scale of the link: by the normal distribution, unless errors are robust."""
    family = fit.family
    odds = isinstance(family, Binomial) and family.link == "logit"
    base = math.e if odds or family.link == "log" else None
    scale = Scale(family.link, family.mean, family.mean_slope, base, odds)
    if robust is None:
        method = Constant(fit.vcov, np.inf)
        return Basis(fit, method, "", scale, link=True, normal=True)
    title = f", {method_name('satterthwaite', robust)}"
    return Basis(fit, denominator_df(fit, "satterthwaite", robust), title, scale, link=True)
