"""Fixed factors whose levels occur within levels of others, and means over what occurs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.design.terms import FormulaTerm

Nesting = dict[str, tuple[str, ...]]


def nesting_of(names: Sequence[str], counts: FloatArray, terms: Sequence[FormulaTerm]) -> Nesting:
    """Nested factor → the factors it is nested in.

    A factor is nested in another if each of its levels occurs with one level of the other only, or
    if the formula has it within the other and not by itself.

    Parameters
    ----------
    names : sequence of str
        Factors with two or more levels, one per axis of `counts`.
    counts : array
        Rows in every combination of levels.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        others = [n for n in names if n != name and name not in found.get(n, [])]
        inside = [other for other in others if _is_within(names, counts > 0, name, other)]
        if inside:
            found[name] = inside
    for name, outer in _written(names, terms).items():
        found[name] = [*found.get(name, []), *(n for n in outer if n not in found.get(name, []))]
    for name in found:
        further = [n for outer in found[name] for n in found.get(outer, [])]
        found[name] = list(dict.fromkeys([*further, *found[name]]))
    # In the order of the factors, so that tables do not depend on how it was found.
    return {n: tuple(o for o in names if o in found[n]) for n in found if n not in found[n]}


def _is_within(names: Sequence[str], occurs: BoolArray, name: str, other: str) -> bool:
    rest = tuple(i for i, n in enumerate(names) if n not in (name, other))
    table = occurs.any(axis=rest)
    if names.index(name) > names.index(other):
        table = table.T
    return int(table.sum(axis=1).max(initial=0)) == 1


def _written(names: Sequence[str], terms: Sequence[FormulaTerm]) -> dict[str, list[str]]:
    """Factors that stand in the formula within others only: ``b`` in ``a + a:b``."""
    known = {term.variables for term in terms}
    out: dict[str, list[str]] = {}
    for name in names:
        own = [t.variables for t in terms if name in t.variables]
        if not own or frozenset([name]) in known:
            continue
        coded = [variables for variables in own if variables - {name} in known] or own
        sets = [
            {n for n in names if n in variables - {name} and variables - {n} not in known}
            for variables in coded
        ]
        sets = [s for s in sets if s and not any(other < s for other in sets if other)]
        if sets:
            out[name] = sorted(set().union(*sets), key=list(names).index)
    return out


def averaging_order(over: Collection[str], nesting: Nesting) -> list[str]:
    """Nested factors among those that are averaged over, the most deeply nested first."""
    return sorted((n for n in over if n in nesting), key=lambda n: -len(nesting[n]))


def occurring(counts: FloatArray, names: Sequence[str], keep: Collection[str]) -> BoolArray:
    """Which combinations of some factors occur, with an axis of length one for the others."""
    rest = tuple(i for i, name in enumerate(names) if name not in keep)
    return np.asarray(counts.sum(axis=rest, keepdims=True) > 0)


def described(nesting: Mapping[str, tuple[str, ...]]) -> str:
    """Nesting in words, as it is said of a table."""
    return ", ".join(f"{name} in {' and '.join(outer)}" for name, outer in nesting.items())
