"""The second pass: rows → their sums, in the coordinates of the sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.chunks.batch import Batch, Partition
from lmmsparse.chunks.cells import Cells, cells_for
from lmmsparse.chunks.plan import Coordinates, Plan
from lmmsparse.chunks.rows import Rows, factor_codes, rows_of
from lmmsparse.chunks.unchanged import Seen, see
from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import DataError
from lmmsparse.engine.pairs import TermColumns

_NUMBERS = 60_000_000  # of X in memory at a time
_FEW = 12
_ASTRAY = 20


@dataclass
class Sums:
    """Sums over some rows.

    Attributes
    ----------
    numbers : dict
        Single sums by name: ``n, w, log_w, inverse_w, offset, y, yy, wy, wyy`` (of the response
        less the plan's center; ``raw`` and ``raw2`` of the response itself), ``low, high``.
    G, plain : (p, p) arrays
        Q̃'WQ̃, and without weights.
    g, ones : (p,) arrays
        Q̃'Wẽ, and Q̃'1.
    h : float
        ẽ'Wẽ.
    own : dict
        Terms s ≥ t of one grouping factor → the blocks of all levels, (k_s k_t, levels).
    ZtQ, Zte : lists of arrays
        Per term Z'WQ̃, (k p, levels), and Z'Wẽ, (k, levels).
    grams : list of (k, k) arrays
        Z'Z of a term summed over levels, without weights.
    counts, totals : dict
        Per term rows and responses of every level, for start values.
    cells : dict
        Terms s > t of different factors → what is summed where their levels meet.
    combinations : array
        Rows in every combination of the levels of the fixed factors.
    astray : list of DataFrames
        Some rows that show that columns which were dropped are not combinations of others.
    seen : Seen
        What the first pass has to have found as well.
    """

    numbers: dict[str, float]
    G: FloatArray
    plain: FloatArray
    g: FloatArray
    ones: FloatArray
    own: dict[tuple[int, int], FloatArray]
    ZtQ: list[FloatArray]
    Zte: list[FloatArray]
    grams: list[FloatArray]
    counts: dict[int, FloatArray]
    totals: dict[int, FloatArray]
    cells: dict[tuple[int, int], Cells]
    combinations: FloatArray
    h: float = 0.0
    astray: list[pd.DataFrame] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)

    @classmethod
    def none(cls, plan: Plan, simple: bool) -> Sums:
        """Of no rows."""
        groups, p = plan.recipe.groups, int(plan.recipe.kept.sum())
        sizes = plan.sizes
        levels = [len(group.key.combinations) for group in groups]
        terms = range(len(groups))
        own, cells = {}, {}
        for s in terms:
            for t in range(s + 1):
                width = sizes[s] * sizes[t]
                if groups[s].factors == groups[t].factors:
                    own[s, t] = np.zeros((width, levels[s]))
                else:
                    cells[s, t] = cells_for(levels[s], levels[t], plan.numbers_of(s, t))
        count = int(np.prod([len(each) for each in plan.cells.values()])) if plan.cells else 0
        single = [t for t in terms if simple]
        return cls(
            numbers={
                **dict.fromkeys(_SUMS, 0.0),
                "low": np.inf,
                "high": -np.inf,
                "center": plan.center,
            },
            G=np.zeros((p, p)),
            plain=np.zeros((p, p)),
            g=np.zeros(p),
            ones=np.zeros(p),
            own=own,
            ZtQ=[np.zeros((k * p, n)) for k, n in zip(sizes, levels, strict=True)],
            Zte=[np.zeros((k, n)) for k, n in zip(sizes, levels, strict=True)],
            grams=[np.zeros((k, k)) for k in sizes],
            counts={t: np.zeros(levels[t]) for t in single},
            totals={t: np.zeros(levels[t]) for t in single},
            cells=cells,
            combinations=np.zeros(count),
        )

    def add(self, rows: Rows, coordinates: Coordinates, center: float) -> None:
        """Add some rows."""
        w = rows.weights
        Q = internal(rows.X, coordinates)
        e = rows.y - Q @ coordinates.gamma
        self._add_numbers(rows, center)
        WQ = Q if w is None else Q * w[:, None]
        We = e if w is None else e * w
        self.G += Q.T @ WQ
        self.g += WQ.T @ e
        self.h += float(e @ We)
        self.ones += Q.sum(axis=0)
        if w is not None:
            self.plain += Q.T @ Q
        for t, (columns, codes) in enumerate(zip(rows.columns, rows.codes, strict=True)):
            self._add_term(t, columns, codes, WQ, We)
            if w is not None:
                self.grams[t] += columns.T @ columns
            if t in self.counts:
                levels = len(self.counts[t])
                self.counts[t] += np.bincount(codes, minlength=levels)
                self.totals[t] += np.bincount(codes, rows.raw - center, minlength=levels)
        weighted = [c if w is None else c * w[:, None] for c in rows.columns]
        for (s, t), out in self.own.items():
            for i, left, j, right in _products(weighted[s], rows.columns[t], s == t):
                levels = out.shape[1]
                sums = np.bincount(rows.codes[s], left * right, minlength=levels)
                out[i * rows.columns[t].shape[1] + j] += sums
        for (s, t), cells in self.cells.items():
            key = rows.codes[s].astype(np.int64) * self.Zte[t].shape[1] + rows.codes[t]
            both = _products(weighted[s], rows.columns[t], False) if cells.width else ()
            cells.add(key, [left * right for _, left, _, right in both])

    def _add_term(
        self, t: int, columns: FloatArray, codes: IntArray, WQ: FloatArray, We: FloatArray
    ) -> None:
        k, p, levels = columns.shape[1], WQ.shape[1], self.Zte[t].shape[1]
        if p * k > _FEW:
            both = np.column_stack([WQ, We])
            found = TermColumns(codes, columns, levels).transposed @ both
            by_level = np.asarray(found).reshape(levels, k, p + 1)
            self.ZtQ[t] += by_level[:, :, :p].transpose(1, 2, 0).reshape(k * p, levels)
            self.Zte[t] += by_level[:, :, p].T
            return
        for i in range(k):
            z = columns[:, i]
            one = bool((z == 1.0).all())
            for j in range(p):
                values = WQ[:, j] if one else z * WQ[:, j]
                self.ZtQ[t][i * p + j] += np.bincount(codes, values, minlength=levels)
            self.Zte[t][i] += np.bincount(codes, We if one else z * We, minlength=levels)

    def _add_numbers(self, rows: Rows, center: float) -> None:
        y, raw, w, o = rows.y - center, rows.raw - center, rows.weights, rows.offset
        n = float(len(y))
        weighted = y if w is None else w * y
        found = {
            "n": n,
            "w": n if w is None else float(w.sum()),
            "log_w": 0.0 if w is None else float(np.log(w).sum()),
            "inverse_w": n if w is None else float((1.0 / w).sum()),
            "offset": 0.0 if o is None else float(o.sum()),
            "y": float(y.sum()),
            "yy": float(y @ y),
            "wy": float(weighted.sum()),
            "wyy": float(weighted @ y),
            "raw": float(raw.sum()),
            "raw2": float(raw @ raw),
        }
        for name, value in found.items():
            self.numbers[name] += value
        self.numbers["low"] = min(self.numbers["low"], float(rows.y.min()))
        self.numbers["high"] = max(self.numbers["high"], float(rows.y.max()))


_SUMS = ("n", "w", "log_w", "inverse_w", "offset", "y", "yy", "wy", "wyy", "raw", "raw2")


def _products(left: FloatArray, right: FloatArray, same: bool) -> Any:
    """Columns of one term with those of another; of a term with itself the lower triangle."""
    for i in range(left.shape[1]):
        for j in range(i + 1 if same else right.shape[1]):
            yield i, left[:, i], j, right[:, j]


def internal(X: FloatArray, coordinates: Coordinates) -> FloatArray:
    """(X A) R⁻¹ of some rows."""
    if not X.shape[1]:
        return X
    if coordinates.A is not None:
        moved = np.flatnonzero(np.triu(coordinates.A, 1).any(axis=0))
        X = np.asfortranarray(X).copy(order="F")
        X[:, moved] += X @ (coordinates.A - np.eye(X.shape[1]))[:, moved]
    return np.asarray((coordinates.inverse.T @ X.T).T)


def accumulate(partition: Partition, plan: Plan, simple: bool) -> Sums:
    """The sums of the rows of a partition."""
    out = Sums.none(plan, simple)
    width = max(1, len(plan.recipe.kept))
    for batch in partition.batches():
        step = max(1000, _NUMBERS // width)
        for start in range(0, len(batch), step):
            part = batch
            if len(batch) > step:
                piece = batch.frame.iloc[start : start + step].reset_index(drop=True)
                part = Batch(piece, batch.text)
            _add(out, plan, part)
    return out


def _add(out: Sums, plan: Plan, batch: Batch) -> None:
    found = plan.question.complete(batch)
    if not len(found.rows):
        return
    try:
        rows = rows_of(found, plan.recipe, plan.shifts, plan.question.asked.response)
    except DataError as error:
        if "new data" in str(error):  # what was not there when the plan was made
            raise DataError(
                f"The data have changed between the two passes: {error} Read from data that stay "
                "as they are."
            ) from error
        raise
    out.add(rows, plan.coordinates, plan.center)
    marks = {name: numbers.take(rows.codes[t]) for name, (t, numbers) in plan.marks.items()}
    see(out.seen, found, plan.question, marks)
    if plan.cells:
        codes, size = factor_codes(plan.cells, found.frame)
        out.combinations += np.bincount(codes[codes >= 0], minlength=size)
    if len(rows.astray) and len(out.astray) < _ASTRAY:
        out.astray.append(found.batch.decoded(rows.astray[:_ASTRAY]))


def joined(a: Sums, b: Sums, keep: bool = True) -> Sums:
    """The sums of the rows of both.

    Parameters
    ----------
    keep : bool
        Whether both stay what they are, which takes more memory.
    """
    numbers = {**a.numbers, **{name: a.numbers[name] + b.numbers[name] for name in _SUMS}}
    numbers["low"] = min(a.numbers["low"], b.numbers["low"])
    numbers["high"] = max(a.numbers["high"], b.numbers["high"])

    def both(x: FloatArray, y: FloatArray) -> FloatArray:
        return x + y if keep else np.add(x, y, out=x)

    def each(x: list[FloatArray], y: list[FloatArray]) -> list[FloatArray]:
        return [both(own, other) for own, other in zip(x, y, strict=True)]

    return Sums(
        numbers=numbers,
        G=both(a.G, b.G),
        plain=both(a.plain, b.plain),
        g=both(a.g, b.g),
        ones=both(a.ones, b.ones),
        own={key: both(a.own[key], b.own[key]) for key in a.own},
        ZtQ=each(a.ZtQ, b.ZtQ),
        Zte=each(a.Zte, b.Zte),
        grams=each(a.grams, b.grams),
        counts={t: both(a.counts[t], b.counts[t]) for t in a.counts},
        totals={t: both(a.totals[t], b.totals[t]) for t in a.totals},
        cells={key: cells.joined(b.cells[key], keep) for key, cells in a.cells.items()},
        combinations=both(a.combinations, b.combinations),
        h=a.h + b.h,
        astray=[*a.astray, *b.astray[: max(0, _ASTRAY - len(a.astray))]],
        seen=a.seen.joined(b.seen),
    )
