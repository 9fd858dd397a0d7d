"""Changes of a formula: what dots and minus signs make of it."""

from __future__ import annotations

import pytest

import lmmsparse as lmm
from lmmsparse.formula.update import updated_formula

OLD = "y ~ x + f*z + offset(o) + (x | g) + (1|h)"


@pytest.mark.parametrize(
    ("new", "wanted"),
    [
        (". ~ . + w", "y ~ x + f*z + offset(o) + w + (x | g) + (1|h)"),
        ("~ . + I(x**2)", "y ~ x + f*z + offset(o) + I(x**2) + (x | g) + (1|h)"),
        ("log(.) ~ .", "log(y) ~ x + f*z + offset(o) + (x | g) + (1|h)"),
        (". / . ~ . - x", "y / y ~ f*z + offset(o) + (x | g) + (1|h)"),
        (". ~ . - x", "y ~ f*z + offset(o) + (x | g) + (1|h)"),
        (". ~ . - f:z", "y ~ x + f + z + offset(o) + (x | g) + (1|h)"),
        (". ~ . - z:f - x", "y ~ f + z + offset(o) + (x | g) + (1|h)"),
        (". ~ . - f * z", "y ~ x + offset(o) + (x | g) + (1|h)"),
        (". ~ . - offset(o)", "y ~ x + f*z + (x | g) + (1|h)"),
        (". ~ . - (x|g) + (1 | g)", "y ~ x + f*z + offset(o) + (1|h) + (1 | g)"),
        (". ~ . - (1 + x | g)", "y ~ x + f*z + offset(o) + (1|h)"),
        (". ~ . + x", "y ~ x + f*z + offset(o) + (x | g) + (1|h)"),
        (". ~ . - 1", "y ~ x + f*z + offset(o) - 1 + (x | g) + (1|h)"),
        (". ~ . - x - f*z - offset(o)", "y ~ 1 + (x | g) + (1|h)"),
        (". ~ (.)^2", "y ~ (x + f*z)^2 + offset(o) + (x | g) + (1|h)"),
        (". ~ . * w", "y ~ (x + f*z) * w + offset(o) + (x | g) + (1|h)"),
        ("v ~ w + (1 | k)", "v ~ w + (1 | k)"),
        ("I(. * 2) ~ .", "I(y * 2) ~ x + f*z + offset(o) + (x | g) + (1|h)"),
    ],
)
def test_changes(new: str, wanted: str) -> None:
    text = updated_formula(OLD, new)
    assert text == wanted
    lmm.parse_formula(text)


def test_a_bar_without_parentheses_is_a_term() -> None:
    assert updated_formula("y ~ x | g", ". ~ . + w") == "y ~ w + (x | g)"


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (". ~ . - w", "It has x, f\\*z, offset"),
        (". ~ . - (1 | g)", "It has \\(x | g\\), \\(1|h\\)"),
        (". + x", 'one "~"'),
        (". ~", 'one "~"'),
        (3, "must be a string"),
        (". ~ log(.)", "cannot stand inside"),
        (". ~ . - (.)", "cannot be inside"),
    ],
)
def test_changes_that_cannot_be(new: str, says: str) -> None:
    with pytest.raises(lmm.FormulaError, match=says):
        updated_formula(OLD, new)


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("y + x ~ z + (1 | g)", "I(. * 2) ~ .", "I((y + x) * 2) ~ z + (1 | g)"),
        ("y / n ~ z + (1 | g)", "log(.) ~ .", "log(y / n) ~ z + (1 | g)"),
        ("(y + x) ~ z + (1 | g)", "I(. * 2) ~ .", "I((y + x) * 2) ~ z + (1 | g)"),
        ("y ~ `a  b` + (1 | g)", ". ~ . + z", "y ~ `a  b` + z + (1 | g)"),
        ("y ~ `a  b` + `a b` + ab + (1 | g)", ". ~ . - `a b`", "y ~ `a  b` + ab + (1 | g)"),
        (
            "I(y * (f != 'a  b')) ~ z + (1 | g)",
            "log(.) ~ .",
            "log(I(y * (f != 'a  b'))) ~ z + (1 | g)",
        ),
        ("y ~ `a:b` + a:b + (1 | g)", ". ~ . - a:b", "y ~ `a:b` + (1 | g)"),
        ("y ~ `a:b` + a:b + (1 | g)", ". ~ . - `a:b`", "y ~ a:b + (1 | g)"),
        ("y ~ I(x[1:3]) + z + (1 | g)", ". ~ . - I(x[1:3])", "y ~ z + (1 | g)"),
    ],
)
def test_names_texts_and_calculated_responses_stay_what_they_are(
    old: str, new: str, wanted: str
) -> None:
    assert updated_formula(old, new) == wanted
