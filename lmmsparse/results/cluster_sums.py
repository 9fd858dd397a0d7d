"""What cluster-robust covariances need of the rows, summed by cluster; which levels lie where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.words import close_match, listed
from lmmsparse.design import Design
from lmmsparse.design.labels import python_value
from lmmsparse.engine.pair_blocks import PairBlocks
from lmmsparse.fit.fit import Fit
from lmmsparse.results.by_group import own_name


@dataclass(frozen=True, eq=False, repr=False)
class ClusterSums:
    """Sums over the rows of every cluster, from `LinearMixedModel.cluster_sums`.

    It stands for the clusters wherever ``cluster=`` is taken, for the model that made it.

    Attributes
    ----------
    name : str
        What the clusters are.
    count : int
        How many there are.
    theta, beta : arrays
        Of the fit.
    scores : (count, p) array
        X_j'V_j⁻¹e_j of columns with X'V⁻¹X = I, relative to σ².
    inner : (count, p, p) array or None
        X_j'V_j⁻¹X_j; None where memory would not hold it.
    levels : tuple of int arrays
        Cluster of every level, per term.
    """

    name: str
    count: int
    theta: FloatArray
    beta: FloatArray
    scores: FloatArray
    inner: FloatArray | None
    levels: tuple[IntArray, ...]

    def __repr__(self) -> str:
        return f"Sums over {self.count:,} clusters by {self.name}"


def check_own(sums: ClusterSums, fit: Fit) -> ClusterSums:
    """The sums, if they are those of a fit."""
    same = np.array_equal(sums.theta, fit.theta) and np.array_equal(sums.beta, fit.beta)
    if not same or len(sums.levels) != len(fit.design.blocks):
        raise OptionError(
            f"cluster= are sums over the clusters of {sums.name!r} for another model: they depend "
            f"on its estimates. Write cluster=m.cluster_sums(source, {sums.name!r}) with this "
            "model."
        )
    return sums


def outermost_of_levels(design: Design, pairs: Sequence[PairBlocks]) -> tuple[str, int, IntArray]:
    """The grouping factor in whose levels those of all others lie: name, term, its levels."""
    for t, block in enumerate(design.blocks):
        own = np.arange(block.n_levels)
        if all(_met(pairs, s, t, own)[1] is None for s in range(len(design.blocks))):
            return block.group, t, own
    names = listed(design.groupings)
    raise OptionError(
        f"cluster= is needed: none of the grouping factors {names} holds all others. Name a column "
        "of the data, within each of whose labels the levels of all factors lie."
    )


def named_by_levels(design: Design, cluster: str) -> tuple[str, int, IntArray] | None:
    """A grouping factor, or one that it was combined from: name, term, cluster of its levels."""
    groups = {block.group: t for t, block in reversed(list(enumerate(design.blocks)))}
    name = own_name(cluster, groups)
    if name in groups:
        return name, groups[name], np.arange(design.blocks[groups[name]].n_levels)
    assert design.recipe is not None
    for t, group in enumerate(design.recipe.groups):
        if name in group.factors:
            codes = group.key.combinations[:, group.factors.index(name)]
            _, found = np.unique(codes, return_inverse=True)
            return name, t, found.astype(np.intp)
    return None


def unknown_cluster(design: Design, cluster: str, columns: Sequence[str]) -> OptionError:
    """The error for a name that is neither a grouping factor nor a column."""
    return OptionError(
        f"cluster={cluster!r} is neither a grouping factor of the model nor a column of the data."
        f"{close_match(cluster, [*design.groupings, *columns])} The grouping factors are "
        f"{listed(design.groupings)}."
    )


def levels_within(
    design: Design, pairs: Sequence[PairBlocks], name: str, term: int, clusters: IntArray
) -> tuple[IntArray, ...]:
    """Cluster of the levels of all terms, from that of the levels of one.

    Raises
    ------
    OptionError
        If a level lies in several.
    """
    out = []
    for s, block in enumerate(design.blocks):
        found, crossing = _met(pairs, s, term, clusters)
        if crossing is not None:
            raise crosses(block.group, python_value(block.levels[crossing[0]]), name, crossing[1])
        out.append(found)
    return tuple(out)


def crosses(group: str, label: object, name: str, times: int | None = None) -> OptionError:
    """The error for a level of a factor that lies in several clusters."""
    return OptionError(
        f"The random effects of {group!r} cross the clusters of {name!r}: the level {label!r} "
        f"occurs in {'several' if times is None else times} of them, which are therefore "
        "correlated. Choose clusters within each of which the levels of all grouping factors lie."
    )


def _met(
    pairs: Sequence[PairBlocks], s: int, term: int, clusters: IntArray
) -> tuple[IntArray, tuple[int, int] | None]:
    """Cluster of every level of a term; one that lies in several, and in how many."""
    if s == term:
        return clusters, None
    pair = next(p for p in pairs if {p.s, p.t} == {s, term})
    levels, others = (pair.rows, pair.cols) if pair.s == s else (pair.cols, pair.rows)
    count = int(clusters.max(initial=-1)) + 1
    met = np.unique(levels.astype(np.int64) * count + clusters[others])
    times = np.bincount(met // count)
    out = np.empty(len(times), dtype=np.intp)
    out[met // count] = met % count
    crossing = (int(times.argmax()), int(times.max())) if times.max(initial=0) > 1 else None
    return out, crossing
