"""ArviZ, and what is said where a package is absent."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from bridged import bridged
from scipy import stats

import lmmsparse as lmm
from lmmsparse.common.errors import OptionError


def dyestuff() -> lmm.LinearMixedModel:
    return lmm.lmer("Yield ~ (1 | Batch)", lmm.load_dataset("Dyestuff"))


def test_nothing_is_imported_unasked_and_absent_packages_are_named() -> None:
    packages = ["arviz", "marginaleffects", "sklearn"]
    code = f"""
import importlib, sys
import lmmsparse as lmm
print(set({packages}) & {{*sys.modules}})
for package in {packages}:
    sys.modules[package] = None
    try:
        importlib.import_module(f"lmmsparse.interop.{{package}}")
    except lmm.MissingPackageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, *errors = done.stdout.splitlines()
    assert imported == "set()"
    for package, error in zip(packages, errors, strict=True):
        assert f"lmmsparse.interop.{package} cannot be used" in error
        assert "pip install" in error


def test_arviz_reads_a_bootstrap() -> None:
    arviz = bridged("arviz")
    from lmmsparse.interop.arviz import to_arviz

    replicates = dyestuff().bootstrap(60, rng=1)
    data = to_arviz(replicates)
    np.testing.assert_array_equal(data.posterior["sigma"][0], replicates.to_frame()["sigma"])
    table = arviz.summary(data, kind="stats")
    assert table.index.tolist() == replicates.original.index.tolist()
    assert table["mean"]["sigma"] == pytest.approx(replicates.to_frame()["sigma"].mean(), abs=1e-3)


def test_arviz_gets_replicates_in_which_a_correlation_is_not_determined() -> None:
    bridged("arviz")
    from lmmsparse.interop.arviz import to_arviz

    rng = np.random.default_rng(2)
    g, x = np.repeat(np.arange(8), 6), np.tile(np.arange(6.0), 8)
    y = 0.5 * rng.normal(size=8)[g] + 0.2 * rng.normal(size=8)[g] * x + rng.normal(size=48)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        model = lmm.lmer("y ~ x + (x | g)", {"y": y, "x": x, "g": g})
    replicates = model.bootstrap(200, rng=1)
    frame = replicates.to_frame()
    assert frame["cor_x.Intercept|g"].isna().any()
    posterior = to_arviz(replicates).posterior
    np.testing.assert_array_equal(posterior["sd_x|g"][0], frame["sd_x|g"])


def test_arviz_reads_a_profile() -> None:
    bridged("arviz")
    from lmmsparse.interop.arviz import to_arviz

    profile = dyestuff().profile()
    data = to_arviz(profile, n=4000)
    for level in (0.5, 0.8, 0.95):
        want = profile.confint(level)
        for name in want.index:
            tails = [0.5 - level / 2, 0.5 + level / 2]
            got = np.quantile(data.posterior[name], tails)
            np.testing.assert_allclose(got, want.loc[name], rtol=3e-3)
    zero = float((data.posterior["sd_Intercept|Batch"] == 0).mean())
    frame = profile.to_frame()
    lowest = frame.loc[frame["parameter"] == "sd_Intercept|Batch", "zeta"].min()
    assert zero == pytest.approx(stats.norm.cdf(lowest), abs=1e-3)


def test_arviz_gets_nothing_else() -> None:
    bridged("arviz")
    from lmmsparse.interop.arviz import to_arviz

    with pytest.raises(OptionError, match=r"m\.bootstrap"):
        to_arviz(dyestuff())
    with pytest.raises(OptionError, match="n must"):
        to_arviz(dyestuff().profile("sigma"), n=0)
