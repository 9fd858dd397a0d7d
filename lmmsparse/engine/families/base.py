"""What a family of distributions gives, row by row, as functions of the linear predictor η."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from scipy.special import xlogy

from lmmsparse.common.arrays import FloatArray, ReadOnly
from lmmsparse.common.errors import OptionError
from lmmsparse.common.words import brief


class Pointwise(NamedTuple):
    """The log density of every row and its derivatives in η, (n,) each.

    Attributes
    ----------
    value : (n,) array
        ℓ without what does not depend on η (`Family.constant`); −∞ where η cannot be.
    s, w : (n,) arrays
        ℓ' and −ℓ''.
    t : (n,) array or None
        ∂w/∂η, where it was asked for.
    """

    value: FloatArray
    s: FloatArray
    w: FloatArray
    t: FloatArray | None


class ScaleSlopes(NamedTuple):
    """Derivatives in δ, the logarithm of the family's own parameter.

    Attributes
    ----------
    by_row : (n,) array
        Of ℓ, constants included.
    s, w : (n,) arrays
        Of ℓ' and of −ℓ''.
    """

    by_row: FloatArray
    s: FloatArray
    w: FloatArray

    @property
    def total(self) -> float:
        """Of Σℓ."""
        return float(np.sum(self.by_row))


class ExpectedWeights(NamedTuple):
    """E(w), its derivative in η, and that in δ where there is one, (n,) each."""

    w: FloatArray
    t: FloatArray
    in_delta: FloatArray | None


@dataclass(frozen=True, eq=False)
class Observations(ReadOnly):
    """A response with what its distribution needs to know.

    Attributes
    ----------
    y : (n,) array
        For a binomial family the proportion of successes.
    trials : (n,) array or None
        Binomial families: how many trials each proportion is of; 1 if None.
    prior : (n,) array or None
        Prior weights, 1 if None.
    """

    y: FloatArray
    trials: FloatArray | None = None
    prior: FloatArray | None = None

    @property
    def n(self) -> int:
        return len(self.y)

    @cached_property
    def weights(self) -> FloatArray | float:
        """Trials times prior weights: what multiplies the log density."""
        if self.trials is None:
            return 1.0 if self.prior is None else self.prior
        return self.trials if self.prior is None else self.trials * self.prior

    @cached_property
    def successes(self) -> FloatArray:
        """Of a binomial family: what multiplies log p."""
        return np.asarray(self.weights * self.y)

    @cached_property
    def failures(self) -> FloatArray:
        """What multiplies log(1 − p)."""
        return np.asarray(self.weights * (1.0 - self.y))

    @cached_property
    def entropy(self) -> FloatArray:
        """Y log y − y."""
        return np.asarray(xlogy(self.y, self.y) - self.y)

    @cached_property
    def log_y(self) -> FloatArray:
        """Of a positive response."""
        return np.log(self.y)

    @cached_property
    def largest(self) -> float:
        """Of the response."""
        return float(self.y.max(initial=0.0))

    @property
    def prior_or_one(self) -> FloatArray | float:
        return 1.0 if self.prior is None else self.prior

    @property
    def trials_or_one(self) -> FloatArray:
        return np.ones(self.n) if self.trials is None else self.trials


@dataclass(frozen=True)
class Family(ABC):
    """A family of distributions with a link g: g(E(y)) = η.

    Parameters
    ----------
    link : str
        Name of g, one of the family's.
    """

    link: str = ""

    name: ClassVar[str]
    links: ClassVar[tuple[str, ...]]
    parameter: ClassVar[str] = ""
    """What the family's own estimated parameter is called, empty where there is none."""
    parameter_formula: ClassVar[str] = ""
    discrete: ClassVar[bool] = False
    largest_start: ClassVar[float] = np.inf
    """The largest δ that `start_delta` gives."""

    def __post_init__(self) -> None:
        given = isinstance(self.link, str)
        link = self.link or self.links[0] if given else self.link
        if not given or link not in self.links:
            raise OptionError(
                f"{type(self).__name__}(link={brief(self.link)}) does not exist. Links of this "
                f"family are {', '.join(map(repr, self.links))}."
            )
        object.__setattr__(self, "link", link)

    def __str__(self) -> str:
        return f"{self.name}({self.link})"

    @property
    def held_delta(self) -> float | None:
        """δ, where the family's parameter is known."""
        return None

    @property
    def estimates_delta(self) -> bool:
        """Whether δ is a parameter of the model."""
        return bool(self.parameter) and self.held_delta is None

    @property
    def canonical(self) -> bool:
        """Whether observed and expected weights are the same."""
        return False

    @property
    def is_limited(self) -> bool:
        """Whether the link does not take every η."""
        return False

    # -- the log density in η ----------------------------------------------------------------------

    @abstractmethod
    def at(
        self, eta: FloatArray, seen: Observations, delta: float, third: bool = False
    ) -> Pointwise:
        """The log density and its derivatives.

        Parameters
        ----------
        eta : (n,) array
        seen : Observations
        delta : float
            Logarithm of the family's parameter, 0 where there is none.
        third : bool
            Also ∂w/∂η.
        """

    @abstractmethod
    def constant(self, seen: Observations, delta: float) -> float:
        """What Σℓ holds beside `Pointwise.value`."""

    @abstractmethod
    def expected(self, eta: FloatArray, seen: Observations, delta: float) -> ExpectedWeights:
        """Expected weights, never negative."""

    def scale_slopes(self, eta: FloatArray, seen: Observations, delta: float) -> ScaleSlopes:
        """Derivatives in δ, for families that have it."""
        raise NotImplementedError

    def start_delta(self, seen: Observations, mu: FloatArray) -> float:
        """A value of δ to begin with, at fitted means."""
        return 0.0

    def least_delta(self, seen: Observations) -> float:
        """The δ below which residuals are rounding: a model fits exactly."""
        return -np.inf

    def without_own(self) -> Family | None:
        """The family at the limit of δ where its parameter says nothing, if that is a family."""
        return None

    def next_to_limit(self, mu: FloatArray) -> float:
        """A value of δ at which the family is next to `without_own`, for means of this size."""
        return np.inf

    def at_limit(self, delta: float) -> bool:
        """Whether δ is where the family is `without_own`."""
        return False

    # -- the mean ----------------------------------------------------------------------------------

    @abstractmethod
    def mean(self, eta: FloatArray) -> FloatArray:
        """E(y) at η."""

    @abstractmethod
    def mean_slope(self, eta: FloatArray) -> FloatArray:
        """∂E(y)/∂η."""

    @abstractmethod
    def link_of(self, mu: FloatArray) -> FloatArray:
        """η at E(y)."""

    @abstractmethod
    def smoothed(self, seen: Observations) -> FloatArray:
        """Means that are near y and have a finite η, (n,)."""

    @abstractmethod
    def variance(self, mu: FloatArray, delta: float) -> FloatArray:
        """V(μ), the variance of an observation of weight 1 but for the factor `dispersion`."""

    def dispersion(self, delta: float) -> float:
        """φ, by which the variance function is multiplied."""
        return 1.0

    @abstractmethod
    def unit_deviance(self, seen: Observations, mu: FloatArray, delta: float) -> FloatArray:
        """Each row's part of the deviance, (n,)."""

    # -- distribution ------------------------------------------------------------------------------

    @abstractmethod
    def draw(
        self, rng: np.random.Generator, mu: FloatArray, seen: Observations, delta: float
    ) -> FloatArray:
        """A response with these means, as `Observations.y`."""

    @abstractmethod
    def cdf(self, y: FloatArray, mu: FloatArray, seen: Observations, delta: float) -> FloatArray:
        """P(Y ≤ y)."""

    def step_below(self, seen: Observations) -> FloatArray | float:
        """How far below y the next possible value is; 0 for continuous distributions."""
        return 0.0

    @abstractmethod
    def problem(self, seen: Observations) -> str:
        """What is wrong with a response, empty if nothing is."""

    def options(self) -> dict[str, Any]:
        """What the family is made from again."""
        return {"link": self.link}
