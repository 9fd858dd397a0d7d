"""Array aliases used throughout, and what makes arrays read-only."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.signedinteger[Any]]
BoolArray = NDArray[np.bool_]
ObjectArray = NDArray[Any]

T = TypeVar("T", bound=np.generic)


def frozen(array: NDArray[T]) -> NDArray[T]:
    """A read-only view of an array; nothing is copied, and the array itself stays as it is."""
    view = array.view()
    view.flags.writeable = False
    return view


def compact(numbers: IntArray, most: int) -> IntArray:
    """Whole numbers below `most` in 32 bits where these hold them, as they are otherwise."""
    return numbers.astype(np.int32, copy=False) if most < 2**31 else numbers


def column_of_ones(n: int) -> FloatArray:
    """A column (n, 1) of ones that takes the memory of one number; read-only."""
    return np.broadcast_to(np.ones((1, 1)), (n, 1))


def is_ones(columns: NDArray[Any]) -> bool:
    """Whether an array is a `column_of_ones`, or a block of it."""
    return bool(columns.size and columns[:1].size == 1 and columns.strides[0] == 0) and bool(
        columns.flat[0] == 1.0
    )


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
            if value.__class__ is np.ndarray:
                own[name] = frozen(value)
            elif isinstance(value, (np.ndarray, sp.csr_array)):
                own[name] = frozen(value) if isinstance(value, np.ndarray) else frozen_csr(value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        ReadOnly.__post_init__(self)
