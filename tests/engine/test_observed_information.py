"""Second derivatives where T is large: the traces and squares against their definition."""

from __future__ import annotations

import numpy as np
import pytest

from lmmsparse.engine.traces import Border, sandwiches, traces_of_levels


def _levels(
    w: int, levels: int, p: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Border]:
    """T, H and A of some levels with what follows from them."""
    rng = np.random.default_rng(seed)
    T = np.tril(rng.normal(size=(w, w)))
    H = rng.normal(size=(w, w, levels))
    H = H + H.swapaxes(0, 1)
    A = rng.normal(size=(w, p, levels))
    X = np.einsum("abl,bc->acl", H, T)
    inner = np.array([H, X, np.einsum("ba,bcl->acl", T, X)])
    return T, H, A, inner, Border(A, np.einsum("ba,bpl->apl", T, A))


@pytest.mark.parametrize("p", [None, 0, 2])
@pytest.mark.parametrize("d", [1, 3, 4, 9])
def test_traces_of_levels(d: int, p: int | None) -> None:
    """With fewer parameters than effects (d < 4) and with more: two ways to sum."""
    w, levels = 4, 5
    T, H, A, inner, border = _levels(w, levels, p or 0, d)
    D = np.random.default_rng(d).normal(size=(d, w, w))
    E = D @ T.T
    E = E + E.swapaxes(1, 2)
    # All levels in one matrix: the part of X couples them.
    N = np.zeros((levels * w, levels * w))
    for level in range(levels):
        at = slice(level * w, (level + 1) * w)
        N[at, at] = H[:, :, level]
    flat = A.transpose(2, 0, 1).reshape(levels * w, -1)
    N -= flat @ flat.T
    moved = [np.kron(np.eye(levels), each) @ N for each in E]
    want = [[np.trace(a @ b) for b in moved] for a in moved]
    found = traces_of_levels(inner, None if p is None else border, D)
    np.testing.assert_allclose(found, want, rtol=1e-10)


def test_sandwiches() -> None:
    w, levels, d = 3, 4, 5
    T, H, _, inner, _ = _levels(w, levels, 0, 8)
    rng = np.random.default_rng(9)
    D, v = rng.normal(size=(d, w, w)), rng.normal(size=(w, levels))
    E = D @ T.T
    Ev = (E + E.swapaxes(1, 2)) @ v
    want = np.einsum("ial,abl,jbl->ij", Ev, H, Ev)
    u = T.T @ v
    pairs = np.array([u[:, None] * u, 2.0 * v[:, None] * u, v[:, None] * v])
    np.testing.assert_allclose(sandwiches(inner, pairs, D), want, rtol=1e-12)
