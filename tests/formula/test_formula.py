"""Formulas as text: what they are taken apart into, and what is refused where."""

from __future__ import annotations

import pickle

import pytest
from formulaic import Formula
from hypothesis import given, settings
from hypothesis import strategies as st

from lmmsparse.common.errors import FormulaError
from lmmsparse.formula.formula import MixedFormula, RandomTerm, parse_formula
from lmmsparse.formula.references import references

# formula -> (fixed part, [(effects, group)])
GROUPS: dict[str, list[str]] = {
    "g": ["g"],
    "(g)": ["g"],
    "a:b": ["a:b"],
    "b:a": ["b:a"],
    "a:b:c": ["a:b:c"],
    "a:(b:c)": ["a:b:c"],
    "a:a": ["a"],
    "a:b:a": ["a:b"],
    "a/b": ["a", "a:b"],
    "a/b/c": ["a", "a:b", "a:b:c"],
    "a/(b/c)": ["a", "a:b", "a:b:c"],
    "a/(b+c)": ["a", "a:b", "a:c"],
    "(a+b)/c": ["a", "b", "a:b:c"],
    "a*b": ["a", "b", "a:b"],
    "a*b*c": ["a", "b", "a:b", "c", "a:c", "b:c", "a:b:c"],
    "a+b": ["a", "b"],
    "a+b+a": ["a", "b"],
    "a:b + b:a": ["a:b"],
    "a + b:c": ["a", "b:c"],
    "b/a + c": ["b", "b:a", "c"],
    "(a+b):c": ["a:c", "b:c"],
    "a %in% b": ["a:b"],
    "interaction(a,b)": ["interaction(a, b)"],
    "factor(g)": ["factor(g)"],
    "as.factor(g)": ["factor(g)"],
    "C(g)": ["C(g)"],
    "factor(a):b": ["factor(a):b"],
    "a/factor( b )": ["a", "a:factor(b)"],
    "g.with.dots": ["g.with.dots"],
    "`my group`": ["my group"],
    "`my group`/class": ["my group", "my group:class"],
    "Schüler": ["Schüler"],
    "g.str.lower()": ["g.str.lower()"],
    "paste(a, b.c)": ["paste(a, b.c)"],
}

# left side -> effects
EFFECTS: dict[str, str] = {
    "1": "1",
    "x": "1 + x",
    "1+x": "1 + x",
    "x + 1": "1 + x",
    "0+x": "0 + x",
    "-1+x": "0 + x",
    "x-1": "0 + x",
    "x+0": "0 + x",
    "x + -1": "0 + x",
    "+x": "1 + x",
    "0 + x + 1": "1 + x",
    "1 + 0 + x": "0 + x",
    "x - 0": "1 + x",
    "(0 + x)": "0 + x",
    "x1+x2": "1 + x1 + x2",
    "x*z": "1 + x*z",
    "x:z": "1 + x:z",
    "x/z": "1 + x/z",
    "(x+z)^2": "1 + (x + z)**2",
    "(x+z)**2": "1 + (x + z)**2",
    "(1+x)*z": "1 + x*z",
    "(x+z):w": "1 + (x + z):w",
    "x*z - x:z": "1 + x*z - x:z",
    "x %in% z": "1 + x:z",
    "(a+b) %in% c": "1 + a:c + b:c",
    "f": "1 + f",
    "0 + f:x": "0 + f:x",
    "poly(x,2)": "1 + poly(x, 2)",
    "log(x)": "1 + log(x)",
    "I(x^2)": "1 + I(x**2)",
    "ns( x,df = 2L )": "1 + ns(x, df=2)",
    '0+dummy(f,"v")': '0 + dummy(f, "v")',
    "scale(IQ.ver.cen)": "1 + scale(`IQ.ver.cen`)",
    "x.y": "1 + `x.y`",
    "`x y`": "1 + `x y`",
    "`x`": "1 + x",
}

# left side of || -> effects of the scalar terms
SPLITS: dict[str, list[str]] = {
    "1": ["1"],
    "x": ["1", "0 + x"],
    "1+x": ["1", "0 + x"],
    "0+x": ["0 + x"],
    "x-1": ["0 + x"],
    "x+z": ["1", "0 + x", "0 + z"],
    "x*z": ["1", "0 + x", "0 + z", "0 + x:z"],
    "x:z + z + x": ["1", "0 + z", "0 + x", "0 + x:z"],
    "z:x + x:z": ["1", "0 + z:x"],
    "b:a + a": ["1", "0 + a", "0 + b:a"],
    "a/b": ["1", "0 + a", "0 + a:b"],
    "a/b/c": ["1", "0 + a", "0 + a:b", "0 + a:b:c"],
    "a/(b*c)": ["1", "0 + a", "0 + a:b", "0 + a:c", "0 + a:b:c"],
    "(a+b)/c": ["1", "0 + a", "0 + b", "0 + a:b:c"],
    "(a+b+c)^2 - a:b": ["1", "0 + a", "0 + b", "0 + c", "0 + a:c", "0 + b:c"],
    "a*b*c - a:b:c": ["1", "0 + a", "0 + b", "0 + c", "0 + a:b", "0 + a:c", "0 + b:c"],
    "a:b*c": ["1", "0 + c", "0 + a:b", "0 + a:b:c"],
    "a %in% b + c": ["1", "0 + c", "0 + a:b"],
    "(1+x):z": ["1", "0 + x:z"],
    "(x+z+1)^2": ["1", "0 + x", "0 + z", "0 + x:z"],
    "a^2": ["1", "0 + a"],
    "(c + c:b + c:a + b:a)^2": ["1", "0 + c", "0 + c:b", "0 + c:a", "0 + b:a", "0 + c:b:a"],
    "(0 + x)*z": ["0 + x", "0 + z", "0 + x:z"],
    "x + (z - z):w": ["1", "0 + x"],
    "poly(x,2)*f": ["1", "0 + poly(x, 2)", "0 + f", "0 + poly(x, 2):f"],
    "x.y:z": ["1", "0 + `x.y`:z"],
}

# right side without random terms -> fixed part
FIXED: dict[str, str] = {
    "1": "1",
    "0": "0",
    "-1": "0",
    "x": "1 + x",
    "0+x": "0 + x",
    "x+0": "0 + x",
    "x-1": "0 + x",
    "-1 + x": "0 + x",
    "x - 1 + z": "0 + x + z",
    "0 + x + 1": "1 + x",
    "x + (z - 1)": "0 + x + z",
    "x + (0 + z)": "0 + x + z",
    "x - (z - 1)": "1 + x - z",
    "x - (z + w)": "1 + x - z - w",
    "a + (b - a)": "1 + a + (b - a)",
    "a + (b - a - 1)": "0 + a + (b - a)",
    "(x + z) + w": "1 + x + z + w",
    "x*z": "1 + x*z",
    "x * z:w / v": "1 + x*z:w/v",
    "(x + z + w)^2 - x:z": "1 + (x + z + w)**2 - x:z",
    "(x+z) ** 2": "1 + (x + z)**2",
    "x %in% f": "1 + x:f",
    "a - x %in% f": "1 + a - x:f",
    "a %in% (b+c)": "1 + a:b:c",
    "a*b %in% c": "1 + a + b:c + a:b:c",
    "(1+x)*z": "1 + x*z",
    "((x))*(z)": "1 + x*z",
    "(0+x)*z": "0 + x*z",
    "0 + (1+x)*z": "1 + x*z",
    "a - (1 + x)*z": "0 + a - x*z",
    "(a + b - a):c": "1 + b:c",
    "a + (a - a)/b": "1 + a",
    "(. - g)^2": "1 + (. - g)**2",
    "(x*z):w": "1 + (x*z):w",
    ".": "1 + .",
    ". - g": "1 + . - g",
    "(.)^2": "1 + .**2",
    "0 + .": "0 + .",
    "x\n  + z\t+ w": "1 + x + z + w",
    "I(x^2) + I( x**2 )": "1 + I(x**2) + I(x**2)",
    "I(-x+2*(z/3))": "1 + I(-x + 2 * (z / 3))",
    "I(x>1)": "1 + I(x > 1)",
    "I((x == 1) & (z != 2))": "1 + I((x == 1) & (z != 2))",
    "I(x if z else 3)": "1 + I(x if z else 3)",
    "I((x)[0]) + I(a[1:2])": "1 + I((x)[0]) + I(a[1:2])",
    "I(x.mean().real)": "1 + I(x.mean().real)",
    "I(`a b`.mean())": "1 + I(`a b`.mean())",
    "f(x,*[1, -2], k = not z)": "1 + f(x, *[1, -2], k=not z)",
    "poly(x, 2, raw=TRUE)": "1 + poly(x, 2, raw=True)",
    "bs(x, df = 4, include_intercept=FALSE, knots=NULL)": (
        "1 + bs(x, df=4, include_intercept=False, knots=None)"
    ),
    "C(f, contr.sum)": "1 + C(f, contr.sum)",
    "C(f, 'contr.sum')": "1 + C(f, contr.sum)",
    'C(f,contr.treatment("b"))': '1 + C(f, contr.treatment("b"))',
    'C(f,contr.treatment("b)"))': '1 + C(f, contr.treatment("b\\x29"))',
    "as.factor(x) + factor(x) + as.numeric(f)": "1 + factor(x) + factor(x) + numeric(f)",
    "np.log(x) + np.pi": "1 + np.log(x) + np.pi",
    "IQ.ver.cen + I(IQ.ver.cen^2)": "1 + `IQ.ver.cen` + I(`IQ.ver.cen`**2)",
    "`my var`:`x`": "1 + `my var`:x",
    "`np` + `a|b`": "1 + `np` + `a|b`",
    "größe + Straße:π": "1 + größe + Straße:π",
    "class + in_": "1 + `class` + in_",
    "cs(x, df=3)": "1 + cs(x, df=3)",
    "x + 1L": "1 + x",
    "f ()": "1 + f()",
    "log (x)": "1 + log(x)",
    "+ x": "1 + x",
    "x + (-z)": "1 + x",
}

RESPONSES: dict[str, str] = {
    "y": "y",
    "(y)": "y",
    "log(y)": "log(y)",
    "((log(y)))": "log(y)",
    "np.log(y + 1)": "np.log(y + 1)",
    "I(y^2)": "I(y**2)",
    "y/2": "I(y / 2)",
    "-y": "I(-y)",
    "y1 + y2": "I(y1 + y2)",
    "(y1 + y2)^2": "I((y1 + y2)**2)",
    "y*2L": "I(y * 2)",
    "log(y) - log(x.1)": "I(log(y) - log(`x.1`))",
    "cbind(a,b)": "cbind(a, b)",
    "`my y`": "`my y`",
    "y.1": "`y.1`",
    "Größe": "Größe",
}

AVAILABLE = {"__formulaic_variables_available__": ["x", "z", "g", "y"]}


def effects_and_groups(formula: MixedFormula) -> list[tuple[str, str]]:
    return [(term.effects, term.group) for term in formula.random]


@pytest.mark.parametrize(("group", "expected"), GROUPS.items())
def test_groupings(group: str, expected: list[str]) -> None:
    formula = parse_formula(f"y ~ x + (z|{group})")
    assert effects_and_groups(formula) == [("1 + z", name) for name in expected]
    assert formula.fixed == "1 + x"
    for term in formula.random:
        assert (term.structure, term.hom, term.split) == ("us", None, False)
        assert (term.source, term.position) == (f"(z|{group})", 8)


@pytest.mark.parametrize(
    ("group", "factors"),
    [
        ("a:b", ("a", "b")),
        ("b:a", ("b", "a")),
        ("factor(a):b", ("factor(a)", "b")),
        ("`my group`:IQ.cat", ("`my group`", "`IQ.cat`")),
        ("factor(IQ.cat)", ("factor(`IQ.cat`)",)),
        ("class", ("`class`",)),
        ("factor(class)", ("factor(`class`)",)),
        ("Schüler", ("Schüler",)),
        ("interaction(a,b, sep='-')", ("interaction(a, b, sep='-')",)),
        ("I(a^2 > 3)", ("I(a**2 > 3)",)),
        ("`a:b`", ("`a:b`",)),
    ],
)
def test_factors_are_unambiguous_expressions(group: str, factors: tuple[str, ...]) -> None:
    (term,) = parse_formula(f"y ~ (1|{group})").random
    assert term.factors == factors


@pytest.mark.parametrize(("left", "effects"), EFFECTS.items())
def test_effects(left: str, effects: str) -> None:
    (term,) = parse_formula(f"y ~ ({left}|g)").random
    assert (term.effects, term.group, term.factors) == (effects, "g", ("g",))
    Formula(term.effects)


@pytest.mark.parametrize(("left", "effects"), SPLITS.items())
def test_double_bar_splits_into_term_labels(left: str, effects: list[str]) -> None:
    formula = parse_formula(f"y ~ ({left}||g)")
    assert effects_and_groups(formula) == [(effect, "g") for effect in effects]
    for term in formula.random:
        assert term.split
        assert term.structure == "us"
        Formula(term.effects)


def test_double_bar_with_nesting() -> None:
    formula = parse_formula("y ~ (x||a/b)")
    assert effects_and_groups(formula) == [
        ("1", "a"),
        ("1", "a:b"),
        ("0 + x", "a"),
        ("0 + x", "a:b"),
    ]


@pytest.mark.parametrize(("right", "fixed"), FIXED.items())
def test_fixed_part(right: str, fixed: str) -> None:
    alone = parse_formula(f"y ~ {right}")
    assert (alone.fixed, alone.random, alone.offsets) == (fixed, (), ())
    after = parse_formula(f"y ~ {right} + (1|g)")
    before = parse_formula(f"y ~ (1|g) + {right}")
    assert after.fixed == before.fixed == fixed
    assert effects_and_groups(after) == effects_and_groups(before) == [("1", "g")]
    Formula(fixed, _context=AVAILABLE)


@pytest.mark.parametrize(("left", "response"), RESPONSES.items())
def test_response(left: str, response: str) -> None:
    formula = parse_formula(f"{left} ~ x + (1|g)")
    assert formula.response == response
    Formula(f"0 + {response}")


@pytest.mark.parametrize(
    ("text", "fixed", "random"),
    [
        ("y ~ (1|g)", "1", ["(1|g)"]),
        ("y ~ 0 + (1|g)", "0", ["(1|g)"]),
        ("y~x+((1|g))", "1 + x", ["(1|g)"]),
        ("y ~ (x + (1|g))", "1 + x", ["(1|g)"]),
        ("y ~ (x - z + (1|g))", "1 + (x - z)", ["(1|g)"]),
        ("y ~ ((1|a) + (1|b)) - x", "1 - x", ["(1|a)", "(1|b)"]),
        ("y ~ (1 | b) + x + (1 | a)", "1 + x", ["(1 | b)", "(1 | a)"]),
        ("y ~ (1|g) + (1|g)", "1", ["(1|g)", "(1|g)"]),
        ("y ~ + (1|g)", "1", ["(1|g)"]),
        ("y ~ 1|g", "1", ["1|g"]),
        ("log(y) ~ x|z", "1", ["x|z"]),
        ("y ~ x*z || g", "1", ["x*z || g"] * 4),
        ("y ~ (x+z)|g", "1", ["(x+z)|g"]),
        ("y ~ 1|a/b", "1", ["1|a/b"] * 2),
        ("y ~ x + diag( z | g )", "1 + x", ["diag( z | g )"]),
    ],
)
def test_places_of_random_terms(text: str, fixed: str, random: list[str]) -> None:
    formula = parse_formula(text)
    assert formula.text == text
    assert formula.fixed == fixed
    assert [term.source for term in formula.random] == random
    for term in formula.random:
        assert text[term.position :].startswith(term.source)


@pytest.mark.parametrize(
    ("term", "structure", "hom"),
    [
        ("us(x|g)", "us", None),
        ("diag(x|g)", "diag", None),
        ("(diag(x|g))", "diag", None),
        ("diag(x|g, hom=TRUE)", "diag", True),
        ("diag(x | g , hom = False)", "diag", False),
        ("cs(x|g)", "cs", None),
        ("cs(x|g, hom=True)", "cs", True),
        ("ar1(x|g)", "ar1", None),
        ("ar1(x|g, hom=FALSE)", "ar1", False),
    ],
)
def test_structures(term: str, structure: str, hom: bool | None) -> None:
    (found,) = parse_formula(f"y ~ {term}").random
    assert (found.effects, found.structure, found.hom) == ("1 + x", structure, hom)


def test_structure_applies_to_every_grouping() -> None:
    formula = parse_formula("y ~ diag(0 + f|a/b, hom=TRUE)")
    assert [(t.effects, t.group, t.structure, t.hom) for t in formula.random] == [
        ("0 + f", "a", "diag", True),
        ("0 + f", "a:b", "diag", True),
    ]


@pytest.mark.parametrize(
    ("text", "fixed", "offsets"),
    [
        ("y ~ x + offset(z) + (1|g)", "1 + x", ("z",)),
        ("y ~ offset(z) + (1|g)", "1", ("z",)),
        ("y ~ offset(log(z)) + x + (offset(w^2/3)) + (1|g)", "1 + x", ("log(z)", "w**2 / 3")),
        ("y ~ offset(`my z`) + offset(a.b) + (1|g)", "1", ("`my z`", "`a.b`")),
        ("y ~ offset(f(a, k=TRUE)) + (1|g)", "1", ("f(a, k=True)",)),
        ("y ~ offset + (1|g)", "1 + offset", ()),
    ],
)
def test_offsets(text: str, fixed: str, offsets: tuple[str, ...]) -> None:
    formula = parse_formula(text)
    assert (formula.fixed, formula.offsets) == (fixed, offsets)


@pytest.mark.parametrize(
    ("text", "fixed", "random"),
    [
        ("~(1|Subject)", "1", [("1", "Subject")]),
        ("~ 0 + (0+Days|Subject)", "0", [("0 + Days", "Subject")]),
        ("~1|Subject", "1", [("1", "Subject")]),
        ("~(1|a/b) + diag(x|g)", "1", [("1", "a"), ("1", "a:b"), ("1 + x", "g")]),
        ("~0", "0", []),
        ("~1", "1", []),
    ],
)
def test_one_sided(text: str, fixed: str, random: list[tuple[str, str]]) -> None:
    formula = parse_formula(text, one_sided=True)
    assert (formula.response, formula.fixed) == (None, fixed)
    assert effects_and_groups(formula) == random


@pytest.mark.parametrize(
    ("text", "fragment", "marked"),
    [
        ("(1|g)", "must start with", "("),
        ("y ~ (1|g)", "no response", "y"),
        ("~ x + (1|g)", "not a random term", "x"),
        ("~ offset(x) + (1|g)", "offset(...) cannot stand here", "offset(x)"),
        ("~", "nothing to the right", "~"),
    ],
)
def test_one_sided_refused(text: str, fragment: str, marked: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_formula(text, one_sided=True)
    assert fragment in caught.value.message
    assert caught.value.position == text.index(marked)


def test_whole_result() -> None:
    text = "log(y) ~ x*z + offset(w) + (x || g) - 1"
    source = {"source": "(x || g)", "position": 27, "split": True}
    assert parse_formula(text) == MixedFormula(
        text=text,
        response="log(y)",
        fixed="0 + x*z",
        offsets=("w",),
        random=(
            RandomTerm("1", "g", ("g",), **source),
            RandomTerm("0 + x", "g", ("g",), **source),
        ),
    )


# formula with the place of the error between ‹ ›, and a part of the message
REFUSED: list[tuple[str, str]] = [
    # bars in wrong places
    ("y ~ x + 1‹|›g", "parentheses: y ~ x + (1|g)."),
    ("y ~ Days + 1‹|›Subject", "parentheses: y ~ Days + (1|Subject)."),
    ("y ~ 0 + x‹|›g", "parentheses: y ~ 0 + (x|g)."),
    ("y ~ -1 + x‹||›g", "parentheses: y ~ -1 + (x||g)."),
    ("y ~ 1‹|›g + x", "parentheses: y ~ (1|g) + x."),
    ("y ~ (1|g) + x‹|›h", "parentheses: y ~ (1|g) + (x|h)."),
    ("y ~ x + 1‹|›g + 1|h - z", "parentheses: y ~ x + (1|g) + (1|h) - z."),
    ("y ~ x + 1‹|›g + 1||h", "parentheses: y ~ x + (1|g) + (1||h)."),
    ("y ~ 1‹|›g|h", "outside parentheses"),
    ("y ~ (‹1|g|h›)", "more than one |"),
    ("y ~ (1|(‹1|h›))", "more than one |"),
    ("y ~ (‹(1|g)›|h)", "inside another one"),
    ("y ~ (‹diag(1|g)› + x|h)", "inside another one"),
    # random terms that are not added
    ("y ~ x - ‹(1|g)›", "subtracted"),
    ("y ~ x - (z + ‹(1|g)›)", "subtracted"),
    ("y ~ x - ‹diag(z|g)›", "subtracted"),
    ("y ~ x*‹(1|g)›", "multiplied"),
    ("y ~ ‹(1|g)›*x", "multiplied"),
    ("y ~ x:(‹(1|g)›)", "multiplied"),
    ("y ~ x/(z + ‹(1|g)›)", "multiplied"),
    ("y ~ ‹(1|g)›^2", "multiplied"),
    ("y ~ x %in% ‹us(1|g)›", "multiplied"),
    ("y ~ log((1‹|›g))", "cannot stand inside log( )"),
    ("y ~ I(a ‹|› b) + (1|g)", "np.logical_or"),
    ("y ~ diag((1‹|›g))", "cannot stand inside diag( )"),
    ("y ~ x ‹(›1|g)", "Write x + (...)"),
    # something is missing
    ("y ‹~›", "nothing to the right"),
    ("‹~› x", "nothing to the left"),
    ("y ~ (‹|›g)", "nothing to the left"),
    ("y ~ ‹|›g", "nothing to the left"),
    ("y ~ (1‹|›)", "nothing to the right"),
    ("y ~ (1‹||›)", "nothing to the right"),
    ("y ~ 1‹|›", "nothing to the right"),
    ("y ~ diag(1‹|›, hom=TRUE)", "nothing to the right"),
    ("y ~ x ‹+›", "term is missing after"),
    ("y ~ (x ‹*›)", "term is missing after"),
    ("y ~ x ‹*› * z", "term is missing after"),
    ("y ~ ‹*› x", "term is missing before"),
    ("y ~ x ‹+› |g", "term is missing after"),
    ("y ~ ‹()›", "nothing between these parentheses"),
    ("y ~ (‹0›|g)", "has no effects"),
    ("y ~ (‹-1›||g)", "has no effects"),
    ("y ~ (‹0 + x - x›|g)", "has no effects"),
    ("y ~ ‹0›|g", "has no effects"),
    ("‹y› x + (1|g)", 'no "~"'),
    ("y ‹=› x + (1|g)", "where = stands"),
    ("y ~ x ‹~› z", 'second "~"'),
    ("y ~ (x ‹~› z)", 'second "~"'),
    ("(y ‹~› x)", "inside parentheses"),
    # brackets, quotes, characters
    ("y ~ x + ‹(›1|g", "never closed"),
    ("y ~ x + (1|g)‹)›", "closes nothing"),
    ("y ~ (x‹]›", "closes nothing"),
    ("y ~ ‹`›my x", "backquote"),
    ("y ~ ‹'›my x", "quotation mark"),
    ("y ~ ‹``›", "no name between"),
    ("y ~ ‹'x'›", "quotation marks"),
    ("y ~ (1|‹'g'›)", "quotation marks"),
    ("y ~ d‹$›x", 'not "d$weight"'),
    ("y ~ x‹@›z", "no meaning"),
    ("y ~ ‹!›x", "no meaning"),
    ("y ~ x ‹–› 1", "Type - instead"),
    ("y ~ x‹²›", "inside I( )"),
    ("y ~ ‹1st›", "`1st`"),
    ("y ~ x ‹%%› 2", "exists only in R"),
    ("y ~ x ‹>› 1", "I(x > 1)"),
    ("y ~ x‹[›0]", "I(x[0])"),
    ("y ~ x‹,› z", "no meaning here"),
    ("y ~ x ‹=› 3", "no meaning here"),
    ("y ~ x ‹z›", "side by side"),
    ("y ~ x + 1 ‹(›1|g)", "side by side"),
    ("y ~ f(x)‹.mean›()", "inside I( )"),
    ("y ~ ‹poly(x,,2)›", "not a complete expression"),
    ("y ~ ‹is.na(x)›", "not a complete expression"),
    ("y ~ ‹scale(x, na.rm=TRUE)›", "not a complete expression"),
    ("y ~ factor(‹class›)", 'word of the Python language'),
    ("y ~ (log(‹`in`›)|g)", 'word of the Python language'),
    # numbers, constants, dots
    ("y ~ x + ‹2›", "cannot be a term"),
    ("y ~ (‹2›|g)", "cannot be a term"),
    ("y ~ ‹2›*x", "I(2 * x)"),
    ("y ~ x:‹1›", "I(2 * x)"),
    ("y ~ (‹2› + x)*z", "cannot be a term"),
    ("y ~ ‹(1 - 0)›*z", "number inside a product"),
    ("y ~ (‹1›)*z", "number inside a product"),
    ("y ~ (-‹x›)*z", "taken away"),
    ("y ~ x^‹z›", "power"),
    ("y ~ x^‹0›", "power"),
    ("y ~ (x + z)^‹1.5›", "power"),
    ("y ~ ‹TRUE›", "constant"),
    ("y ~ (‹.›|g)", "only works in the fixed part"),
    ("y ~ (‹.›||g)", "only works in the fixed part"),
    # groupings
    ("y ~ (1|‹1›)", "cannot be a grouping"),
    ("y ~ (1|‹.›)", "cannot be a grouping"),
    ("y ~ (1|‹NULL›)", "cannot be a grouping"),
    ("y ~ (1|g - ‹h›)", "cannot be subtracted"),
    ("y ~ (1|‹g^2›)", "power cannot be a grouping"),
    ("y ~ (1|‹offset(g)›)", "cannot be a grouping"),
    # structures
    ("y ~ diag(x|g, ‹het=TRUE›)", "only takes hom"),
    ("y ~ diag(x|g, ‹hom=3›)", "only takes hom"),
    ("y ~ cs(x|g, ‹TRUE›)", "only takes hom"),
    ("y ~ us(x|g, ‹hom=TRUE›)", "takes no argument"),
    ("y ~ cs(‹x||g›)", "||"),
    ("y ~ cs(x|g‹=›TRUE)", "no meaning here"),
    # offsets
    ("y ~ x*‹offset(z)›", "summand of its own"),
    ("y ~ x - ‹offset(z)›", "subtracted"),
    ("y ~ (‹offset(z)›|g)", "summand of its own"),
    ("y ~ log(‹offset›(z))", "inside another call"),
    ("y ~ ‹offset()›", "exactly one quantity"),
    ("y ~ ‹offset(a, b)›", "exactly one quantity"),
    # responses
    ("‹3› ~ x", "response is a number"),
    ("a‹:›b ~ x", "cannot be the response"),
    ("y‹|›g ~ x", "cannot be the response"),
    ("(1‹|›g) ~ x", "cannot be the response"),
    ("‹.› ~ x", "only works in the fixed part"),
    ("y ‹>› 2 ~ x", "I(x > 1)"),
    ("y ‹z› ~ x", "side by side"),
]  # fmt: skip


@pytest.mark.parametrize(("marked", "fragment"), REFUSED, ids=[m for m, _ in REFUSED])
def test_refused_with_a_caret_under_the_place(marked: str, fragment: str) -> None:
    start, end = marked.index("‹"), marked.index("›") - 1
    text = marked.replace("‹", "").replace("›", "")
    with pytest.raises(FormulaError) as caught:
        parse_formula(text)
    error = caught.value
    assert fragment in error.message
    assert (error.position, error.length) == (start, end - start)
    message, shown, caret = str(error).rsplit("\n", 2)
    assert (message, shown) == (error.message, f"    {text}")
    assert caret == " " * (4 + start) + "^" * (end - start)
    assert error.message.endswith(".")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        (None, "NoneType"),
        (3, "type int"),
        (b"y ~ x", "type bytes"),
        ("y ~ " + "(" * 3000 + "x" + ")" * 3000, "nested too deeply"),
    ],
)
def test_refused_without_a_place(text: object, fragment: str) -> None:
    with pytest.raises(FormulaError, match=fragment):
        parse_formula(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("x", ("x",)),
        ("1 + x + x:z", ("x", "z")),
        ("log(x) + np.log(z) + np.pi", ("x", "z")),
        ("poly(x, degree=2, raw=True)", ("x",)),
        ("C(f, contr.sum) + C(g, contr.treatment('a'))", ("f", "g")),
        ("`my var` + I(`IQ.ver`**2)", ("my var", "IQ.ver")),
        ("IQ.ver.cen", ("IQ.ver.cen",)),
        ("x.abs() + I(x.mean().real)", ()),
        ("I(f(x).real + `a b`.mean())", ("x", "a b")),
        ("I(x == z)", ("x", "z")),
        ("I(x if z is not None else w)", ("x", "z", "w")),
        ("f(TRUE, NULL, x=w)", ("w",)),
        (". - g", ("g",)),
        ("f('not x', \"nor z\")", ()),
        ("`np` + `True`", ("np", "True")),
        ("größe * class", ("größe", "class")),
        ("y ~ x + (z|a/b)", ("y", "x", "z", "a", "b")),
        ("diag(x|g, hom=TRUE)", ("x", "g")),
        ("1", ()),
        ("", ()),
    ],
)
def test_referenced_names(expression: str, names: tuple[str, ...]) -> None:
    assert references(expression).names == names


# ---- properties

LEAVES = st.sampled_from(["x", "z", "f", "`a b`", "log(x)", "I(x^2)", "poly(z, 2)"])


def _combined(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    joined = st.tuples(children, st.sampled_from(["+", "*", ":", "/"]), children)
    return joined.map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})")


EXPRESSIONS = st.recursive(LEAVES, _combined, max_leaves=5)


@given(expression=EXPRESSIONS)
@settings(max_examples=200, deadline=None)
def test_term_labels_are_the_terms_formulaic_sees(expression: str) -> None:
    formula = parse_formula(f"y ~ ({expression}||g)")
    labels = [term.effects.removeprefix("0 + ") for term in formula.random]
    ours = [frozenset(map(str, Formula(f"0 + {label}")[0].factors)) for label in labels[1:]]
    (term,) = parse_formula(f"y ~ ({expression}|g)").random
    theirs = [frozenset(map(str, found.factors)) for found in Formula(term.effects)][1:]
    assert labels[0] == "1"
    assert len(set(ours)) == len(ours)
    assert set(ours) == set(theirs)
    assert [len(term) for term in ours] == sorted(map(len, ours))


TERMS = st.sampled_from(
    ["x", "x*z", "x:z", "(x + z)^2", "I(x^2)", "(x|g)", "(0 + x||a/b)", "diag(x|g)", "offset(w)"]
)


def _pieces(formula: MixedFormula) -> object:
    random = [(t.effects, t.group, t.factors, t.structure, t.hom, t.split) for t in formula.random]
    return formula.response, formula.fixed, formula.offsets, random


@given(terms=st.lists(TERMS, min_size=1, max_size=5), data=st.data())
@settings(max_examples=200, deadline=None)
def test_parentheses_around_summands_do_not_matter(terms: list[str], data: st.DataObject) -> None:
    wrapped = list(terms)
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(wrapped) - 1))
        j = data.draw(st.integers(i, len(wrapped) - 1))
        wrapped[i : j + 1] = [f"({' + '.join(wrapped[i : j + 1])})"]
    plain = parse_formula("y ~ " + " + ".join(terms))
    assert _pieces(parse_formula("y ~ " + " + ".join(wrapped))) == _pieces(plain)


@given(
    terms=st.lists(TERMS, min_size=1, max_size=4),
    spaces=st.lists(st.sampled_from(["", " ", "  ", "\n", "\t", "\r\n "]), min_size=200),
)
@settings(max_examples=100, deadline=None)
def test_whitespace_does_not_matter(terms: list[str], spaces: list[str]) -> None:
    dense = ("log(y)~" + "+".join(terms)).replace(" ", "")
    airy = ""
    for i, char in enumerate(dense):
        joined = dense[i - 1 : i + 1] == "||"
        called = char == "(" and i > 0 and dense[i - 1].isalnum()
        inside_name = char.isalnum() and i > 0 and dense[i - 1].isalnum()
        airy += ("" if joined or called or inside_name else spaces[i]) + char
    assert _pieces(parse_formula(airy)) == _pieces(parse_formula(dense))


@given(st.text(alphabet="yxg1|~+-*/:^()`'.,= %$\n[]", max_size=25))
@settings(max_examples=500, deadline=None)
def test_any_text_gives_a_formula_or_a_formula_error(text: str) -> None:
    try:
        formula = parse_formula(text)
    except FormulaError as error:
        caught = error
    else:
        Formula(formula.fixed, _context=AVAILABLE)
        for term in formula.random:
            Formula(term.effects)
        return
    assert caught.message.endswith(".")
    assert 0 <= (caught.position or 0) <= len(text)
