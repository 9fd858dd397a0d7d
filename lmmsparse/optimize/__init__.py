"""Searches: objective, start, bounds → the minimum and what the search did."""

from lmmsparse.optimize.base import Bounds, Derivatives, Objective, Optimizer, Optimum, Status
from lmmsparse.optimize.bounded import Bobyqa, NelderMead
from lmmsparse.optimize.free import minimize_free
from lmmsparse.optimize.trust_region import TrustRegion

__all__ = [
    "Bobyqa",
    "Bounds",
    "Derivatives",
    "NelderMead",
    "Objective",
    "Optimizer",
    "Optimum",
    "Status",
    "TrustRegion",
    "minimize_free",
]
