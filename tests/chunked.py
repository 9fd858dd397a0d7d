"""Data with two crossed factors, a slope, text and categories, as tests of chunks need them."""

from __future__ import annotations

import numpy as np
import pandas as pd

import lmmsparse as lmm

FORMULA = "y ~ x + f * k + (1 + x | g) + (1 | h)"
CHUNKS = lmm.Chunks(rows=400, processes=1)


def crossed(n: int = 6000, groups: int = 150, seed: int = 3) -> pd.DataFrame:
    """Rows in no order: 150 groups with slopes crossed with 30 texts."""
    r = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": r.normal(5, 2, n),
            "g": r.integers(0, groups, n) * 7 + 1003,
            "h": [f"item {i}" for i in r.integers(0, 30, n)],
            "f": r.choice(list("cab"), n, p=[0.6, 0.39, 0.01]),
            "k": pd.Categorical(r.choice(["q", "p"], n), categories=["q", "p", "never"]),
            "w": r.uniform(0.5, 2.0, n),
            "o": r.normal(size=n),
        }
    )
    effects = r.normal(size=(groups, 2)) * [1.0, 0.3]
    g = (data["g"].to_numpy() - 1003) // 7
    items = r.normal(size=30)[data["h"].str[5:].astype(int)]
    means = data["f"].map({"a": 0.2, "b": 0.5, "c": 0.0})
    slopes = effects[g, 0] + effects[g, 1] * data["x"]
    data["y"] = 0.4 * data["x"] + slopes + items + means + r.normal(size=n)
    return data


def same_fit(model: lmm.LinearMixedModel, reference: lmm.LinearMixedModel, tol: float = 1e-11):
    """The criterion, β and R_X at one θ; names, levels and findings."""
    a, b = model.fit, reference.fit
    theta = b.theta
    assert np.isclose(a.objective(theta), b.objective(theta), rtol=tol, atol=0.0)
    roots = []
    for fit in (a, b):
        solution = fit.objective.modes(theta).solution
        beta = fit.products.basis.coefficients(fit.objective.response.beta0 + solution.beta)
        roots.append((beta, np.abs(solution.RX @ fit.products.basis.R)))
    np.testing.assert_allclose(roots[0][0], roots[1][0], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(roots[0][1], roots[1][1], atol=1e-9 * roots[1][1].max(initial=0))
    assert a.design.x_names == b.design.x_names
    assert a.design.dropped == b.design.dropped
    for own, other in zip(a.design.blocks, b.design.blocks, strict=True):
        assert own.names == other.names
        assert own.source == other.source
        assert own.levels.tolist() == other.levels.tolist()
    assert [f.message for f in model.convergence.findings if f.code[:5] != "read-"] == [
        f.message for f in reference.convergence.findings if f.code[:5] != "read-"
    ]
    np.testing.assert_allclose(a.theta, theta, atol=1e-5)
