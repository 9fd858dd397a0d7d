"""Cross-products → which linear algebra to use: a rule that can be read and asked.

Where there is no CHOLMOD, the rule falls back on what needs scipy only, and says so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import reverse_cuthill_mckee

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import Finding, SlowSolverWarning
from lmmsparse.common.findings import warn
from lmmsparse.common.options import refused
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.solvers.base import PLSSolver
from lmmsparse.engine.solvers.blocked import Blocked
from lmmsparse.engine.solvers.cholmod import Cholmod
from lmmsparse.engine.solvers.krylov.solver import Krylov
from lmmsparse.engine.solvers.libraries import analyze, library
from lmmsparse.engine.solvers.superlu import SuperLU

_SMALL_CORE = 120
_LARGE_CORE = 6000
_DENSE_ENOUGH = 0.2
_MOSTLY = 0.5
_COUNT_UP_TO = 2e7
_COUNT_OF_LARGE = 1e8
# Ten minutes: five evaluations of core³ operations each at 23 GFlop/s, by dense linear algebra.
_MOST_OPERATIONS = 14_000.0**3
_FEW, _MANY_TIMES = 16.0, 4.0
_SAMPLE = 64
_BYTES = 24.0  # per element of a dense core: S, its inverse, and what is summed on the way

# Milliseconds of a fit, fitted to those of 118 simulated crossed designs of nine kinds: what
# `cost_terms` gives times these.
_WEIGHTS = {
    "Blocked": np.array([14.0, 1.75e-7, 1e-4, 1.7e-3]),
    "Cholmod": np.array([10.0, 1.5e-7, 2e-3, 2.2e-3, 0.45]),
    "SuperLU": np.array([20.0, 1.1e-5, 3e-3, 9.8e-3, 0.2]),
}


@checked_keywords
def choose_solver(products: CrossProducts, *, exact: bool = False) -> PLSSolver:
    """Return the solver used when none is given.

    `Blocked` where what remains after eliminating the largest factor, the core, is small or mostly
    filled. Otherwise the core is ordered and factored once, which tells what `Cholmod` would cost,
    and the cheaper of the two is taken. Where the largest factor has a known covariance, all is
    core. `Krylov` is for cores of which a factor would not fit in half of this machine's memory,
    or a fit by either of the others would take more than about ten minutes.

    Parameters
    ----------
    products : CrossProducts
        The cross-products of the model.
    exact : bool
        Leave out `Krylov`, which estimates log-determinants.

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
    solver, stands_in = _choose(products, exact)
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
    return [Finding("slow-solver", "info", _slower())] if _choose(products, True)[1] else []


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


def _choose(products: CrossProducts, exact: bool) -> tuple[PLSSolver, bool]:
    """The solver, and whether it stands in for `Cholmod`."""
    lead, core = products.lead, products.core
    if core <= _SMALL_CORE:
        return Blocked(), False
    if _is_filled(products):
        return Blocked(), False
    if core > _LARGE_CORE:
        return _choose_for_large(products, exact)
    # A dense known covariance is one block of M, beside which the rest may be eliminated cheaply.
    dense = _MOSTLY if products.priors else _DENSE_ENOUGH
    graph = core_graph(products, lead, dense)
    if graph is None or graph.density >= dense:
        return Blocked(), False
    costs = fit_costs(products, lead, graph)
    if costs["Blocked"] <= costs["Cholmod"]:
        return Blocked(), False
    if library():
        return Cholmod(), False
    return (SuperLU() if costs["SuperLU"] < costs["Blocked"] else Blocked()), True


def _is_filled(products: CrossProducts) -> bool:
    """Whether known covariances fill most of the core, as dense matrices do."""
    known = zip(products.priors, products.sizes, strict=False)
    filled = sum(prior.precision.nnz * k for prior, k in known if prior is not None)
    return bool(filled > _MOSTLY * products.core**2)


def _choose_for_large(products: CrossProducts, exact: bool) -> tuple[PLSSolver, bool]:
    """The same for cores of which even the symbolic factor may be too much."""
    core, lead = float(products.core), products.lead
    sparse: tuple[PLSSolver, bool] = (Cholmod(), False) if library() else (SuperLU(), True)
    if not lead:
        return sparse
    graph = core_graph(products, lead, most=_COUNT_OF_LARGE)
    if graph is not None and graph.density < _DENSE_ENOUGH:
        operations, stored = elimination_bound(graph.meets, float(graph.effects.mean()))
        if operations <= _MOST_OPERATIONS and _BYTES * stored <= half_of_memory():
            return sparse
    if core**3 <= _MOST_OPERATIONS and _BYTES * core**2 <= half_of_memory():
        return Blocked(), False
    return sparse if exact or products.priors else (Krylov(), False)


def half_of_memory() -> float:
    """Half of what the machine has, in bytes; infinite where it does not tell."""
    try:
        return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return np.inf


def elimination_bound(graph: sp.csc_array, per_level: float) -> tuple[float, float]:
    """What a sparse Cholesky factorization costs at most: operations, and elements of the factor.

    By an order that can be had without a factorization: levels that meet very many others last, the
    rest by their distance from one end (Cuthill & McKee). A fill-reducing order does better.

    Parameters
    ----------
    per_level : float
        Random effects per vertex of the graph.
    """
    degree = np.diff(graph.indptr)
    by_degree = np.argsort(degree, kind="stable")
    best = np.inf, np.inf
    for share in (0.0, 0.01, 0.03, 0.1):
        hubs = int(share * len(degree))
        rest = np.sort(by_degree[: len(degree) - hubs])
        inner = sp.csr_array(graph[rest][:, rest])
        order = reverse_cuthill_mckee(inner, symmetric_mode=True)
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        rows = np.repeat(place, np.diff(inner.indptr))
        last = np.arange(len(order))
        np.maximum.at(last, rows, place[inner.indices])
        # Column j of the factor ends where the furthest neighbour of what stands before it does.
        below = np.maximum.accumulate(last) - np.arange(len(order)) + 1.0
        columns = per_level * (below + hubs)
        operations = per_level * float(columns @ columns) + (per_level * hubs) ** 3
        if operations < best[0]:
            best = operations, per_level * float(columns.sum()) + (per_level * hubs) ** 2
    return best


@dataclass(frozen=True)
class CoreGraph:
    """Which levels meet once the largest factor is eliminated, but for those that meet very many.

    Attributes
    ----------
    meets : (n, n) csc_array
        Symmetric, the levels of the core first, then what is kept of the largest factor.
    effects : (n,) array
        Random effects of each.
    core : int
        How many levels the core has.
    """

    meets: sp.csc_array
    effects: FloatArray
    core: int

    @property
    def density(self) -> float:
        """Share of the core's pairs that meet."""
        return float(self.meets[: self.core, : self.core].nnz / self.core**2)


def core_graph(
    products: CrossProducts,
    lead: tuple[int, ...],
    filled: float = _DENSE_ENOUGH,
    most: float = _COUNT_UP_TO,
) -> CoreGraph | None:
    """Which levels meet once the largest factor is eliminated.

    A level of the largest factor that meets many times what the others do is no bargain to
    eliminate first: a fill-reducing order leaves it to the end, and so it is kept here. None where
    a share of `filled` of the levels meets, as a sample tells, or finding out would cost more than
    an evaluation.

    Parameters
    ----------
    lead : tuple of int
        Terms of the largest factor.
    filled : float
        Share of the core's pairs that meet, beyond which it need not be known.
    most : float
        Meetings that may be counted.
    """
    n_levels, known = products.n_levels, products.priors or (None,) * len(products.sizes)
    core = [t for t in range(len(products.sizes)) if t not in lead]
    starts = dict(zip(core, np.cumsum([0, *(n_levels[t] for t in core)]).tolist(), strict=False))
    total = sum(n_levels[t] for t in core)
    effects = np.repeat([float(products.sizes[t]) for t in core], [n_levels[t] for t in core])
    graph = sp.csc_array(sp.eye_array(total))
    if lead:
        first = lead[0]
        border = [pair for pair in products.pairs if pair.t == first and pair.s in starts]
        level = np.concatenate([pair.cols for pair in border])
        column = np.concatenate([pair.rows + starts[pair.s] for pair in border])
        met = np.bincount(level, minlength=n_levels[first]).astype(np.float64)
        kept = met > max(_FEW, _MANY_TIMES * met.mean())
        if float((met[~kept] ** 2).sum()) > most:
            return None
        # Of 0 and 1 in floating point, so that no sum of products is zero.
        Z = sp.csr_array((np.ones(len(level)), (level, column)), shape=(n_levels[first], total))
        light, heavy = sp.vstack([Z[~kept], graph], "csr"), Z[kept]
        some = light[:, :: max(1, total // _SAMPLE)]
        if (some.T @ light).nnz > filled * some.shape[1] * total:
            return None
        graph = sp.csc_array(light.T @ light)
        if heavy.shape[0]:
            own = sp.eye_array(heavy.shape[0])
            graph = sp.csc_array(sp.block_array([[graph, heavy.T], [heavy, own]]))
            width = float(sum(products.sizes[t] for t in lead))
            effects = np.append(effects, np.full(heavy.shape[0], width))
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
    return CoreGraph(graph, effects, total)


def fit_costs(products: CrossProducts, lead: tuple[int, ...], graph: CoreGraph) -> dict[str, float]:
    """What a fit costs by each solver, in milliseconds of the machine they were fitted on.

    Parameters
    ----------
    lead : tuple of int
        Terms of the largest factor.
    graph : CoreGraph
        From `core_graph`.
    """
    x = cost_terms(products, lead, graph)
    return {name: float(weights @ x[name]) for name, weights in _WEIGHTS.items()}


def cost_terms(
    products: CrossProducts, lead: tuple[int, ...], graph: CoreGraph
) -> dict[str, FloatArray]:
    """What the cost of a fit by each solver is linear in; arguments as for `fit_costs`."""
    core = products.core
    width = sum(products.sizes[t] for t in lead)
    border = sum(
        pair.values.size for pair in products.pairs if (pair.s in lead) != (pair.t in lead)
    )
    parent, counts, effects = _filled(graph)
    operations, stored = float(effects @ counts**2), float(effects @ counts)
    sparse = np.array([1.0, operations, stored, border, _height(parent, counts, effects)])
    dense = np.array([1.0, core**3, core**2, border * width])
    return {"Blocked": dense, "Cholmod": sparse, "SuperLU": sparse}


def _filled(graph: CoreGraph) -> tuple[IntArray, FloatArray, FloatArray]:
    """What a sparse Cholesky factor of any matrix with this graph looks like, in a good order.

    Returns
    -------
    parent : (n,) int array
        Of each column, in the elimination tree; its own number for a root.
    counts, effects : (n,) array
        Elements of L in each column of a level, and columns per level.

    References
    ----------
    Davis (2006), Direct Methods for Sparse Linear Systems, section 4.1: the pattern of a column is
    united with that of its parent.
    """
    order = _fill_reducing(graph.meets)
    effects = graph.effects[order]
    filled = _as_numbers(sp.csr_array(graph.meets[order][:, order]))
    sizes = np.unique(effects)
    of_size = _as_numbers(sp.csr_array(effects == sizes[:, None]))
    parent, counts = np.arange(len(order)), effects.copy()
    for j in range(len(order) - 1):
        below = filled[j] >> (j + 1) << (j + 1)
        if below:
            parent[j] = first = (below & -below).bit_length() - 1
            for size, rows in zip(sizes, of_size, strict=True):
                counts[j] += size * (below & rows).bit_count()
            filled[first] |= below
    return parent, counts, effects


def _fill_reducing(meets: sp.csc_array) -> IntArray:
    lower = sp.csc_matrix(sp.tril(meets))
    lower.sort_indices()
    columns = np.repeat(np.arange(lower.shape[0]), np.diff(lower.indptr))
    lower.data = np.where(lower.indices == columns, 2.0 * lower.shape[0], -1.0)
    factor = analyze(lower, "amd", "simplicial") if library() else SuperLU().analyze(lower)[0]
    return factor.permutation()


def _as_numbers(pattern: sp.csr_array) -> list[int]:
    """Each row of a matrix as one number, with a bit for each column that is stored."""
    width = -(-pattern.shape[1] // 8)
    bits = np.left_shift(np.uint8(1), (pattern.indices % 8).astype(np.uint8))
    eighths = sp.csr_array(
        (bits, pattern.indices // 8, pattern.indptr), shape=(pattern.shape[0], width)
    )
    rows = eighths.toarray().tobytes()
    return [int.from_bytes(rows[i : i + width], "little") for i in range(0, len(rows), width)]


def _height(parent: IntArray, counts: FloatArray, effects: FloatArray) -> float:
    """The longest way through the elimination tree, over runs of columns with the same rows.

    Arguments are what `_filled` returns.
    """
    same = (parent[:-1] == np.arange(1, len(parent))) & (counts[:-1] - effects[:-1] == counts[1:])
    step = np.append(np.where(same, 0, 1), 1)
    height = [0] * len(parent)
    for node, (above, more) in enumerate(zip(parent.tolist(), step.tolist(), strict=True)):
        if above != node:
            height[above] = max(height[above], height[node] + more)
    return float(max(height))
