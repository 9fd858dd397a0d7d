"""Calls that learn from the data, such as scale(x) or bs(x, df=5) → what they learn from all rows.

Means and standard deviations are known from the first pass. Orthogonal polynomials and the knots
of splines take a pass of their own over their argument.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmmsparse.chunks.batch import Partition
from lmmsparse.chunks.learn import Learnt, Moments
from lmmsparse.chunks.question import Question, argument_of
from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import FormulaError
from lmmsparse.design.functions import FUNCTIONS
from lmmsparse.design.recipe import evaluate_numbers
from lmmsparse.design.variables import Variables
from lmmsparse.formula.expression import bare, read_expression

_MOST = 20_000_000
_BY_MOMENTS = ("center", "scale", "standardize")


@dataclass(frozen=True)
class Call:
    """A call that learns: its function, what it is about, and its further arguments by name."""

    text: str
    name: str
    argument: str
    options: Mapping[str, Any]


def call_of(text: str) -> Call:
    """Read a call; its options must be plain values."""
    tree: Any = read_expression(text).tree
    name = bare(tree.func.id)
    parameters = FUNCTIONS[name].parameters
    try:
        given = dict(zip(parameters[1:], map(ast.literal_eval, tree.args[1:]), strict=False))
        named = {k.arg: k.value for k in tree.keywords if tree.args or k is not tree.keywords[0]}
        given |= {key: ast.literal_eval(value) for key, value in named.items()}
    except ValueError as error:
        raise FormulaError(
            f"{text} has an argument that is computed, which it may not have where data are read "
            "in chunks. Write its value."
        ) from error
    return Call(text, name, argument_of(text), given)


def calls_of(question: Question) -> list[Call]:
    """The calls of a model that learn."""
    calls = [call_of(text) for text in question.learnt]
    for call in calls:
        inner = [other.text for other in calls if other.text in call.argument]
        if inner:
            raise FormulaError(
                f"{call.text} learns from what {inner[0]} has learnt. Data in chunks are read once "
                "for both. Compute one of the two columns before."
            )
    return calls


def by_moments(calls: list[Call], learnt: Learnt) -> dict[str, Any]:
    """What center(), scale() and standardize() learn."""
    out = {}
    for call in calls:
        if call.name in _BY_MOMENTS:
            try:
                with np.errstate(all="ignore"):  # what is not finite is found later
                    out[call.text] = _standardized(call, moments_of(call, learnt))
            except (TypeError, ValueError, ArithmeticError) as error:
                raise FormulaError(
                    f"{call.text} could not be evaluated ({error}). Check its arguments."
                ) from error
    return out


def moments_of(call: Call, learnt: Learnt) -> Moments:
    """Of what a call is about."""
    name = bare(call.argument)
    found = learnt.numbers.get(name) or learnt.numbers.get(f"({call.argument})")
    return found or Moments()


def _standardized(call: Call, found: Moments) -> dict[str, Any]:
    options = call.options
    ddof = options.get("ddof", 0 if call.name == "standardize" else 1)
    center = options.get("center", True)
    scale = call.name != "center" and options.get("scale", options.get("rescale", True))
    at: Any = np.float64(found.mean) if center is True else None
    if not isinstance(center, bool):
        at = np.array(center)
    squares = found.squares + found.n * (found.mean - (0.0 if at is None else float(at))) ** 2
    by: Any = np.sqrt(squares / (found.n - ddof)) if scale is True else None
    if not isinstance(scale, bool):
        by = np.array(scale)
    return {"ddof": ddof, "center": at, "scale": by}


# -- a pass of its own -----------------------------------------------------------------------------


@dataclass
class Gathered:
    """What a pass over the arguments has found.

    Attributes
    ----------
    values : dict
        Call → different values and how often each occurs.
    grams : dict
        Call → sums of products of the sample's polynomials.
    """

    values: dict[str, tuple[FloatArray, IntArray]] = field(default_factory=dict)
    grams: dict[str, FloatArray] = field(default_factory=dict)


def needs_pass(calls: list[Call]) -> list[Call]:
    """Calls for which means are not enough."""
    return [
        call
        for call in calls
        if call.name not in _BY_MOMENTS and not (call.name == "poly" and call.options.get("raw"))
    ]


def reads(call: Call) -> bool:
    """Whether a call takes a pass over its argument."""
    return call.name == "poly" or _by_quantiles(call)


def gather(
    partition: Partition, question: Question, calls: list[Call], state: Mapping[str, Any]
) -> Gathered:
    """Read the arguments of some calls.

    Parameters
    ----------
    state : mapping
        What the calls have learnt from the sample.
    """
    out = Gathered()
    for batch in partition.batches():
        found = question.complete(batch)
        if not len(found.rows):
            continue
        table = Variables({str(n): found.frame[n] for n in found.frame}, len(found.frame))
        for call in calls:
            x = evaluate_numbers(call.argument, table, question.context)
            x = x[np.isfinite(x)]
            if call.name == "poly":
                P = _polynomials(x, state[call.text], int(call.options.get("degree", 1)))
                out.grams[call.text] = out.grams.get(call.text, 0.0) + P.T @ P
            elif _by_quantiles(call):
                own = np.unique(x, return_counts=True)
                before = out.values.get(call.text)
                out.values[call.text] = own if before is None else _united(before, own, call)
    return out


def gathered(a: Gathered, b: Gathered) -> Gathered:
    """What was found in the partitions of both."""
    values, grams = dict(a.values), dict(a.grams)
    for text, own in b.values.items():
        values[text] = _united(values[text], own, call_of(text)) if text in values else own
    for text, gram in b.grams.items():
        grams[text] = grams[text] + gram if text in grams else gram
    return Gathered(values, grams)


def _by_quantiles(call: Call) -> bool:
    """Whether knots are quantiles, or a spline is centred."""
    options = call.options
    return options.get("df") is not None or options.get("constraints") == "center"


def _united(
    a: tuple[FloatArray, IntArray], b: tuple[FloatArray, IntArray], call: Call
) -> tuple[FloatArray, IntArray]:
    values, place = np.unique(np.concatenate([a[0], b[0]]), return_inverse=True)
    if len(values) > _MOST:
        raise FormulaError(
            f"{call.text} takes its knots from the quantiles of more than {_MOST:,} different "
            "values, which are not kept. Give the knots, as in bs(x, knots=[1, 2, 3]), or round "
            "the column."
        )
    counts = np.bincount(place, np.concatenate([a[1], b[1]]), minlength=len(values))
    return values, counts.astype(np.intp)


def _polynomials(x: FloatArray, state: Mapping[str, Any], degree: int) -> FloatArray:
    """The orthonormal polynomials of the sample up to a degree, (n, degree + 1)."""
    alpha, norms = state["alpha"], state["norms2"]
    P = np.empty((len(x), degree + 1), order="F")
    P[:, 0] = 1.0
    for i in range(1, degree + 1):
        P[:, i] = (x - alpha[i - 1]) * P[:, i - 1]
        if i > 1:
            P[:, i] -= norms[i - 1] / norms[i - 2] * P[:, i - 2]
    P /= np.sqrt([norms[i] for i in range(degree + 1)])
    return P


def from_pass(
    calls: list[Call], found: Gathered, learnt: Learnt, sample: Mapping[str, Any]
) -> dict[str, Any]:
    """What polynomials and splines learn from all rows."""
    out = {}
    for call in calls:
        if call.name == "poly":
            degree = int(call.options.get("degree", 1))
            out[call.text] = _recurrence(sample[call.text], found.grams[call.text], degree)
        elif call.name == "bs":
            out[call.text] = _b_spline(call, found, moments_of(call, learnt))
        else:
            out[call.text] = _cubic_spline(call, found, moments_of(call, learnt))
    return out


def _recurrence(sample: Mapping[str, Any], H: FloatArray, degree: int) -> dict[str, Any]:
    """The recurrence of polynomials orthogonal on all rows, from the sample's and their products.

    With H = LL' the polynomials L⁻¹p are orthonormal, and x p = J p gives their coefficients.
    """
    alpha, norms = sample["alpha"], sample["norms2"]
    L = np.linalg.cholesky(H)
    J = np.zeros((degree, degree + 1))
    for k in range(degree):
        J[k, k] = alpha[k]
        J[k, k + 1] = np.sqrt(norms[k + 1] / norms[k])
        if k:
            J[k, k - 1] = np.sqrt(norms[k] / norms[k - 1])
    # Rows of L⁻¹ up to the last but one use x p up to the last: all that is there.
    inner = np.linalg.solve(L[:degree, :degree], J @ H)
    A = np.linalg.solve(L, inner.T).T
    return {
        "alpha": {k: float(A[k, k]) for k in range(degree)},
        "norms2": {k: float(L[k, k] ** 2 * norms[k]) for k in range(degree + 1)},
    }


def _ends(call: Call, found: Moments) -> FloatArray:
    return np.array([found.low, found.high])


def _b_spline(call: Call, found: Gathered, moments: Moments) -> dict[str, Any]:
    state: dict[str, Any] = {}
    values, counts = found.values.get(call.text, (_ends(call, moments), np.ones(2, dtype=np.intp)))
    FUNCTIONS["bs"].call(values, **call.options, _state=state)
    if call.options.get("df") is None:
        return state
    degree = int(call.options.get("degree", 3))
    knots = np.array(state["knots"])
    inner = slice(degree + 1, len(knots) - degree - 1)
    inside = np.ones(len(values), dtype=bool)
    if call.options.get("extrapolation", "raise") in ("clip", "na", "zero"):
        inside = (values >= state["lower_bound"]) & (values <= state["upper_bound"])
    share = np.linspace(0, 1, len(knots[inner]) + 2)[1:-1]
    knots[inner] = quantiles(values[inside], counts[inside], share)
    return {**state, "knots": knots.tolist()}


def _cubic_spline(call: Call, found: Gathered, moments: Moments) -> dict[str, Any]:
    state: dict[str, Any] = {}
    values, counts = found.values.get(call.text, (_ends(call, moments), np.ones(2, dtype=np.intp)))
    transform = FUNCTIONS[call.name].call
    transform(values, **call.options, _state=state)
    if call.options.get("constraints") == "center":
        options = {key: v for key, v in call.options.items() if key != "constraints"}
        free = transform(values, **options, _state={**state, "constraints": None})
        columns = np.column_stack(list(free.__wrapped__.values()))
        state["constraints"] = (counts @ columns / counts.sum())[None]
    return state


def quantiles(values: FloatArray, counts: IntArray, share: FloatArray) -> FloatArray:
    """Quantiles of numbers of which each occurs so often, as numpy has them."""
    ends = np.cumsum(counts)
    place = share * (ends[-1] - 1)
    low = np.floor(place).astype(np.intp)
    high = np.minimum(low + 1, ends[-1] - 1)
    a, b = (values[np.searchsorted(ends, at, side="right")] for at in (low, high))
    t = place - low
    return np.asarray(np.where(t < 0.5, a + (b - a) * t, b - (b - a) * (1.0 - t)))
