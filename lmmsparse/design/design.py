"""The design of a mixed model: response, model matrices, grouping factors, names and findings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray, ReadOnly
from lmmsparse.common.errors import Finding
from lmmsparse.design.arguments import aligned
from lmmsparse.design.facts import Facts, NotKept
from lmmsparse.design.grouping import Grouping, LevelCovariance
from lmmsparse.design.rank import factors_of
from lmmsparse.design.recipe import Recipe
from lmmsparse.design.residual import ResidualDesign
from lmmsparse.engine.columns import Basis, InternalColumns, orthonormal
from lmmsparse.engine.covariance.structures import CovarianceStructure
from lmmsparse.engine.prior import Prior

_FAR = 30.0  # means this many standard deviations from zero cost digits


@dataclass(frozen=True, eq=False)
class RandomBlock(ReadOnly):
    """One random-effects term with its data.

    Attributes
    ----------
    grouping : Grouping
        The factor: name, levels, and the level of each row.
    names : tuple of str
        The k effects per level.
    columns : (n, k) array
        Their model matrix.
    structure : CovarianceStructure
    source : str
        The term as the user wrote it.
    split : bool
        Whether it came from a ``||`` term.
    moved : (k, k) array or None
        What `shift` is where the columns are not kept.
    """

    grouping: Grouping
    names: tuple[str, ...]
    columns: FloatArray
    structure: CovarianceStructure
    source: str
    split: bool = False
    moved: FloatArray | None = None

    @property
    def shifted_columns(self) -> FloatArray:
        """The columns, centred where that changes nothing, (n, k).

        The origin of predictors does not matter to a term with an intercept and any covariance; but
        squares of Julian dates leave no digits for what matters.
        """
        return self._shifted[0]

    @property
    def shift(self) -> FloatArray | None:
        """S with columns = shifted columns @ S, (k, k); None where they are the same."""
        return self._shifted[1]

    @cached_property
    def _shifted(self) -> tuple[FloatArray, FloatArray | None]:
        k = self.k
        if isinstance(self.columns, NotKept):
            return self.columns, self.moved
        if not self.structure.closed or k < 2:
            return self.columns, None
        mean = self.columns.sum(axis=0) / len(self.columns)
        rest = self.columns - mean
        sd = np.sqrt(np.einsum("nk,nk->k", rest, rest) / len(rest))
        ones = np.flatnonzero((sd == 0) & (mean == 1.0))
        far = np.flatnonzero((np.abs(mean) > _FAR * sd) & (sd > 0))
        if not ones.size or not far.size:
            return self.columns, None
        S = np.eye(k)
        S[ones[0], far] = mean[far]
        shifted = self.columns.copy()
        shifted[:, far] -= mean[far]
        return shifted, S

    @property
    def group(self) -> str:
        return self.grouping.name

    @property
    def known(self) -> LevelCovariance | None:
        """The known covariance of the levels."""
        return self.grouping.known

    @property
    def prior(self) -> Prior | None:
        """The same as the engine works with it."""
        return None if self.known is None else self.known.prior

    def level_variances(self, codes: IntArray) -> FloatArray | float:
        """What multiplies the variance of a level's effects, per row: 1 if nothing is known."""
        if self.known is None:
            return 1.0
        others = self.known.variance_of_others
        padded = np.append(self.known.prior.variances, np.nan if others is None else others)
        return np.asarray(padded[codes])

    @property
    def codes(self) -> IntArray:
        return self.grouping.codes

    @property
    def levels(self) -> pd.Index:
        return self.grouping.levels

    @property
    def n_levels(self) -> int:
        return len(self.grouping.levels)

    @property
    def k(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False, repr=False)
class Design(ReadOnly):
    """Everything the fit needs of formula and data.

    Attributes
    ----------
    formula : str
        As the user wrote it; empty for a model made from arrays.
    response : str
        Name of the response.
    y : (n,) array
    fixed : (n, p) array or csr_array
        X, sparse where it is large and mostly zeros.
    x_names : tuple of str
        The p fixed effects.
    dropped : tuple of str
        Columns of X left out because they depend on others.
    blocks : tuple of RandomBlock
        Decreasing number of levels, ties in formula order.
    weights, offset : (n,) array or None
    index : pandas.Index
        Labels of all rows of the data, dropped ones included.
    rows : (n,) int array
        Positions of the rows that are fitted.
    na_action : {"omit", "exclude", "raise"}
    findings : tuple of Finding
        What building the design has noticed.
    recipe : Recipe or None
        How to build the same columns from new data; None for a model made from arrays.
    residual : ResidualDesign or None
        Correlation and standard deviations of the residuals; None where they are independent and
        alike.
    facts : Facts or None
        What is known of all rows where they are not kept.
    sample : Design or None
        The same design of some of the rows, where not all are kept.
    """

    formula: str
    response: str
    y: FloatArray
    fixed: FloatArray | sp.csr_array
    x_names: tuple[str, ...]
    dropped: tuple[str, ...]
    blocks: tuple[RandomBlock, ...]
    weights: FloatArray | None
    offset: FloatArray | None
    index: pd.Index
    rows: IntArray
    na_action: str
    findings: tuple[Finding, ...]
    recipe: Recipe | None
    residual: ResidualDesign | None = None
    facts: Facts | None = None
    sample: Design | None = None

    def __repr__(self) -> str:
        terms = ", ".join(f"{b.source}: {b.n_levels} × {b.k}" for b in self.blocks) or "none"
        residual = "" if self.residual is None else f", residuals {self.residual.text}"
        return (
            f"Design of {self.response}: {self.n} rows, {self.p} fixed effects, random effects "
            f"{terms}{residual}"
        )

    @property
    def n(self) -> int:
        return len(self.y) if self.facts is None else self.facts.n

    @property
    def n_all(self) -> int:
        """Rows of the data, with those that were left out."""
        return len(self.index) if self.facts is None else self.facts.read

    @property
    def p(self) -> int:
        return len(self.x_names)

    @property
    def X(self) -> FloatArray:
        """The fixed-effects model matrix, (n, p); made anew each time where it is kept sparse."""
        return self.fixed if isinstance(self.fixed, np.ndarray) else self.fixed.toarray()

    def internal_columns(self, weighted: bool = True) -> tuple[InternalColumns, Basis]:
        """Q = X R⁻¹ with Q'WQ = I and the basis that leads back; W = I where not `weighted`."""
        weights = self.weights if weighted else None
        return orthonormal(self.fixed, weights, factors_of(self.x_names))

    @property
    def some(self) -> Design:
        """The design itself, or a sample of its rows where not all are kept."""
        return self if self.sample is None else self.sample

    @property
    def offset_or_zero(self) -> FloatArray:
        return np.broadcast_to(0.0, len(self.y)) if self.offset is None else self.offset

    @property
    def weights_or_one(self) -> FloatArray:
        return np.broadcast_to(1.0, len(self.y)) if self.weights is None else self.weights

    def squares(self, t: int, *, shifted: bool = False, weighted: bool = False) -> FloatArray:
        """Mean squares of a term's columns, (k,), each row times its level's prior variance.

        Parameters
        ----------
        shifted : bool
            Of the shifted columns.
        weighted : bool
            Each row times its weight.
        """
        block = self.blocks[t]
        if self.facts is not None:
            return self._squares_by_facts(block, t, shifted, weighted)
        C = block.shifted_columns if shifted else block.columns
        w = self.weights if weighted else None
        if block.known is not None:
            own = np.asarray(block.level_variances(block.codes))
            w = own if w is None else own * w
        return np.asarray(np.einsum("nk,nk->k", C, C if w is None else C * w[:, None]) / self.n)

    def _squares_by_facts(
        self, block: RandomBlock, t: int, shifted: bool, weighted: bool
    ) -> FloatArray:
        facts, S = self.facts, block.shift
        assert facts is not None
        G = facts.grams[t]
        if weighted:
            own = next(pair for pair in facts.products.pairs if pair.s == pair.t == t)
            G = own.values.sum(axis=0)
            G = G if S is None or shifted else S.T @ G @ S
        elif shifted and S is not None:
            G = np.linalg.solve(S.T, np.linalg.solve(S.T, G).T)
        return np.asarray(np.diag(G) / self.n)

    @cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Grouping factor → positions of its terms in `blocks`, in order of appearance."""
        out: dict[str, list[int]] = {}
        for i, block in enumerate(self.blocks):
            out.setdefault(block.group, []).append(i)
        return {name: tuple(terms) for name, terms in out.items()}

    @property
    def groupings(self) -> dict[str, Grouping]:
        """The grouping factors of random effects and of correlated residuals, by name."""
        out = {block.group: block.grouping for block in self.blocks}
        if self.residual is not None and self.residual.grouping is not None:
            out.setdefault(self.residual.grouping.name, self.residual.grouping)
        return out

    @property
    def Z(self) -> sp.csr_array:
        """Random-effects model matrix, sparse (n, q): by term, level, effect."""
        parts = []
        for block in self.blocks:
            n, k = block.columns.shape
            indices = (block.codes[:, None] * k + np.arange(k)).ravel()
            indptr = np.arange(0, n * k + 1, k)
            shape = (n, block.n_levels * k)
            parts.append(sp.csr_array((block.columns.ravel(), indices, indptr), shape=shape))
        if not parts:
            return sp.csr_array((self.n, 0))
        return sp.csr_array(sp.hstack(parts, format="csr"))

    def in_rows(self, what: str, values: Any) -> Any:
        """A Series or DataFrame in the order of the rows, of all or of those that are fitted."""
        if not isinstance(values, (pd.Series, pd.DataFrame)):
            return values
        whole = len(values) == len(self.index)
        return aligned(what, values, self.index if whole else self.index[self.rows])

    def output_index(self) -> pd.Index:
        """The index of fitted values and residuals."""
        return self.index if self.na_action == "exclude" else self.index[self.rows]

    def pad(self, values: FloatArray) -> FloatArray:
        """(n,) values on the rows of `output_index`, NaN where a row was dropped."""
        if self.na_action != "exclude":
            return values
        out = np.full(len(self.index), np.nan)
        out[self.rows] = values
        return out
