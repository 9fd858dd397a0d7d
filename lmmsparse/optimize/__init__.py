"""Searches: objective, start, bounds → the minimum and what the search did."""

from lmmsparse.optimize.announced import Announced
from lmmsparse.optimize.base import (
    Bounds,
    Derivatives,
    Objective,
    Optimizer,
    Optimum,
    Status,
    second_by_differences,
)
from lmmsparse.optimize.bounded import Bobyqa, NelderMead, nlopt_missing
from lmmsparse.optimize.free import OnPlane, minimize_free
from lmmsparse.optimize.quasi_newton import QuasiNewton
from lmmsparse.optimize.structured import StructuredSearch
from lmmsparse.optimize.trust_region import TrustRegion

__all__ = [
    "Announced",
    "Bobyqa",
    "Bounds",
    "Derivatives",
    "NelderMead",
    "Objective",
    "OnPlane",
    "Optimizer",
    "Optimum",
    "QuasiNewton",
    "Status",
    "StructuredSearch",
    "TrustRegion",
    "minimize_free",
    "nlopt_missing",
    "second_by_differences",
]
