"""``residual=`` and ``residual_sd=`` as text → what they ask for; no data is looked at."""

from __future__ import annotations

from dataclasses import dataclass

from lmmsparse.common.errors import FormulaError
from lmmsparse.common.options import refused
from lmmsparse.common.words import close_match, shortened
from lmmsparse.formula.formula import check_amount, parse_formula
from lmmsparse.formula.limits import check_characters, not_too_deep
from lmmsparse.formula.parser import parse_side
from lmmsparse.formula.parts import read_part
from lmmsparse.formula.summands import Summands
from lmmsparse.formula.terms import groupings
from lmmsparse.formula.tokens import Token, tokenize
from lmmsparse.formula.tree import Call, Name, Number, leaf_display, leaf_text, unwrap

CORRELATIONS = {
    "ar1": "ar1(occasion | subject)",
    "car1": "car1(time | subject)",
    "cs": "cs(1 | subject)",
    "us": "us(visit | subject)",
}
_EXAMPLE = "Write, for example, residual='ar1(occasion | subject)'."


@dataclass(frozen=True)
class ResidualCorrelation:
    """A correlation of residuals within groups.

    Attributes
    ----------
    kind : {"ar1", "car1", "cs", "us"}
    time : str
        Expression of the place of a row in its group.
    group : str
        Name to display.
    factors : tuple of str
        Expressions whose combinations are the groups.
    text : str
        As the user wrote it.
    """

    kind: str
    time: str
    group: str
    factors: tuple[str, ...]
    text: str


@not_too_deep
def parse_residual(text: object) -> ResidualCorrelation:
    """Take ``residual=`` apart.

    Examples
    --------
    >>> found = parse_residual("ar1(occasion | Mare)")
    >>> found.kind, found.time, found.factors
    ('ar1', 'occasion', ('Mare',))
    """
    if not isinstance(text, str):
        raise refused("residual", "text", text, _EXAMPLE)
    check_characters(text)
    check_amount(tokenize(text))
    tokens = tokenize(text)[:-1]
    shown = shortened(text)
    if len(tokens) < 3 or tokens[0].kind != "name" or not tokens[1].is_op("("):
        raise FormulaError(
            f"residual={shown} cannot be read. It must be the name of a structure with a time and "
            f"a group. {_EXAMPLE}"
        )
    kind = tokens[0].value
    if kind not in CORRELATIONS:
        raise FormulaError(
            f"residual={shown} names the structure {shortened(kind)}, which is not known."
            f"{close_match(kind, CORRELATIONS)} Known are {', '.join(CORRELATIONS.values())}."
        )
    end, bars = _inside(tokens)
    if not bars:
        raise FormulaError(
            f"residual={shown} has no grouping, within which rows are correlated. Write it to the "
            f"right of a bar, as in {CORRELATIONS[kind]}."
        )
    bar = bars[0]
    if bar + 1 == end:
        tokens[bar].fail(
            f'There is nothing to the right of "|". Write the grouping there, as in '
            f"{CORRELATIONS[kind]}."
        )
    single = len(bars) == 1 and end == len(tokens) - 1 and tokens[bar].value == "|"
    factors = groupings(parse_side(tokens[bar + 1 : end])) if single else ()
    if len(factors) != 1:
        raise FormulaError(
            f"residual={shown} must have one time and one grouping, as in {CORRELATIONS[kind]}. "
            "Write subjects within sites as site:subject."
        )
    return ResidualCorrelation(
        kind,
        _time(tokens[2:bar], kind, shown),
        ":".join(leaf_display(leaf) for leaf in factors[0]),
        tuple(leaf_text(leaf, in_formula=False) for leaf in factors[0]),
        text.strip(),
    )


def _inside(tokens: list[Token]) -> tuple[int, list[int]]:
    """Where the first parenthesis closes, and the bars in it."""
    depth, bars = 0, []
    for i, token in enumerate(tokens):
        depth += token.nesting
        if token.is_op("|", "||"):
            bars.append(i)
        if i and depth == 0:
            return i, bars
    return len(tokens), bars  # not reached: brackets match


def _time(tokens: list[Token], kind: str, shown: str) -> str:
    """The column or call to the left of the bar, or ``"1"``."""
    node = unwrap(parse_side(tokens)) if tokens else None
    if isinstance(node, Number) and node.value == 1 and kind == "cs":
        return "1"
    if node is None or isinstance(node, Number):
        raise FormulaError(
            f"residual={shown} does not say when a row was measured. Name the column to the left "
            f"of the bar, as in {CORRELATIONS[kind]}."
        )
    if not isinstance(node, Name | Call):
        raise FormulaError(
            f"residual={shown} names more than one time. Name one column to the left of the bar, "
            "or write a calculation inside I( )."
        )
    return Summands("response").render(node)


def parse_residual_sd(text: object) -> str:
    """The terms of ``residual_sd=`` for formulaic, with the intercept.

    Examples
    --------
    >>> parse_residual_sd("~ Sex")
    '1 + Sex'
    """
    example = "Write, for example, residual_sd='~ treatment' or '~ log(x)'."
    if not isinstance(text, str):
        raise refused("residual_sd", "a one-sided formula", text, example)
    if not text.strip().startswith("~"):
        raise FormulaError(
            f"residual_sd={text!r} must be a one-sided formula, which starts with ~. {example}"
        )
    parsed = parse_formula(f"log_sd {text.strip()}")
    shown = shortened(text)
    if parsed.random or parsed.offsets:
        raise FormulaError(
            f"residual_sd={shown} has random effects or an offset. The logarithm of the residual "
            f"standard deviation is linear in columns of the data only. {example}"
        )
    for written, name in parsed.idle:
        raise FormulaError(
            f"residual_sd={shown}: {written} is {name} in a formula. Write I({name}**2) for its "
            "square."
        )
    terms = read_part(parsed.fixed)
    if () not in terms:
        raise FormulaError(
            f"residual_sd={shown} leaves out the intercept, which is the logarithm of sigma. "
            "Write it without 0."
        )
    if len(terms) == 1:
        raise FormulaError(
            f"residual_sd={shown} has no terms: the standard deviation is the same for all rows, "
            "as without residual_sd. Name what it depends on, or leave it out."
        )
    return parsed.fixed
