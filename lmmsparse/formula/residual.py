"""``residual=`` and ``residual_sd=`` as text → what they ask for; no data is looked at."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lmmsparse.common.errors import FormulaError
from lmmsparse.common.options import refused
from lmmsparse.common.words import close_match
from lmmsparse.formula.formula import parse_formula

CORRELATIONS = {
    "ar1": "ar1(occasion | subject)",
    "car1": "car1(time | subject)",
    "cs": "cs(1 | subject)",
    "us": "us(visit | subject)",
}
_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*$", re.DOTALL)
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
    found = _CALL.match(text)
    if found is None:
        raise FormulaError(
            f"residual={text!r} cannot be read. It must be the name of a structure with a time and "
            f"a group. {_EXAMPLE}"
        )
    kind, inner = found[1], found[2]
    if kind not in CORRELATIONS:
        raise FormulaError(
            f"residual={text!r} names the structure {kind!r}, which is not known."
            f"{close_match(kind, CORRELATIONS)} Known are {', '.join(CORRELATIONS.values())}."
        )
    if "|" not in inner:
        raise FormulaError(
            f"residual={text!r} has no grouping, within which rows are correlated. Write it to the "
            f"right of a bar, as in {CORRELATIONS[kind]}."
        )
    terms = parse_formula(f"~ ({inner})", one_sided=True).random
    if len(terms) != 1 or inner.count("|") != 1:
        raise FormulaError(
            f"residual={text!r} must have one time and one grouping, as in {CORRELATIONS[kind]}. "
            "Write subjects within sites as site:subject."
        )
    time = inner.split("|")[0].strip()
    if time in ("", "0") or (time == "1" and kind != "cs"):
        raise FormulaError(
            f"residual={text!r} does not say when a row was measured. Name the column to the left "
            f"of the bar, as in {CORRELATIONS[kind]}."
        )
    if re.search(r"(?<![\w(])[+*](?!\w*\))", re.sub(r"\(.*?\)", "", time)):
        raise FormulaError(
            f"residual={text!r} names more than one time. Name one column to the left of the bar."
        )
    return ResidualCorrelation(kind, time, terms[0].group, terms[0].factors, text.strip())


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
    if parsed.random or parsed.offsets:
        raise FormulaError(
            f"residual_sd={text!r} has random effects or an offset. The logarithm of the residual "
            f"standard deviation is linear in columns of the data only. {example}"
        )
    for written, name in parsed.idle:
        raise FormulaError(
            f"residual_sd={text!r}: {written} is {name} in a formula. Write I({name}**2) for its "
            "square."
        )
    if parsed.fixed.strip().startswith("0"):
        raise FormulaError(
            f"residual_sd={text!r} leaves out the intercept, which is the logarithm of sigma. "
            "Write it without 0."
        )
    if parsed.fixed.strip() == "1":
        raise FormulaError(
            f"residual_sd={text!r} has no terms: the standard deviation is the same for all rows, "
            "as without residual_sd. Name what it depends on, or leave it out."
        )
    return parsed.fixed
