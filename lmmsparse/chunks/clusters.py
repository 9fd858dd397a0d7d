"""A fit and the source of its rows → sums over the rows of every cluster, in one more pass.

With modes b and β at the fit, V⁻¹e = W(e − Zb): the scores X_j'V_j⁻¹e_j are sums over rows, and
with x − X'WZΛM⁻¹Λ'z in place of e − Zb so are the blocks X_j'V_j⁻¹X_j. Clusters may be anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg as sla

from lmmsparse.chunks.batch import Partition, Source
from lmmsparse.chunks.levels import Values, coded
from lmmsparse.chunks.options import Chunks
from lmmsparse.chunks.plan import response_recipe
from lmmsparse.chunks.question import Question, question_of
from lmmsparse.chunks.room import free_memory
from lmmsparse.chunks.rows import Rows, rows_of
from lmmsparse.chunks.run import fold
from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.design import Recipe
from lmmsparse.design.labels import python_value
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.formula.formula import parse_formula
from lmmsparse.results.cluster_sums import (
    ClusterSums,
    crosses,
    levels_within,
    named_by_levels,
    outermost_of_levels,
    unknown_cluster,
)
from lmmsparse.results.row_forms import pulled_columns

_SAME = 1e-7
_COPIES = 6.0  # of the blocks, at the same time
_SHARE = 0.5  # of the memory that is free


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a process needs to sum rows by cluster.

    Attributes
    ----------
    whiten : (p, p) array
        X times this has X'V⁻¹X = I, relative to σ².
    modes : tuple of (k, levels) arrays
        Of the shifted columns.
    pulled : tuple of (k, p, levels) arrays
        What the random effects take off these columns.
    name : str
    term : int
        Whose levels lie in clusters; −1 where the column `name` tells them.
    clusters : (levels,) int array
        Cluster of the levels of that term.
    inner : bool
        Whether blocks are summed beside scores.
    """

    question: Question
    recipe: Recipe
    shifts: tuple[FloatArray | None, ...]
    beta: FloatArray
    whiten: FloatArray
    modes: tuple[FloatArray, ...]
    pulled: tuple[FloatArray, ...]
    name: str
    term: int
    clusters: IntArray
    inner: bool


@dataclass
class Part:
    """Sums over some rows; clusters of a column in the order of its labels.

    Attributes
    ----------
    n : int
    labels : Values or None
        Where a column tells the clusters.
    scores : (p, clusters) array
    inner : (p (p + 1)/2, clusters) array
    levels : list of int arrays
        Per term the cluster of every level, −1 where it is not known.
    """

    n: int
    labels: Values | None
    scores: FloatArray
    inner: FloatArray
    levels: list[IntArray]


def cluster_sums(fit: Fit, data: Source, cluster: str | None, chunks: Chunks) -> ClusterSums:
    """Read a source once more and sum its rows by cluster.

    Parameters
    ----------
    cluster : str or None
        A grouping factor or a column; None for the factor that holds all others.

    Raises
    ------
    DataError, OptionError
        If the source is not that of the fit, or a random effect is shared by several clusters.
    """
    wanted = _wanted(fit, data, cluster)
    columns = {*wanted.question.columns, *([wanted.name] if wanted.term < 0 else [])}
    parts = data.partitions(columns, chunks.rows)
    if not parts:
        raise DataError(f"{data.what} has no rows. Check the data.")
    merge = partial(_joined, wanted)
    found: Part = fold(_summed, parts, (wanted,), merge, chunks, "summing clusters")
    if wanted.term < 0:
        found = _that_occur(found)
    count = found.scores.shape[1]
    if count < 2:
        raise DataError(
            f"cluster {wanted.name!r} has one label only. Cluster-robust standard errors compare "
            "clusters, and need many. Name a column with more labels."
        )
    _check_same(fit, data, found, wanted)
    inner = _square(found.inner, fit.design.p) if wanted.inner else None
    levels = tuple(found.levels)
    scores = np.ascontiguousarray(found.scores.T)
    return ClusterSums(wanted.name, count, fit.theta, fit.beta, scores, inner, levels)


def check_named(cluster: Any) -> None:
    """Refuse labels of rows where these are read in chunks."""
    if cluster is not None and not isinstance(cluster, str):
        raise OptionError(
            "cluster= must be the name of a column where data are read in chunks, not labels: "
            "rows are summed wherever they are found. Put the labels into the data, and write "
            "cluster='column'."
        )


def _wanted(fit: Fit, data: Source, cluster: str | None) -> Wanted:
    design, recipe = fit.design, fit.design.recipe
    _check_kind_of_model(fit)
    assert recipe is not None
    check_named(cluster)
    question = question_of(
        parse_formula(design.formula),
        data,
        recipe.weights_column,
        recipe.offset_column,
        "omit",
        recipe.matrices.contrasts,
        recipe.matrices.context,
    )
    pairs = fit.products.pairs
    at = outermost_of_levels(design, pairs) if cluster is None else named_by_levels(design, cluster)
    if at is not None:
        name, term, clusters = at
        levels_within(design, pairs, *at)
        count = int(clusters.max(initial=-1)) + 1
    elif cluster in data.names:
        assert cluster is not None
        name, term, clusters = cluster, -1, np.zeros(0, dtype=np.intp)
        count = min(block.n_levels for block in design.blocks)  # at most
    else:
        raise unknown_cluster(design, str(cluster), data.names)
    p = design.p
    R = fit.modes.solution.RX @ fit.products.basis.R
    RX = fit.modes.solution.RX
    pulled = []
    for each in pulled_columns(fit) if p else ():
        own = sla.solve_triangular(RX, each.reshape(-1, p).T, trans="T", check_finite=False)
        pulled.append(np.ascontiguousarray(own.reshape(p, *each.shape[:2]).transpose(2, 0, 1)))
    return Wanted(
        question=question,
        recipe=response_recipe(recipe, design.response),
        shifts=tuple(block.shift for block in design.blocks),
        beta=fit.beta,
        whiten=np.asarray(sla.solve_triangular(R, np.eye(p))) if p else np.zeros((0, 0)),
        modes=tuple(np.ascontiguousarray(b.T) for b in fit.split(fit.modes.b)),
        pulled=tuple(pulled),
        name=name,
        term=term,
        clusters=clusters,
        inner=_COPIES * 8.0 * count * p**2 <= _SHARE * free_memory(),
    )


def _check_kind_of_model(fit: Fit) -> None:
    design = fit.design
    if design.recipe is None or not design.formula:
        raise OptionError(
            "The model was fitted from arrays and cannot find its columns in a table. Fit with "
            "lmm.lmer and a formula."
        )
    if isinstance(fit, ResidualFit) or any(b.known is not None for b in design.blocks):
        raise OptionError(
            "Sums over clusters are there for models without residual=, residual_sd= and known=. "
            "Pass the labels of the rows, cluster=data['column'], to the method itself."
        )
    if design.weights is not None and design.recipe.weights_column is None:
        raise OptionError(
            "The model was fitted with weights given as an array, which a source does not have. "
            "Fit with weights='column'."
        )
    if not design.blocks:
        raise OptionError("The model has no random effects, whose clusters could be summed.")


def _summed(partition: Partition, wanted: Wanted) -> Part:
    """The sums of the rows of a partition."""
    p = len(wanted.beta)
    out = Part(
        n=0,
        labels=None,
        scores=np.zeros((p, int(wanted.clusters.max(initial=-1)) + 1)),
        inner=np.zeros((p * (p + 1) // 2 if wanted.inner else 0, 0)),
        levels=[np.full(b.shape[1], -1, dtype=np.intp) for b in wanted.modes],
    )
    out.inner = np.zeros((len(out.inner), out.scores.shape[1]))
    for batch in partition.batches():
        found = wanted.question.complete(batch)
        if not len(found.rows):
            continue
        rows = rows_of(found, wanted.recipe, wanted.shifts, wanted.question.asked.response)
        if wanted.term >= 0:
            clusters = wanted.clusters[rows.codes[wanted.term]]
        else:
            clusters = _labelled(out, found.frame[wanted.name], wanted, found.batch.text)
        for t, codes in enumerate(rows.codes):
            _place(out.levels[t], codes, clusters, wanted, t)
        out.n += len(rows)
        _add(out, rows, clusters, wanted)
    return out


def _labelled(out: Part, column: pd.Series, wanted: Wanted, text: frozenset[str]) -> IntArray:
    """Clusters of rows by their labels; there is room for new ones afterwards."""
    if missing := int(column.isna().sum()):
        raise DataError(
            f"The column {wanted.name!r} is missing in {missing} rows. Give every row a label."
        )
    codes, values = coded(column, wanted.name in text)
    out.labels = values if out.labels is None else out.labels.joined(values, wanted.name)
    _widen(out, len(out.labels.labels))
    return np.asarray(out.labels.labels.get_indexer(values.labels)[codes], dtype=np.intp)


def _widen(out: Part, count: int) -> None:
    more = count - out.scores.shape[1]
    if more > 0:
        out.scores = np.pad(out.scores, ((0, 0), (0, more)))
        out.inner = np.pad(out.inner, ((0, 0), (0, more)))


def _place(levels: IntArray, codes: IntArray, clusters: IntArray, wanted: Wanted, t: int) -> None:
    """Note in which cluster levels lie, which must be one."""
    before = levels[codes]
    levels[codes] = clusters
    wrong = ((before >= 0) & (before != clusters)) | (levels[codes] != clusters)
    if wrong.any():
        _raise_crossing(wanted, t, int(codes[wrong.argmax()]))


def _raise_crossing(wanted: Wanted, t: int, level: int) -> None:
    group = wanted.recipe.groups[t]
    parts = zip(group.key.components, group.key.combinations[level], strict=True)
    labels = [python_value(own[i]) for own, i in parts]
    label = labels[0] if len(labels) == 1 else ":".join(map(str, labels))
    raise crosses(group.name, label, wanted.name)


def _add(out: Part, rows: Rows, clusters: IntArray, wanted: Wanted) -> None:
    p, count, w = len(wanted.beta), out.scores.shape[1], rows.weights
    left = rows.y - rows.X @ wanted.beta
    for z, codes, modes in zip(rows.columns, rows.codes, wanted.modes, strict=True):
        for i in range(z.shape[1]):
            left -= z[:, i] * modes[i].take(codes)
    X = np.asfortranarray(rows.X @ wanted.whiten)
    if w is not None:
        left *= w
    for a in range(p):
        out.scores[a] += np.bincount(clusters, X[:, a] * left, minlength=count)
    at = 0
    for a in range(p if wanted.inner else 0):
        VX = X[:, a].copy()
        for z, codes, taken in zip(rows.columns, rows.codes, wanted.pulled, strict=True):
            for i in range(z.shape[1]):
                VX -= z[:, i] * taken[i, a].take(codes)
        if w is not None:
            VX *= w
        for other in range(a + 1):
            out.inner[at] += np.bincount(clusters, X[:, other] * VX, minlength=count)
            at += 1


def _joined(wanted: Wanted, a: Part, b: Part) -> Part:
    """The sums of the rows of both."""
    if wanted.term < 0:
        if a.labels is None or b.labels is None:  # one of them has no rows
            return b if a.labels is None else a
        labels = a.labels.joined(b.labels, wanted.name)
        count = len(labels.labels)
        place = labels.labels.get_indexer(b.labels.labels)
        a, b = replace(a, labels=labels), _moved(b, place, count)
        _widen(a, count)
    levels = []
    for t, (first, second) in enumerate(zip(a.levels, b.levels, strict=True)):
        both = (first >= 0) & (second >= 0) & (first != second)
        if both.any():
            _raise_crossing(wanted, t, int(both.argmax()))
        levels.append(np.where(first >= 0, first, second))
    return Part(a.n + b.n, a.labels, a.scores + b.scores, a.inner + b.inner, levels)


def _moved(part: Part, place: IntArray, count: int) -> Part:
    """Sums with the clusters at other places."""
    scores = np.zeros((len(part.scores), count))
    inner = np.zeros((len(part.inner), count))
    scores[:, place], inner[:, place] = part.scores, part.inner
    levels = [np.where(each >= 0, place[each], -1) for each in part.levels]
    return replace(part, scores=scores, inner=inner, levels=levels)


def _that_occur(part: Part) -> Part:
    """Without categories that no row has: clusters have a level of every term."""
    used = np.unique(np.concatenate([each[each >= 0] for each in part.levels]))
    place = np.zeros(part.scores.shape[1], dtype=np.intp)
    place[used] = np.arange(len(used))
    levels = [np.where(each >= 0, place[each], -1) for each in part.levels]
    return replace(part, scores=part.scores[:, used], inner=part.inner[:, used], levels=levels)


def _square(triangles: FloatArray, p: int) -> FloatArray:
    """Symmetric matrices from their lower triangles, (clusters, p, p)."""
    out = np.empty((triangles.shape[1], p, p))
    i, j = np.tril_indices(p)
    out[:, i, j] = out[:, j, i] = triangles.T
    return out


def _check_same(fit: Fit, data: Source, found: Part, wanted: Wanted) -> None:
    """The rows are those of the fit: all scores together are zero, all blocks the identity."""
    most = np.sqrt(fit.modes.solution.pwrss)
    fine = found.n == fit.design.n
    fine = fine and bool((np.abs(found.scores.sum(axis=1)) <= _SAME * most).all())
    if fine and wanted.inner:
        p = fit.design.p
        sums = _square(found.inner.sum(axis=1)[:, None], p)[0]
        fine = bool(np.abs(sums - np.eye(p)).max(initial=0.0) <= _SAME)
    if not fine:
        raise DataError(
            f"{data.what} does not have the rows that the model was fitted to ({fit.design.n} "
            f"were, {found.n} are there). Pass the same data, unchanged."
        )
