"""The transformation of a response, or a link → the way back to the response's scale."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import LmmError
from lmmsparse.design import Design
from lmmsparse.formula.expression import read_expression

Inverse = Callable[[FloatArray], FloatArray]
# Name → inverse, its slope, and the range of the function, outside which there is no value.
_FUNCTIONS: dict[str, tuple[Inverse, Inverse, float, float]] = {
    "log": (np.exp, np.exp, -np.inf, np.inf),
    "log2": (np.exp2, lambda e: np.exp2(e) * np.log(2.0), -np.inf, np.inf),
    "log10": (lambda e: 10.0**e, lambda e: 10.0**e * np.log(10.0), -np.inf, np.inf),
    "log1p": (np.expm1, np.exp, -np.inf, np.inf),
    "sqrt": (np.square, lambda e: 2.0 * e, 0.0, np.inf),
    "cbrt": (lambda e: e**3, lambda e: 3.0 * e**2, -np.inf, np.inf),
    "square": (np.sqrt, lambda e: 0.5 / np.sqrt(e), 0.0, np.inf),
    "exp": (np.log, lambda e: 1.0 / e, 0.0, np.inf),
    "expm1": (np.log1p, lambda e: 1.0 / (1.0 + e), -1.0, np.inf),
    "reciprocal": (lambda e: 1.0 / e, lambda e: -1.0 / e**2, -np.inf, np.inf),
    "arcsin": (np.sin, np.cos, -np.pi / 2, np.pi / 2),
    "arcsinh": (np.sinh, np.cosh, -np.inf, np.inf),
    "arctanh": (np.tanh, lambda e: 1.0 / np.cosh(e) ** 2, -np.inf, np.inf),
    "tanh": (np.arctanh, lambda e: 1.0 / (1.0 - e**2), -1.0, 1.0),
    "I": (lambda e: e, np.ones_like, -np.inf, np.inf),
}
_BASES = {"log": math.e, "log2": 2.0, "log10": 10.0}
# These change nothing.
_LINEAR = ("I",)


@dataclass(frozen=True, eq=False)
class Scale:
    """How a linear predictor is brought to the scale of the response.

    Attributes
    ----------
    name : str
        Of the transformation or link, as notes say it.
    inverse, slope : callable
        The way back, and its derivative.
    base : float or None
        Of the logarithm that differences are differences of, so that they are ratios.
    odds : bool
        Whether these are of odds.
    target : str
        What it leads back to, as the formula has it; empty for links.
    """

    name: str
    inverse: Inverse
    slope: Inverse
    base: float | None = None
    odds: bool = False
    target: str = ""

    @property
    def ratio(self) -> str:
        """The name of differences that have become ratios."""
        return "odds.ratio" if self.odds else "ratio"


def response_scale(design: Design) -> Scale | None:
    """The scale of a linear model's response; None if it is that of a column, or has no way back.

    Parameters
    ----------
    design : Design
        Whose response may be a calculation, such as ``np.log(y)``.
    """
    tree = _tree(design)
    if tree is None:
        return None
    own = _own_names(design)
    way = _inverse(tree, own)
    if not way.curved:
        return None
    name, base, odds = _outermost(tree, own)
    return Scale(name, way.value, way.slope, base, odds, ast.unparse(way.target))


def no_way_back(design: Design) -> str:
    """The left side of a formula if it is a function whose inverse is not known."""
    tree = _tree(design)
    if not isinstance(tree, ast.Call) or _inverse(tree, _own_names(design)).target is not tree:
        return ""
    return design.response


def _tree(design: Design) -> ast.expr | None:
    try:
        return None if design.recipe is None else read_expression(design.response).tree
    except LmmError:  # the bare name of a column that is no word
        return None


def _own_names(design: Design) -> set[str]:
    assert design.recipe is not None
    return set(design.recipe.matrices.context)


@dataclass(frozen=True)
class _Way:
    """The inverse of a calculation; `curved` unless it changes the unit only.

    `target` is what it leads back to: a column, or a calculation that goes no further.
    """

    value: Inverse
    slope: Inverse
    curved: bool
    target: ast.expr


def _inverse(tree: ast.expr, own: Collection[str]) -> _Way:
    """The way back from a calculation to the one column in it, as far as it is known."""
    if (share := _odds_of(tree)) is not None:
        return _Way(_logistic, lambda e: _logistic(e) * _logistic(-e), True, share)
    if isinstance(tree, ast.Call):
        name = _called(tree, own)
        if name in _FUNCTIONS and len(tree.args) == 1 and not tree.keywords:
            inner = _inverse(tree.args[0], own)
            return _after(inner, *_FUNCTIONS[name], curved=name not in _LINEAR)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return _after(
            _inverse(tree.operand, own), np.negative, _constant(-1.0), -np.inf, np.inf, False
        )
    if isinstance(tree, ast.BinOp):
        left, right = _number(tree.left), _number(tree.right)
        if left is not None and right is None:
            step = _from_right(tree.op, left)
            return _end(tree) if step is None else _after(_inverse(tree.right, own), *step)
        if right is not None and left is None:
            step = _from_left(tree.op, right)
            return _end(tree) if step is None else _after(_inverse(tree.left, own), *step)
    return _end(tree)


def _end(tree: ast.expr) -> _Way:
    return _Way(lambda e: e, np.ones_like, False, tree)


_Step = tuple[Inverse, Inverse, float, float, bool]


def _from_right(op: ast.operator, c: float) -> _Step | None:
    """The way back to `x` from a constant and `x`, such as ``c - x``."""
    if isinstance(op, ast.Sub):
        return (lambda e: c - e, _constant(-1.0), -np.inf, np.inf, False)
    if isinstance(op, ast.Div):
        return (lambda e: c / e, lambda e: -c / e**2, -np.inf, np.inf, True)
    return _from_left(op, c) if isinstance(op, (ast.Add, ast.Mult)) else None


def _from_left(op: ast.operator, c: float) -> _Step | None:
    """The way back to `x` from `x` and a constant, such as ``x - c``."""
    if isinstance(op, ast.Add):
        return (lambda e: e - c, np.ones_like, -np.inf, np.inf, False)
    if isinstance(op, ast.Sub):
        return (lambda e: e + c, np.ones_like, -np.inf, np.inf, False)
    if c == 0:
        return None
    if isinstance(op, ast.Mult):
        return (lambda e: e / c, _constant(1.0 / c), -np.inf, np.inf, False)
    if isinstance(op, ast.Div):
        return (lambda e: e * c, _constant(c), -np.inf, np.inf, False)
    if isinstance(op, ast.Pow):
        power = 1.0 / c
        return (
            lambda e: e**power,
            lambda e: power * e ** (power - 1.0),
            0.0,
            np.inf,
            c != 1,
        )
    return None


def _after(
    inner: _Way, inverse: Inverse, slope: Inverse, low: float, high: float, curved: bool
) -> _Way:
    """First the way back of the outer function, from within its range, then that of the inner."""

    def value(eta: FloatArray) -> FloatArray:
        return inner.value(inverse(np.clip(eta, low, high)))

    def derivative(eta: FloatArray) -> FloatArray:
        eta = np.clip(eta, low, high)
        return np.asarray(inner.slope(inverse(eta)) * slope(eta))

    return _Way(value, derivative, curved or inner.curved, inner.target)


def _constant(value: float) -> Inverse:
    return lambda e: np.full_like(e, value)


def _logistic(eta: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(eta))))


def _number(tree: ast.expr) -> float | None:
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        inner = _number(tree.operand)
        return None if inner is None else -inner
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.Div, ast.Mult)):
        a, b = _number(tree.left), _number(tree.right)
        if a is None or b is None or (isinstance(tree.op, ast.Div) and b == 0):
            return None
        return a / b if isinstance(tree.op, ast.Div) else a * b
    plain = isinstance(tree, ast.Constant) and type(tree.value) in (int, float)
    return float(tree.value) if plain else None  # type: ignore[attr-defined]


def _called(tree: ast.Call, own: Collection[str]) -> str:
    """The function that is called, of numpy or by itself; nothing for one of the user's own."""
    if isinstance(tree.func, ast.Name):
        return "" if tree.func.id in own else tree.func.id
    if isinstance(tree.func, ast.Attribute) and isinstance(tree.func.value, ast.Name):
        return tree.func.attr if tree.func.value.id in ("np", "numpy") else ""
    return ""


def _odds_of(tree: ast.expr) -> ast.Name | None:
    """The `p` of ``log(p / (1 - p))``."""
    if not (isinstance(tree, ast.Call) and _called(tree, ()) == "log" and len(tree.args) == 1):
        return None
    inside = tree.args[0]
    if not (isinstance(inside, ast.BinOp) and isinstance(inside.op, ast.Div)):
        return None
    p, rest = inside.left, inside.right
    if not (isinstance(p, ast.Name) and isinstance(rest, ast.BinOp)):
        return None
    whole = isinstance(rest.op, ast.Sub) and _number(rest.left) == 1.0
    return p if whole and ast.dump(rest.right) == ast.dump(p) else None


def _outermost(tree: ast.expr, own: Collection[str]) -> tuple[str, float | None, bool]:
    """The transformation's name, the base of a logarithm, and whether it is that of odds."""
    if _odds_of(tree) is not None:
        return "logit", math.e, True
    if not isinstance(tree, ast.Call):
        return ast.unparse(tree), None, False
    name = _called(tree, own)
    if name == "I":
        return _outermost(tree.args[0], own)
    plain = isinstance(tree.args[0], ast.Name)
    return name if plain else ast.unparse(tree), _BASES.get(name), False
