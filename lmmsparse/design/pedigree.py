"""Animals and their parents → their relationships, as the covariance of a factor's levels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray, frozen
from lmmsparse.common.calls import checked_construction, checked_keywords
from lmmsparse.common.errors import DataError
from lmmsparse.common.options import a_text, array_of, refused
from lmmsparse.common.words import close_match, listed
from lmmsparse.design.generations import (
    cycle,
    generations,
    half_of_parents,
    inbreeding,
    mendelian_variances,
)
from lmmsparse.design.labels import alike, positions, python_value, same_but_for_type
from lmmsparse.design.recipe import plain_labels
from lmmsparse.design.tables import as_frame
from lmmsparse.engine.known import RecursivePrior
from lmmsparse.engine.prior import Prior


@checked_construction
class Pedigree:
    """Additive relationships of animals (plants, people) from their parents.

    The covariance of the levels is A, the numerator relationship matrix: twice the coefficients of
    kinship. Its inverse is made by Henderson's rules, with inbreeding.

    Parameters
    ----------
    id, sire, dam : (m,) arrays
        Labels of animals and of their parents, in any order. Missing values and empty texts are
        unknown parents, and so are zeros (0 or "0") unless an animal has this label. Parents
        without a row of their own are founders, added at the end.
    hermaphrodites : bool
        Whether an animal may be a sire and a dam, as most plants.

    Attributes
    ----------
    labels : pandas.Index
        All animals.

    Raises
    ------
    DataError
        For animals that are their own ancestors, sires that are dams, and animals with two
        different entries.

    References
    ----------
    Henderson (1976), Biometrics 32, 69-83; Meuwissen & Luo (1992), Genetics Selection Evolution
    24, 305-313.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> pedigree = lmm.Pedigree(["a", "b", "c", "d"], ["", "", "a", "c"], ["", "", "b", "b"])
    >>> pedigree.inbreeding.to_dict()
    {'a': 0.0, 'b': 0.0, 'c': 0.0, 'd': 0.25}
    """

    kind: ClassVar[str] = "pedigree"
    # An animal that it does not have is as one of unknown parents.
    variance_of_others: ClassVar[float | None] = 1.0

    def __init__(self, id: Any, sire: Any, dam: Any, *, hermaphrodites: bool = False) -> None:
        own, *parents = (_column(n, v) for n, v in (("id", id), ("sire", sire), ("dam", dam)))
        if not len(own) == len(parents[0]) == len(parents[1]):
            raise DataError(
                f"The pedigree has {len(own)} animals, {len(parents[0])} sires and "
                f"{len(parents[1])} dams. Give one of each per row."
            )
        if own.isna().any() or (own.astype(object) == "").any():
            raise DataError(
                "The pedigree has rows without the label of an animal. Fill in the column, or "
                "leave these rows out."
            )
        first = ~own.duplicated().to_numpy()
        labels = pd.Index(own[first], tupleize_cols=False)
        known = [_known_parents(labels, parent) for parent in parents]
        founders = _founders(labels, [p[k] for p, k in zip(parents, known, strict=True)])
        if len(founders):
            labels = pd.Index([*labels, *founders], tupleize_cols=False)
        places = [
            np.where(k, positions(labels, parent), -1)
            for parent, k in zip(parents, known, strict=True)
        ]
        _check_once(labels, positions(labels, own), first, places)
        pad = np.full(len(founders), -1, dtype=np.intp)
        sires, dams = (np.concatenate([place[first], pad]) for place in places)
        if not hermaphrodites:
            both = np.intersect1d(sires[sires >= 0], dams[dams >= 0])
            if len(both):
                raise DataError(
                    f"The pedigree has animals that are sires and dams: {_named(labels, both)}. "
                    "Correct their offspring's entries, or write hermaphrodites=True if they may "
                    "be both."
                )
        self._take(labels, sires, dams)

    def _take(self, labels: pd.Index, sires: IntArray, dams: IntArray) -> None:
        self.labels, self.sires, self.dams = labels, frozen(sires), frozen(dams)
        self._generation = generations(sires, dams)
        if (self._generation < 0).any():
            way = [python_value(labels[i]) for i in cycle(sires, dams, self._generation)]
            shown = " → ".join(repr(label) for label in [*way, way[0]])
            raise DataError(
                f"The pedigree has an animal that is its own ancestor: {shown} (each a parent of "
                "the next). Correct one of these entries."
            )

    @classmethod
    def of_positions(cls, labels: pd.Index, sires: IntArray, dams: IntArray) -> Pedigree:
        """A pedigree whose parents are given by their places among the labels, −1 if unknown."""
        out = object.__new__(cls)
        out._take(labels, sires, dams)
        return out

    @classmethod
    @checked_keywords
    def from_frame(
        cls,
        frame: Any,
        id: str = "id",
        sire: str = "sire",
        dam: str = "dam",
        *,
        hermaphrodites: bool = False,
    ) -> Pedigree:
        """A pedigree from three columns of a table.

        Parameters
        ----------
        frame : table
            One row per animal.
        id, sire, dam : str
            Columns of labels; see `Pedigree` for unknown parents.
        hermaphrodites : bool
            Whether an animal may be a sire and a dam, as most plants.

        Returns
        -------
        Pedigree
        """
        table = as_frame(frame)
        for option, name in (("id", id), ("sire", sire), ("dam", dam)):
            if a_text(option, name) not in table.columns:
                raise DataError(
                    f"The pedigree has no column {name!r}.{close_match(str(name), table.columns)} "
                    f"Its columns are {listed(table.columns)}. Name them with id=, sire= and dam=."
                )
        return cls(table[id], table[sire], table[dam], hermaphrodites=hermaphrodites)

    def __repr__(self) -> str:
        return f"Pedigree of {len(self.labels)} animals"

    @cached_property
    def _inbreeding(self) -> FloatArray:
        return inbreeding(self.sires, self.dams, self._generation)

    @property
    def inbreeding(self) -> pd.Series:
        """Coefficients of inbreeding, by animal."""
        return pd.Series(self._inbreeding, index=self.labels, name="inbreeding")

    @cached_property
    def prior(self) -> Prior:
        """What the engine works with."""
        F = self._inbreeding
        return RecursivePrior(
            half_of_parents(self.sires, self.dams),
            mendelian_variances(self.sires, self.dams, F),
            np.argsort(self._generation, kind="stable"),
            1.0 + F,
        )

    @property
    def precision(self) -> sp.csc_array:
        """A⁻¹, sparse, in the order of `labels`."""
        return self.prior.precision.copy()


def _column(name: str, values: Any) -> pd.Series:
    if isinstance(values, Mapping) or array_of(name, values).ndim != 1:
        raise refused(name, "one label per animal", values, "Pass a column.")
    return plain_labels(pd.Series(values).reset_index(drop=True))


def _known_parents(labels: pd.Index, parents: pd.Series) -> BoolArray:
    """Which parents are known."""
    known = ~parents.isna().to_numpy()
    values = parents.astype(object)
    known &= ~(values == "").to_numpy(dtype=bool, na_value=False)
    nothing = values.isin([0, "0"]).to_numpy() & known
    if nothing.any():
        known &= ~(nothing & (positions(labels, parents) < 0))
    return np.asarray(known)


def _founders(labels: pd.Index, parents: list[pd.Series]) -> list[Any]:
    """Parents without a row of their own."""
    out: dict[Any, None] = {}
    for each in parents:
        unseen = each[positions(labels, each) < 0]
        if len(unseen):
            twins = same_but_for_type(labels, unseen)
            if twins:
                raise DataError(alike("The pedigree", "as a parent", "as an animal", *twins))
            for value in pd.unique(unseen.astype(object)):
                plain = python_value(value)
                whole = isinstance(plain, float) and plain.is_integer()
                out.setdefault(int(plain) if whole else plain)
    return list(out)


def _check_once(labels: pd.Index, own: IntArray, first: BoolArray, places: list[IntArray]) -> None:
    """Refuse animals with two different entries."""
    if first.all():
        return
    where = np.full(len(labels), -1, dtype=np.intp)
    where[own[first]] = np.flatnonzero(first)
    differs = np.zeros(len(own), dtype=bool)
    for place in places:
        differs |= place != place[where[own]]
    if differs.any():
        raise DataError(
            "The pedigree has animals with two entries that differ: "
            f"{_named(labels, np.unique(own[differs]))}. Keep one row of each."
        )


def _named(labels: pd.Index, places: IntArray) -> str:
    return listed([repr(python_value(labels[int(i)])) for i in places])
