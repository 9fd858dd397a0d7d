"""A formula and what is to change, ``. ~ . + x``, → the new formula as text."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lmmsparse.common.errors import FormulaError
from lmmsparse.common.words import listed
from lmmsparse.formula.formula import RandomTerm, check_amount, parse_formula
from lmmsparse.formula.limits import check_characters, not_too_deep
from lmmsparse.formula.parser import parse_side
from lmmsparse.formula.parts import read_part
from lmmsparse.formula.places import Place, one_line
from lmmsparse.formula.terms import term_labels
from lmmsparse.formula.tokens import Token, quote_name, tokenize
from lmmsparse.formula.tree import (
    Bar,
    Call,
    Name,
    Node,
    Number,
    Paren,
    Special,
    Sum,
    is_dot,
    unwrap,
    walk,
)


@dataclass(frozen=True)
class _Item:
    """One summand of the right side: its sign, text and node (None where it was put together)."""

    sign: int
    text: str
    node: Node

    @property
    def random(self) -> bool:
        """Whether it is a random term."""
        return isinstance(unwrap(self.node), Bar | Special)

    @property
    def labels(self) -> tuple[str, ...]:
        """The fixed effects it stands for; none for random terms, numbers and offsets."""
        node = unwrap(self.node)
        if self.random or isinstance(node, Number) or _is_offset(node):
            return ()
        return term_labels(node)


def _is_offset(node: Node) -> bool:
    return isinstance(node, Call) and node.function == "offset"


@not_too_deep
def updated_formula(old: str, new: str) -> str:
    """A formula with changes.

    Parameters
    ----------
    old : str
        A whole formula.
    new : str
        One in which ``.`` stands for what is on the same side of the old one; terms after a minus
        are taken away. Without a left side the response stays.

    Returns
    -------
    str

    Raises
    ------
    FormulaError
        If it cannot be read, or takes away what is not there.

    Examples
    --------
    >>> updated_formula("y ~ x + (x | g)", ". ~ . + z - (x | g) + (1 | g)")
    'y ~ x + z + (1 | g)'
    >>> updated_formula("y ~ x * z + (1 | g)", "log(.) ~ . - x:z")
    'log(y) ~ x + z + (1 | g)'
    """
    before, after = _sides(old), _sides(new)
    response = _response(before[0], after[0])
    own = _items(before[1])
    items: list[_Item] = []
    for item in _items(after[1]):
        if is_dot(item.node) and item.sign > 0:
            items += own
        elif any(is_dot(part) for part in walk(item.node)):
            items += _around(item, own)
        elif item.sign > 0 or isinstance(unwrap(item.node), Number):
            known = {_bare(each.text) for each in items}
            items += [] if _bare(item.text) in known else [item]
        else:
            items = _without(items, item)
    fixed = [item for item in items if not item.random]
    random = [item for item in items if item.random]
    right = ""
    for item in [*fixed, *random] if fixed else [*_one(), *random]:
        sign = " - " if item.sign < 0 else " + "
        right += f"{sign}{item.text}" if right else f"{'-' if item.sign < 0 else ''}{item.text}"
    return f"{response} ~ {right}"


def _one() -> list[_Item]:
    return _items(tokenize("1")[:-1])


def _sides(text: str) -> tuple[list[Token], list[Token]]:
    """The tokens left and right of the ``~``."""
    if not isinstance(text, str):
        raise FormulaError(
            f"The formula must be a string, not of type {type(text).__name__}. Write for example "
            '". ~ . + x".'
        )
    check_characters(text)
    check_amount(tokenize(text))
    tokens = tokenize(text)[:-1]
    at = [i for i, token in enumerate(tokens) if token.is_op("~")]
    if len(at) != 1 or at[0] == len(tokens) - 1:
        raise FormulaError(
            'A change of a formula has one "~" with terms to its right. Write for example '
            '". ~ . + x", in which "." is what there was.',
            text,
            0,
            max(1, len(text)),
        )
    return tokens[: at[0]], tokens[at[0] + 1 :]


def _text(tokens: list[Token]) -> str:
    return Place(tokens[0].text, tokens[0].start, tokens[-1].end).written if tokens else ""


def _response(old: list[Token], new: list[Token]) -> str:
    """The new response, ``.`` in it replaced by the old one."""
    if not new:
        return _text(old)
    text, shift = new[0].text, 0
    calculated = old and not isinstance(parse_side(old), Name | Call | Paren)
    whole = text[new[0].start : new[-1].end]
    for i, token in enumerate(new):
        if token.kind == "name" and token.value == ".":
            alone = len(new) == 1 or (new[i - 1].is_op("(") and new[i + 1].is_op(")"))
            before = f"({_text(old)})" if calculated and not alone else _text(old)
            start = token.start - new[0].start + shift
            whole = whole[:start] + before + whole[start + 1 :]
            shift += len(before) - 1
    return one_line(whole)


def _items(tokens: list[Token]) -> list[_Item]:
    """The summands of a right side."""
    tree = parse_side(tokens)
    if isinstance(tree, Bar):
        return [_Item(1, f"({tree.written})", tree)]
    items = tree.items if isinstance(tree, Sum) else ((1, tree),)
    return [_Item(sign, node.written, node) for sign, node in items]


def _around(item: _Item, own: list[_Item]) -> list[_Item]:
    """The old fixed part inside a product, ``(.)^2``; the other old terms as they were."""
    if item.random or item.sign < 0 or any(isinstance(p, Call) for p in walk(item.node)):
        item.node.fail('"." stands for all terms of a side, and cannot be inside this one.')
    fixed = [each for each in own if each.labels]
    rest = [each for each in own if not each.labels]
    inner = " + ".join(each.text for each in fixed) or "1"
    text = item.text
    for part in reversed([part for part in walk(item.node) if is_dot(part)]):
        start = part.start - item.node.start
        inside = text[:start].rstrip().endswith("(") and text[start + 1 :].lstrip().startswith(")")
        bracketed = len(fixed) > 1 and not inside
        text = text[:start] + (f"({inner})" if bracketed else inner) + text[start + 1 :]
    return [*_items(tokenize(text)[:-1]), *rest]


def _without(items: list[_Item], gone: _Item) -> list[_Item]:
    """The summands without one that is taken away."""
    same = [item for item in items if _bare(item.text) == _bare(gone.text)]
    if same:
        return [item for item in items if item not in same]
    if gone.random:
        meant = _random(gone)
        same = [item for item in items if item.random and _random(item) == meant]
        if same:
            return [item for item in items if item not in same]
    labels = {_unordered(label) for label in gone.labels}
    out: list[_Item] = []
    taken: set[frozenset[str]] = set()
    for item in items:
        own = item.labels
        left = [label for label in own if _unordered(label) not in labels]
        taken |= {_unordered(label) for label in own} & labels
        if len(left) == len(own) or item.sign < 0:
            out.append(item)
        else:
            out += [_items(tokenize(label)[:-1])[0] for label in left]
    if not labels or not taken:
        there = [item.text for item in items if item.random == gone.random]
        gone.node.fail(
            f'"{gone.node.written}" is not in the formula, and cannot be taken away. It has '
            f"{listed(there) or 'no such term'}."
        )
    return out


def _random(item: _Item) -> list[RandomTerm]:
    """What a random term stands for, whatever its blanks and the order of its text."""
    terms = parse_formula(f"y ~ {item.text}").random
    return [replace(term, source="", position=0) for term in terms]


def _bare(text: str) -> tuple[str, ...]:
    """The words and signs of a text, whatever its blanks."""
    return tuple(
        quote_name(token.value, quoted=True) if token.kind == "quoted" else token.value
        for token in tokenize(text)
    )


def _unordered(label: str) -> frozenset[str]:
    (term,) = read_part(f"0 + {label}")
    return frozenset(variable.text for variable in term)
