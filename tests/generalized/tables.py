"""The tables of the generalized models that are checked against R."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parents[2] / "validation" / "glmm"


@cache
def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / "data" / f"{name}.csv.gz")


def table(name: str) -> pd.DataFrame:
    """A table by name, a copy of its own."""
    return _read(name).copy()
