"""Bootstraps and profiles → what ArviZ reads, to use its tables and plots.

Neither is a sample from a posterior distribution. ArviZ has no other name for it, which is why the
group is called so.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.curves import monotone
from lmmsparse.common.distributions import normal_quantile
from lmmsparse.common.errors import DataError, MissingPackageError, OptionError
from lmmsparse.common.options import whole_number
from lmmsparse.inference.intervals.bootstrap import Bootstrap
from lmmsparse.inference.intervals.profile.profile import Profile

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about a later version
        import arviz
except ImportError as error:
    raise MissingPackageError(
        f"lmmsparse.interop.arviz cannot be used ({error}). Run: pip install arviz"
    ) from error


@checked_keywords
def to_arviz(result: Bootstrap | Profile, n: int = 1000) -> Any:
    """Make a bootstrap or a profile readable by ArviZ.

    Parameters
    ----------
    result : Bootstrap or Profile
        From `LinearMixedModel.bootstrap` or `LinearMixedModel.profile`.
    n : int
        For a profile, how many quantiles stand for a curve.

    Returns
    -------
    InferenceData
        With one chain. Of a bootstrap every replicate that did not fail is a draw; correlations of
        effects without variance are NaN in it. Of a profile the draws are the (i − ½)/n quantiles
        of each parameter's confidence distribution Φ(zeta): intervals are those of the profile, but
        parameters are not drawn jointly.

    Raises
    ------
    OptionError
        For anything else.
    DataError
        If every replicate failed.

    References
    ----------
    Xie & Singh (2013), International Statistical Review 81, 3–39, for confidence distributions.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> from lmmsparse.interop.arviz import to_arviz
    >>> m = lmm.lmer("Yield ~ (1 | Batch)", lmm.load_dataset("Dyestuff"))
    >>> to_arviz(m.bootstrap(100, rng=1)).posterior["sigma"].shape
    (1, 100)
    """
    n = whole_number("n", n)
    if isinstance(result, Bootstrap):
        draws = result.to_frame().drop(index=result.failures.index)
        if draws.empty:
            raise DataError("All replicates of the bootstrap failed. Look at its failures.")
        values = {str(name): draws[name].to_numpy() for name in draws}
        sampler = "bootstrap"
    elif isinstance(result, Profile):
        points = result.to_frame().groupby("parameter", sort=False)
        values = {str(name): _quantiles(curve, int(n)) for name, curve in points}
        sampler = "profile"
    else:
        raise OptionError(
            "to_arviz() takes what m.bootstrap() and m.profile() return, not a "
            f"{type(result).__name__}."
        )
    posterior = {name: column[None] for name, column in values.items()}
    attributes = {"inference_library": "lmmsparse", "sampler": sampler}
    return arviz.from_dict(posterior=posterior, posterior_attrs=attributes)


def _quantiles(curve: pd.DataFrame, n: int) -> FloatArray:
    """Values at which zeta has the normal quantiles; constant beyond the ends of the curve."""
    z = normal_quantile((np.arange(n) + 0.5) / n)
    zeta, first = np.unique(curve["zeta"].to_numpy(), return_index=True)
    value = curve["value"].to_numpy()[first]
    if len(zeta) < 2:
        return np.full(n, value[0])
    return np.asarray(monotone(zeta, value)(np.clip(z, zeta[0], zeta[-1])))
