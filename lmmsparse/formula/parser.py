"""Tokens of one side of a formula → its syntax tree, with R's precedences.

From loose to tight: ``|`` and ``||``; ``+`` and ``-``; ``*`` and ``/``; ``%in%``; ``:``; ``^`` and
``**``.
"""

from __future__ import annotations

from typing import NoReturn

from lmmsparse.common.errors import FormulaError
from lmmsparse.formula.expression import check_python
from lmmsparse.formula.places import Place
from lmmsparse.formula.tokens import CONSTANTS, Token
from lmmsparse.formula.tree import (
    Bar,
    Call,
    Name,
    Node,
    Number,
    Paren,
    Product,
    Special,
    Sum,
)

STRUCTURES = ("us", "diag", "cs", "ar1")
_TIGHTER_THAN_SUM = (("*", "/"), ("%in%",), (":",), ("^", "**"))


def parse_side(tokens: list[Token]) -> Node:
    """Parse the tokens, at least one, of one side of the tilde, without the end token."""
    text, last = tokens[-1].text, tokens[-1].end
    parser = _Parser([*tokens, Token(text, last, last, "end", "")])
    try:
        node = parser.bar()
    except RecursionError as error:
        raise FormulaError(
            "The formula is nested too deeply. Remove powers and parentheses that are not needed."
        ) from error
    if parser.here.kind != "end":
        parser.unexpected()
    return node


def _over(first: Place, last: Place) -> tuple[str, int, int]:
    """From one place to another."""
    return first.text, first.start, last.end


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def here(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self.here
        self._at += 1
        return token

    def unexpected(self) -> NoReturn:
        token = self.here
        shown = token.written
        if token.is_op("<", ">", "==", "!=", "<=", ">=", "&", "&&", "%", "//"):
            token.fail(
                f'The sign "{shown}" cannot stand between terms of a formula. Write calculations '
                "inside I( ), for example I(x > 1)."
            )
        if token.is_op("["):
            token.fail(
                "Square brackets cannot stand here. Write calculations inside I( ), for example "
                "I(x[0])."
            )
        if token.kind == "op" and not token.is_op("(", "{"):
            token.fail(
                f'The sign "{shown}" has no meaning here. Join terms by +, write interactions '
                "with : or *, and calculations inside I( )."
            )
        before = self._tokens[self._at - 1]
        if before.is_op(")") and shown.startswith("."):
            token.fail(
                f'"{shown}" after a parenthesis cannot be read here. Put the whole expression '
                "inside I( )."
            )
        token.fail(
            f'A sign is missing before "{shown}": two terms stand side by side. Join them, for '
            "example with +, or put a column name with spaces in it into backquotes."
        )

    def bar(self) -> Node:
        if self.here.is_op("|", "||"):
            self.here.fail(
                f'There is nothing to the left of "{self.here.value}". Write the effects that '
                "vary between groups there, for example (1|group) for a random intercept."
            )
        left = self._sum()
        while self.here.is_op("|", "||"):
            sign = self._take()
            if self.here.kind == "end" or self.here.is_op(")", ",", "|", "||"):
                sign.fail(
                    f'There is nothing to the right of "{sign.value}". Write the grouping column '
                    "there, for example (1|group)."
                )
            right = self._sum()
            left = Bar(*_over(left, right), left, right, sign.value == "||")
        return left

    def _sum(self) -> Node:
        start = self.here
        items: list[tuple[int, Node]] = []
        sign = self._signs()
        signed = sign is not None
        items.append((sign or 1, self._product(0)))
        while (sign := self._signs()) is not None:
            items.append((sign, self._product(0)))
        if len(items) == 1 and not signed:
            return items[0][1]
        return Sum(*_over(start, items[-1][1]), tuple(items))

    def _signs(self) -> int | None:
        """Product of the plus and minus signs that come next, None when there are none."""
        sign = None
        while self.here.is_op("+", "-"):
            sign = (sign or 1) * (1 if self._take().value == "+" else -1)
        return sign

    def _product(self, level: int) -> Node:
        if level == len(_TIGHTER_THAN_SUM):
            return self._primary()
        operators = _TIGHTER_THAN_SUM[level]
        left = self._product(level + 1)
        while self.here.is_op(*operators):
            operator = "^" if (found := self._take().value) == "**" else found
            # the power binds to the right: a^b^c is a^(b^c)
            right = self._product(level if operator == "^" else level + 1)
            left = Product(*_over(left, right), operator, left, right)
        return left

    def _primary(self) -> Node:
        token = self._take()
        if token.kind == "number":
            return Number(*_over(token, token), float(token.value.rstrip("L")))
        if token.kind == "name" and self.here.is_op("("):
            return self._call(token)
        if token.kind in ("name", "quoted"):
            return Name(*_over(token, token), token)
        if token.is_op("("):
            if self.here.is_op(")"):
                Place(*_over(token, self.here)).fail(
                    "There is nothing between these parentheses. Remove them, or write the term "
                    "that is missing."
                )
            inner = self.bar()
            if not self.here.is_op(")"):
                self.unexpected()
            return Paren(*_over(token, self._take()), inner)
        if token.kind == "string":
            token.fail(
                f"A string, {token.value}, cannot be a term. Write the column's name without "
                "quotation marks (in backquotes if it contains spaces)."
            )
        self._missing_term(token)

    def _missing_term(self, token: Token) -> NoReturn:
        before = self._tokens[self._at - 2] if self._at > 1 else None
        if token.is_op("[", "{"):
            token.fail(
                f'"{token.value}" cannot stand here. Group terms by round parentheses, for '
                "example (1|group)."
            )
        if before is not None and before.is_op("+", "-", "*", "/", ":", "^", "**", "%in%"):
            before.fail(f'A term is missing after "{before.value}". Write it, or remove the sign.')
        if before is not None and before.is_op("|", "||"):
            self._at -= 1
            self.unexpected()
        token.fail(f'A term is missing before "{token.value}". Write it, or remove the sign.')

    def _call(self, name: Token) -> Node:
        opening = self._at
        depth, closing, bar = 0, opening, None
        while True:
            token = self._tokens[closing]
            depth += token.nesting
            if token.is_op("|", "||"):
                bar = bar or (token, depth)
            if depth == 0:
                break
            closing += 1
        if bar is not None:
            if name.value in STRUCTURES and bar[1] == 1:
                return self._special(name)
            self._bar_in_call(name, bar[0])
        tokens = (name, *self._tokens[opening : closing + 1])
        self._at = closing + 1
        for i, token in enumerate(tokens[1:], 1):
            if token.value == "offset" and tokens[min(i + 1, len(tokens) - 1)].is_op("("):
                token.fail(
                    "offset() cannot stand inside another call. Write + offset(...) beside the "
                    "other terms."
                )
            if token.kind == "name" and token.value == ".":
                token.fail(
                    f'The "." cannot stand inside {name.value}( ); it works only as a term of the '
                    "fixed part. Write the columns you mean."
                )
        if len(tokens) > 3:
            check_python(tokens)
        return Call(*_over(name, tokens[-1]), tokens)

    def _bar_in_call(self, name: Token, bar: Token) -> NoReturn:
        if name.end < self.here.start:
            self.here.fail(
                f'A sign is missing between "{name.value}" and the parenthesis. Write '
                f"{name.value} + (...)."
            )
        bar.fail(
            f'The "{bar.value}" cannot stand inside {name.value}( ). Write a random term as + '
            "(1|group) beside the other terms; for a logical or write np.logical_or(a, b)."
        )

    def _special(self, name: Token) -> Special:
        self._take()
        bar = self.bar()
        if not isinstance(bar, Bar):  # it comes later
            bar.fail(
                f'The first argument of {name.value}( ) has no "|". Write {name.value}(effects | '
                "group), with effects joined by +."
            )
        if bar.double:
            bar.fail(
                f'"||" cannot stand inside {name.value}( ), which names a covariance itself. '
                f"Write one | inside {name.value}( ), or ({bar.written}) without {name.value}."
            )
        hom: bool | None = None
        while self.here.is_op(","):
            self._take()
            hom = self._hom(name)
        if not self.here.is_op(")"):
            self.unexpected()
        return Special(*_over(name, self._take()), name.value, bar, hom)

    def _hom(self, name: Token) -> bool:
        start = self.here
        words: list[str] = []
        while not self.here.is_op(",", ")"):
            words.append(self._take().value)
        value = CONSTANTS.get(words[2], "") if len(words) == 3 else ""
        if words[:2] != ["hom", "="] or value not in ("True", "False") or name.value == "us":
            allowed = (
                "us( ) takes no argument besides effects | group"
                if name.value == "us"
                else f"Besides effects | group, {name.value}( ) only takes hom=True or hom=False"
            )
            what = name.text[start.start : self.here.start].strip() or ","
            Place(name.text, start.start, start.start + len(what)).fail(
                f'The argument "{what}" of {name.value}( ) is not known. {allowed}. Remove it or '
                "correct it."
            )
        return value == "True"
