"""A column's name or labels of rows → clusters that no random effect crosses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import IntArray
from lmmsparse.common.errors import DataError, OptionError, RowsNotKeptError
from lmmsparse.common.options import one_of
from lmmsparse.common.words import close_match, listed
from lmmsparse.design import Design
from lmmsparse.design.labels import python_value
from lmmsparse.fit.fit import Fit
from lmmsparse.results.by_group import own_name
from lmmsparse.results.cluster_sums import ClusterSums, check_own, crosses
from lmmsparse.results.row_labels import row_labels

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
    clusters: Clusters | ClusterSums

    @property
    def words(self) -> str:
        """Of whose standard errors a table is."""
        return f"{self.kind} standard errors by {self.clusters.name}"


def robust_errors(fit: Fit, robust: Any, cluster: Any) -> Robust | None:
    """What ``robust=`` and ``cluster=`` ask for; None for the model's own standard errors."""
    if robust is None or robust is False:
        if cluster is None:
            return None
        raise OptionError(
            "cluster= goes with cluster-robust standard errors. Pass robust='CR2' too, or leave "
            "it out."
        )
    return Robust(check_kind("robust", robust), clusters_of(fit, cluster))


def check_kind(name: str, kind: Any) -> str:
    """The name of a cluster-robust covariance matrix, in any case."""
    written = kind.upper() if isinstance(kind, str) else kind
    return one_of(name, written, KINDS, "They are cluster-robust; 'CR2' is the usual choice.")


def clusters_of(fit: Fit, cluster: Any) -> Clusters | ClusterSums:
    """Clusters from a factor's name, labels of the rows, or None for the outermost factor.

    Sums over clusters stand for themselves.

    Raises
    ------
    DataError, OptionError
        If there are no such labels, some are missing, all are equal, or a random effect is shared
        by several clusters.
    """
    design = fit.design
    if isinstance(cluster, ClusterSums):
        return check_own(cluster, fit)
    if design.facts is not None:
        raise RowsNotKeptError(
            "Cluster-robust standard errors need another pass over the data, which this model does "
            "not know any more. Write cluster=m.cluster_sums(source, 'column'), with the source "
            "that it was fitted to."
        )
    name, codes = _outermost(design) if cluster is None else _labelled(design, cluster)
    _, codes = np.unique(codes, return_inverse=True)
    found = Clusters(name, codes.ravel().astype(np.intp), int(codes.max(initial=-1)) + 1)
    if found.count < 2:
        raise DataError(
            f"cluster {name!r} has one label only. Cluster-robust standard errors compare "
            "clusters, and need many. Name a column with more labels."
        )
    residual = design.residual
    if residual is not None and residual.grouping is not None:
        groups = residual.grouping
        if crossing := _crosses(groups.codes, len(groups.levels), found):
            label = python_value(groups.levels[crossing[0]])
            raise OptionError(
                f"Residuals are correlated within {groups.name!r}, which crosses the clusters of "
                f"{name!r}: the level {label!r} occurs in {crossing[1]} of them. "
                "Choose clusters within each of which correlated rows lie."
            )
    for block in design.blocks:
        if block.known is not None:
            raise OptionError(
                f"The known covariance of {block.group!r} makes its levels correlated, and with "
                "them the clusters. Cluster-robust standard errors need independent ones."
            )
        if crossing := _crosses(block.codes, block.n_levels, found):
            label = python_value(block.levels[crossing[0]])
            raise crosses(block.group, label, name, crossing[1])
    return found


def _crosses(codes: IntArray, n_levels: int, clusters: Clusters) -> tuple[int, int] | None:
    """A level of a factor that lies in several clusters, and in how many; None without any."""
    pairs = np.unique(codes.astype(np.int64) * clusters.count + clusters.codes)
    times = np.bincount(pairs // clusters.count, minlength=n_levels)
    return (int(times.argmax()), int(times.max())) if times.max() > 1 else None


def _outermost(design: Design) -> tuple[str, IntArray]:
    """The grouping factor in whose levels those of all others lie."""
    groupings = design.groupings
    for grouping in groupings.values():
        own = Clusters(grouping.name, grouping.codes, len(grouping.levels))
        if not any(_crosses(g.codes, len(g.levels), own) for g in groupings.values()):
            return own.name, own.codes
    none = f"none of the grouping factors {listed(groupings)} holds all others"
    raise OptionError(
        f"cluster= is needed: {none if groupings else 'the model has no grouping factor'}. Pass a "
        "column's labels, cluster=data['column']."
    )


def _labelled(design: Design, cluster: Any) -> tuple[str, IntArray]:
    if isinstance(cluster, str):
        return _named(design, cluster)
    if isinstance(cluster, pd.DataFrame) and cluster.shape[1] == 1:
        cluster = cluster.iloc[:, 0]
    labels = row_labels(design, "cluster", cluster)
    codes, _ = pd.factorize(labels)
    return labels.name if isinstance(labels.name, str) else "cluster", codes.astype(np.intp)


def _named(design: Design, cluster: str) -> tuple[str, IntArray]:
    """A grouping factor of the model, or one that it was combined from."""
    groupings = design.groupings
    name = own_name(cluster, groupings)
    if name in groupings:
        return name, groupings[name].codes
    if design.recipe is not None:
        for block, group in zip(design.blocks, design.recipe.groups, strict=True):
            if name in group.factors:
                at = group.factors.index(name)
                return name, group.key.combinations[block.codes, at].astype(np.intp)
    close = close_match(cluster, groupings)
    raise OptionError(
        f"cluster={cluster!r} is not a grouping factor of the model.{close} Its grouping factors "
        f"are {listed(groupings)}. Name one of them, or pass the labels of the rows, for "
        "example cluster=data['column']: the data of the fit are not kept."
    )
