"""Array aliases used throughout, and what makes arrays read-only."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
ObjectArray = NDArray[Any]

T = TypeVar("T", bound=np.generic)


def frozen(array: NDArray[T]) -> NDArray[T]:
    """A read-only view of an array; nothing is copied, and the array itself stays as it is."""
    view = array.view()
    view.flags.writeable = False
    return view


def frozen_csr(matrix: sp.csr_array) -> sp.csr_array:
    """The same sparse matrix on read-only views of its arrays."""
    parts = (frozen(matrix.data), frozen(matrix.indices), frozen(matrix.indptr))
    return sp.csr_array(parts, shape=matrix.shape, copy=False)


class ReadOnly:
    """Base of frozen dataclasses whose arrays cannot be written either.

    However they come to be: made, replaced, unpickled or copied.
    """

    def __post_init__(self) -> None:
        own = self.__dict__
        for name, value in own.items():
            if isinstance(value, (np.ndarray, sp.csr_array)):
                own[name] = frozen(value) if isinstance(value, np.ndarray) else frozen_csr(value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        ReadOnly.__post_init__(self)
