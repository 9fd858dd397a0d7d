"""The traces tr(P V_i P V_j) of one grouping factor against their definition, level by level."""

from __future__ import annotations

import numpy as np
import pytest

from lmmsparse.observed_information import traces_of_levels


@pytest.mark.parametrize("p", [None, 0, 2])
@pytest.mark.parametrize("d", [1, 3, 4, 9])
def test_traces_of_levels(d: int, p: int | None) -> None:
    """With fewer parameters than effects (d < 4) and with more: two ways to sum."""
    w, levels = 4, 5
    rng = np.random.default_rng(d)
    K = rng.normal(size=(w, w, levels))
    K = K + K.swapaxes(0, 1)
    E = rng.normal(size=(d, w, w))
    E = E + E.swapaxes(1, 2)
    A = None if p is None else rng.normal(size=(w, p, levels))
    # All levels in one matrix: the part of X couples them.
    N = np.zeros((levels * w, levels * w))
    for level in range(levels):
        at = slice(level * w, (level + 1) * w)
        N[at, at] = K[:, :, level]
    if A is not None:
        border = A.transpose(2, 0, 1).reshape(levels * w, -1)
        N -= border @ border.T
    moved = [np.kron(np.eye(levels), each) @ N for each in E]
    want = [[np.trace(a @ b) for b in moved] for a in moved]
    np.testing.assert_allclose(traces_of_levels(K, A, E), want, rtol=1e-10)
