"""`GeneralizedFit` → what marginal means, slopes and joint tests of it rest on."""

from __future__ import annotations

import math

import numpy as np

from lmmsparse.engine.families import Binomial
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.df.methods import Constant
from lmmsparse.inference.means.basis import Basis
from lmmsparse.inference.means.scale import Scale


def generalized_basis(fit: GeneralizedFit) -> Basis:
    """Tests by the normal distribution on the scale of the link."""
    family = fit.family
    odds = isinstance(family, Binomial) and family.link == "logit"
    base = math.e if odds or family.link == "log" else None
    scale = Scale(family.link, family.mean, family.mean_slope, base, odds)
    return Basis(fit, Constant(fit.vcov, np.inf), "", scale, link=True)
