"""The functions, methods and attributes a formula may use, with their arguments and limits.

What is not in these tables cannot be reached from a formula. A function is given the arguments that
its entry names and no others; those that could make something large are checked first.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic.materializers.types import FactorValues
from formulaic.transforms import TRANSFORMS
from formulaic.transforms.contrasts import Contrasts, CustomContrasts, PolyContrasts

from lmmsparse.common.errors import DataError, FormulaError
from lmmsparse.common.words import listed
from lmmsparse.formula import limits
from lmmsparse.formula.limits import too_much

Arguments = dict[str, Any]
Check = Callable[[Arguments, int], None]


@dataclass(frozen=True)
class Function:
    """A function that a formula may call.

    Attributes
    ----------
    parameters : tuple of str
        Its parameters in order; ``"*"`` at the end takes any number.
    check : callable or None
        Looks at the arguments by name and the number of rows before the call.
    learns : bool
        Whether it keeps what it learns from the data, and takes this as ``_state``.
    anywhere : bool
        Whether groupings and offsets may call it too.
    """

    call: Callable[..., Any]
    parameters: tuple[str, ...]
    check: Check | None = None
    learns: bool = False
    anywhere: bool = True


def dummy(values: Any, level: Any = None) -> Any:
    """Indicator columns of a factor's levels: one level, or all but the first."""
    series = pd.Series(values).astype("category")
    chosen = list(series.cat.categories[1:]) if level is None else np.atleast_1d(level).tolist()
    unknown = [v for v in chosen if v not in set(series.cat.categories)]
    if unknown:
        raise DataError(
            f"dummy(): {unknown[0]!r} is not a level of {series.name!r}. Its levels are "
            f"{listed(series.cat.categories)}. Name one of these."
        )
    columns = [(series == v).to_numpy(dtype=np.float64) for v in chosen]
    if len(columns) == 1:
        return columns[0]
    values = np.column_stack(columns) if columns else np.zeros((len(series), 0))
    names = tuple(str(v) for v in chosen)
    return FactorValues(values, column_names=names)


def interaction(*columns: Any) -> pd.Series:
    """Labels of the combinations of several factors, joined by "."; missing where one is."""
    series = [pd.Series(column) for column in columns]
    _check_joined(series)
    missing = np.logical_or.reduce([s.isna().to_numpy() for s in series])
    text = series[0].astype(str)
    for other in series[1:]:
        text = text + "." + other.astype(str)
    return text.astype(object).mask(missing)


def _check_joined(columns: list[pd.Series]) -> None:
    """Refuse labels that become too long."""
    longest = 0
    for column in columns:
        lengths = map(len, map(str, column.unique()))
        longest += 1 + max(lengths, default=0)
        if longest > limits.TEXT:
            too_much(f"interaction() makes texts of more than {limits.TEXT:,} characters",
                     f"{limits.TEXT:,}", "Compute the column before fitting.")  # fmt: skip


def factor(data: Any, *args: Any, **kwargs: Any) -> Any:
    """R's name for treating a column as categorical."""
    return TRANSFORMS["C"](data, *args, **kwargs)


def as_numeric(values: Any) -> Any:
    """R's name for the numbers that a text or factor spells."""
    return pd.to_numeric(pd.Series(values).astype(object)).astype(np.float64)


def _at_most(name: str, most: int) -> Check:
    def check(given: Arguments, rows: int) -> None:
        value = given.get(name)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise FormulaError(f"{name}={value!r} is not a number. Give a whole number.")
        if not value <= most:
            too_much(f"{name} is {value:g}", f"{name}={most}", "Choose a smaller number.")

    return check


def _decimals(given: Arguments, rows: int) -> None:
    places = given.get("decimals", 0)
    _at_most("decimals", limits.DECIMALS)({"decimals": -places if places < 0 else places}, rows)


def _spline(given: Arguments, rows: int) -> None:
    _per_row(given, rows)
    _at_most("df", limits.KNOTS)(given, rows)
    _at_most("degree", limits.DEGREE)(given, rows)
    for name, most in (("knots", limits.KNOTS), ("constraints", limits.KNOTS**2)):
        count = np.size(given.get(name, 0))
        if count > most:
            too_much(f"{name} has {count:,} values", f"{most:,} of them", "Choose fewer.")


def _poly(given: Arguments, rows: int) -> None:
    _per_row(given, rows)
    _at_most("degree", limits.DEGREE)(given, rows)


def _per_row(given: Arguments, rows: int) -> None:
    """The first argument has one value per row."""
    if not given:
        raise FormulaError("A function is called without a column. Write a column in it.")
    name, value = next(iter(given.items()))
    shape = np.shape(value)
    if shape[:1] != (rows,) or len(shape) > 2:
        what = "a single value" if not shape else f"values of shape {shape}"
        raise FormulaError(
            f"The argument {name} must be one value for each row, but is {what} where there are "
            f"{rows} rows. Name a column."
        )


def _factor(given: Arguments, rows: int) -> None:
    _per_row(given, rows)
    if np.ndim(given["data"]) != 1:
        raise FormulaError(
            f"A factor is made of {np.shape(given['data'])[1]} columns. Name a single column."
        )
    contrasts, levels = given.get("contrasts"), given.get("levels")
    if isinstance(levels, (int, float)):  # of hashed()
        _at_most("levels", limits.LEVELS)(given, rows)
        count = int(levels)
    elif levels is not None:
        if np.ndim(levels) != 1:
            raise FormulaError(
                f"levels must be a list, not {levels!r}. Write for example levels=['a', 'b']."
            )
        count = len(levels)
    else:
        count = int(pd.Series(given["data"]).nunique())
    most = limits.COLUMNS if levels is None and contrasts is None else limits.LEVELS
    if _is(contrasts, PolyContrasts):
        most = limits.KNOTS
    if count > most:
        too_much(f"A factor has {count:,} levels", f"{most:,} of them",
                 "Use it as a grouping, (1 | ...), or make fewer levels first.")  # fmt: skip
    if contrasts is not None and not _is(contrasts, Contrasts):
        given["contrasts"] = _coding(contrasts)


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) or (isinstance(value, type) and issubclass(value, kind))


def _coding(contrasts: Any) -> CustomContrasts:
    """Contrasts that are written out, as a matrix or as named columns."""
    try:
        if isinstance(contrasts, (pd.Series, str)):
            raise ValueError("not in the order of the levels")
        column = np.ndim(contrasts) == 1
        coding = CustomContrasts(np.reshape(contrasts, (-1, 1)) if column else contrasts)
        matrix = np.asarray(coding.contrasts, dtype=np.float64)
        if matrix.ndim != 2 or not np.isfinite(matrix).all():
            raise ValueError("not a matrix of numbers")
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise FormulaError(
            "The second argument of a factor is not a coding. Write for example C(f, contr.sum), "
            "C(f, Treatment('level')), or a matrix with one row per level."
        ) from error
    return coding


def _span(given: Arguments, rows: int) -> None:
    """The arguments of linspace and arange."""
    start, stop = given.get("start", 0), given.get("stop")
    if any(np.ndim(value) for value in given.values()):
        raise FormulaError("The arguments of a sequence must be single numbers.")
    if "num" in given:
        count = given["num"]
    elif stop is None:
        count = start
    else:
        count = (stop - start) / (given.get("step") or 1)
    if not count <= limits.VALUES:
        too_much("A sequence of too many numbers is made", f"{limits.VALUES:,} of them",
                 "Compute the column before fitting.")  # fmt: skip


def _kind_of_values(given: Arguments, rows: int) -> None:
    kinds = ("float", "float64", "int", "int64", "bool", "str", "category")
    if given.get("dtype") is not None and given["dtype"] not in kinds:
        raise FormulaError(
            f"dtype={given['dtype']!r} is not a type that a formula may ask for. Choose one of "
            f"{', '.join(map(repr, kinds))}, or convert the column before fitting."
        )


_factor_parameters = ("data", "contrasts", "levels", "spans_intercept")
_spline_parameters = ("x", "df", "knots", "lower_bound", "upper_bound", "constraints",
                      "extrapolation")  # fmt: skip


def _numpy(name: str, *parameters: str, check: Check | None = None) -> Function:
    return Function(getattr(np, name), parameters, check)


def _learnt(name: str, *parameters: str, check: Check = _per_row) -> Function:
    return Function(TRANSFORMS[name], parameters, check, learns=True, anywhere=False)


def _exp10(values: Any) -> Any:
    return np.power(10.0, values)


FUNCTIONS: dict[str, Function] = {
    **{
        name: Function(getattr(np, name), ("x",))
        for name in (
            "sqrt", "abs", "sin", "cos", "tan", "log", "log10", "log2", "log1p", "exp", "exp2",
            "expm1", "floor", "ceil",
        )
    },
    "exp10": Function(_exp10, ("x",)),
    "round": _numpy("round", "a", "decimals", check=_decimals),
    "I": Function(TRANSFORMS["I"], ("data",)),
    "dummy": Function(dummy, ("values", "level"), _per_row),
    "interaction": Function(interaction, ("*",), _per_row),
    "numeric": Function(as_numeric, ("values",), _per_row),
    "C": Function(TRANSFORMS["C"], _factor_parameters, _factor),
    "factor": Function(factor, _factor_parameters, _factor),
    "hashed": Function(
        TRANSFORMS["hashed"], ("data", "levels", "contrasts", "spans_intercept"), _factor,
        anywhere=False,
    ),
    "bs": _learnt(
        "bs", "x", "df", "knots", "degree", "include_intercept", "lower_bound", "upper_bound",
        "extrapolation", check=_spline,
    ),
    **{name: _learnt(name, *_spline_parameters, check=_spline) for name in ("cc", "cr", "cs")},
    "center": _learnt("center", "data"),
    "scale": _learnt("scale", "data", "center", "scale", "ddof"),
    "standardize": _learnt("standardize", "x", "center", "rescale", "ddof"),
    "poly": _learnt("poly", "x", "degree", "raw", check=_poly),
    "lag": Function(TRANSFORMS["lag"], ("data", "k"), _per_row, anywhere=False),
    "Treatment": Function(TRANSFORMS["Treatment"], ("reference",), anywhere=False),
    **{
        name: Function(TRANSFORMS[name], tuple(inspect.signature(TRANSFORMS[name]).parameters),
                       anywhere=False)
        for name in ("Poly", "Sum", "Helmert", "Diff")
    },
}  # fmt: skip

_STATISTICS = {
    **{name: ("a", "axis") for name in ("mean", "median", "sum", "min", "max", "cumsum")},
    **{name: ("a", "axis", "ddof") for name in ("std", "var")},
    **{name: ("a", "q", "axis") for name in ("quantile", "percentile")},
}
NUMPY: dict[str, Function] = {
    **{name: _numpy(name, *parameters) for name, parameters in _STATISTICS.items()},
    "where": _numpy("where", "condition", "x", "y"),
    "clip": _numpy("clip", "a", "a_min", "a_max"),
    "round": _numpy("round", "a", "decimals", check=_decimals),
    "diff": _numpy("diff", "a", "n", "axis", check=_at_most("n", limits.REPEATS)),
    "interp": _numpy("interp", "x", "xp", "fp", "left", "right", "period"),
    "digitize": _numpy("digitize", "x", "bins", "right"),
    "asarray": _numpy("asarray", "a", "dtype", check=_kind_of_values),
    "array": _numpy("array", "object", "dtype", check=_kind_of_values),
    "isin": _numpy("isin", "element", "test_elements", "assume_unique", "invert"),
    "float64": _numpy("float64", "x"),
    "int64": _numpy("int64", "x"),
    "select": _numpy("select", "condlist", "choicelist", "default"),
    "linspace": _numpy("linspace", "start", "stop", "num", "endpoint", check=_span),
    "arange": _numpy("arange", "start", "stop", "step", check=_span),
}
NUMPY_CONSTANTS = {"pi": math.pi, "e": math.e, "nan": math.nan}
for _name in dir(np):
    _ufunc = getattr(np, _name)
    if isinstance(_ufunc, np.ufunc) and _ufunc.signature is None:  # value by value
        NUMPY[_name] = Function(_ufunc, tuple(f"x{i + 1}" for i in range(_ufunc.nin)))
CODINGS: dict[str, Any] = {
    name: value for name, value in vars(TRANSFORMS["contr"]).items() if _is(value, Contrasts)
}


def _literal(given: Arguments, rows: int) -> None:
    """Texts are searched for as they are; a pattern must be one that cannot run away."""
    pattern, new = given.get("pat"), given.get("repl")
    if not given.setdefault("regex", False):
        return
    if not isinstance(pattern, str) or not is_plain_pattern(pattern) or "\\" in (new or ""):
        raise FormulaError(
            f"The pattern {pattern!r} cannot be used in a formula, where it may have sets, "
            "anchors, alternatives and one repetition, and no groups: others can take for ever. "
            "Leave out regex=True to search for the text as it is, or compute the column before "
            "fitting."
        )


def is_plain_pattern(pattern: str) -> bool:
    """Whether a regular expression takes at most quadratic time: one repetition, no groups."""
    bare, at = "", 0
    while at < len(pattern):
        if pattern[at] == "\\":
            if at + 1 < len(pattern) and pattern[at + 1].isdigit():
                return False
            at += 2
            continue
        if pattern[at] == "[":
            at += 1
            at += pattern[at : at + 1] == "^"
            at += pattern[at : at + 1] == "]"
            while at < len(pattern) and pattern[at] != "]":
                at += 2 if pattern[at] == "\\" else 1
            at += 1
            continue
        bare += pattern[at]
        at += 1
    repeats = sum(bare.count(sign) for sign in "*+?{")
    return "(" not in bare and ")" not in bare and repeats <= 1


_ON_NUMBERS: dict[str, tuple[str, ...]] = {
    "clip": ("lower", "upper"), "abs": (), "round": ("decimals",), "shift": ("periods",),
    "rank": ("method", "ascending", "pct"), "fillna": ("value",), "isin": ("values",),
    "between": ("left", "right", "inclusive"), "cumsum": (), "cumprod": (), "diff": ("periods",),
    "mean": (), "median": (), "std": ("ddof",), "var": ("ddof",), "sum": (), "min": (), "max": (),
    "isna": (), "notna": (), "quantile": ("q",), "replace": ("to_replace", "value"),
    **{name: ("other",) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
}  # fmt: skip
_ON_TEXT: dict[str, tuple[str, ...]] = {
    "lower": (), "upper": (), "strip": ("to_strip",), "len": (), "slice": ("start", "stop", "step"),
    "startswith": ("pat",), "endswith": ("pat",),
}  # fmt: skip
_ON_ARRAYS: dict[str, tuple[str, ...]] = {
    "clip": ("min", "max"), "round": ("decimals",), "cumsum": ("axis",), "cumprod": ("axis",),
    **{name: ("axis",) for name in ("mean", "sum", "min", "max", "std", "var")},
}  # fmt: skip
Methods = Mapping[str, tuple[tuple[str, ...], Check | None]]
METHODS: dict[str, Methods] = {
    "column": {
        **{name: (parameters, None) for name, parameters in _ON_NUMBERS.items()},
        "astype": (("dtype",), _kind_of_values),
        "round": (("decimals",), _decimals),
    },
    "array": {
        **{name: (parameters, None) for name, parameters in _ON_ARRAYS.items()},
        "astype": (("dtype",), _kind_of_values),
        "round": (("decimals",), _decimals),
    },
    "text": {
        **{name: (parameters, None) for name, parameters in _ON_TEXT.items()},
        "contains": (("pat", "case", "regex"), _literal),
        "replace": (("pat", "repl", "n", "case", "regex"), _literal),
    },
    "time": {"total_seconds": ((), None)},
    "categories": {},
}
ATTRIBUTES: dict[str, frozenset[str]] = {
    "column": frozenset({"str", "dt", "cat", "values", "T"}),
    "array": frozenset({"T"}),
    "text": frozenset(),
    "time": frozenset({
        "year", "month", "day", "hour", "minute", "second", "dayofweek", "dayofyear", "weekday",
        "quarter", "days", "seconds",
    }),
    "categories": frozenset({"codes"}),
}  # fmt: skip
ANY_ATTRIBUTE = frozenset().union(*ATTRIBUTES.values(), *METHODS.values())
