"""A column's name or labels of rows → clusters that no random effect crosses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import IntArray
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.options import one_of
from lmmsparse.common.words import close_match, listed
from lmmsparse.design import Design
from lmmsparse.design.recipe import plain_labels
from lmmsparse.results.by_group import own_name

KINDS = ("CR0", "CR1", "CR2", "CR3")


@dataclass(frozen=True, eq=False)
class Clusters:
    """Sets of rows between which nothing is correlated.

    Attributes
    ----------
    name : str
    codes : (n,) int array
        Cluster of every fitted row.
    count : int
    """

    name: str
    codes: IntArray
    count: int


@dataclass(frozen=True, eq=False)
class Robust:
    """Which cluster-robust covariance matrix is wanted."""

    kind: str
    clusters: Clusters

    @property
    def words(self) -> str:
        """Of whose standard errors a table is."""
        return f"{self.kind} standard errors by {self.clusters.name}"


def robust_errors(design: Design, robust: Any, cluster: Any) -> Robust | None:
    """What ``robust=`` and ``cluster=`` ask for; None for the model's own standard errors."""
    if robust is None or robust is False:
        if cluster is None:
            return None
        raise OptionError(
            "cluster= goes with cluster-robust standard errors. Pass robust='CR2' too, or leave "
            "it out."
        )
    return Robust(check_kind("robust", robust), clusters_of(design, cluster))


def check_kind(name: str, kind: Any) -> str:
    """The name of a cluster-robust covariance matrix, in any case."""
    written = kind.upper() if isinstance(kind, str) else kind
    return one_of(name, written, KINDS, "They are cluster-robust; 'CR2' is the usual choice.")


def clusters_of(design: Design, cluster: Any) -> Clusters:
    """Clusters from a factor's name, labels of the rows, or None for the outermost factor.

    Raises
    ------
    DataError, OptionError
        If there are no such labels, some are missing, all are equal, or a random effect is shared
        by several clusters.
    """
    name, codes = _outermost(design) if cluster is None else _labelled(design, cluster)
    _, codes = np.unique(codes, return_inverse=True)
    found = Clusters(name, codes.ravel().astype(np.intp), int(codes.max(initial=-1)) + 1)
    if found.count < 2:
        raise DataError(
            f"cluster {name!r} has one label only. Cluster-robust standard errors compare "
            "clusters, and need many. Name a column with more labels."
        )
    for block in design.blocks:
        if block.known is not None:
            raise OptionError(
                f"The known covariance of {block.group!r} makes its levels correlated, and with "
                "them the clusters. Cluster-robust standard errors need independent ones."
            )
        if crossing := _crosses(block.codes, block.n_levels, found):
            level, several = crossing
            raise OptionError(
                f"The random effects of {block.group!r} cross the clusters of {name!r}: the level "
                f"{block.levels[level]!r} occurs in {several} of them, which are therefore "
                "correlated. Choose clusters within each of which the levels of all grouping "
                "factors lie."
            )
    if correlated := _correlated(design):
        group = correlated[0]
        if crossing := _crosses(correlated[1], correlated[2], found):
            raise OptionError(
                f"The residuals within {group!r} are correlated, and its levels cross the clusters "
                f"of {name!r}. Choose clusters within each of which they lie."
            )
    return found


def _correlated(design: Design) -> tuple[str, IntArray, int] | None:
    """The groups within which residuals are correlated: name, codes and number."""
    grouping = None if design.residual is None else design.residual.grouping
    return None if grouping is None else (grouping.name, grouping.codes, len(grouping.levels))


def _crosses(codes: IntArray, n_levels: int, clusters: Clusters) -> tuple[int, int] | None:
    """A level of a factor that lies in several clusters, and in how many; None without any."""
    pairs = np.unique(codes.astype(np.int64) * clusters.count + clusters.codes)
    times = np.bincount(pairs // clusters.count, minlength=n_levels)
    return (int(times.argmax()), int(times.max())) if times.max() > 1 else None


def _outermost(design: Design) -> tuple[str, IntArray]:
    """The grouping factor in whose levels those of all others lie."""
    inner = [(b.group, b.codes, b.n_levels) for b in design.blocks]
    correlated = _correlated(design)
    inner += [] if correlated is None else [correlated]
    for group, codes, count in inner:
        own = Clusters(group, codes, count)
        if not any(_crosses(c, n, own) for _, c, n in inner):
            return group, codes
    raise OptionError(
        f"cluster= is needed: none of the grouping factors {listed(design.groups)} holds all "
        "others. Pass a column's labels, cluster=data['column']."
    )


def _labelled(design: Design, cluster: Any) -> tuple[str, IntArray]:
    if isinstance(cluster, str):
        return _named(design, cluster)
    if isinstance(cluster, pd.DataFrame) and cluster.shape[1] == 1:
        cluster = cluster.iloc[:, 0]
    if np.ndim(cluster) != 1:
        raise DataError(
            f"cluster must have one dimension, not {np.ndim(cluster)}. Pass one label per row, or "
            "the name of a grouping factor."
        )
    labels = plain_labels(pd.Series(design.in_rows("cluster", cluster)))
    if len(labels) == len(design.index):
        labels = labels.iloc[design.rows]
    elif len(labels) != design.n:
        raise DataError(
            f"cluster has {len(labels)} labels. The model was fitted to {design.n} rows"
            + (f" of {len(design.index)}" if len(design.index) != design.n else "")
            + ", and each needs one. Pass one label per row."
        )
    if missing := int(labels.isna().sum()):
        raise DataError(f"cluster is missing in {missing} rows. Give every row a label.")
    codes, _ = pd.factorize(labels)
    return labels.name if isinstance(labels.name, str) else "cluster", codes.astype(np.intp)


def _named(design: Design, cluster: str) -> tuple[str, IntArray]:
    """A grouping factor of the model, or one that it was combined from."""
    name = own_name(cluster, design.groups)
    if name in design.groups:
        return name, design.blocks[design.groups[name][0]].codes
    if (correlated := _correlated(design)) and correlated[0] == name:
        return correlated[:2]
    if design.recipe is not None:
        for block, group in zip(design.blocks, design.recipe.groups, strict=True):
            if name in group.factors:
                at = group.factors.index(name)
                return name, group.key.combinations[block.codes, at].astype(np.intp)
    close = close_match(cluster, design.groups)
    raise OptionError(
        f"cluster={cluster!r} is not a grouping factor of the model.{close} Its grouping factors "
        f"are {listed(design.groups)}. Name one of them, or pass the labels of the rows, for "
        "example cluster=data['column']: the data of the fit are not kept."
    )
