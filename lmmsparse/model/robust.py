"""What ``robust=`` and ``cluster=`` ask for; of data in chunks, by one more pass over them."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

from lmmsparse.chunks.clusters import check_named, cluster_sums
from lmmsparse.chunks.dask import DaskSource, own_client
from lmmsparse.chunks.options import Chunks
from lmmsparse.chunks.products import ModelProducts
from lmmsparse.chunks.source import check_chunks, source_of
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.robust.clusters import Robust, robust_errors
from lmmsparse.model.update import made_from
from lmmsparse.results.cluster_sums import ClusterSums

# Of models fitted in chunks, so that another table of the same model reads nothing again.
_known: weakref.WeakKeyDictionary[Fit, dict[str | None, ClusterSums]] = weakref.WeakKeyDictionary()


def errors_asked(fit: Fit, robust: Any, cluster: Any) -> Robust | None:
    """What a table's ``robust=`` and ``cluster=`` ask for; None for the model's own errors."""
    if robust is None or robust is False:
        return robust_errors(fit, robust, cluster)
    return robust_errors(fit, robust, clusters_asked(fit, cluster))


def clusters_asked(fit: Fit, cluster: Any) -> Any:
    """What ``cluster=`` is, or sums over these clusters where rows are not kept."""
    if fit.design.facts is None or isinstance(cluster, ClusterSums):
        return cluster
    check_named(cluster)
    known = _known.setdefault(fit, {})
    if cluster not in known:
        data, chunks = made_from(fit)
        if data is None or isinstance(data, ModelProducts):
            return cluster  # which is refused
        known[cluster] = summed(fit, data, cluster, chunks)
    return known[cluster]


def summed(fit: Fit, data: Any, cluster: Any, chunks: Any) -> ClusterSums:
    """Sums over the clusters of a source; see `LinearMixedModel.cluster_sums`."""
    how = check_chunks(chunks) or Chunks()
    source = source_of(data)
    if how.client is None and isinstance(source, DaskSource):
        how = replace(how, client=own_client())
    return cluster_sums(fit, source, cluster, how)
