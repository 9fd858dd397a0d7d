"""What is known of the covariance of a grouping factor's levels: precisions and covariances.

Each, and a pedigree, has labels, of which the levels of the factor are some, and the `Prior` that
the engine works with. Whatever is no covariance is refused with the labels it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import scipy.linalg as sla
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from lmmsparse.common.arrays import FloatArray, frozen
from lmmsparse.common.calls import checked_construction
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.options import array_of, mapping, refused, several
from lmmsparse.common.words import close_match, listed
from lmmsparse.design.arguments import numbers
from lmmsparse.design.grouping import LevelCovariance
from lmmsparse.design.labels import alike, positions, python_value, same_but_for_type
from lmmsparse.design.pedigree import Pedigree
from lmmsparse.design.recipe import plain_labels
from lmmsparse.engine.known import DensePrior, NotPositiveDefiniteError, SparsePrior
from lmmsparse.engine.prior import Prior
from lmmsparse.formula.formula import RandomTerm

_ASYMMETRY = 1e-8  # of the largest element
_EIGENVALUES_UP_TO = 3_000
_LARGEST_DENSE = 30_000


@checked_construction
class Precision:
    """The inverse of the covariance of a grouping factor's levels, up to a variance.

    For models whose precision is sparse: conditional autoregressions on lattices and maps, random
    walks, inverses of relationship matrices.

    Parameters
    ----------
    Q : (levels, levels) sparse or dense array, or DataFrame
        Symmetric and positive definite.
    labels : (levels,) labels, optional
        Of rows and columns; those of a DataFrame if not given.

    Raises
    ------
    DataError
        If it is not symmetric or not positive definite, or if labels do not match.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> import numpy as np
    >>> W = np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1)  # four cells in a row
    >>> lmm.Precision(np.diag(W.sum(axis=0)) - 0.9 * W, labels=list("abcd"))
    Precision of 4 levels
    """

    kind: ClassVar[str] = "precision"
    variance_of_others: ClassVar[float | None] = None

    def __init__(self, Q: Any, labels: Any = None) -> None:
        self.labels, matrix = _labelled("precision", "Q", Q, labels)
        Q = sp.csc_array(matrix)
        Q.sum_duplicates()
        difference = abs(Q - Q.T).tocoo()
        if difference.nnz and difference.data.max() > _ASYMMETRY * abs(Q).max():
            at = int(np.argmax(difference.data))
            i, j = difference.row[at], difference.col[at]
            raise _not_symmetric("precision", self.labels, Q, i, j)
        Q = sp.csc_array(0.5 * (Q + Q.T))
        Q.sort_indices()
        if not (Q.diagonal() > 0).all():
            raise _not_definite("precision", self.labels, Q)
        self._prior(Q)

    def _prior(self, Q: sp.csc_array) -> None:
        try:
            self.prior: Prior = SparsePrior(Q)
        except NotPositiveDefiniteError as error:
            raise _not_definite("precision", self.labels, Q) from error

    def __repr__(self) -> str:
        return f"Precision of {len(self.labels)} levels"

    @property
    def precision(self) -> sp.csc_array:
        """Q, sparse, in the order of `labels`."""
        return self.prior.precision.copy()


@checked_construction
class Covariance:
    """The covariance of a grouping factor's levels, up to a variance.

    Genomic relationships, phylogenies, kernels of distances. A large one that has a sparse inverse
    is better given as `Precision`.

    Parameters
    ----------
    A : (levels, levels) array or DataFrame
        Symmetric and positive definite.
    labels : (levels,) labels, optional
        Of rows and columns; those of a DataFrame if not given.

    Raises
    ------
    DataError
        If it is not symmetric or not positive definite, or if labels do not match.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> import numpy as np
    >>> lmm.Covariance(0.5 + 0.5 * np.eye(3), labels=["a", "b", "c"])
    Covariance of 3 levels
    """

    kind: ClassVar[str] = "covariance"
    variance_of_others: ClassVar[float | None] = None

    def __init__(self, A: Any, labels: Any = None) -> None:
        self.labels, matrix = _labelled("covariance", "A", A, labels)
        if len(self.labels) > _LARGEST_DENSE:
            raise DataError(
                f"The covariance has {len(self.labels)} levels, for which it would be too large as "
                "a dense matrix. Give its inverse, if that is sparse: lmm.Precision(Q, labels=...)."
            )
        dense = matrix.toarray() if sp.issparse(matrix) else matrix
        gap = np.abs(dense - dense.T)
        if gap.max() > _ASYMMETRY * np.abs(dense).max():
            i, j = np.unravel_index(int(np.argmax(gap)), gap.shape)
            raise _not_symmetric("covariance", self.labels, dense, i, j)
        dense = 0.5 * (dense + dense.T)
        try:
            self.prior: Prior = DensePrior(frozen(dense))
        except NotPositiveDefiniteError as error:
            raise _not_definite("covariance", self.labels, dense) from error

    def __repr__(self) -> str:
        return f"Covariance of {len(self.labels)} levels"

    @property
    def precision(self) -> sp.csc_array:
        """A⁻¹, in the order of `labels`."""
        return self.prior.precision.copy()


def known_covariances(known: Any, groups: Iterable[str]) -> dict[str, LevelCovariance]:
    """Read the user's ``known=``.

    Parameters
    ----------
    groups : iterable of str
        The grouping factors of the model.
    """
    use = "Give, for example, known={'id': lmm.Pedigree.from_frame(pedigree)}."
    given, names = mapping("known", known, use), list(dict.fromkeys(groups))
    out: dict[str, LevelCovariance] = {}
    for name, value in given.items():
        if name not in names:
            raise OptionError(
                f"known={{{name!r}: …}} names no grouping factor of the formula."
                f"{close_match(str(name), names)} Its grouping factors are {listed(names)}. Write "
                f"a term such as (1 | {name}), or leave this out."
            )
        if isinstance(value, (Pedigree, Precision, Covariance)):
            out[str(name)] = value
        elif isinstance(value, pd.DataFrame):
            out[str(name)] = Covariance(value)
        else:
            raise refused(
                f"known[{name!r}]", "a Pedigree, Precision, Covariance or labelled DataFrame",
                value, "A matrix needs labels: lmm.Covariance(A, labels=...).",
            )  # fmt: skip
    return out


def known_of_terms(known: Any, terms: Sequence[RandomTerm]) -> dict[str, LevelCovariance]:
    """The same for the terms of a formula."""
    out = known_covariances(known, [term.group for term in terms])
    for term in terms:
        if term.group in out and len(term.factors) > 1:
            raise OptionError(
                f"known={{{term.group!r}: …}} is about a combination of factors, whose levels have "
                "no labels of their own. Make a column of the combinations, and use it as the "
                "grouping factor."
            )
    return out


def _labelled(what: str, name: str, values: Any, labels: Any) -> tuple[pd.Index, Any]:
    """Labels and a square matrix of finite numbers, dense or sparse."""
    index: pd.Index | None = None
    matrix: Any
    if isinstance(values, pd.DataFrame):
        index, matrix = _own_labels(what, values)
    elif sp.issparse(values):
        matrix = sp.csc_array(values).astype(np.float64)
    else:
        matrix = numbers(name, values)
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.shape[0]:
        raise DataError(
            f"The {what} has shape {tuple(matrix.shape)}. It must be square, with a row and a "
            "column per level. A table of parents is given as lmm.Pedigree.from_frame(table, id=, "
            "sire=, dam=)."
        )
    if labels is not None:
        items = several(labels)
        if any(hasattr(each, "__array__") and array_of("labels", each).ndim for each in items):
            raise refused("labels", "one label per level", labels)
        column = plain_labels(pd.Series(items))
        if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":
            column = column.astype(np.float64)  # an index holds no narrower or wider ones
        given = pd.Index(column, tupleize_cols=False)
        if len(given) != matrix.shape[0]:
            raise DataError(
                f"labels has {len(given)} labels for the {matrix.shape[0]} rows of the {what}. "
                "Give one per row."
            )
        if isinstance(values, pd.DataFrame) and index is not None and not given.equals(index):
            raise DataError(
                f"labels are not those of the rows of the {what}, a DataFrame. Leave labels= out, "
                "or pass the numbers alone."
            )
        index = given
    if index is None:
        raise OptionError(
            f"The {what} has no labels, which say what level each row belongs to. Pass labels=, or "
            "a DataFrame with labels on its rows and columns."
        )
    if index.hasnans:
        raise DataError(f"The labels of the {what} have missing values. Give every row a label.")
    if not index.is_unique:
        twice = pd.unique(index[index.duplicated()].astype(object))
        raise DataError(
            f"The labels of the {what} repeat: {listed([repr(python_value(v)) for v in twice])}. "
            "Give every level one row."
        )
    data = matrix.data if sp.issparse(matrix) else matrix
    if not np.isfinite(data).all():
        raise DataError(
            f"The {what} holds values that are missing or infinite. Every pair of levels needs a "
            "number."
        )
    return index, matrix


def _own_labels(what: str, frame: pd.DataFrame) -> tuple[pd.Index, FloatArray]:
    """Labels of a DataFrame, and its numbers with columns in the order of the rows."""
    rows = pd.Index(plain_labels(pd.Series(frame.index)), tupleize_cols=False)
    columns = plain_labels(pd.Series(frame.columns))
    values = numbers(f"The {what}", frame)
    if frame.shape[0] != frame.shape[1] or not rows.is_unique:
        return rows, values
    at = positions(pd.Index(columns, tupleize_cols=False), pd.Series(rows))
    if (at < 0).any():
        missing = [python_value(rows[i]) for i in np.flatnonzero(at < 0)]
        twins = same_but_for_type(rows, columns)
        if twins:
            raise DataError(alike(f"The {what}", "among its columns", "among its rows", *twins))
        raise DataError(
            f"The rows and columns of the {what} have different labels: no column is named "
            f"{listed(map(repr, missing))}. Name both alike."
        )
    return rows, np.ascontiguousarray(values[:, at])


def _not_symmetric(what: str, labels: pd.Index, matrix: Any, i: Any, j: Any) -> DataError:
    a, b = (python_value(labels[int(k)]) for k in (i, j))
    here, there = float(matrix[int(i), int(j)]), float(matrix[int(j), int(i)])
    return DataError(
        f"The {what} is not symmetric: its element at ({a!r}, {b!r}) is {here:.8g}, and at "
        f"({b!r}, {a!r}) {there:.8g}, a difference of {abs(here - there):.3g}. Correct it, or take "
        "the mean with the transpose."
    )


def _not_definite(what: str, labels: pd.Index, matrix: Any) -> DataError:
    """Say by how much a matrix is not positive definite."""
    diagonal = matrix.diagonal()
    where = int(np.argmin(diagonal))
    if not diagonal[where] > 0:
        said = f"its diagonal element of {python_value(labels[where])!r} is {diagonal[where]:.3g}"
    else:
        low, high = _extreme_eigenvalues(matrix)
        said = f"its smallest eigenvalue is {low:.3g} (its largest is {high:.3g})"
    remedy = (
        "Add a little to the diagonal, for example 0.01 of its mean, if it is so by construction "
        "or by rounding."
    )
    if what == "precision":
        remedy = (
            "An intrinsic one, whose rows sum to zero, becomes proper with a factor below 1 on its "
            "off-diagonal elements."
        )
    return DataError(f"The {what} is not positive definite: {said}. {remedy}")


def _extreme_eigenvalues(matrix: Any) -> tuple[float, float]:
    n = matrix.shape[0]
    if n <= _EIGENVALUES_UP_TO:
        values = sla.eigvalsh(matrix.toarray() if sp.issparse(matrix) else matrix)
        return float(values[0]), float(values[-1])
    high = float(spla.eigsh(matrix, k=1, which="LA", return_eigenvectors=False, tol=1e-3)[0])
    # Of high·I − M, whose largest eigenvalue Lanczos finds fast.
    moved = spla.LinearOperator((n, n), lambda x: high * x - matrix @ x)
    low = spla.eigsh(moved, k=1, which="LA", return_eigenvectors=False, tol=1e-6)[0]
    return high - float(low), high
