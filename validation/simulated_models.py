"""Kind and seed → formula and data: simulated models that are hard on a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]
Rng = np.random.Generator


@dataclass(frozen=True)
class Model:
    """What `lmmsparse.lmer` is to be given.

    `zero_start`: the search starts with all variances at zero.
    """

    kind: str
    seed: int
    formula: str
    data: pd.DataFrame
    reml: bool
    weights: str | None = None
    zero_start: bool = False


def simulated(per_kind: int) -> Iterator[Model]:
    """`per_kind` models of every kind, REML and ML in turn."""
    for number, (kind, make) in enumerate(KINDS.items()):
        for seed in range(per_kind):
            rng = np.random.default_rng([number, seed])
            formula, data = make(rng, seed)
            weights = "w" if "w" in data else None
            reml = seed % 2 == 0
            yield Model(kind, seed, formula, data, reml, weights, kind == "start at zero")


def _effects(rng: Rng, T: Array, codes: Codes, columns: Array) -> Array:
    """A term's contribution to the response: effects T z per level, z standard normal."""
    b = rng.normal(size=(codes.max() + 1, len(T))) @ T.T
    return np.asarray((b[codes] * columns).sum(axis=1))


def _factor(rng: Rng, k: int, rank: int | None = None) -> Array:
    """A random k × k covariance factor, of lower rank where wanted."""
    T = np.tril(rng.normal(size=(k, k)))
    T[np.diag_indices(k)] = rng.uniform(0.3, 1.5, size=k)
    if rank is not None:
        T[:, rank:] = 0.0
    return T


def _slopes(rng: Rng, groups: int, rows: int, k: int, T: Array, sigma: float = 1.0) -> pd.DataFrame:
    """One factor, balanced, intercept and k − 1 slopes."""
    g = np.repeat(np.arange(groups), rows)
    data = pd.DataFrame({"g": g})
    columns = np.ones((len(g), k))
    for j in range(1, k):
        columns[:, j] = rng.normal(size=len(g))
        data[f"x{j}"] = columns[:, j]
    data["y"] = 1.0 + _effects(rng, T, g, columns) + rng.normal(scale=sigma, size=len(g))
    return data


def _slope_formula(k: int) -> str:
    right = " + ".join(["1", *(f"x{j}" for j in range(1, k))])
    return f"y ~ {right} + ({right} | g)"


def _single_factor(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    k = 1 + seed % 4
    groups, rows = int(rng.integers(8, 60)), int(rng.integers(k + 2, 15))
    return _slope_formula(k), _slopes(rng, groups, rows, k, _factor(rng, k))


def _singular(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    k = 2 + seed % 3
    T = _factor(rng, k, rank=int(rng.integers(0, k)))
    groups, rows = int(rng.integers(6, 40)), int(rng.integers(k + 1, 12))
    return _slope_formula(k), _slopes(rng, groups, rows, k, T)


def _near_singular(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    k = 2 + seed % 2
    T = _factor(rng, k)
    T[-1, -1] = 10.0 ** rng.uniform(-3, -1)
    return _slope_formula(k), _slopes(rng, int(rng.integers(20, 120)), 10, k, T)


def _zero_variance(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    """Crossed intercepts of which at least one has no variance."""
    n = int(rng.integers(60, 300))
    data = pd.DataFrame({name: rng.integers(0, 4 + 5 * i, n) for i, name in enumerate("abc")})
    sd = rng.uniform(0.3, 1.0, 3) * (rng.random(3) < 0.5)
    sd[int(rng.integers(3))] = 0.0
    data["y"] = rng.normal(size=n)
    for scale, name in zip(sd, "abc", strict=True):
        data["y"] += scale * rng.normal(size=20)[data[name]]
    terms = " + ".join(f"(1 | {name})" for name in "abc"[: 1 + seed % 3])
    return f"y ~ 1 + {terms}", data


def _bad_scales(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    k = 2 + seed % 2
    data = _slopes(rng, int(rng.integers(10, 40)), 8, k, _factor(rng, k))
    for j in range(1, k):
        data[f"x{j}"] *= 10.0 ** rng.integers(-9, 10)
        if seed % 4 == 3:
            data[f"x{j}"] += 30.0 * data[f"x{j}"].std()
    data["y"] = data["y"] * 10.0 ** rng.integers(-6, 7) + 10.0 ** rng.integers(-3, 4)
    return _slope_formula(k), data


def _tiny(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    """3 to 6 levels, 8 to 30 rows."""
    levels = int(rng.integers(3, 7))
    n = int(rng.integers(max(8, 2 * levels + 1), 31))
    g = np.concatenate([np.arange(levels), rng.integers(0, levels, n - levels)])
    h = np.concatenate([np.arange(3), rng.integers(0, 3, n - 3)])
    x = rng.normal(size=n)
    columns = np.column_stack([np.ones(n), x])
    y = _effects(rng, _factor(rng, 2), g, columns) + rng.normal(size=n)
    data = pd.DataFrame({"y": y, "x": x, "g": g, "h": h})
    formulas = (
        "y ~ 1 + (1 | g)",
        "y ~ x + (x | g)",
        "y ~ x + (1 | g) + (1 | h)",
        "y ~ 1 + (x | g)",
        "y ~ x + (0 + x | g) + (1 | g)",
    )
    return formulas[seed % 5], data


def _nested(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    a = np.repeat(np.arange(int(rng.integers(4, 12))), int(rng.integers(8, 25)))
    b = rng.integers(0, 4, len(a))
    x = rng.normal(size=len(a))
    columns = np.column_stack([np.ones(len(a)), x])
    y = _effects(rng, _factor(rng, 2, rank=int(rng.integers(3))), a, columns)
    y += _effects(rng, _factor(rng, 2, rank=int(rng.integers(3))), 4 * a + b, columns)
    data = pd.DataFrame({"a": a, "b": b, "x": x, "y": y + rng.normal(size=len(a))})
    return ("y ~ x + (1 | a/b)", "y ~ x + (x | a/b)")[seed // 2 % 2], data


def _crossed(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    n = int(rng.integers(100, 800))
    a, b = rng.integers(0, 30, n), rng.integers(0, 12, n)
    sd = 10.0 ** rng.uniform(-1.5, 0.7, 2)
    y = sd[0] * rng.normal(size=30)[a] + sd[1] * rng.normal(size=12)[b] + rng.normal(size=n)
    x = rng.normal(size=n)
    data = pd.DataFrame({"a": a, "b": b, "x": x, "y": y + x * rng.normal(scale=0.4, size=12)[b]})
    return ("y ~ x + (1 | a) + (1 | b)", "y ~ x + (1 | a) + (x | b)")[seed // 2 % 2], data


def _maximal(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    """Subjects by items with all slopes: 9, 12 or 20 parameters, often singular."""
    subjects, items = int(rng.integers(12, 30)), int(rng.integers(8, 20))
    s, i = np.repeat(np.arange(subjects), items), np.tile(np.arange(items), subjects)
    A, B = rng.choice([-0.5, 0.5], len(s)), rng.choice([-0.5, 0.5], len(s))
    size = (2, 3, 4)[seed % 3]
    columns = np.column_stack([np.ones(len(s)), A, B, A * B])
    y = rng.normal(size=len(s))
    for codes in (s, i):
        y += _effects(rng, 0.6 * _factor(rng, 4, rank=int(rng.integers(1, 5))), codes, columns)
    data = pd.DataFrame({"s": s, "i": i, "A": A, "B": B, "y": y})
    effects = ("A", "A + B", "A * B")[size - 2]
    other = "A + B" if size == 2 else effects
    return f"y ~ A * B + ({effects} | s) + ({other} | i)", data


def _weights(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    k = 1 + seed % 3
    data = _slopes(rng, int(rng.integers(6, 30)), 8, k, _factor(rng, k, rank=k - seed % 2))
    data["w"] = 10.0 ** rng.uniform(-2, 2, len(data))
    return _slope_formula(k), data


def _huge_ratio(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    """Random effects a thousand times the residual."""
    k = 1 + seed % 3
    sigma = 10.0 ** rng.uniform(-3.3, -2.3)
    return _slope_formula(k), _slopes(rng, int(rng.integers(6, 40)), 8, k, _factor(rng, k), sigma)


def _sparse_levels(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    """Hundreds of levels with one or two rows."""
    levels = int(rng.integers(50, 300))
    g = np.concatenate([np.arange(levels), rng.choice(levels, levels // 2, replace=False)])
    h = rng.integers(0, 9, len(g))
    sd = rng.uniform(0.0, 1.0, 2)
    y = sd[0] * rng.normal(size=levels)[g] + sd[1] * rng.normal(size=9)[h] + rng.normal(size=len(g))
    data = pd.DataFrame({"y": y, "x": rng.normal(size=len(g)), "g": g, "h": h})
    formulas = ("y ~ x + (1 | g)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + (1 | g) + (x | h)")
    return formulas[seed % 3], data


def _unbalanced(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    """One level holds most rows."""
    sizes = np.ceil(300 / np.arange(1, int(rng.integers(6, 30))) ** 2).astype(int)
    g = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(size=len(g)) + 0.5 * g
    T = _factor(rng, 2, rank=int(rng.integers(3)))
    y = _effects(rng, T, g, np.column_stack([np.ones(len(g)), x])) + rng.normal(size=len(g))
    data = pd.DataFrame({"y": y, "x": x, "g": g})
    return ("y ~ x + (1 | g)", "y ~ x + (x | g)")[seed // 2 % 2], data


def _start_at_zero(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    return (_singular, _single_factor, _crossed, _nested)[seed % 4](rng, seed)


def _factor_slopes(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    levels = 2 + seed % 3
    g = np.repeat(np.arange(int(rng.integers(6, 25))), 4 * levels)
    f = np.tile(np.arange(levels), len(g) // levels)
    rank = int(rng.integers(1, levels + 1))
    y = _effects(rng, _factor(rng, levels, rank), g, np.eye(levels)[f]) + rng.normal(size=len(g))
    data = pd.DataFrame({"y": y, "f": pd.Categorical(f), "g": g})
    return ("y ~ f + (0 + f | g)", "y ~ f + (f | g)")[seed // 2 % 2], data


def _independent(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    """Uncorrelated slopes, some without variance."""
    k = 2 + seed % 3
    T = np.diag(rng.uniform(0.2, 1.0, k) * (rng.random(k) < 0.6))
    data = _slopes(rng, int(rng.integers(6, 40)), 7, k, T)
    right = " + ".join(f"x{j}" for j in range(1, k))
    term = f"({right} || g)" if seed % 2 else f"diag(1 + {right} | g)"
    return f"y ~ {right} + {term}", data


def _no_fixed_part(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    """Large means that only the random effects can take up."""
    k = 2 + seed % 2
    data = _slopes(rng, int(rng.integers(5, 30)), 8, k, _factor(rng, k))
    data["y"] += 10.0 * data["x1"]
    right = " + ".join(f"x{j}" for j in range(1, k))
    return f"y ~ {seed // 2 % 2} + ({right} | g)", data


def _outliers(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    """Long-tailed errors and effects: criteria far from quadratic."""
    k = 1 + seed % 3
    data = _slopes(rng, int(rng.integers(5, 25)), 6, k, _factor(rng, k))
    data["y"] += 3.0 * rng.standard_t(1.2, len(data)) + 5.0 * rng.standard_t(1.2, 30)[data["g"]]
    return _slope_formula(k), data


def _noise(rng: Rng, seed: int) -> tuple[str, pd.DataFrame]:
    """A response that has nothing to do with rich random effects."""
    n = int(rng.integers(60, 200))
    data = pd.DataFrame({"a": rng.integers(0, 8, n), "b": rng.integers(0, 6, n)})
    data["x"], data["z"], data["y"] = rng.normal(size=(3, n))
    formulas = (
        "y ~ x + (x | a) + (x | b)",
        "y ~ x + z + (x + z | a)",
        "y ~ x + (x | a/b)",
        "y ~ x * z + (x * z | a)",
    )
    return formulas[seed % 4], data


KINDS: dict[str, Callable[[Rng, int], tuple[str, pd.DataFrame]]] = {
    "single factor, 1 to 4 effects": _single_factor,
    "singular": _singular,
    "nearly singular": _near_singular,
    "zero variances": _zero_variance,
    "badly scaled": _bad_scales,
    "tiny": _tiny,
    "nested": _nested,
    "crossed": _crossed,
    "crossed maximal": _maximal,
    "weights": _weights,
    "huge variance ratio": _huge_ratio,
    "levels of one or two rows": _sparse_levels,
    "very unbalanced": _unbalanced,
    "start at zero": _start_at_zero,
    "factor slopes": _factor_slopes,
    "independent slopes": _independent,
    "no fixed slope": _no_fixed_part,
    "long tails": _outliers,
    "pure noise": _noise,
}
