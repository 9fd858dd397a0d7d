"""The name of a shipped data set → a DataFrame whose factors carry R's level order.

The files in `data/` hold the values exactly as R's packages publish them; `datasets.toml` says what
they are, what is a factor, and which level comes first.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from types import MappingProxyType
from typing import Any

import pandas as pd

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import OptionError
from lmmsparse.common.words import brief


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about one shipped data set.

    Attributes
    ----------
    name : str
        The name `load_dataset` takes.
    title : str
        One line: what was measured, on what.
    description : str
        How the data came about.
    rows : int
        Number of observations.
    columns : mapping of str to str
        Column name to its meaning, in the order of the columns.
    factors : tuple of str
        The columns that `load_dataset` returns as (unordered) Categorical.
    source : str
        The R package and data set with the same values.
    citation : str
        The publication to cite.
    """

    name: str
    title: str
    description: str
    rows: int
    columns: Mapping[str, str]
    factors: tuple[str, ...]
    source: str
    citation: str
    _file: str = field(repr=False)
    _levels: Mapping[str, list[int]] = field(repr=False)


class _Catalogue(Mapping[str, DatasetInfo]):
    """What `datasets.toml` says, read when it is first asked for."""

    @cached_property
    def _infos(self) -> dict[str, DatasetInfo]:
        text = (resources.files("lmmsparse") / "data" / "datasets.toml").read_text("utf-8")
        return {name: _described(name, **entry) for name, entry in tomllib.loads(text).items()}

    def __getitem__(self, name: str) -> DatasetInfo:
        return self._infos[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)


def _described(
    name: str,
    *,
    columns: dict[str, str],
    factors: list[str],
    file: str,
    levels: Mapping[str, list[int]] = MappingProxyType({}),
    **texts: Any,
) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        columns=MappingProxyType(columns),
        factors=tuple(factors),
        _file=file,
        _levels=levels,
        **texts,
    )


DATASETS: Mapping[str, DatasetInfo] = _Catalogue()
"""The shipped data sets by name, in alphabetical order (capital letters first)."""


@checked_keywords
def load_dataset(name: str) -> pd.DataFrame:
    """Load a data set that ships with lmmsparse.

    Parameters
    ----------
    name : str
        One of the names in `DATASETS`, for example ``"sleepstudy"``.

    Returns
    -------
    DataFrame
        A new frame at every call, with a default index. Grouping columns and factors are
        Categorical, with the levels in the order R has them; whole-number labels stay integers.

    Raises
    ------
    OptionError
        No data set has that name.

    Notes
    -----
    R has `temperature` of cake and `studage` and `lectage` of InstEval as ordered factors, which R
    codes by polynomials. Here they are unordered with the same order of levels; write
    ``C(temperature, contr.poly)`` for R's coding.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> sleep = lmm.load_dataset("sleepstudy")
    >>> sleep.shape
    (180, 3)
    >>> list(sleep["Subject"].cat.categories[:3])
    [308, 309, 310]
    """
    info = DATASETS.get(name) if isinstance(name, str) else None
    if info is None:
        raise OptionError(_unknown(name))
    with resources.as_file(resources.files("lmmsparse") / "data" / info._file) as path:
        frame = pd.read_csv(path)
    for column in info.factors:
        # Without stated levels pandas sorts: numbers by value, text by character, as R did.
        frame[column] = pd.Categorical(frame[column], categories=info._levels.get(column))
    return frame


def _unknown(name: object) -> str:
    wanted = brief(name).strip("'").casefold()
    by_folded = {known.casefold(): known for known in DATASETS}
    close = [by_folded[match] for match in difflib.get_close_matches(wanted, by_folded, cutoff=0.6)]
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return (
        f"There is no data set named {brief(name)}. {hint}"
        f"lmmsparse ships these: {', '.join(DATASETS)}. Names are case-sensitive."
    )
