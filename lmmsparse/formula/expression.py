"""The text of a call or calculation → a syntax tree of what a formula may contain, and its text.

What is evaluated later is this tree. Its text is written from the tree, so that whoever reads the
text again reads the same.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lmmsparse.common.errors import FormulaError
from lmmsparse.common.threads import filtered
from lmmsparse.common.words import shortened
from lmmsparse.formula import limits
from lmmsparse.formula.limits import remembered, too_much
from lmmsparse.formula.places import Place
from lmmsparse.formula.tokens import (
    NAMESPACES,
    Token,
    joined_words,
    python_words,
    spelled_text,
    tokenize,
)

_ALLOWED = (
    ast.Call, ast.Name, ast.Attribute, ast.Constant, ast.BinOp, ast.UnaryOp, ast.BoolOp,
    ast.Compare, ast.List, ast.Tuple, ast.Dict, ast.Subscript, ast.Slice, ast.keyword, ast.IfExp,
    ast.Load, ast.unaryop, ast.boolop, ast.cmpop, ast.Add, ast.Sub, ast.Mult, ast.Div,
    ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr, ast.BitXor,
)  # fmt: skip
_TIGHTNESS: dict[type[ast.operator], int] = {
    ast.BitOr: 0, ast.BitXor: 1, ast.BitAnd: 2, ast.Add: 3, ast.Sub: 3, ast.Mult: 4, ast.Div: 4,
    ast.FloorDiv: 4, ast.Mod: 4, ast.Pow: 5,
}  # fmt: skip
_CONSTANTS = (str, bool, int, float, type(None))


@dataclass(frozen=True, eq=False)
class Expression:
    """A call or calculation of a formula.

    Attributes
    ----------
    text : str
        Written from the tree; names that are no plain words stand in backquotes.
    tree : ast.expr
        The identifiers of names are as in `text`, backquotes included.
    names : tuple of str
        The names of values in it, each once, without backquotes; not of methods and arguments.
    called : tuple of str
        The names of functions in it, those that are called.
    """

    text: str
    tree: ast.expr
    names: tuple[str, ...]
    called: tuple[str, ...]


@remembered
def read_expression(text: str) -> Expression:
    """Read a call or calculation.

    Examples
    --------
    >>> read_expression("np.log( `my age`+1 )").text
    'np.log(`my age` + 1)'
    """
    tokens = tuple(tokenize(text)[:-1])
    try:
        tree = parsed(tokens)
    except SyntaxError as error:
        raise FormulaError(
            f"{text!r} is not an expression. Check brackets, commas and quotes."
        ) from error
    _check(tree, text)
    try:
        written = spelled(tree)
    except RecursionError as error:  # who calls is deep already
        raise FormulaError(f"{shortened(text)} is nested too deeply. Simplify it.") from error
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    outside = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "np"  # a column of that name has backquotes before a dot
    }
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return Expression(
        text=written,
        tree=tree,
        names=tuple(dict.fromkeys(bare(n.id) for n in names if id(n) not in functions | outside)),
        called=tuple(dict.fromkeys(bare(n.id) for n in names if id(n) in functions)),
    )


def parsed(tokens: tuple[Token, ...]) -> ast.expr:
    """The syntax tree of tokens; a name in backquotes is a name with backquotes there."""
    if len(tokens) > limits.PIECES:
        text, start = tokens[0].text, tokens[0].start
        too_much(
            f"The expression that starts with {text[start : start + 40]!r} has {len(tokens):,} "
            "names, numbers and signs",
            f"{limits.PIECES:,} in one expression",
            "Compute the column before fitting.",
        )
    prefix = "quoted_"
    while any(prefix in token.value for token in tokens):
        prefix += "_"
    words = python_words(tokens)
    stands_for = {}
    for i, word in enumerate(words):
        if word.startswith("`"):
            words[i] = f"{prefix}{i}"
            stands_for[words[i]] = word
    try:
        with filtered(("ignore", Warning)):  # such as that "\\d" has no meaning in a text
            tree = ast.parse(joined_words(tokens, words), mode="eval").body
    except (ValueError, MemoryError, RecursionError) as error:
        raise SyntaxError(str(error)) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = stands_for.get(node.id, node.id)
        elif isinstance(node, (ast.Attribute, ast.keyword)) and _name_in(node) in stands_for:
            raise SyntaxError("a name in backquotes is a column")
    return tree


def check_python(tokens: tuple[Token, ...]) -> None:
    """Raise a `FormulaError` when the tokens are not one complete Python expression."""
    try:
        parsed(tokens)
    except SyntaxError:
        whole = Place(tokens[0].text, tokens[0].start, tokens[-1].end)
        pair = _names_side_by_side(tokens)
        why = (
            f"two names side by side, {pair}. Put a sign between them, or a column name "
            f"with spaces into backquotes: `{pair}`."
            if pair
            else "a comma, a sign or a name may be missing or in excess. Correct it, or make it a "
            "column of the data first."
        )
        whole.fail(
            f'"{whole.text[whole.start : whole.end]}" is not a complete expression in Python: {why}'
        )


def _names_side_by_side(tokens: tuple[Token, ...]) -> str:
    """The first run of names with nothing between them; empty if there is none."""
    run: list[str] = []
    for token in tokens:
        if token.kind == "name" and not keyword.iskeyword(token.value):
            run.append(token.value)
        elif len(run) > 1:
            break
        else:
            run = []
    return " ".join(run) if len(run) > 1 else ""


def _name_in(node: ast.Attribute | ast.keyword) -> str:
    return (node.attr if isinstance(node, ast.Attribute) else node.arg) or ""


def bare(name: str) -> str:
    """A name without the backquotes around it."""
    return name[1:-1] if name.startswith("`") else name


def spelled(tree: ast.expr) -> str:
    """The text of a tree; no text constant in it contains a bracket or a backquote."""
    return _unparsed(_plain(tree))


def _unparsed(node: ast.AST) -> str:
    return ast.unparse(node).replace("\n", " ")


def _plain(node: Any) -> Any:
    """A copy that `ast.unparse` writes as it should.

    Texts are names whose identifier is the text in quotes; of a chain such as a + b + c only the
    last operation is left as a tree.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = spelled_text(repr(node.value))
        if node.value.startswith("contr."):  # which would be read as the coding of that name
            text = text.replace(".", "\\x2e", 1)
        return ast.Name(text, ast.Load())
    if isinstance(node, ast.BinOp):
        chain = [node]
        while isinstance(chain[-1].left, ast.BinOp):
            chain.append(chain[-1].left)
        innermost = chain.pop()
        done = ast.BinOp(_plain(innermost.left), innermost.op, _plain(innermost.right))
        while chain:
            outer = chain.pop()
            text = _unparsed(done)
            left = ast.Name(text if _binds(done.op, outer.op) else f"({text})", ast.Load())
            done = ast.BinOp(left, outer.op, _plain(outer.right))
        return done
    if isinstance(node, ast.Attribute):  # x.day by itself would be read as the name of a column
        return _member(node, called=False)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        rest = ast.Call(ast.Constant(None), node.args, node.keywords)
        written = _plain(rest)
        written.func = _member(node.func, called=True)
        return written
    fields = {}
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            value = [_plain(v) if isinstance(v, ast.AST) else v for v in value]
        fields[name] = _plain(value) if isinstance(value, ast.AST) else value
    return type(node)(**fields)


def _member(node: ast.Attribute, called: bool) -> ast.Attribute:
    owner = node.value
    if isinstance(owner, ast.Attribute):
        return ast.Attribute(_member(owner, called), node.attr, ast.Load())
    written = _plain(owner)
    if isinstance(owner, ast.Name) and not called and owner.id not in NAMESPACES:
        written = ast.Name(f"({owner.id})", ast.Load())
    return ast.Attribute(written, node.attr, ast.Load())


def _binds(inner: ast.operator, outer: ast.operator) -> bool:
    """Whether an operation on the left of another needs no parentheses."""
    if isinstance(outer, ast.Pow):
        return False
    return _TIGHTNESS[type(inner)] >= _TIGHTNESS[type(outer)]


def _check(tree: ast.expr, text: str) -> None:
    """Refuse syntax, constants and depths that have no place in a formula."""
    for node, depth in _with_depth(tree):
        if depth > limits.DEPTH:
            too_much(
                f"The expression {shortened(text)} is nested too deeply",
                f"{limits.DEPTH} operations inside each other",
                "Compute the column before fitting.",
            )
        unpacked = isinstance(node, ast.keyword) and node.arg is None
        unpacked |= isinstance(node, ast.Dict) and None in node.keys
        strange = isinstance(node, ast.Constant) and not isinstance(node.value, _CONSTANTS)
        strange |= isinstance(node, ast.Attribute) and isinstance(node.value, ast.Constant)
        if not isinstance(node, _ALLOWED) or unpacked or strange:
            raise FormulaError(
                f"{shortened(text)} uses Python syntax ({type(node).__name__}) that a formula "
                "does not allow. Compute the column first, or pass a function through context=."
            )
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and len(node.value) > limits.TEXT
        ):
            too_much(
                f"A text in {shortened(text)} has {len(node.value):,} characters",
                f"{limits.TEXT:,} in a text",
                "Compute the column before fitting.",
            )


def _with_depth(tree: ast.AST) -> Iterator[tuple[ast.AST, int]]:
    """All nodes with their depth; the left side of + and the like is as deep as the whole."""
    todo: list[tuple[ast.AST, int]] = [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        yield node, depth
        for child in ast.iter_child_nodes(node):
            chained = isinstance(node, ast.BinOp) and child is node.left
            todo.append((child, depth if chained else depth + 1))
