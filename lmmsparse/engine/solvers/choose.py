"""Cross-products → which linear algebra to use: a rule that can be read and asked.

Where there is no CHOLMOD, the rule falls back on what needs scipy only, and says so.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import Finding, SlowSolverWarning
from lmmsparse.common.findings import warn
from lmmsparse.common.options import refused
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.solvers.base import PLSSolver
from lmmsparse.engine.solvers.blocked import Blocked
from lmmsparse.engine.solvers.cholmod import Cholmod
from lmmsparse.engine.solvers.libraries import analyze, library
from lmmsparse.engine.solvers.superlu import SuperLU

_SMALL_CORE = 120
_LARGEST_CORE = 6000
_DENSE_ENOUGH = 0.2
_COUNT_UP_TO = 2e7

# Milliseconds of a fit, fitted to those of 118 simulated crossed designs of nine kinds: what
# `cost_terms` gives times these.
_WEIGHTS = {
    "Blocked": np.array([14.0, 1.75e-7, 1e-4, 1.7e-3]),
    "Cholmod": np.array([10.0, 1.5e-7, 2e-3, 2.2e-3, 0.45]),
    "SuperLU": np.array([20.0, 1.1e-5, 3e-3, 9.8e-3, 0.2]),
}


@checked_keywords
def choose_solver(products: CrossProducts) -> PLSSolver:
    """Return the solver used when none is given.

    `Blocked` where what remains after eliminating the largest factor, the core, is small or mostly
    filled. Otherwise the core is ordered and factored once, which tells what `Cholmod` would cost,
    and the cheaper of the two is taken. Where the largest factor has a known covariance, all is
    core.

    Parameters
    ----------
    products : CrossProducts
        The cross-products of the model.

    Returns
    -------
    PLSSolver

    Warns
    -----
    SlowSolverWarning
        If it would be `Cholmod` and neither scikit-sparse nor cvxopt can be used: `SuperLU` or
        `Blocked` takes its place, whichever is cheaper.

    Raises
    ------
    OptionError
        For something else than cross-products.
    """
    if not isinstance(products, CrossProducts):
        raise refused("products", "the cross-products of a model", products, "Pass m.fit.products.")
    solver, stands_in = _choose(products)
    if stands_in:
        _say()
    return solver


def solver_findings(products: CrossProducts, solver: PLSSolver) -> list[Finding]:
    """What there is to say about a solver that stands in for a faster one.

    Parameters
    ----------
    solver : PLSSolver
        The one that was used.
    """
    if library() or not isinstance(solver, (Blocked, SuperLU)):
        return []
    return [Finding("slow-solver", "info", _slower())] if _choose(products)[1] else []


@cache
def _say() -> None:
    """Warn once in the life of a process."""
    warn(_slower(), SlowSolverWarning)


def _slower() -> str:
    return (
        "Neither scikit-sparse nor cvxopt can be used here, so that a large crossed model such as "
        "this one is fitted by slower linear algebra, with the same results. For speed run `pip "
        "install cvxopt`; it needs no compiler (its licence is the GPL). Fastest is scikit-sparse, "
        "which is compiled."
    )


def _choose(products: CrossProducts) -> tuple[PLSSolver, bool]:
    """The solver, and whether it stands in for `Cholmod`."""
    lead, core = products.lead, products.core
    if core <= _SMALL_CORE:
        return Blocked(), False
    graph = core_graph(products, lead)
    if core > _LARGEST_CORE:
        return (Cholmod(), False) if library() else (SuperLU(), True)
    if graph is None or graph.nnz >= _DENSE_ENOUGH * graph.shape[0] ** 2:
        return Blocked(), False
    costs = fit_costs(products, lead, graph)
    if costs["Blocked"] <= costs["Cholmod"]:
        return Blocked(), False
    if library():
        return Cholmod(), False
    return (SuperLU() if costs["SuperLU"] < costs["Blocked"] else Blocked()), True


def core_graph(products: CrossProducts, lead: tuple[int, ...]) -> sp.csc_array | None:
    """Which levels of the core meet once the largest factor is eliminated, symmetric.

    None where finding out would cost more than an evaluation.

    Parameters
    ----------
    lead : tuple of int
        Terms of the largest factor.
    """
    n_levels, known = products.n_levels, products.priors or (None,) * len(products.sizes)
    core = [t for t in range(len(products.sizes)) if t not in lead]
    starts = dict(zip(core, np.cumsum([0, *(n_levels[t] for t in core)]).tolist(), strict=False))
    total = sum(n_levels[t] for t in core)
    graph = sp.csc_array(sp.eye_array(total))
    if lead:
        first = lead[0]
        border = [pair for pair in products.pairs if pair.t == first and pair.s in starts]
        level = np.concatenate([pair.cols for pair in border])
        column = np.concatenate([pair.rows + starts[pair.s] for pair in border])
        met = np.bincount(level, minlength=n_levels[first]).astype(np.float64)
        if float((met**2).sum()) > _COUNT_UP_TO:
            return None
        # Of 0 and 1 in floating point, so that no sum of products is zero.
        Z = sp.csr_array((np.ones(len(level)), (level, column)), shape=(n_levels[first], total))
        graph = sp.csc_array(Z.T @ Z)
    for t in core:
        prior = known[t]
        if prior is not None:
            Q = prior.precision.tocoo()
            at = (Q.row + starts[t], Q.col + starts[t])
            graph = graph + sp.csc_array((np.ones(Q.nnz), at), shape=graph.shape)
    for pair in products.pairs:
        if pair.s in starts and pair.t in starts and pair.s != pair.t:
            at = (pair.rows + starts[pair.s], pair.cols + starts[pair.t])
            own = sp.csc_array((np.ones(len(pair.rows)), at), shape=graph.shape)
            graph = graph + own + own.T
    return graph


def fit_costs(
    products: CrossProducts, lead: tuple[int, ...], graph: sp.csc_array
) -> dict[str, float]:
    """What a fit costs by each solver, in milliseconds of the machine they were fitted on.

    Parameters
    ----------
    lead : tuple of int
        Terms of the largest factor.
    graph : csc_array
        From `core_graph`.
    """
    x = cost_terms(products, lead, graph)
    return {name: float(weights @ x[name]) for name, weights in _WEIGHTS.items()}


def cost_terms(
    products: CrossProducts, lead: tuple[int, ...], graph: sp.csc_array
) -> dict[str, FloatArray]:
    """What the cost of a fit by each solver is linear in; arguments as for `fit_costs`."""
    core = products.core
    width = sum(products.sizes[t] for t in lead)
    per_level = core / graph.shape[0]
    border = sum(
        pair.values.size for pair in products.pairs if (pair.s in lead) != (pair.t in lead)
    )
    L = _filled(graph)
    counts = np.diff(L.indptr) * per_level
    operations, stored = per_level * float(counts @ counts), per_level * float(counts.sum())
    sparse = np.array([1.0, operations, stored, border, _height(L)])
    dense = np.array([1.0, core**3, core**2, border * width])
    return {"Blocked": dense, "Cholmod": sparse, "SuperLU": sparse}


def _filled(graph: sp.csc_array) -> sp.csc_matrix:
    """The pattern of the factor of any matrix with this graph."""
    lower = sp.csc_matrix(sp.tril(graph))
    lower.sort_indices()
    columns = np.repeat(np.arange(lower.shape[0]), np.diff(lower.indptr))
    lower.data = np.where(lower.indices == columns, 2.0 * lower.shape[0], -1.0)
    if not library():
        return SuperLU().analyze(lower)[0].lower()
    factor = analyze(lower, "amd", "simplicial")
    factor.factorize(lower)
    return factor.lower()


def _height(L: sp.csc_matrix) -> float:
    """The longest way through the elimination tree, over runs of columns with the same rows."""
    counts = np.diff(L.indptr)
    parent = np.arange(len(counts))
    below = counts > 1
    parent[below] = L.indices[L.indptr[:-1][below] + 1]
    step = np.ones(len(counts), dtype=int)
    step[:-1][(parent[:-1] == np.arange(1, len(counts))) & (counts[:-1] == counts[1:] + 1)] = 0
    height = [0] * len(counts)
    for node, (above, more) in enumerate(zip(parent.tolist(), step.tolist(), strict=True)):
        if above != node:
            height[above] = max(height[above], height[node] + more)
    return float(max(height))
