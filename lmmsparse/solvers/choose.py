"""Cross-products → which linear algebra to use: a rule that can be read and asked.

Where scikit-sparse cannot be used, the rule falls back on what needs scipy only, and says so.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.sparse as sp

from lmmsparse.announce import warn
from lmmsparse.crossproducts import CrossProducts
from lmmsparse.errors import Finding, SlowSolverWarning
from lmmsparse.solvers import _sksparse
from lmmsparse.solvers.base import PLSSolver
from lmmsparse.solvers.blocked import Blocked, lead_terms
from lmmsparse.solvers.cholmod import Cholmod
from lmmsparse.solvers.superlu import SuperLU

_SMALL_CORE = 300
_LARGEST_CORE = 6000
_DENSE_ENOUGH = 0.2
_COUNT_UP_TO = 2e7


def choose_solver(products: CrossProducts) -> PLSSolver:
    """Return the solver used when none is given.

    `Blocked` where what remains after eliminating the largest factor is small, or large and mostly
    filled; `Cholmod` where it stays sparse or would not fit in memory.

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
        If it would be `Cholmod` and scikit-sparse cannot be used: `Blocked` takes its place, or
        `SuperLU` where the dense core would be too large.
    """
    core = _core(products)
    if core <= _SMALL_CORE or _is_dense(products, core):
        return Blocked()
    if not _sksparse.UNUSABLE:
        return Cholmod()
    _say()
    return Blocked() if core <= _LARGEST_CORE else SuperLU()


def solver_findings(products: CrossProducts, solver: PLSSolver) -> list[Finding]:
    """What there is to say about a solver that stands in for a faster one.

    Parameters
    ----------
    products : CrossProducts
    solver : PLSSolver
        The one that was used.
    """
    if not _sksparse.UNUSABLE or not isinstance(solver, (Blocked, SuperLU)):
        return []
    core = _core(products)
    if core <= _SMALL_CORE or _is_dense(products, core):
        return []
    return [Finding("slow-solver", "info", _slower())]


@cache
def _say() -> None:
    """Warn once in the life of a process."""
    warn(_slower(), SlowSolverWarning)


def _slower() -> str:
    return (
        "scikit-sparse cannot be used here, so that large crossed models are fitted on a slower "
        f"path ({_sksparse.UNUSABLE}). The results are the same. lmm.Cholmod() says how to "
        "install it."
    )


def _core(products: CrossProducts) -> int:
    """Number of random effects besides those of the largest factor."""
    lead = lead_terms(products)
    return int(products.q - sum(products.offsets[t + 1] - products.offsets[t] for t in lead))


def _is_dense(products: CrossProducts, core: int) -> bool:
    return core <= _LARGEST_CORE and (core_density(products, lead_terms(products)) >= _DENSE_ENOUGH)


def core_density(products: CrossProducts, lead: tuple[int, ...]) -> float:
    """Share of nonzero elements in the core once the largest factor is eliminated.

    Taken as 1 where counting them would cost more than an evaluation.

    Parameters
    ----------
    products : CrossProducts
    lead : tuple of int
        Terms of the largest factor.
    """
    first = lead[0]
    size = (products.offsets[first + 1] - products.offsets[first]) // products.sizes[first]
    levels, columns = [], []
    n_levels = {
        t: (products.offsets[t + 1] - products.offsets[t]) // k
        for t, k in enumerate(products.sizes)
    }
    core = [t for t in range(len(products.sizes)) if t not in lead]
    starts = dict(
        zip(core, np.cumsum([0, *(n_levels[t] for t in core)])[:-1].tolist(), strict=True)
    )
    total = sum(n_levels[t] for t in core)
    for pair in products.pairs:
        if pair.t == first and pair.s in starts:
            levels.append(pair.cols)
            columns.append(pair.rows + starts[pair.s])
    level, column = np.concatenate(levels), np.concatenate(columns)
    met = np.bincount(level, minlength=size).astype(np.float64)
    if float((met**2).sum()) > _COUNT_UP_TO:
        return 1.0
    border = sp.csr_array((np.ones(len(level)), (level, column)), shape=(size, total))
    return float((border.T @ border).nnz) / float(total) ** 2
