"""Model formula as text → `MixedFormula`: response, fixed part, offsets and random terms.

No data is looked at and nothing is evaluated here. The strings of the result are formulas and
expressions that formulaic reads with exactly the meaning R would give the user's text.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import FormulaError
from lmmsparse.common.options import yes_or_no
from lmmsparse.common.words import shortened
from lmmsparse.formula import limits
from lmmsparse.formula.expression import check_python
from lmmsparse.formula.limits import remembered
from lmmsparse.formula.parser import parse_side
from lmmsparse.formula.places import Place
from lmmsparse.formula.summands import FoundBar, Summands, joined
from lmmsparse.formula.terms import groupings, idle_products, term_labels
from lmmsparse.formula.tokens import (
    Token,
    check_columns_callable,
    python_text,
    tokenize,
)
from lmmsparse.formula.tree import (
    Bar,
    Call,
    Name,
    Node,
    Number,
    Special,
    Sum,
    leaf_display,
    leaf_text,
    unwrap,
)


@dataclass(frozen=True)
class RandomTerm:
    """One random term with one grouping; ``(x || a/b)`` makes four of them.

    Attributes
    ----------
    effects : str
        Left side of the bar for formulaic, the intercept explicit: ``"1 + Days"``, ``"0 + Days"``.
    group : str
        Name to display: ``"Subject"``, ``"a:b"``, ``"factor(g)"``.
    factors : tuple of str
        Expressions whose observed combinations are the levels: ``("a", "b")`` for ``a:b``.
    structure : {"us", "diag", "cs", "ar1"}
        Covariance structure.
    hom : bool or None
        Whether the variances are equal; None when the formula does not say.
    source : str
        The term as the user wrote it, parentheses included.
    position : int
        Offset of `source` in the formula.
    split : bool
        Whether the term comes from ``||``.
    """

    effects: str
    group: str
    factors: tuple[str, ...]
    structure: str = "us"
    hom: bool | None = None
    source: str = ""
    position: int = 0
    split: bool = False


@dataclass(frozen=True)
class MixedFormula:
    """A formula taken apart.

    Attributes
    ----------
    text : str
        The formula as the user wrote it.
    response : str or None
        Expression of the response; None for a one-sided formula.
    fixed : str
        Fixed part for formulaic, the intercept explicit (``"1 + Time"``), without offsets and
        random terms; ``.`` stands for all other columns.
    offsets : tuple of str
        Python expressions of the offsets.
    random : tuple of RandomTerm
        Random terms in formula order.
    idle : tuple of (str, str)
        Powers and products as written, such as ``x^2``, that stand for their one variable.
    """

    text: str
    response: str | None
    fixed: str
    offsets: tuple[str, ...]
    random: tuple[RandomTerm, ...]
    idle: tuple[tuple[str, str], ...] = ()


@checked_keywords
def parse_formula(text: str, one_sided: bool = False) -> MixedFormula:
    """Take a formula in lme4's grammar apart.

    Parameters
    ----------
    text : str
        For example ``"y ~ x + (x | g)"``.
    one_sided : bool
        Read a formula without response, such as ``"~(1|Subject)"``, whose fixed part is at most
        0 or 1.

    Returns
    -------
    MixedFormula
        A formula without random terms is not an error here: `random` is then empty.

    Raises
    ------
    FormulaError
        The formula cannot be read; the message has a caret under the place.

    Examples
    --------
    >>> formula = parse_formula("log(y) ~ x + offset(z) + (x | school/pupil)")
    >>> formula.response, formula.fixed, formula.offsets
    ('log(y)', '1 + x', ('z',))
    >>> [(term.effects, term.group) for term in formula.random]
    [('1 + x', 'school'), ('1 + x', 'school:pupil')]
    """
    if not isinstance(text, str):
        raise FormulaError(
            f"The formula must be a string, not of type {type(text).__name__}. Write it in "
            'quotation marks and first, for example lmer("y ~ x + (1|group)", data).'
        )
    return _taken_apart(text, yes_or_no("one_sided", one_sided))


@remembered
def _taken_apart(text: str, one_sided: bool) -> MixedFormula:
    limits.check_characters(text)
    tokens = tokenize(text)
    if tokens[0].kind == "end":
        raise FormulaError(
            'The formula is empty. Write for example "y ~ x + (1|group)", with your own columns.'
        )
    check_amount(tokens)
    try:
        return _parse(text, tokens[:-1], one_sided)
    except RecursionError as error:
        raise FormulaError(
            "The formula is nested too deeply. Remove parentheses that are not needed."
        ) from error


def check_amount(tokens: list[Token]) -> None:
    """Refuse formulas of more words and calls than people write."""
    calls = sum(
        before.kind == "name" and token.is_op("(") and before.end == token.start
        for before, token in pairwise(tokens)
    )
    for count, limit, what in (
        (len(tokens) - 1, limits.WORDS, "names, numbers and signs"),
        (calls, limits.CALLS, "calls of functions"),
    ):
        if count > limit:
            limits.too_much(
                f"The formula that starts with {shortened(tokens[0].text[:60])} has {count:,} "
                f"{what}",
                f"{limit:,}",
                'Choose the columns of the data and write "." for all of them.',
            )


def _parse(text: str, tokens: list[Token], one_sided: bool) -> MixedFormula:
    tilde = _find_tilde(tokens, one_sided)
    left, right = tokens[:tilde], tokens[tilde + 1 :]
    if not right:
        tokens[tilde].fail(
            'There is nothing to the right of "~". Write the effects there, for example "y ~ 1 + '
            '(1|group)".'
        )
    response = _response(left) if left else None
    tree = parse_side(right)
    side = Summands("one-sided" if one_sided else "fixed")
    if isinstance(tree, Bar):
        _check_bare_bar(tree)
        side.bars.append(FoundBar(tree, tree))
    else:
        side.collect(tree)
    random = tuple(term for found in side.bars for term in _random_terms(found))
    if len(random) > limits.GROUPINGS:
        limits.too_much(
            f"The formula has {len(random)} random-effects terms",
            f"{limits.GROUPINGS}",
            "Write the terms that are needed.",
        )
    sides = [tree, *(found.bar.left for found in side.bars)]
    idle = [(part.written, name) for node in sides for part, name in idle_products(node)]
    offsets = tuple(side.offsets)
    return MixedFormula(text, response, side.formula(), offsets, random, tuple(idle))


def _find_tilde(tokens: list[Token], one_sided: bool) -> int:
    tildes = [i for i, token in enumerate(tokens) if token.is_op("~")]
    if not tildes:
        if one_sided:
            tokens[0].fail(
                'A formula that chooses random terms must start with "~". Write for example '
                '"~(1|group)"; without any random effects, random=False.'
            )
        equals = [token for token in tokens if token.is_op("=")]
        (equals[0] if equals else tokens[0]).fail(
            'There is no "~" in the formula. '
            f"{'Put it where = stands' if equals else 'Write it after the response'}, for example "
            '"y ~ x + (1|group)".'
        )
    for i in tildes[1:]:
        tokens[i].fail(
            'There is a second "~". A formula has one, between the response and the effects.'
        )
    tilde = tildes[0]
    depth = sum(t.nesting for t in tokens[:tilde])
    if depth:
        tokens[tilde].fail(
            'The "~" stands inside parentheses. Put the parentheses around the response or single '
            "terms only."
        )
    if one_sided and tilde:
        left = Place(tokens[0].text, tokens[0].start, tokens[tilde - 1].end)
        left.fail(
            f'There is "{left.text[left.start : left.end]}" to the left of "~". A formula that '
            'chooses random terms has no response: start it with "~", for example "~(1|group)".'
        )
    if not one_sided and not tilde:
        tokens[0].fail(
            'There is nothing to the left of "~". Write the response there, for example "y ~ x + '
            '(1|group)".'
        )
    return tilde


def _response(tokens: list[Token]) -> str:
    node = unwrap(parse_side(tokens))
    if isinstance(node, Name | Call):
        return Summands("response").render(node)
    if isinstance(node, Number):
        node.fail(
            f'The response is a number, "{node.written}". Write the name of a column to the left '
            'of "~".'
        )
    inner = tuple(t for t in tokens if t.start >= node.start and t.end <= node.end)
    sign = next((t for t in inner if t.is_op("|", "||", ":", "%in%")), None)
    if sign is not None or isinstance(node, Bar | Special):
        (sign or node).fail(
            f'"{node.written}" cannot be the response. Move random terms and interactions to the '
            "right of the ~."
        )
    check_columns_callable(inner)
    check_python(inner)
    return f"I({python_text(inner)})"


def _check_bare_bar(bar: Bar) -> None:
    """Accept ``y ~ x|g``; refuse a bar that would swallow the other summands."""
    node: Node = bar
    parts: list[Node] = []
    signs: list[str] = []
    while isinstance(node, Bar):
        parts.insert(0, node.right)
        signs.insert(0, "||" if node.double else "|")
        node = node.left
    first, *others = [
        list(part.items) if isinstance(part, Sum) else [(1, part)] for part in (node, *parts)
    ]
    if len(others) == len(first) == len(others[0]) == 1:
        return
    advice = "Put each random term into its own parentheses"
    if all(len(items) > 1 for items in others[:-1]):
        pieces = [(own, item.written) for own, item in first]
        for sign, items in zip(signs, others, strict=True):
            (own, effects), (_, group) = pieces.pop(), items[0]
            pieces.append((own, f"({effects}{sign}{group.written})"))
            pieces += [(own, item.written) for own, item in items[1:]]
        advice += f": {Place(bar.text, 0, bar.start).written} {joined(pieces)}"
    at = bar.text.index("|", node.end)
    Place(bar.text, at, at + len(signs[0])).fail(
        'The "|" stands outside parentheses and would take everything to its left and right into '
        f"one random term. {advice}."
    )


def _random_terms(found: FoundBar) -> list[RandomTerm]:
    """One term for each grouping, and after ``||`` for each effect."""
    bar, source = found.bar, found.source
    if isinstance(bar.left, Bar):
        bar.fail(
            f'There is more than one | in "{bar.written}". Write each random term in its own '
            "parentheses, joined by +."
        )
    side = Summands("effects")
    side.collect(bar.left)
    labels = term_labels(bar.left)
    if not side.intercept and not labels:
        bar.left.fail(
            f'The random term "{source.written}" has no effects. Write (1|...) for a random '
            "intercept, or name a column to the left of |."
        )
    effects = [side.formula()]
    if bar.double:
        effects = ["1"] * side.intercept + [f"0 + {label}" for label in labels]
    groups = groupings(bar.right)
    if len(effects) * len(groups) > limits.GROUPINGS:
        source.fail(
            limits.beyond(
                f"A random term stands for {len(effects) * len(groups):,}",
                f"{limits.GROUPINGS} random-effects terms",
                "Write the terms that are needed.",
            )
        )
    return [
        RandomTerm(
            effects=effect,
            group=":".join(leaf_display(leaf) for leaf in group),
            factors=tuple(leaf_text(leaf, in_formula=False) for leaf in group),
            structure=found.structure,
            hom=found.hom,
            source=source.text[source.start : source.end],
            position=source.start,
            split=bar.double,
        )
        for effect in effects
        for group in groups
    ]
