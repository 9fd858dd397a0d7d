"""What is written out for one or two effects: the same as the general way, or as its definition."""

from __future__ import annotations

import numpy as np
import pytest

from lmmsparse.engine.covariance.structures import Unstructured
from lmmsparse.engine.covariance.triangular import directions, lower_triangular
from lmmsparse.engine.linalg import inverse_factors, small_product
from lmmsparse.engine.traces import Border, at_once, sandwiches, traces_of_levels


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e6])
def test_triangular_factor_of_two(scale: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        A = rng.normal(size=(2, 2)) * [[scale], [1.0]]
        T = lower_triangular(A)
        np.testing.assert_allclose(T @ T.T, A @ A.T, rtol=1e-12)
        assert T[0, 1] == 0.0
        assert np.diag(T).min() >= 0.0
        wide = lower_triangular(np.column_stack([A, np.zeros(2)]))  # the general way
        np.testing.assert_allclose(T, wide, rtol=1e-9)


def test_triangular_factor_of_a_zero_row() -> None:
    A = np.array([[0.0, 0.0], [3.0, -4.0]])
    np.testing.assert_allclose(lower_triangular(A) @ lower_triangular(A).T, A @ A.T)


@pytest.mark.parametrize("T", [[2, 0.5, 1], [0, 0, 3], [1e-9, 2, 0], [0, 1, 0], [0, 0, 0]])
def test_directions_of_two(T: list[float]) -> None:
    """Orthonormal, and at right angles to the rotation of T."""
    full = Unstructured(2).factor(np.array(T, dtype=float))
    D = directions(full).reshape(3, 4)
    np.testing.assert_allclose(D @ D.T, np.eye(3), atol=1e-14)
    rotation = (full @ [[0.0, -1.0], [1.0, 0.0]]).ravel()
    np.testing.assert_allclose(D @ rotation, 0.0, atol=1e-14)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_inverse_factors(k: int) -> None:
    Z = np.random.default_rng(k).normal(size=(7, k + 2, k))
    M = np.swapaxes(Z, 1, 2) @ Z
    L = np.linalg.cholesky(M)
    inverse, logdet = inverse_factors(M.transpose(1, 2, 0).copy())
    np.testing.assert_allclose(inverse.transpose(2, 0, 1), np.linalg.inv(L), atol=1e-12)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(M)[1], rtol=1e-12)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("p", [0, 1, 3])
@pytest.mark.parametrize("w", [1, 2, 3])
def test_all_at_once(w: int, p: int, reml: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmsparse.engine.traces._AT_ONCE", 4)  # so that there are two parts
    rng = np.random.default_rng(w + 10 * p)
    levels, d = 6, w * (w + 1) // 2
    T, D = np.tril(rng.normal(size=(w, w))), rng.normal(size=(d, w, w))
    H = rng.normal(size=(w, w, levels))
    H = H + H.swapaxes(0, 1)
    X = np.einsum("abl,bc->acl", H, T)
    inner = np.array([H, X, np.einsum("ba,bcl->acl", T, X)])
    A = rng.normal(size=(w, p + 1, levels))
    ends = np.array([A, np.einsum("ba,bpl->apl", T, A)])
    slopes, squares, traces = at_once(inner, ends, reml, D)
    v, u = ends[:, :, -1]
    E = D @ T.T
    E = E + E.swapaxes(1, 2)
    np.testing.assert_allclose(slopes, np.einsum("al,iab,bl->i", v, E, v), rtol=1e-10)
    pairs = np.array([u[:, None] * u, 2.0 * v[:, None] * u, v[:, None] * v])
    taken = np.einsum("apl,iab,bl->ip", A[:, :p], E, v)
    want = sandwiches(inner, pairs, D) - taken @ taken.T
    np.testing.assert_allclose(squares, want, rtol=1e-9, atol=1e-11)
    border = Border(*ends[:, :, :p]) if reml else None
    np.testing.assert_allclose(traces, traces_of_levels(inner, border, D), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("levels", [7, 8_000, 20_001])
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 2, 5), (3, 4, 2)])
def test_products_of_small_matrices(shape: tuple[int, int, int], levels: int) -> None:
    k, inner, m = shape
    rng = np.random.default_rng(levels)
    A, B = rng.normal(size=(k, inner, levels)), rng.normal(size=(inner, m, levels))
    wanted = np.einsum("ijl,jkl->ikl", A, B)
    np.testing.assert_allclose(small_product(A, B), wanted, rtol=1e-12, atol=1e-13)
    out = np.empty((k, m, levels))
    assert small_product(A, B, out) is out or np.shares_memory(small_product(A, B, out), out)
    np.testing.assert_allclose(out, wanted, rtol=1e-12, atol=1e-13)
