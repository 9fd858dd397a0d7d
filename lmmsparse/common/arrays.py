"""Array aliases used throughout, and what makes arrays read-only."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

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


def ones_once(columns: FloatArray) -> FloatArray:
    """The same columns; a single one of ones as `column_of_ones`."""
    if columns.shape[1:] == (1,) and bool((columns == 1.0).all()):
        return column_of_ones(len(columns))
    return columns


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
            if isinstance(value, np.ndarray):
                own[name] = frozen(value)
            elif value.__class__ is sp.csr_array:  # isinstance would ask Python's ABC
                own[name] = frozen_csr(value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: _packed(value) for name, value in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update((name, _unpacked(value)) for name, value in state.items())
        ReadOnly.__post_init__(self)


class _Repeated(NamedTuple):
    """An array whose rows are all one row in memory: a pickle would store each."""

    row: NDArray[Any]
    n: int


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim and len(value) > 1 and value.strides[0] == 0:
        return _Repeated(value[:1].copy(), len(value))
    return tuple(map(_packed, value)) if type(value) is tuple else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, _Repeated):
        return np.broadcast_to(value.row, (value.n, *value.row.shape[1:]))
    return tuple(map(_unpacked, value)) if type(value) is tuple else value
