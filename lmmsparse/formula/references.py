"""The text of an expression or a formula part → the names and calls that it uses."""

from __future__ import annotations

from dataclasses import dataclass

from lmmsparse.formula import limits
from lmmsparse.formula.limits import remembered
from lmmsparse.formula.tokens import Token, is_attribute, is_column_word, tokenize


@dataclass(frozen=True)
class References:
    """What a text uses, each once and in order.

    Attributes
    ----------
    names : tuple of str
        Names that look like columns: not those of functions and methods that are called, names of
        arguments, ``np.…``, ``contr.…``, constants, words of Python and ``.``. Backquotes are
        removed.
    columns : tuple of str
        Those that stand by themselves, outside of calls.
    calls : tuple of str
        The calls, as texts.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    calls: tuple[str, ...]


@remembered
def references(text: str) -> References:
    """The names and calls of an expression or a formula part.

    Examples
    --------
    >>> references("1 + x:f + np.log(z) + (poly(x, degree=2) + `my age`)")
    References(names=('x', 'f', 'z', 'my age'), columns=('x', 'f', 'my age'), \
calls=('np.log(z)', 'poly(x, degree=2)'))
    """
    tokens = tokenize(text)
    names: dict[str, None] = {}
    columns: dict[str, None] = {}
    calls: list[str] = []
    depth, end = 0, -1  # how many brackets are open; the last token of the call that is read
    for i, token in enumerate(tokens[:-1]):
        depth += token.nesting
        if token.kind not in ("name", "quoted"):
            continue
        quoted, after = token.kind == "quoted", tokens[i + 1]
        word = quoted or (bool(token.value.strip(".")) and is_column_word(token.value))
        inside = i <= end
        if not inside and not quoted and after.is_op("(", "["):
            end = _end_of_call(tokens, i)
            calls.append(text[token.start : tokens[end].end])
        elif not inside and word:
            columns[token.value] = None
        called = after.is_op("(") or (depth > 0 and after.is_op("="))
        if quoted or (word and not called and not is_attribute(tokens, i)):
            names[token.value] = None
    return References(tuple(names), tuple(columns), tuple(calls))


def _end_of_call(tokens: list[Token], start: int) -> int:
    """The last token of a call, with the brackets and methods that follow it."""
    depth, end = 0, start + 1
    while True:  # brackets match: tokenize has seen to that
        depth += tokens[end].is_op("(", "[") - tokens[end].is_op(")", "]")
        more = tokens[end + 1].is_op("(", "[") or tokens[end + 1].value.startswith(".")
        if depth == 0 and not more:
            return end
        end += 1


def with_columns(text: str, columns: str) -> str:
    """A formula part with the columns, written as a sum, in the place of each ``.``."""
    written, at = "", 0
    dots = [token for token in tokenize(text) if token.kind == "name" and token.value == "."]
    if len(dots) > limits.DOTS and len(dots) * len(columns) > limits.CHARACTERS:
        limits.too_much(
            f'"." stands {len(dots):,} times for columns with {len(columns):,} characters',
            f"{limits.CHARACTERS:,} characters for more than {limits.DOTS} of them",
            "Write it once, with a power for interactions: (.)^2.",
        )
    for token in dots:
        written += f"{text[at : token.start]}({columns or '0'})"
        at = token.end
    return written + text[at:]
