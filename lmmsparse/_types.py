"""Array aliases used throughout, and the one helper that freezes an array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
ObjectArray = NDArray[Any]


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view of `array` (a copy is never made)."""
    view = array.view()
    view.flags.writeable = False
    return view
