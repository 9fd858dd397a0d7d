"""Objective with a gradient → minimum within bounds, by SciPy's L-BFGS-B."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.optimize.base import Bounds, Objective, Optimum, Recorder, Status, check_positive


@dataclass(frozen=True)
class QuasiNewton:
    """Limited-memory BFGS on the exact gradient, for objectives whose Hessian misleads.

    Parameters
    ----------
    tol : float
        Stop when a step lowers the objective by less than this.
    max_eval : int
        Limit on evaluations.

    References
    ----------
    Byrd, Lu, Nocedal & Zhu (1995), SIAM Journal on Scientific Computing 16, 1190-1208.
    """

    tol: float = 1e-9
    max_eval: int = 300

    def __post_init__(self) -> None:
        check_positive("QuasiNewton", tol=self.tol, max_eval=self.max_eval)

    def minimize(self, objective: Objective, start: FloatArray, bounds: Bounds) -> Optimum:
        """Minimize from `start` within those bounds that no mirror makes unnecessary.

        The objective's derivatives must be along its own coordinates (no `Derivatives.frame`).
        """
        record = Recorder(objective)
        lower, upper = bounds.limits
        x = np.clip(np.asarray(start, dtype=np.float64), lower, upper)
        here = record.derivatives(x)
        if here is None:
            return record.optimum(Status.FAILED, "QuasiNewton", bounds)

        def value(x: FloatArray) -> tuple[float, FloatArray]:
            at = record.derivatives(x)
            if at is None:  # a step too far: higher than anything seen
                return abs(record.best) * 10.0 + 1e10, np.zeros(len(x))
            return at.value, at.gradient

        from scipy.optimize import Bounds as Box
        from scipy.optimize import minimize

        found = minimize(
            value,
            x,
            jac=True,
            method="L-BFGS-B",
            bounds=Box(lower, upper),
            options={
                "maxfun": self.max_eval,
                "maxiter": self.max_eval,
                "ftol": self.tol / max(1.0, abs(here.value)),
                "gtol": 1e-8,
                "maxcor": 20,
            },
        )
        limit = len(record.rows) >= self.max_eval
        status = Status.CONVERGED if found.success else Status.STALLED
        return record.optimum(Status.MAX_EVALUATIONS if limit else status, "QuasiNewton", bounds)
