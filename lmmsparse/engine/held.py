"""Which covariance parameters are held, and at which values.

What is held is no parameter any more: it is not counted, not varied, and has no uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import BoolArray


@dataclass(frozen=True)
class Held:
    """Covariance parameters that the user holds.

    Parameters
    ----------
    theta : tuple of (int, float)
        Positions in θ and their values, in increasing order of the position.
    sigma : float or None
        Residual standard deviation (of an observation of weight 1), if it is held.
    residual : tuple of (str, float)
        Parameters of a covariance of the residuals, by name.

    Examples
    --------
    >>> Held(sigma=1.0).any
    True
    """

    theta: tuple[tuple[int, float], ...] = ()
    sigma: float | None = None
    residual: tuple[tuple[str, float], ...] = ()

    @property
    def any(self) -> bool:
        """Whether anything is held."""
        return bool(self.theta or self.residual) or self.sigma is not None

    def held(self, n_theta: int) -> BoolArray:
        """Which of the elements of θ are held, (n_theta,)."""
        out = np.zeros(n_theta, dtype=bool)
        out[[i for i, _ in self.theta]] = True
        return out


NOTHING = Held()
