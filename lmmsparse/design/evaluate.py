"""The checked tree of an expression and some columns → its value.

Formulas are not given to Python: the tree is walked here, and each kind of node does what is
written here. Names are columns, the tables of `functions` and what the user passed as `context`;
there are no others. Sizes are checked before anything is computed.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray
from lmmsparse.common.errors import FormulaError
from lmmsparse.common.words import shortened
from lmmsparse.design.counting import counted, counted_for
from lmmsparse.design.functions import (
    ATTRIBUTES,
    CODINGS,
    FUNCTIONS,
    METHODS,
    NUMPY,
    NUMPY_CONSTANTS,
    Arguments,
    Function,
)
from lmmsparse.design.learning import Learnt
from lmmsparse.design.operands import (
    BINARY,
    COMPARED,
    SCALARS,
    UNARY,
    WORD,
    check_amount,
    check_arguments,
    check_rows,
    check_text,
    flattened,
    is_text,
    kind_of,
    power,
    refused,
)
from lmmsparse.formula import limits
from lmmsparse.formula.expression import Expression, bare, spelled
from lmmsparse.formula.limits import too_much


class Evaluator:
    """Evaluates expressions on the columns of one table.

    Parameters
    ----------
    state : dict or None
        Call → what it has learnt from the data; None where nothing may be learnt, as in groupings
        and offsets.
    sample : (rows,) bool array or None
        Rows that are learnt from; None for all.
    """

    def __init__(
        self,
        columns: Mapping[str, Any],
        rows: int,
        context: Mapping[str, Any],
        state: dict[str, Any] | None = None,
        sample: BoolArray | None = None,
    ) -> None:
        self._columns = columns
        self._rows = rows
        self._context = context
        self._state = state
        self._sample = sample
        self._largest = max(limits.VALUES, 100 * rows)

    def __call__(self, expression: Expression) -> Any:
        """The value of an expression."""
        try:
            return self._value(expression.tree)
        except FormulaError as error:
            if expression.text in str(error):
                raise
            raise FormulaError(f"In {shortened(expression.text)}: {error.message}") from error

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return self._constant(node.value)
            case ast.Name():
                return self._name(node)
            case ast.Call():
                return self._call(node)
            case ast.Attribute():
                return self._attribute(node)
            case ast.BinOp():
                return self._calculation(node)
            case ast.UnaryOp():
                return self._checked(UNARY[type(node.op)](self._value(node.operand)))
            case ast.BoolOp():
                return self._alternatives(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.IfExp():
                return self._value(node.body if self._value(node.test) else node.orelse)
            case ast.Subscript():
                return self._item(node)
            case ast.List():
                return [self._value(item) for item in node.elts]
            case ast.Tuple():
                return tuple(self._value(item) for item in node.elts)
            case ast.Dict():
                keys = [self._value(key) for key in node.keys if key is not None]
                return dict(zip(keys, map(self._value, node.values), strict=True))
        raise refused(node)

    @staticmethod
    def _constant(value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return float(value) if whole and value.bit_length() > WORD else value

    def _name(self, node: ast.Name) -> Any:
        name = bare(node.id)
        if name in self._columns:
            return self._columns[name]
        own = self._own(name)
        if own is not None:
            return self._checked(own)
        raise refused(node)

    # Arithmetic

    def _calculation(self, node: ast.BinOp) -> Any:
        chain = [node]
        while isinstance(chain[-1].left, ast.BinOp):
            chain.append(chain[-1].left)
        value = self._value(chain[-1].left)
        for step in reversed(chain):
            value = self._binary(step, value, self._value(step.right))
        return value

    def _binary(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        operation = type(node.op)
        if operation not in (ast.BitAnd, ast.BitOr, ast.BitXor):
            left, right = counted(left), counted(right)
        for value in (left, right):
            if not isinstance(value, (*SCALARS, str, pd.Series, np.ndarray)):
                raise FormulaError(
                    f"{spelled(node)} calculates with a value of type {type(value).__name__}, not "
                    "with columns and numbers. Compute the column before fitting."
                )
        if operation is not ast.Add and (is_text(left) or is_text(right)):
            raise TypeError(f"{spelled(node)} calculates with text, which can only be joined by +")
        if isinstance(left, str) and isinstance(right, str) and len(left + right) > limits.TEXT:
            too_much("A text is made", f"{limits.TEXT:,} characters", "Shorten it.")
        self._check_shape(left, right)
        if operation is ast.Pow:
            return self._checked(power(left, right))
        value = BINARY[operation](left, right)
        if isinstance(value, int):
            value = self._constant(value)
        return self._checked(value)

    def _check_shape(self, *values: Any) -> None:
        """Refuse values that make too many when they are extended to each other's shapes."""
        check_rows(values)
        shape = np.broadcast_shapes(*(np.shape(v) for v in values if not isinstance(v, str)))
        if np.prod(shape, dtype=np.float64) > self._largest:
            self._too_large(shape)

    def _too_large(self, shape: tuple[int, ...]) -> None:
        too_much(
            f"An array of {' by '.join(f'{n:,}' for n in shape)} values is made of columns with "
            f"{self._rows:,} rows",
            f"{self._largest:,} values",
            "A calculation gives one value per row. Compute the column before fitting.",
        )

    def _checked(self, value: Any) -> Any:
        """A value that something has given, if it can go on."""
        kind = getattr(getattr(value, "dtype", None), "kind", "")
        if kind == "c" or isinstance(value, complex):
            raise FormulaError(
                "A calculation gives complex numbers. Check roots and powers of negative numbers."
            )
        shape = np.shape(value) if isinstance(value, (pd.Series, np.ndarray)) else ()
        if len(shape) > 2 or np.prod(shape, dtype=np.float64) > self._largest:
            self._too_large(shape)
        return value

    def _alternatives(self, node: ast.BoolOp) -> Any:
        value: Any = None
        for item in node.values:
            value = self._value(item)
            if bool(value) == isinstance(node.op, ast.Or):
                return value
        return value

    def _comparison(self, node: ast.Compare) -> Any:
        left = self._value(node.left)
        value: Any = True
        for sign, item in zip(node.ops, node.comparators, strict=True):
            right = self._value(item)
            if not isinstance(sign, (ast.In, ast.NotIn, ast.Is, ast.IsNot)):
                self._check_shape(
                    *(
                        np.empty(len(v)) if isinstance(v, (list, tuple)) else v
                        for v in (left, right)
                    )
                )
            value = COMPARED[type(sign)](left, right)
            if item is not node.comparators[-1] and not value:
                return value
            left = right
        return self._checked(value)

    def _item(self, node: ast.Subscript) -> Any:
        value, at = self._value(node.value), self._index(node.slice)
        if not isinstance(value, (pd.Series, np.ndarray, list, tuple, dict)):
            raise refused(node)
        if isinstance(at, tuple) and not all(
            isinstance(i, (int, slice, type(None))) for i in at
        ):  # arrays there would be combined with each other
            raise refused(node)
        return self._checked(value[at])

    def _index(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Slice):
            ends = (node.lower, node.upper, node.step)
            return slice(*(None if end is None else self._value(end) for end in ends))
        if isinstance(node, ast.Tuple):
            return tuple(self._index(item) for item in node.elts)
        return self._value(node)

    # Calls and attributes

    def _call(self, node: ast.Call) -> Any:
        args = [self._value(arg) for arg in node.args]
        named = {str(keyword.arg): self._value(keyword.value) for keyword in node.keywords}
        if any(name.startswith("_") for name in named):
            raise refused(node)
        match node.func:
            case ast.Name():
                value = self._function(node, bare(node.func.id), args, named)
            case ast.Attribute(value=ast.Name() as owner) if self._is_outside(owner):
                value = self._member(node.func, owner, args, named)
            case ast.Attribute():
                value = self._method(node.func, args, named)
            case _:
                raise refused(node)
        return self._checked(value)

    def _function(self, node: ast.Call, name: str, args: list[Any], named: Arguments) -> Any:
        own = self._own(name)
        if own is not None and own is not np and callable(own):
            return own(*args, **named)
        if name not in FUNCTIONS:
            raise refused(node)
        function = FUNCTIONS[name]
        if self._state is None:
            if not function.anywhere:
                raise FormulaError(
                    f"The formula uses {name}() in a grouping or an offset, but it learns from "
                    "the data or looks at other rows, which only predictors may do. Compute the "
                    "column first."
                )
            if name in ("C", "factor") and args:
                return args[0]
        state = None
        if function.learns and self._state is not None:
            state = Learnt(self._state.setdefault(spelled(node), {}), self._rows, self._sample)
        return self._apply(name, function, args, named, state)

    def _own(self, name: str) -> Any:
        """What the user's context has under a name; None for nothing."""
        return None if name.startswith("__") else self._context.get(name)

    def _is_outside(self, owner: ast.Name) -> bool:
        """Whether a name before a dot is no column: np, contr, or the user's."""
        name = bare(owner.id)
        if owner.id == "np":  # a column of that name has backquotes before a dot
            return True
        return name not in self._columns and not isinstance(
            self._own(name), (pd.Series, np.ndarray, np.number)
        )

    def _member(
        self, node: ast.Attribute, owner: ast.Name, args: list[Any], named: Arguments
    ) -> Any:
        """Call a function of np, contr or something of the user's."""
        own, name = self._own(bare(owner.id)), node.attr
        if own is np or (own is None and owner.id == "np"):
            if name not in NUMPY:
                raise refused(node)
            return self._apply(f"np.{name}", NUMPY[name], args, named)
        if own is None and owner.id == "contr" and name in CODINGS:
            parameters = tuple(inspect.signature(CODINGS[name]).parameters)
            return self._apply(f"contr.{name}", Function(CODINGS[name], parameters), args, named)
        found = None if name.startswith("_") else getattr(own, name, None)
        if not isinstance(found, np.ufunc) or found.signature is not None:
            raise refused(node)
        parameters = tuple(f"x{i + 1}" for i in range(found.nin))
        return self._apply(f"{owner.id}.{name}", Function(found, parameters), args, named)

    def _method(self, node: ast.Attribute, args: list[Any], named: Arguments) -> Any:
        value, name = self._value(node.value), node.attr
        (value,) = counted_for(f".{name}", [value])
        kind = kind_of(value)
        if name not in METHODS.get(kind, {}):
            raise refused(node)
        parameters, check = METHODS[kind][name]
        check_rows([value, *args, *named.values()])
        if kind == "array":
            self._check_shape(value, *args, *named.values())
        if kind == "text":
            check_text(value, {**dict(zip(parameters, args, strict=False)), **named})
        return self._apply(
            f".{name}", Function(getattr(value, name), parameters, check), args, named
        )

    def _attribute(self, node: ast.Attribute) -> Any:
        owner, name = node.value, node.attr
        if isinstance(owner, ast.Name) and self._is_outside(owner):
            own = self._own(bare(owner.id))
            if own is np or (own is None and owner.id == "np"):
                if name in NUMPY_CONSTANTS:
                    return NUMPY_CONSTANTS[name]
            elif own is None and owner.id == "contr":
                if name in CODINGS:
                    return CODINGS[name]
            elif not name.startswith("_"):
                found = getattr(own, name, None)
                if isinstance(found, (*SCALARS, str)):
                    return self._checked(found)
            raise refused(node)
        value = self._value(owner)
        if name not in ATTRIBUTES.get(kind_of(value), frozenset()):
            raise refused(node)
        return getattr(value, name)

    def _apply(
        self,
        name: str,
        function: Function,
        args: list[Any],
        named: Arguments,
        state: Learnt | None = None,
    ) -> Any:
        """Call a function of the tables with arguments that its entry has."""
        args = counted_for(name, args)
        if function.parameters == ("*",) and not named:
            self._check_arguments(name, args)
            if (check := function.check) is not None:
                for value in args:
                    check({"values": value}, self._rows)
            return function.call(*args)
        positional = function.parameters[: len(args)]
        unknown = set(named) - set(function.parameters) | set(named) & set(positional)
        if unknown or len(args) > len(function.parameters):
            expected = ", ".join(function.parameters) or "none"
            raise FormulaError(
                f"{name}() is given arguments it does not take in a formula. They are: "
                f"{expected}. Leave out the others, or compute the column before fitting."
            )
        given = {**dict(zip(positional, args, strict=True)), **named}
        self._check_arguments(name, list(given.values()))
        if isinstance(function.call, np.ufunc):
            if any(is_text(value) for value in args):
                raise TypeError(f"{name}() calculates with numbers and is given text")
            self._check_shape(*args)
        if function.check is not None:
            function.check(given, self._rows)
        args = [given.pop(parameter) for parameter in positional]
        return function.call(*args, **given) if state is None else state(function, args, given)

    def _check_arguments(self, name: str, values: list[Any]) -> None:
        """Arguments are data, in shapes that do not make more of it."""
        values = flattened(values)
        check_arguments(name, values)
        arrays = [v for v in values if isinstance(v, (np.ndarray, pd.Series))]
        check_amount(name, arrays, self._largest)
        if any(v.ndim > 1 for v in arrays):
            self._check_shape(*arrays)
