"""Responses of which a grouping factor leaves nothing to the residuals.

Where the effects of every group, next to the fixed effects, fit the response exactly, the variance
of the residuals can go to zero, or their correlation to one, and the criterion falls without end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import DataError
from lmmsparse.design import Design
from lmmsparse.engine.held import Held
from lmmsparse.engine.pairs import TermColumns
from lmmsparse.engine.residual.sets import CrossSets
from lmmsparse.fit.exact import fits_exactly

_IN_SPAN = 1e-10  # share of the square of a fixed effect that is rounding errors


def check_not_repeated(design: Design, sets: CrossSets, held: Held) -> None:
    """Refuse a response that the effects of a grouping factor fit exactly.

    Parameters
    ----------
    sets : CrossSets
        With the fixed effects, and what they leave of the response.
    """
    if held.sigma is not None:
        return
    gram = sets.columns.T @ sets.columns
    for group, term in _factors(design, sets, held):
        if _is_repeated(term, sets.columns, gram):
            assert design.residual is not None
            raise DataError(
                f"The fixed effects and those of {group!r} fit the response exactly: nothing is "
                f"left of which {design.residual.text} could be estimated. Check whether the "
                f"response repeats within {group!r}."
            )


def _factors(design: Design, sets: CrossSets, held: Held) -> Iterator[tuple[str, TermColumns]]:
    """What can take up all of the response: free random effects, and groups of the residuals.

    Columns are as weights count them: a correlation of one is between residuals of equal variance.
    """
    seen = set()
    if not held.theta:
        for block, term, columns in zip(design.blocks, sets.terms, sets.term_columns, strict=True):
            yield block.group, replace(term, columns=columns)
            if columns.shape[1] == 1 and np.ptp(columns) == 0:
                seen.add(block.group)
    groups = None if design.residual is None else design.residual.grouping
    if groups is not None and groups.name not in seen and not held.residual:
        yield groups.name, TermColumns(groups.codes, np.ones((design.n, 1)), len(groups.levels))


def _is_repeated(term: TermColumns, columns: FloatArray, gram: FloatArray) -> bool:
    """Whether the last column is in the span of the others and the effects of a term."""
    n, k = term.columns.shape
    p = columns.shape[1] - 1
    sizes = np.bincount(term.codes, minlength=term.n_levels)
    if np.minimum(sizes, k).sum() + p >= n:  # they would fit any response
        return False
    sums = (term.transposed @ columns).reshape(term.n_levels, k, p + 1)
    left = gram - np.einsum("lki,lkj->ij", sums, _inverse(term) @ sums)
    values, vectors = np.linalg.eigh(left[:p, :p])
    along = (vectors.T @ left[:p, p])[values > _IN_SPAN]
    squares = left[p, p] - float(np.sum(along**2 / values[values > _IN_SPAN]))
    return bool(fits_exactly(squares, gram[p, p], np.zeros(0), n))


def _inverse(term: TermColumns) -> FloatArray:
    """(Z'Z)⁺ of every level, (levels, k, k)."""
    k = term.columns.shape[1]
    own = np.empty((term.n_levels, k, k))
    for i in range(k):
        for j in range(i + 1):
            products = term.columns[:, i] * term.columns[:, j]
            own[:, i, j] = own[:, j, i] = np.bincount(term.codes, products, term.n_levels)
    if k > 1:
        return np.asarray(np.linalg.pinv(own, rcond=_IN_SPAN, hermitian=True), dtype=np.float64)
    return np.divide(1.0, own, out=np.zeros_like(own), where=own > 0)
