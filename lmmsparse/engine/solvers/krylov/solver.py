"""`Krylov`: what a user asks for, and how it becomes more exact."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_construction
from lmmsparse.common.options import is_number, positive, refused, whole_number
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.solvers.base import PLSSystem
from lmmsparse.engine.solvers.blocked import Blocked
from lmmsparse.engine.solvers.krylov.factor import Effort
from lmmsparse.engine.solvers.krylov.system import KrylovSystem

_VECTORS = (16, 64)
_MOST_PROBES = 256


@checked_construction
@dataclass(frozen=True)
class Krylov:
    """Conjugate gradients instead of a factorization, for crossed factors with very many levels.

    The largest grouping factor is eliminated exactly. Fixed effects, their standard errors and
    random effects are then solved for to rounding; log-determinant and traces are estimated with
    random signs, and how far this puts the estimates off is known: see
    `LinearMixedModel.monte_carlo`. Where it is more than a hundredth of a standard error, or 0.05
    of the criterion, more is spent by itself: first on deflation vectors, then on probes.

    Parameters
    ----------
    probes : int
        Random vectors to begin with.
    deflate : int
        The most directions that are treated exactly, beside the constants.
    seed : int
        Of the random vectors. The same seed gives the same result.
    tol : float
        Relative tolerance of the solutions.
    near : tuple of float
        θ at which deflation vectors were found; set by the fit.
    vectors : int
        How many of them there are; set by the fit.

    References
    ----------
    Ubaru, Chen & Saad (2017), SIAM Journal on Matrix Analysis and Applications 38(4), 1075-1099.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> data = lmm.load_dataset("InstEval")
    >>> m = lmm.lmer("y ~ service + (1 | s) + (1 | d)", data, solver=lmm.Krylov())
    >>> m.theta.round(2).tolist()
    [0.28, 0.44]
    """

    probes: int = 32
    deflate: int = 64
    seed: int = 0
    tol: float = 1e-10
    near: tuple[float, ...] = field(default=(), repr=False)
    vectors: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        whole_number("probes of Krylov", self.probes, least=1)
        if self.probes < 2:
            raise refused("probes of Krylov", "2 or more", self.probes, "32 are usual.")
        for name in ("deflate", "seed", "vectors"):
            whole_number(f"{name} of Krylov", getattr(self, name), least=0)
        if positive("tol of Krylov", self.tol) > 1e-4:
            raise refused("tol of Krylov", "at most 1e-4", self.tol, "1e-10 is usual.")
        if not isinstance(self.near, tuple) or not all(map(is_number, self.near)):
            raise refused("near of Krylov", "a tuple of numbers", self.near)

    def build(self, products: CrossProducts, template: LambdaTemplate) -> PLSSystem:
        """Arrange the cross-products; a single grouping factor leaves nothing to estimate."""
        if products.one_factor:
            return Blocked().build(products, template)
        return KrylovSystem(products, template, self.effort)

    @property
    def effort(self) -> Effort:
        """What is spent."""
        return Effort(self.probes, self.vectors, self.near, self.seed, self.tol)

    def at(self, theta: FloatArray) -> Krylov:
        """The same with the constants alone, at the beginning of a search from θ."""
        return replace(self, near=tuple(float(v) for v in theta), vectors=0)

    def is_refined(self, theta: FloatArray) -> bool:
        """Whether there are as many deflation vectors as may be, for models with such a θ."""
        return self.vectors >= min(_VECTORS[-1], self.deflate)

    def deflated(self, theta: FloatArray) -> Krylov:
        """The same with more deflation vectors, found near θ."""
        at = tuple(float(v) for v in theta)
        more = next((v for v in _VECTORS if v > self.vectors), self.vectors)
        return replace(self, near=at, vectors=min(more, self.deflate))

    def refined(self, theta: FloatArray) -> Krylov | None:
        """The next more exact one near θ; None where the limits are reached."""
        if not self.is_refined(theta):
            return self.deflated(theta)
        if self.probes < _MOST_PROBES:
            return replace(self, probes=min(2 * self.probes, _MOST_PROBES))
        return None
