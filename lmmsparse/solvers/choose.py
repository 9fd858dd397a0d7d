"""Shape of a model → which linear algebra to use: a rule that can be read and asked."""

from __future__ import annotations

from lmmsparse.covariance import LambdaTemplate
from lmmsparse.solvers.base import PLSSolver
from lmmsparse.solvers.cholmod import Cholmod


def choose_solver(template: LambdaTemplate) -> PLSSolver:
    """Return the solver used when none is given: `Cholmod` with an ordering chosen by cost.

    Parameters
    ----------
    template : LambdaTemplate
        The shape of the model.
    """
    return Cholmod()
