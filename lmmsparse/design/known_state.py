"""Known covariances of levels ↔ plain arrays, which are checked when they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lmmsparse.common.archive import Arrays
from lmmsparse.common.arrays import ObjectArray
from lmmsparse.common.fields import choice, record
from lmmsparse.design.grouping import LevelCovariance
from lmmsparse.design.known import Covariance, Precision
from lmmsparse.design.pedigree import Pedigree
from lmmsparse.engine.known import DensePrior

_KINDS = ("pedigree", "precision", "covariance")


def encode_known(
    known: LevelCovariance | None, name: str, arrays: dict[str, ObjectArray]
) -> dict[str, Any]:
    """What to write in JSON, if any; the numbers go to `arrays`. Labels are those of the levels."""
    if known is None:
        return {}
    if isinstance(known, Pedigree):
        arrays[f"{name}.sires"], arrays[f"{name}.dams"] = known.sires + 1, known.dams + 1
    elif isinstance(known.prior, DensePrior):
        arrays[f"{name}.lower"] = known.prior.covariance[np.tril_indices(len(known.labels))]
    else:
        lower = sp.csc_array(sp.tril(known.prior.precision))
        for part in ("data", "indices", "indptr"):
            arrays[f"{name}.{part}"] = getattr(lower, part)
    return {"known": {"kind": known.kind}}


def decode_known(meta: Any, name: str, labels: pd.Index, arrays: Arrays) -> LevelCovariance:
    """The inverse of `encode_known`.

    Parameters
    ----------
    labels : pandas.Index
        The levels.
    """
    record(meta, ("kind",))
    kind, n = choice(meta["kind"], _KINDS), len(labels)
    if not labels.is_unique:
        raise ValueError("levels that repeat")
    if kind == "pedigree":
        sires, dams = (arrays.whole(f"{name}.{each}", n, n + 1) - 1 for each in ("sires", "dams"))
        return Pedigree.of_positions(labels, sires, dams)
    if kind == "covariance":
        lower = arrays.numbers(f"{name}.lower", n * (n + 1) // 2)
        A = np.zeros((n, n))
        A[np.tril_indices(n)] = lower
        return Covariance(A + np.tril(A, -1).T, labels=labels)
    Q = sp.csc_array(arrays.compressed(name, n, n), shape=(n, n))
    Q.check_format(full_check=True)
    return Precision(Q + sp.tril(Q, -1).T, labels=labels)
