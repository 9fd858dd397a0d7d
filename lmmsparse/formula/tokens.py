"""Formula text → tokens with positions; tokens of a call → a Python expression.

Every token keeps its offset in the text, because each error points at a place in it.
"""

from __future__ import annotations

import ast
import keyword
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from lmmsparse.common.threads import filtered
from lmmsparse.formula import limits
from lmmsparse.formula.limits import remembered
from lmmsparse.formula.places import Place

Kind = Literal["name", "quoted", "number", "string", "op", "end"]

CONSTANTS = {"TRUE": "True", "FALSE": "False", "NULL": "None", "NA": "None"}
CONSTANTS.update({value: value for value in ("True", "False", "None")})
NAMESPACES = ("np", "contr")
_EXPRESSION_WORDS = frozenset(["if", "else", "in", "is", "not", "and", "or", "lambda", "for"])
_AS_CALLS = {
    f"as.{kind}": kind
    for kind in ("factor", "ordered", "numeric", "integer", "character", "logical")
}
_IN_PYTHON = {"%%": "%", "%/%": "//"}
_OPENING, _CLOSING = "([{", ")]}"
_PARTNER = dict(zip(_CLOSING, _OPENING, strict=True))

_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?L?")
_PLAIN_NAME = re.compile(r"[A-Za-z._][A-Za-z0-9._]*")
_OPERATOR = re.compile(r"%[A-Za-z]*%|%/%|%\*%|\*\*|//|==|!=|<=|>=|\|\||&&|[-+*/^:()\[\]{},=<>&|~%]")
_LOOKALIKES = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
    **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2018\u2019\u00b4", "'"),
    **dict.fromkeys("\u223c\u02dc\uff5e", "~"),
    **dict.fromkeys("\u2223\uff5c\u00a6", "|"),
    **dict.fromkeys("\u00d7\u22c5\u00b7", "*"),
    **dict.fromkeys("\u00b2\u00b3", "^2 or ^3 inside I( )"),
}


@dataclass(frozen=True)
class Token(Place):
    """One word or sign of a formula; `value` is without backquotes."""

    kind: Kind
    value: str

    @property
    def nesting(self) -> int:
        """1 for a bracket that opens, −1 for one that closes."""
        return self.is_op(*_OPENING) - self.is_op(*_CLOSING)

    def is_op(self, *values: str) -> bool:
        """Whether this is one of the given signs."""
        return self.kind == "op" and self.value in values


def tokenize(text: str) -> list[Token]:
    """Split a formula into tokens; the last one has kind ``"end"``.

    The texts of a model come back many times; their tokens are kept.
    """
    return list(_tokens(text))


@remembered
def _tokens(text: str) -> tuple[Token, ...]:
    tokens: list[Token] = []
    at = 0
    if len(text) > limits.WRITTEN_OUT:
        limits.too_much(
            f"A part of the formula has {len(text):,} characters",
            f"{limits.WRITTEN_OUT:,} with its columns written out",
            "Name the columns that are needed.",
        )
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        token = _next_token(text, at)
        tokens.append(token)
        at = token.end
    _check_brackets(tokens)
    return (*tokens, Token(text, len(text), len(text), "end", ""))


def _next_token(text: str, at: int) -> Token:
    char = text[at]
    plain = _PLAIN_NAME.match(text, at)
    if plain is not None and not (char == "." and text[at + 1 : at + 2].isdecimal()):
        end = plain.end() if text[plain.end() : plain.end() + 1].isascii() else _name_end(text, at)
        return Token(text, at, end, "name", text[at:end])
    if char in "`'\"":
        return _read_quoted(text, at)
    number = _NUMBER.match(text, at)
    if number:
        end = number.end()
        if end < len(text) and _is_name_char(text[end]):
            name = Place(text, at, _name_end(text, at))
            name.fail(
                f'"{name.written}" cannot be read. A column name that starts with a digit must '
                f"stand in backquotes: `{name.written}`."
            )
        return Token(text, at, end, "number", number.group())
    if _is_name_char(char) and not char.isdecimal():
        end = _name_end(text, at)
        return Token(text, at, end, "name", text[at:end])
    operator = _OPERATOR.match(text, at)
    if operator is None:
        Place(text, at, at + 1).fail(_stray(char))
    value = operator.group()
    if len(value) > 1 and value.startswith("%") and value != "%in%":
        instead = _IN_PYTHON.get(value)
        advice = "Compute the quantity as a column of the data first."
        if instead:
            advice = f'Write "{instead}" inside I( ), for example I(x {instead} 2).'
        Place(text, at, at + len(value)).fail(f'The operator "{value}" exists only in R. {advice}')
    return Token(text, at, operator.end(), "op", value)


def _read_quoted(text: str, at: int) -> Token:
    quote = text[at]
    end = at + 1
    while end < len(text) and text[end] != quote:
        end += 2 if text[end] == "\\" and quote != "`" else 1
    if end >= len(text):
        what = "backquote" if quote == "`" else "quotation mark"
        Place(text, at, at + 1).fail(
            f"A {what} ({quote}) is opened here and never closed. Add the closing {quote}."
        )
    if quote != "`":
        return Token(text, at, end + 1, "string", text[at : end + 1])
    if end == at + 1:
        Place(text, at, end + 1).fail(
            "There is no name between these backquotes. Write the column's name between them."
        )
    return Token(text, at, end + 1, "quoted", text[at + 1 : end])


def _is_name_char(char: str) -> bool:
    return char in "._" or unicodedata.category(char)[0] in "LM" or char.isdecimal()


def _name_end(text: str, at: int) -> int:
    while at < len(text) and _is_name_char(text[at]):
        at += 1
    return at


def _stray(char: str) -> str:
    if char == "$":
        return (
            'The sign "$" has no meaning in a formula. Write only the column\'s name, for '
            'example "weight", not "d$weight".'
        )
    if char in _LOOKALIKES:
        return (
            f'The character "{char}" only looks like the one that is meant (word processors '
            f"replace it). Type {_LOOKALIKES[char]} instead."
        )
    return (
        f'The character "{char}" has no meaning in a formula. Remove it, or put backquotes around '
        "the column name it belongs to, for example `my column`."
    )


def _check_brackets(tokens: list[Token]) -> None:
    open_: list[Token] = []
    for token in tokens:
        if token.kind != "op":
            continue
        if token.is_op(*_OPENING):
            open_.append(token)
            if len(open_) > limits.NESTING:
                token.fail(
                    limits.beyond(
                        "The formula is nested too deeply",
                        f"{limits.NESTING} brackets inside each other",
                        "Remove those that are not needed.",
                    )
                )
        elif token.is_op(*_CLOSING):
            if not open_ or open_[-1].value != _PARTNER[token.value]:
                token.fail(
                    f'This "{token.value}" closes nothing. Remove it, or add the opening '
                    f'"{_PARTNER[token.value]}".'
                )
            open_.pop()
    if open_:
        closing = _CLOSING[_OPENING.index(open_[-1].value)]
        open_[-1].fail(f'This "{open_[-1].value}" is never closed. Add "{closing}" where it ends.')


def is_column_word(name: str) -> bool:
    """Whether an unquoted name is a column: no constant, no word of Python, no ``np.``."""
    return (
        name not in CONSTANTS
        and name not in _EXPRESSION_WORDS
        and ("." not in name or name.split(".")[0] not in NAMESPACES)
    )


def effect_key(name: str) -> frozenset[str]:
    """The factors of an effect's name, by which it is the same in any order and part of a formula.

    Examples
    --------
    >>> effect_key("f[T.b]:x") == effect_key("x:f[b]")
    True
    >>> effect_key("Intercept")
    frozenset()
    """
    pieces, depth, start = [], 0, 0
    for i, char in enumerate(name + ":"):
        depth += (char in "([{") - (char in ")]}")
        if i == len(name) or (char == ":" and depth <= 0):
            pieces.append(name[start:i].replace("[T.", "["))
            start = i + 1
    return frozenset(pieces) - {"Intercept"}


def quote_name(name: str, quoted: bool = False) -> str:
    """A column name as an expression: plain when that is unambiguous, else in backquotes."""
    plain = name.isidentifier() and unicodedata.normalize("NFKC", name) == name
    if (
        plain
        and not keyword.iskeyword(name)
        and not (quoted and (name in NAMESPACES or not is_column_word(name)))
    ):
        return name
    if not quoted and name.split(".")[0] in NAMESPACES:
        return name
    return f"`{name}`"


def is_attribute(tokens: list[Token] | tuple[Token, ...], i: int) -> bool:
    """Whether token `i` is a method or attribute, as ``.mean`` in ``f(x).mean()``."""
    token = tokens[i]
    return (
        i > 0
        and token.kind == "name"
        and token.value.startswith(".")
        and tokens[i - 1].end == token.start
        and (tokens[i - 1].is_op(*_CLOSING) or tokens[i - 1].kind in ("quoted", "string"))
    )


def python_text(tokens: tuple[Token, ...], *, display: bool = False) -> str:
    """Tokens as a Python expression with tidy spacing and R's spellings replaced.

    With `display` only names that could not be read otherwise keep their backquotes.
    """
    return joined_words(tokens, python_words(tokens, display=display))


def python_words(tokens: tuple[Token, ...], *, display: bool = False) -> list[str]:
    """Each token as Python spells it; columns that are no plain words stand in backquotes."""
    return [_spell(tokens, i, display) for i in range(len(tokens))]


def joined_words(tokens: tuple[Token, ...], words: list[str]) -> str:
    """One word for each token as a text with tidy spacing."""
    roles: list[str] = []
    for i in range(len(tokens)):
        roles.append(_role(tokens, i, roles))
    return "".join(
        (_gap(roles[i - 1], roles[i]) if i else "") + word for i, word in enumerate(words)
    )


def check_columns_callable(tokens: tuple[Token, ...]) -> None:
    """Refuse columns named like a word of Python (``class``) inside a call: they cannot be used."""
    for i, token in enumerate(tokens):
        word = _spell(tokens, i, False)
        if word.startswith("`") and keyword.iskeyword(token.value):
            token.fail(
                f'The column "{token.value}" cannot be used inside a call, because '
                f'"{token.value}" is a word of the Python language. Rename it, for example to '
                f'"{token.value}_".'
            )


def _spell(tokens: tuple[Token, ...], i: int, display: bool) -> str:
    token = tokens[i]
    after = tokens[i + 1] if i + 1 < len(tokens) else None
    value = token.value
    if token.kind == "quoted":
        dotted = display and all(part.isidentifier() for part in value.split("."))
        return value if dotted else quote_name(value, quoted=True)
    if token.kind == "number":
        return value.rstrip("L")
    if token.kind == "string":
        if i > 0 and tokens[i - 1].is_op(",", "=") and re.fullmatch(r".contr\.[A-Za-z]+.", value):
            return value[1:-1]  # C(f, "contr.sum") is R's other way to write C(f, contr.sum)
        return spelled_text(value)
    if value == "^":
        return "**"
    if token.kind != "name" or is_attribute(tokens, i):
        return value
    if after is not None and after.is_op("("):
        return _AS_CALLS.get(value, value)
    if i > 0 and after is not None and after.is_op("="):
        return value
    if value in CONSTANTS:
        return CONSTANTS[value]
    if value in _EXPRESSION_WORDS:
        return value
    return value if display else quote_name(value)


def spelled_text(value: str) -> str:
    """A text in quotes without signs that whoever reads it again could take for syntax."""
    if "\\" in value:
        try:
            with filtered(("ignore", Warning)):  # such as that "\\d" has no meaning in a text
                value = repr(ast.literal_eval(value))
        except (SyntaxError, ValueError):
            return value
    return re.sub(r"[()\[\]{}`]", lambda found: f"\\x{ord(found[0]):02x}", value)


def _role(tokens: tuple[Token, ...], i: int, before_it: list[str]) -> str:
    token, before = tokens[i], tokens[i - 1] if i else None
    if token.kind == "name" and is_attribute(tokens, i):
        return "attribute"
    if token.kind != "op":
        return "keyword" if token.kind == "name" and token.value in _EXPRESSION_WORDS else "word"
    if token.value in _OPENING:
        return "open"
    if token.value in _CLOSING:
        return "close"
    if token.value == ",":
        return "comma"
    if token.value in ("**", "^", ":", "="):
        return "tight"
    starts = before is None or (before.kind == "op" and before.value not in _CLOSING)
    if token.value in ("+", "-", "~", "*") and (starts or before_it[-1] == "keyword"):
        return "unary"
    return "binary"


def _gap(before: str, after: str) -> str:
    if before in ("open", "unary", "tight") or after in ("close", "comma", "tight", "attribute"):
        return ""
    if after == "open":
        return " " if before in ("comma", "binary", "keyword") else ""
    return " "
