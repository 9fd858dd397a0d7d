"""The distributions against scipy's, and against known values at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lmmsparse.common import distributions

DF = np.array([0.3, 1.0, 2.5, 17.0, 161.0, 1e5, np.inf])
SHARES = np.array([1e-12, 0.01, 0.5, 0.6, 0.975, 1 - 1e-9])


@pytest.mark.parametrize("x", [-3.0, 0.0, 0.1, 2.0, 6.77, 30.0])
def test_normal_and_t(x: float) -> None:
    np.testing.assert_allclose(distributions.normal_cdf(x), stats.norm.cdf(x), rtol=1e-13)
    np.testing.assert_allclose(distributions.t_tail(x, DF), stats.t.sf(x, DF), rtol=1e-10)


def test_quantiles() -> None:
    np.testing.assert_allclose(
        distributions.normal_quantile(SHARES), stats.norm.ppf(SHARES), rtol=1e-13, atol=1e-15
    )
    for df in DF:
        np.testing.assert_allclose(
            distributions.t_quantile(SHARES, df), stats.t.ppf(SHARES, df), rtol=1e-8, atol=1e-12
        )


@pytest.mark.parametrize("x", [0.0, 0.2, 3.0, 50.0, 900.0])
def test_F_and_chi_square(x: float) -> None:
    np.testing.assert_allclose(
        distributions.f_tail(x, 3.0, DF[:-1]), stats.f.sf(x, 3.0, DF[:-1]), rtol=1e-10
    )
    np.testing.assert_allclose(
        distributions.chi2_tail(x, DF[:-1]), stats.chi2.sf(x, DF[:-1]), rtol=1e-10
    )
    assert distributions.f_tail(x, 3.0, np.inf) == pytest.approx(stats.chi2.sf(3 * x, 3))


def test_quantiles_of_chi_square_undo_its_tail() -> None:
    for df in (0.4, 1.0, 2.0, 7.5, 40.0):
        x = distributions.chi2_quantile(SHARES[1:], df)
        np.testing.assert_allclose(x, stats.chi2.ppf(SHARES[1:], df), rtol=1e-7)


def test_beta_and_normal_density() -> None:
    a, b, x = np.array([0.5, 3.0, 90.0]), np.array([2.0, 40.0, 1.0]), np.array([0.1, 0.5, 0.99])
    np.testing.assert_allclose(distributions.beta_cdf(x, a, b), stats.beta.cdf(x, a, b), rtol=1e-12)
    np.testing.assert_allclose(
        distributions.beta_quantile(x, a, b), stats.beta.ppf(x, a, b), rtol=1e-10
    )
    np.testing.assert_allclose(distributions.normal_density(x), stats.norm.pdf(x), rtol=1e-14)


def test_studentized_range() -> None:
    p = distributions.studentized_range_tail([3.5, np.nan, 3.5], 4, [20.0, 20.0, np.inf])
    assert p[0] == pytest.approx(stats.studentized_range.sf(3.5, 4, 20.0))
    assert np.isnan(p[1])
    assert p[2] == pytest.approx(stats.studentized_range.sf(3.5, 4, np.inf))


def test_edges() -> None:
    assert distributions.chi2_tail(-1e-15, 1.0) == 1.0
    assert distributions.f_tail(-1e-15, 1.0, 5.0) == 1.0
    assert np.isnan(distributions.chi2_tail(np.nan, 1.0))
    assert np.isnan(distributions.t_tail(1.0, np.nan))
    assert np.isnan(distributions.f_tail(np.nan, 2.0, 5.0))


@pytest.mark.parametrize("df", [1.0, 1.7, 3.0, 12.5, 49.0, 60.0, 1e4, np.inf])
def test_studentized_range_of_two_is_t(df: float) -> None:
    q = np.array([0.5, 3.3, 6.0])
    two = 2.0 * distributions.t_tail(q / np.sqrt(2.0), df)
    np.testing.assert_allclose(distributions.studentized_range_tail(q, 2, df), two, rtol=1e-10)
    for means in (2, 5):
        at = distributions.studentized_range_quantile(0.95, means, df)
        tail = distributions.studentized_range_tail(at, means, df)
        assert float(tail) == pytest.approx(0.05, rel=1e-9)
    assert np.isnan(distributions.studentized_range_quantile(0.95, 3, [np.nan])).all()
