"""Searches: objective, start, bounds → the minimum and what the search did."""

from lmmsparse.optimize.base import Bounds, Derivatives, Objective, Optimizer, Optimum, Status
from lmmsparse.optimize.bounded import Bobyqa, NelderMead
from lmmsparse.optimize.free import OnPlane, minimize_free
from lmmsparse.optimize.trust_region import TrustRegion

__all__ = [
    "Bobyqa",
    "Bounds",
    "Derivatives",
    "NelderMead",
    "Objective",
    "OnPlane",
    "Optimizer",
    "Optimum",
    "Status",
    "TrustRegion",
    "minimize_free",
]
