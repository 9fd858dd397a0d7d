"""The sums of all rows → the cross-products that the engine works on, and facts about the rows.

Cholesky QR with the triangular factor of the sample as preconditioner: Q̃'WQ̃ is nearly the identity,
times a number, so that one pass has the digits of an orthonormalization in memory.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.linalg import solve_triangular

from lmmsparse.chunks.plan import Coordinates, Plan
from lmmsparse.chunks.sums import Sums
from lmmsparse.common.arrays import FloatArray
from lmmsparse.design.facts import Facts
from lmmsparse.engine.columns import Basis
from lmmsparse.engine.pair_blocks import PairBlocks
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response

_WORST = 1e4


def better_coordinates(sums: Sums, coordinates: Coordinates) -> Coordinates | None:
    """Coordinates for another pass; None where those of the sample have kept all digits."""
    G = sums.G
    if not len(G):
        return None
    values = np.linalg.eigvalsh(G)
    if values[0] > 0 and values[-1] <= _WORST * values[0]:
        return None
    lift = max(float(values[-1]) * 1e-15 * len(G), 1e-300)
    step: FloatArray = np.asarray(np.linalg.cholesky(G + lift * np.eye(len(G))).T)
    moved = _back(step, sums.g)
    return Coordinates(coordinates.A, step @ coordinates.R, step @ coordinates.gamma + moved)


def _back(R: FloatArray, b: FloatArray) -> FloatArray:
    """R⁻ᵀ b."""
    return np.asarray(solve_triangular(R, b, trans="T")) if len(R) else b


def finished(sums: Sums, plan: Plan, systematic: int, read: int) -> Facts:
    """The cross-products in orthonormal columns, and what else is known."""
    coordinates, p = plan.coordinates, len(sums.G)
    step: FloatArray = np.asarray(np.linalg.cholesky(sums.G).T) if p else sums.G
    s = _back(step, sums.g)
    root = np.triu(step @ coordinates.root)  # but for rounding it is
    logdet = float(2.0 * np.log(np.diag(root)).sum())
    beta0 = step @ coordinates.gamma + s
    ZtX, Zty = [], []
    for columns, Ze in zip(sums.ZtQ, sums.Zte, strict=True):
        k, levels = Ze.shape
        by_level = columns.reshape(k, p, levels).transpose(2, 0, 1).reshape(levels * k, p)
        own = _back(step, by_level.T).T if p else by_level
        ZtX.append(own)
        Zty.append(Ze.T.ravel() - own @ s)
    lengths = [len(part) for part in Zty]
    n = int(sums.numbers["n"])
    products = CrossProducts(
        pairs=tuple(_pairs(sums, plan)),
        ZtX=np.concatenate(ZtX),
        XtX=np.eye(p),
        offsets=tuple(int(v) for v in np.cumsum([0, *lengths])),
        sizes=plan.sizes,
        n=n,
        sum_log_weights=sums.numbers["log_w"],
        basis=Basis(R=root, logdet=logdet),
    )
    response = Response(
        Zty=np.concatenate(Zty),
        Xty=np.zeros(p),
        yty=float(sums.h - s @ s),
        beta0=beta0,
    )
    return replace(_facts(sums, plan, products, response, systematic), read=read)


def _pairs(sums: Sums, plan: Plan) -> list[PairBlocks]:
    out = []
    for s in range(len(plan.sizes)):
        for t in range(s + 1):
            shape = (plan.sizes[s], plan.sizes[t])
            if (s, t) in sums.own:
                values = sums.own.pop((s, t)).T.reshape(-1, *shape).copy()
                if s == t:
                    i, j = np.triu_indices(shape[0], 1)
                    values[:, i, j] = values[:, j, i]
                levels = np.arange(len(values), dtype=np.int32)
                out.append(PairBlocks(s, t, levels, levels, values))
            else:
                rows, cols, flat = sums.cells.pop((s, t)).met()
                out.append(PairBlocks(s, t, rows, cols, flat.reshape(-1, *shape)))
    return out


def _facts(
    sums: Sums, plan: Plan, products: CrossProducts, response: Response, systematic: int
) -> Facts:
    found, c = sums.numbers, plan.center
    n, weighted = found["n"], plan.question.weights is not None
    mean = found["y"] / n
    root = products.basis.R
    step = plan.coordinates.root
    if weighted and len(root):
        root = np.triu(np.linalg.cholesky(sums.plain).T @ step)
    grams = []
    for t, S in enumerate(plan.shifts):
        G = sums.grams[t]
        if not weighted:
            own = next(pair for pair in products.pairs if pair.s == pair.t == t)
            G = own.values.sum(axis=0)
        grams.append(G if S is None else S.T @ G @ S)
    return Facts(
        products=products,
        response=response,
        n=int(n),
        read=int(n),
        low=found["low"],
        high=found["high"],
        spread=found["wyy"] - 2.0 * mean * found["wy"] + mean**2 * found["w"],
        size=found["wyy"] + 2.0 * c * found["wy"] + c**2 * found["w"],
        mean_offset=found["offset"] / n,
        mean_inverse_weight=found["inverse_w"] / n,
        between=_between(sums),
        variance=(found["raw2"] - found["raw"] ** 2 / n) / max(n - 1.0, 1.0),
        R=root,
        sums=step.T @ sums.ones if len(root) else sums.ones,
        grams=tuple(grams),
        systematic=systematic,
        cells=_cells(sums, plan),
    )


def _between(sums: Sums) -> tuple[float, ...] | None:
    if not sums.counts:
        return None
    out = []
    for t, counts in sums.counts.items():
        means = sums.totals[t] / np.maximum(counts, 1.0)
        n = counts.sum()
        middle = float(counts @ means) / n
        out.append(float(counts @ (means - middle) ** 2) / max(n - 1.0, 1.0))
    return tuple(out)


def _cells(sums: Sums, plan: Plan) -> dict[tuple[str, ...], FloatArray]:
    if not plan.cells:
        return {}
    shape = [len(levels) for levels in plan.cells.values()]
    return {tuple(plan.cells): sums.combinations.reshape(shape)}
