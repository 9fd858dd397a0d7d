"""`Fit` → what the data do not determine, in words: which parameters, why, what to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import Finding
from lmmsparse.design import Design, RandomBlock
from lmmsparse.fit.advice import written
from lmmsparse.fit.equivalent import constant_within_levels, instead
from lmmsparse.fit.fit import Fit

_NO_PART = 1e-5


@dataclass(frozen=True, eq=False)
class Cluster:
    """Covariance parameters that the same null directions move.

    Attributes
    ----------
    entries : dict of int to list of (int, int)
        Term → places in its covariance matrix, the row never above the column.
    residual : bool
        Whether σ² is among them.
    directions : (m, d) array
        The null directions, in the entries one after the other and σ² last if it is one of them.
    """

    fit: Fit
    entries: dict[int, list[tuple[int, int]]]
    residual: bool
    directions: FloatArray

    @property
    def design(self) -> Design:
        return self.fit.design

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return int(self.directions.shape[1])

    @cached_property
    def by_reml(self) -> bool:
        """Whether the response's covariance does depend on them, and X takes that out."""
        away = self.fit.problem.away
        if away is None:
            return False
        return any(
            abs(change[r, c]) > 0
            for t, places in self.entries.items()
            for change in away.changes[t] / _largest(away.changes[t])
            for r, c in places
            if abs(change[r, c]) > _NO_PART
        )


def _largest(changes: FloatArray) -> float:
    return max(float(np.abs(changes).max(initial=0.0)), 1e-300)


def clusters(fit: Fit) -> list[Cluster]:
    """The parameters that are not determined, apart where nothing connects them."""
    found = fit.unidentified
    if found is None:
        return []
    places, scales, columns = [], [], []
    for t, (block, changes) in enumerate(
        zip(fit.design.blocks, found.directions.changes, strict=True)
    ):
        size = np.sqrt(fit.design.squares(t))
        for c in range(block.k):
            for r in range(c, block.k):
                places.append((t, r, c))
                scales.append(size[r] * size[c] * (1.0 if r == c else 2.0))
                columns.append(changes[:, r, c])
    places.append((-1, 0, 0))
    scales.append(1.0)
    columns.append(found.directions.residual)
    N = np.array(columns).T * scales
    _, _, Q = np.linalg.svd(N, full_matrices=False)  # orthonormal rows of the same span
    P = Q.T @ Q
    P[np.abs(P) < _NO_PART] = 0.0
    moved = [i for i in range(len(places)) if P[i, i] > 0]
    out = []
    while moved:
        group = _connected(P, places, moved)
        moved = [i for i in moved if i not in group]
        values, vectors = np.linalg.eigh(P[np.ix_(group, group)])
        entries: dict[int, list[tuple[int, int]]] = {}
        for i in group:
            if places[i][0] >= 0:
                entries.setdefault(places[i][0], []).append(places[i][1:])
        rows = vectors[:, values > 0.5].T / np.array([scales[i] for i in group])
        out.append(Cluster(fit, entries, places[group[-1]][0] < 0, rows))
    return out


def _connected(
    P: FloatArray, places: Sequence[tuple[int, int, int]], among: Sequence[int]
) -> list[int]:
    """The first place and all that are moved with it, or are in the same term."""
    group, grown = {among[0]}, True
    while grown:
        reached = {
            j for j in among if any(P[i, j] != 0 or places[i][0] == places[j][0] for i in group)
        }
        grown, group = reached != group, reached
    return sorted(group)


def not_identified(fit: Fit, told: Sequence[Finding] = ()) -> list[Finding]:
    """One finding per set of parameters that the data cannot tell apart.

    Parameters
    ----------
    told : sequence of Finding
        What the checks of the design have found; what they have said is not said again.
    """
    out = []
    for cluster in clusters(fit):
        if not _already_said(cluster, told):
            out.append(Finding("not-identified", "warning", _message(cluster)))
    return out


def undetermined_terms(fit: Fit) -> set[int]:
    """Positions of the terms with parameters that are not determined."""
    return {t for cluster in clusters(fit) for t in cluster.entries}


def _already_said(cluster: Cluster, told: Sequence[Finding]) -> bool:
    said = {finding.code: finding.message for finding in told}
    blocks = [cluster.design.blocks[t] for t in cluster.entries]
    if len(blocks) == 1 and blocks[0].source in said.get("dependent-columns", ""):
        return True
    if cluster.by_reml and all(b.source in said.get("random-within-fixed", "") for b in blocks):
        return True
    return (
        "same-grouping" in said
        and len({block.group for block in blocks}) > 1
        and all(_same_partition(cluster.design, a, b) for a in blocks for b in blocks)
    )


def _same_partition(design: Design, a: RandomBlock, b: RandomBlock) -> bool:
    if a.n_levels != b.n_levels:
        return False
    if design.facts is not None:
        return design.facts.same_rows(design.blocks.index(a), design.blocks.index(b))
    pairs = a.codes.astype(np.int64) * b.n_levels + b.codes
    return len(np.unique(pairs)) == a.n_levels


# -- words -----------------------------------------------------------------------------------------


def _message(cluster: Cluster) -> str:
    fit, m = cluster.fit, len(cluster.directions)
    what, why = _what(cluster), _why(cluster)
    verb = "REML cannot estimate" if cluster.by_reml else "The data cannot tell apart"
    return " ".join(
        part
        for part in (
            f"{verb} {what}: {why}.",
            _determined(cluster, m),
            _consequences(cluster),
            _counted(fit),
            instead(fit, cluster.entries, m),
        )
        if part
    )


def _what(cluster: Cluster) -> str:
    design = cluster.design
    parts = []
    for t, places in cluster.entries.items():
        block, term = design.blocks[t], written(design, t)
        if block.k == 1:
            parts.append(f"the variance of {term}")
            continue
        variances = [block.names[r] for r, c in places if r == c]
        pairs = [(r, c) for r, c in places if r != c]
        if len(places) > 3:
            everything = len(places) == block.k * (block.k + 1) // 2
            number = "the" if everything else f"{len(places)} of the"
            parts.append(f"{number} variances and covariances of {term}")
            continue
        pieces = []
        if variances:
            pieces.append(f"the variance{'s' * (len(variances) > 1)} of {_and(variances)}")
        if len(variances) == 1 and pairs and all(_partner(block, p, variances[0]) for p in pairs):
            others = [_partner(block, p, variances[0]) or "" for p in pairs]
            many = "s" * (len(others) > 1)
            pieces.append(f"its covariance{many} with {_and(others)}")
        else:
            pieces += [f"the covariance of {block.names[c]} and {block.names[r]}" for r, c in pairs]
        parts.append(f"{_and(pieces)} in {term}")
    if cluster.residual:
        parts.append("the residual variance")
    return _and(parts)


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _partner(block: RandomBlock, place: tuple[int, int], name: str) -> str | None:
    """The other effect of a covariance that a named effect is part of."""
    names = [block.names[i] for i in place]
    return names[1 - names.index(name)] if name in names else None


def _why(cluster: Cluster) -> str:
    design, terms = cluster.design, list(cluster.entries)
    blocks = [design.blocks[t] for t in terms]
    first = blocks[0]
    if cluster.by_reml:
        return _taken_by_fixed(cluster)
    if cluster.residual:
        q = sum(block.n_levels * block.k for block in blocks)
        if len({block.group for block in blocks}) == 1 and q >= design.n:
            return (
                f"{first.group} has as many random effects as rows ({q} for {design.n} rows), so "
                "that they and the residuals are one"
            )
        return "together the random effects of these terms vary as residuals do"
    if len(blocks) > 1:
        if len({block.group for block in blocks}) == 1:
            return f"within {first.group}, their columns repeat each other"
        return "what one of these terms adds to the covariances of rows, another can add as well"
    if design.facts is not None:
        return f"the rows of a level of {first.group} are too few, or too much alike"
    still = constant_within_levels(first)
    variables = [v for v in _variables(design, terms[0], still) if v != "Intercept"]
    if not still.all() and variables:
        return f"{_and(variables)} {_do(variables)} not vary within {first.group}"
    if still.all():
        cells = len(np.unique(first.columns, axis=0))
        values = f"{_and(variables)} {_do(variables)} not vary within {first.group}"
        return (
            f"{values}, and there are only {cells} kinds of levels"
            if cells < first.k + 2
            else values
        )
    return f"the rows of a level of {first.group} are too few, or too much alike"


def _do(names: Sequence[str]) -> str:
    return "does" if len(names) == 1 else "do"


def _variables(design: Design, t: int, which: BoolArray) -> list[str]:
    """What the chosen columns of a block are made of, each once."""
    names = [name for name, chosen in zip(design.blocks[t].names, which, strict=True) if chosen]
    return list(dict.fromkeys(name.split("[")[0] for name in names))


def _taken_by_fixed(cluster: Cluster) -> str:
    for t, places in cluster.entries.items():
        block = cluster.design.blocks[t]
        for j in sorted({i for place in places for i in place}):
            if not any((j, j) == place for place in places):
                continue
            if cluster.design.facts is not None:
                continue
            where = np.unique(block.codes[block.columns[:, j] != 0])
            if len(where) == 1:
                return (
                    f"{block.names[j]} occurs in one level of {block.group} only "
                    f"({block.levels[where[0]]}), where its fixed effect takes all of it"
                )
    return "the fixed effects take all of them"


def _determined(cluster: Cluster, m: int) -> str:
    d = cluster.size
    if m == d:
        return ""
    if d == 2:
        a, b = cluster.directions[0]
        ratio = -a / b
        kinds = [r == c for places in cluster.entries.values() for r, c in places]
        if cluster.residual:
            kinds.append(True)
        if len(set(kinds)) == 2:
            # From the variance on: variance + ratio × covariance.
            ratio = ratio if kinds[0] else 1.0 / ratio
            times = "" if abs(abs(ratio) - 1) < 1e-6 else f"{abs(ratio):.4g} times "
            sign = "plus" if ratio > 0 else "minus"
            return f"Only the variance {sign} {times}the covariance is determined."
        if abs(ratio - 1.0) < 1e-6:
            return "Only their sum is determined."
    left = d - m
    return (
        f"Only {'one combination' if left == 1 else f'{left} combinations'} of these {d} "
        f"{'is' if left == 1 else 'are'} determined."
    )


def _consequences(cluster: Cluster) -> str:
    shown = "What is shown for them is one choice of many that fit equally well"
    if cluster.by_reml:
        return (
            f"{shown}, and fixed effects that contain them, with their standard errors, depend on "
            "the choice; fitted values and the criterion do not."
        )
    if cluster.residual:
        return (
            f"{shown}, and so are fitted values and residuals; fixed effects, their standard "
            "errors and the criterion are not affected."
        )
    return f"{shown}; fixed effects, fitted values and the criterion are not affected."


def _counted(fit: Fit) -> str:
    whole, left = fit.covariance_parameters, fit.covariance_parameters - fit.n_undetermined
    return f"AIC and df count {left} of {whole} variances and covariances."


def briefly(fit: Fit, findings: Sequence[Finding]) -> list[str]:
    """A line for each finding of `not_identified` among others."""
    said = [f.message.split(": ")[0] for f in findings if f.code == "not-identified"]
    return [f"{text}. {_counted(fit)} m.convergence says more." for text in said]
