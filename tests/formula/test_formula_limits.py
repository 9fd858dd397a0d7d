"""Formulas of a line that ask for days or gigabytes end in a `FormulaError`, at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.formula.limits import CHARACTERS, GROUPINGS

MANY = [f"I(x+{i})" for i in range(30)]
LETTERS = [f"x{i}" for i in range(40)]
FIXED = (
    # whole numbers, powers, texts
    "I(x * 10**10**9)",
    "I(x * 9**9**9**9)",
    "I(x * 2**2**2**2**2**2)",
    "I(x + 10**400)",
    "I(x**10**400)",
    "I((10**18)**(10**18) * x)",
    "I(f == 'a' * 10**10)",
    "I('a' * 10**10 == f)",
    "I(f * 10**9)",
    "I(x.isin([1] * 10**9))",
    "I(x.isin((1, 2) * 10**9))",
    "I([0] * 10**10)",
    "I('%1000000000d' % 3)",
    "I('%1000000000d' % x)",
    "I(f.str.replace('', 'aaaaaaaaaa' * 10**8))",
    "I(f" + ".str.replace('', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')" * 8 + " == 'a')",
    "I(f" + ".str.replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaa')" * 12 + " == 'a')",
    "I(f.str.pad(10**9) == 'a')",
    "I(f.str.repeat(10**9) == 'a')",
    "I(f.str.zfill(10**9) == 'a')",
    "I(f == '" + "a" * 20_000 + "')",
    # arrays
    "I(np.linspace(0, 1, 4*10**8))",
    "I(np.linspace(0, 1, num=10**12).mean() + x)",
    "I(np.arange(10**12).sum() + x)",
    "I(np.arange(0, 1, 1e-12).sum() + x)",
    "I(np.zeros(10**11))",
    "I(np.ones((10**6, 10**6)))",
    "I(np.full(10**11, 1))",
    "I(np.tile(x, 10**9))",
    "I(np.repeat(x, 10**9))",
    "I(np.outer(x, np.arange(10**9)))",
    "I(np.add.outer(np.arange(99999), np.arange(99999)).sum())",
    "I((np.arange(99999)[:, None] * np.arange(99999)).sum() + x)",
    "I((np.arange(99999)[:, None] == np.arange(99999)).sum() + x)",
    "I(np.hypot(np.arange(99999)[:, None], np.arange(99999)).sum() + x)",
    "I(np.where(np.arange(99999)[:, None] > 3, np.arange(99999), 0).sum() + x)",
    "I(np.clip(np.arange(99999)[:, None], np.arange(99999), 9).sum() + x)",
    "I(np.matmul(np.arange(99999)[:, None], np.arange(99999)[None, :]).sum() + x)",
    "I(np.diff(x, 10**12))",
    "I(np.diff(x, n=10**12))",
    "I(np.bincount((x * 10**12).astype('int')))",
    "I(np.eye(10**6))",
    "I(np.array(x, dtype='U999999999'))",
    "I(f.astype('U999999999') == 'a')",
    "I(x.quantile(np.arange(99999) * 0) + x.quantile(np.arange(99998) * 0))",
    "I(np.random.rand(10**10))",
    "I(np.round(x, 10**9))",
    "I(x.round(-(10**12)))",
    "round(x, 10**8)",
    ":".join(f"C(x > {i})" for i in range(1, 9)),
    # transforms
    "hashed(f, levels=10**6)",
    "hashed(f, levels=10**8)",
    "hashed(f, 10**15)",
    "hashed(f, levels=1e300)",
    "hashed('a'*10**10, 3)",
    "hashed(f, levels=np.arange(10**9))",
    "poly(x, 10**6)",
    "poly(x, degree=10**12, raw=True)",
    "bs(x, df=10**7)",
    "bs(x, df=10, degree=10**7)",
    "bs(x, knots=np.linspace(0, 9, 10**8))",
    "bs(x, knots=np.linspace(0, 9, 99999))",
    "cr(x, df=10**6)",
    "cc(x, df=10**6)",
    "cs(x, df=10**6)",
    "C(f, levels=np.arange(10**9))",
    "C(f, levels=np.arange(99999))",
    "C(np.arange(99999))",
    "C(np.linspace(0, 1, 99999), contr.poly)",
    "dummy(np.arange(99999))",
    "interaction(np.arange(99999), np.arange(99999))",
    f"interaction({', '.join(['long'] * 900)})",
    "I(np.arange(99999)[:, None].clip(np.arange(99999)).mean() * x)",
    # terms
    "*".join(MANY[:14]),
    "*".join(MANY),
    "*".join(f"C({i} * x)" for i in range(1, 15)),
    ":".join(f"C({i} * x)" for i in range(1, 15)),
    ":".join(f"C(z * {i})" for i in range(1, 5)),
    f"({' + '.join(MANY)})^20",
    f"({' + '.join(MANY)})**5",
    f"({' + '.join(LETTERS)})^15",
    f"({' + '.join(LETTERS)})*({' + '.join(LETTERS)}):({' + '.join(LETTERS)})",
    "/".join(LETTERS),
    "(" * 5_000 + "x" + ")" * 5_000,
    "I(" + "(" * 5_000 + "x" + ")" * 5_000 + ")",
    "I(" + "-" * 1_900 + "x)",
    "I(" + "x if x else " * 500 + "x)",
    "I(" + "not " * 1_500 + "x)",
    "I(" + "[" * 45 + "x" + "]" * 45 + ")",
    "I(x" + "**x" * 900 + ")",
    "I(x" + ".mean()" * 300 + ")",
    "log(" * 3_000 + "x" + ")" * 3_000,
    "I(" + " + ".join(["x"] * 20_000) + ")",
    " + ".join(f"x{i}" for i in range(50_000)),
    " + ".join(["."] * 2_000),
    " - ".join(["."] * 2_000),
    " + ".join(f"I(x**{i})" for i in range(3_000)),
    "+".join(["x"] * 24_000),
    "x" + ":x" * 20_000,
    "x" + "^2" * 10_000,
    # patterns
    "I(f.str.contains('(a+)+c', regex=True))",
    "I(f.str.contains('(a|a)*c', regex=True))",
    "I(f.str.contains('(a|aa)+$', regex=True))",
    "I(f.str.contains('a*a*a*a*a*a*a*a*a*c', regex=True))",
    "I(f.str.contains('a?a?a?a?a?a?a?a?a?a?a?a?aaaaaaaaaaaaaa$', regex=True))",
    "I(f.str.contains('(?:a+)+c', regex=True))",
    r"I(f.str.contains('(.*)\\1\\1c', regex=True))",
    "I(f.str.replace('(a+)+c', '', regex=True) == 'b')",
    "I(f.str.match('(a+)+c'))",
    "I(f.str.extract('(a+)+c'))",
    "I(f.str.count('(a+)+c'))",
    "I(f.replace('(a+)+c', 'b', regex=True) == 'b')",
)
OTHERS = (
    "y ~ x + offset(9**9**9) + (1|g)",
    "y ~ x + offset(np.arange(10**12)) + (1|g)",
    "y ~ x + offset((np.arange(99999)[:, None] * np.arange(99999)).sum()) + (1|g)",
    "I(y * 10**10**9) ~ x + (1|g)",
    "I(np.linspace(0, 1, 10**10)) ~ x + (1|g)",
    f"y ~ x + (1|{'*'.join(MANY[:20])})",
    f"y ~ x + (1|{'*'.join(LETTERS)})",
    f"y ~ x + (1|({' + '.join(LETTERS)}):({' + '.join(LETTERS)}):({' + '.join(LETTERS)}))",
    f"y ~ x + ({'*'.join(MANY[:20])}|g)",
    f"y ~ x + ({'*'.join(MANY[:9])}||g)",
    "y ~ x + " + " + ".join(["(1|g)"] * 500),
    "y ~ x + (1|factor(9**9**9))",
    "y ~ x + (1|f.str.repeat(10**9))",
    "y ~ x + (1|np.repeat(x, 10**9))",
    "y ~ x + (1|interaction(x, np.arange(10**9)))",
    "y ~ x + (poly(x, 10**6)|g)",
    "y ~ x" + "|g" * 10_000,
    "y ~ " + "~" * 100_000,
    "y ~ x + `" + "a" * 100_000 + "` + (1|g)",
)
# What is asked for by other texts than the formula.
ELSEWHERE = (
    {"residual": "x"},
    {"residual": f"ar1({'+'.join(['x'] * 24_000)} | g)"},
    {"residual": f"ar1(x{'^2' * 10_000} | g)"},
    {"residual": f"cs(1 | {'*'.join(LETTERS)})"},
    {"residual": "ar1(I(x * 10**10**9) | g)"},
    {"residual": f"{'a' * 49_000}(x | g)"},
    {"residual": "(" * 20_000},
    {"residual_sd": f"~ {'*'.join(MANY[:20])}"},
    {"residual_sd": "~ poly(x, 10**6)"},
    {"residual_sd": f"~ {'+'.join(['x'] * 24_000)}"},
    {"response": "cbind(x, 9**9**9)"},
    {"response": "cbind(np.arange(10**12), x)"},
    {"response": "x / (10**400)**2"},
    {"response": f"cbind({'+'.join(['x'] * 20_000)}, x)"},
    {"change": f". ~ . + {'*'.join(MANY[:20])}"},
    {"change": f". ~ . - x{'^2' * 10_000}"},
    {"change": ". ~ . + x" + ":x" * 4_500},
    {"change": ". ~ . + " + " + ".join(f"I(x**{i})" for i in range(3_000))},
    {"residual": f"cs(1 | x{'/x' * 4_500})"},
    {"change": f"I({'.+' * 20_000}x) ~ ."},
)
CHILD = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd, lmmsparse as lmm
n = 120
r = np.random.default_rng(1)
data = pd.DataFrame({"y": r.normal(size=n), "x": np.arange(n) % 10.0, "z": r.normal(size=n),
                     "f": np.where(np.arange(n) % 2, "a" * 32, "b"), "g": np.arange(n) % 6,
                     "long": "a" * 900})
for i in range(40):
    data[f"x{i}"] = r.normal(size=n)
lmm.build_design("y ~ poly(x, 2) + C(f) + (1 | g)", data)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), resource.RLIM_INFINITY))
from lmmsparse.formula.update import updated_formula
for formula in json.load(sys.stdin):
    start = time.process_time()
    try:
        if isinstance(formula, str):
            lmm.build_design(formula, data)
        elif "response" in formula:
            lmm.glmer(f"{formula['response']} ~ x + (1 | g)", data, "binomial")
        elif "change" in formula:
            lmm.build_design(updated_formula("y ~ x + (1 | g)", formula["change"]), data)
        else:
            lmm.build_design("y ~ x", data, **formula)
        outcome = "built"
    except Exception as error:
        outcome = type(error).__name__
    print(json.dumps([str(formula)[:70], outcome, time.process_time() - start]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_nothing_is_exhausted() -> None:
    formulas = [f"y ~ {text} + (1|g)" for text in FIXED] + [*OTHERS, *ELSEWHERE]
    found = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(formulas), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    outcomes = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(outcomes) == len(formulas), found.stderr[-2000:]
    bad = [o for o in outcomes if o[1] not in ("FormulaError", "DataError") or o[2] > 1.0]
    assert not bad
    assert sum(o[1] == "FormulaError" for o in outcomes) > 0.9 * len(outcomes)


def _message(formula: str) -> str:
    with pytest.raises(lmm.FormulaError) as raised:
        lmm.build_design(formula, lmm.load_dataset("sleepstudy"))
    return str(raised.value)


@pytest.mark.parametrize(
    ("term", "part", "limit"),
    [
        ("poly(Days, 1000)", "poly(Days, 1000)", "degree=50"),
        ("bs(Days, df=1000)", "bs(Days, df=1000)", "df=200"),
        ("hashed(Subject, levels=10**6)", "hashed(Subject", "levels=2000"),
        ("I(np.arange(10**9))", "np.arange(10 ** 9)", "100,000"),
        ("I(Days * 10**10**9)", "10 ** 10 ** 9", "1.8e308"),
        ("*".join(f"I(Days+{i})" for i in range(14)), "I(Days + 0)*I(Days + 1)", "interactions"),
    ],
)
def test_errors_name_the_part_and_the_limit(term: str, part: str, limit: str) -> None:
    message = _message(f"Reaction ~ {term} + (1 | Subject)")
    assert part in message
    assert limit in message


def test_a_long_formula_names_its_limit() -> None:
    assert f"{CHARACTERS:,}" in _message("Reaction ~ " + " + ".join(["Days"] * 20_000))
    many = " * ".join(f"factor(Subject + {i})" for i in range(10))
    assert f"{GROUPINGS} random-effects terms" in _message(f"Reaction ~ Days + (1 | {many})")


def test_what_people_write_is_within_the_limits() -> None:
    data = lmm.load_dataset("sleepstudy")
    data["f"] = ["a|b", "(a", "ab"] * 60
    items = pd.DataFrame({f"q{i}": (data["Days"] * (i + 1)) % 7 for i in range(150)})
    data = pd.concat([data, items], axis=1)
    total = " + ".join(f"q{i}" for i in range(150))
    for term in (
        f"I({total})",
        f"I(({total}) / 150)",
        "poly(Days, 9)",
        "bs(Days, df=9)",
        "(Days + f + q0)^20",
        "Days*f*q0*q1",
        "I(f.str.contains('|'))",
        "I(f.str.contains('(a'))",
        "I(f.str.contains('^a[b]+$', regex=True))",
        "I(f.str.replace('a', 'bb') == 'x')",
        "I(np.array([Days, q0]).mean(axis=0))",
        "I(Days / 10**20)",
        "I(Days ** 30)",
        "C(Subject, contr.sum)",
    ):
        lmm.build_design(f"Reaction ~ {term} + (1 | Subject)", data)
    x = data["Days"].to_numpy(dtype=float)
    design = lmm.build_design("Reaction ~ I(Days ** 30) + (1 | Subject)", data)
    assert (design.X[:, 1] == x**30).all()  # not what is left of it in 64 bits
