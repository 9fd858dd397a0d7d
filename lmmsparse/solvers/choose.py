"""Cross-products → which linear algebra to use: a rule that can be read and asked."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from lmmsparse.crossproducts import CrossProducts
from lmmsparse.solvers.base import PLSSolver
from lmmsparse.solvers.blocked import Blocked, lead_terms
from lmmsparse.solvers.cholmod import Cholmod

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
    """
    lead = lead_terms(products)
    width = sum(products.offsets[t + 1] - products.offsets[t] for t in lead)
    core = products.q - width
    if core <= _SMALL_CORE:
        return Blocked()
    if core <= _LARGEST_CORE and core_density(products, lead) >= _DENSE_ENOUGH:
        return Blocked()
    return Cholmod()


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
