"""Formulas and files that try to run code end in the package's own error, and run none."""

from __future__ import annotations

import io
import json
import math
import pathlib
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.special

import lmmsparse as lmm
from lmmsparse.formula.update import updated_formula

N = 40
RNG = np.random.default_rng(4)
DATA = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "x": RNG.uniform(1, 2, N),
        "z": RNG.normal(size=N),
        "f": RNG.choice(list("abc"), N),
        "g": np.arange(N) % 5,
        "o": np.ones(N),
        "day": pd.date_range("2020-01-01", periods=N),
        "my `col": np.arange(N) * 1.0,
        "__class__": np.arange(N) % 2,
    }
)
DATA["y"] += 2.0 * DATA["g"] ** 1.5  # so that no fit is singular
# {run} is code that makes the file `{target}`.
EXPRESSIONS = (
    # builtins, however spelled
    "{run}",
    "eval('{quoted}')",
    "exec('{quoted}')",
    "open('{target}', 'w')",
    "compile('{quoted}', '', 'eval')",
    "getattr(x, 'to_csv')('{target}')",
    "globals()['__builtins__']",
    "vars(x)",
    "breakpoint()",
    "type(x)",
    "__builtins__['open']('{target}', 'w')",
    "`eval`('{quoted}')",
    "`__import__`('os').mkdir('{target}')",
    "ｅｖａｌ('{quoted}')",
    "ｏｐｅｎ('{target}', 'w')",
    # texts that end where they should not
    r"x.isin(['\`', {run}, '\`'])",
    r"x.isin(['`', {run}, '`'])",
    r"x.isin(['\\`', {run}, '`'])",
    r'x.isin(["\`", {run}, "\`"])',
    r"x.isin(['\x60', {run}, '\x60'])",
    r"x.isin(['`x`', {run}])",
    r"x.isin([`my \`, {run}, `])",
    "x.isin(['a' '`', {run}, '`' 'b'])",
    # attributes of attributes
    "().__class__.__base__.__subclasses__()",
    "x.__class__.__init__.__globals__",
    "x.__array__().dumps()",
    "x._mgr",
    "x.values.__reduce__()",
    "x.ｔｏ_csv('{target}')",
    "x.＿＿class＿＿",
    "(x + 1).__class__",
    "x.mean().__class__.__mro__",
    "'a'.__class__",
    "'{{0.__class__}}'.format(x)",
    "'%s'.__mod__(x)",
    "f.str.__class__",
    "f.str.upper.__globals__",
    "f.cat._parent",
    "I.__globals__",
    "log.__class__",
    "poly.__wrapped__.__globals__",
    "poly.__globals__['sys'].modules",
    "C.__code__",
    "contr.__init__",
    "contr.sum.__subclasses__()",
    "contr.sum().apply.__globals__",
    "contr.sum.get_coding_matrix(x, x)",
    "contr.mro()",
    # what numpy and pandas can do with files and functions
    "np.load('{target}', allow_pickle=True)",
    "np.save('{target}', x)",
    "np.savetxt('{target}', x)",
    "np.fromfile('{target}')",
    "np.memmap('{target}', mode='w+', shape=9)",
    "np.genfromtxt('{target}')",
    "np.lib.format.open_memmap('{target}', 'w+', shape=9)",
    "np.ctypeslib.load_library('{target}', '.')",
    "np.ｓａｖｅ('{target}', x)",
    "np.testing.rundocs('{target}')",
    "np.f2py.compile('x')",
    "np.__config__",
    "np.array(x).tofile('{target}')",
    "np.array([x]).dump('{target}')",
    "np.asarray(x).data",
    "np.vectorize(log)(x)",
    "np.frompyfunc(log, 1, 1)(x)",
    "np.fromfunction(log, (3,))",
    "np.apply_along_axis(log, 0, x)",
    "np.add.at(x, [0], 1)",
    "np.add.reduce(x)",
    "np.exp(x, x)",
    "np.exp(x, out=x)",
    "np.where(x > 1, x, x).tofile('{target}')",
    "x.to_csv('{target}')",
    "x.to_pickle('{target}')",
    "x.to_json('{target}')",
    "x.to_frame().to_csv('{target}')",
    "x.to_frame().eval('x')",
    "x.to_frame().query('x > 1')",
    "x.pipe(log)",
    "x.apply('to_csv')",
    "x.agg('to_csv')",
    "x.map(log)",
    "x.transform(log)",
    "x.plot()",
    "x.values.tofile('{target}')",
    "x.values.dump('{target}')",
    "x.values.ctypes",
    "x.values.astype('O')",
    "x.astype(object)",
    "x.fillna(0, inplace=True)",
    "x.replace('a', 'b', True)",
    "x.clip(1, 2, out=x)",
    "x.clip(1, 2, 0, True)",
    "f.str.replace('a', log)",
    "f.str.cat(f)",
    "f.str.split('a', expand=True)",
    "f.str.encode('rot13')",
    "day.dt.tz_localize('x')",
    # what a formula function takes that its author did not think of
    "hashed(f, 3, hash_func=eval)",
    "poly(x, 2, _state={{}})",
    "poly(x, 2, _context=x)",
    "scale(x, _spec=x)",
    "Q('x')",
    "C(f, levels=np)",
    "C(np)",
    "I(I)",
    "bs(x, df=4, extrapolation=I)",
    # syntax
    "(lambda: {run})()",
    "[{run} for i in [1]]",
    "[i for i in x]",
    "(i for i in x)",
    "{{i for i in x}}",
    "{{'a': 1, **x}}",
    "(q := {run})",
    "f'{{x}}'",
    "f'{{{run}}}'",
    "log(*[x])",
    "log(**{{'x': x}})",
    "x; {run}",
    "x\n{run}",
    "x # {run}",
    "await x",
    "yield x",
    "...",
    "x if {run} else x",
    "[log][0](x)",
    "{{'a': log}}['a'](x)",
    "(log if 1 else exp)(x)",
    "x[{run}]",
    "x @ x",
    "1 .__class__",
    "1j * x",
)
PLACES: dict[str, str] = {
    "fixed": "y ~ x + I({}) + (1 | g)",
    "call": "y ~ log({}) + (1 | g)",
    "response": "I({}) ~ x + (1 | g)",
    "left of the bar": "y ~ x + (0 + I({}) | g)",
    "grouping": "y ~ x + (1 | factor({}))",
    "offset": "y ~ x + offset({}) + (1 | g)",
    "coding": "y ~ C(f, {}) + (1 | g)",
    "interaction": "y ~ x:I({}) + (1 | g)",
}


ELSEWHERE: dict[str, Callable[[str], Any]] = {
    "time": lambda t: lmm.build_design("y ~ x", DATA, residual=f"ar1(I({t}) | g)"),
    "bare time": lambda t: lmm.build_design("y ~ x", DATA, residual=f"car1({t} | g)"),
    "residual group": lambda t: lmm.build_design("y ~ x", DATA, residual=f"cs(1 | factor({t}))"),
    "residual": lambda t: lmm.build_design("y ~ x", DATA, residual=t),
    "residual_sd": lambda t: lmm.build_design("y ~ x", DATA, residual_sd=f"~ I({t})"),
    "successes": lambda t: lmm.glmer(f"cbind({t}, 3) ~ x + (1 | g)", DATA, "binomial"),
    "failures": lambda t: lmm.glmer(f"cbind(g, {t}) ~ x + (1 | g)", DATA, "binomial"),
    "trials": lambda t: lmm.glmer(f"g / ({t}) ~ x + (1 | g)", DATA, "binomial"),
    "exposure": lambda t: lmm.glmer("g ~ x + (1 | f)", DATA, "poisson", offset=t),
    "change": lambda t: lmm.build_design(
        updated_formula("y ~ x + (1 | g)", f". ~ . + I({t})"), DATA
    ),
    "new response": lambda t: lmm.build_design(
        updated_formula("y ~ x + (1 | g)", f"I(. + {t}) ~ ."), DATA
    ),
    "coding": lambda t: lmm.build_design("y ~ f + (1 | g)", DATA, contrasts={"f": t}),
    "weights": lambda t: lmm.build_design("y ~ x + (1 | g)", DATA, weights=t),
}


def written(expression: str, target: Path) -> str:
    run = f"__import__('os').mkdir('{target}')"
    return expression.format(run=run, quoted=run.replace("'", r"\'"), target=target)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "evil"


def refused(call: Callable[[], Any], target: Path) -> bool:
    """Whether a call ends in the package's own error; nothing may have been made by then."""
    before = DATA.copy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lmm.LmmWarning)
            call()
    except lmm.LmmError:
        return True
    finally:
        assert list(target.parent.iterdir()) == []
        pd.testing.assert_frame_equal(DATA, before)
    return False


@pytest.mark.parametrize("place", PLACES)
def test_formulas_run_nothing(place: str, target: Path) -> None:
    let_through = [
        expression
        for expression in EXPRESSIONS
        if not refused(
            lambda: lmm.build_design(PLACES[place].format(written(expression, target)), DATA),  # noqa: B023
            target,
        )
    ]
    assert not let_through


@pytest.mark.parametrize("place", ELSEWHERE)
def test_other_texts_run_nothing(place: str, target: Path) -> None:
    own = EXPRESSIONS[list(ELSEWHERE).index(place) % 4 :: 4]  # together all
    let_through = [
        expression
        for expression in own
        if not refused(lambda: ELSEWHERE[place](written(expression, target)), target)  # noqa: B023
    ]
    assert not let_through


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ `eval`('1') + (1 | g)",
        "y ~ x + (1 | `g`.__class__)",
        "y ~ x.__class__ + (1 | g)",
        "y ~ x + (1 | g.__class__)",
        "y ~ x + diag(x | g, hom=__import__('os'))",
        "y ~ cs(x | g, hom=eval('True'))",
        "y ~ x + (1 | eval('g'))",
        "y ~ {__import__('os')} + (1 | g)",
        "y ~ %eval% + (1 | g)",
        "y ~ np + (1 | g)",
        "y ~ np.random + (1 | g)",
        "y ~ contr + (1 | g)",
        "y ~ sqrt + (1 | g)",
        "np.load ~ x + (1 | g)",
        "y ~ __builtins__ + (1 | g)",
        "y ~ x + (1 | __builtins__)",
        "y ~ x + offset(__builtins__) + (1 | g)",
        "y ~ x + (1 | `\\`)",
    ],
)
def test_formulas_name_nothing(formula: str, target: Path) -> None:
    assert refused(lambda: lmm.build_design(formula, DATA), target)


def test_columns_are_named_like_anything() -> None:
    names = [
        "eval",
        "__import__",
        "np",
        "log",
        "I",
        "`",
        "a`b",
        "x'y",
        'q"',
        "new\nline",
        "ﬁ",
        "if",
    ]
    frame = DATA.assign(**{name: RNG.normal(size=N) for name in names})
    for name in names:
        if "`" not in name:
            design = lmm.build_design(f"y ~ x:`{name}` + `{name}` + (1 | g)", frame)
            np.testing.assert_array_equal(design.X[:, 1], frame[name])
    design = lmm.build_design("y ~ I(`eval` + `np` * 2) + log(x) + (1 | g)", frame)
    np.testing.assert_allclose(design.X[:, 1], frame["eval"] + frame["np"] * 2)
    np.testing.assert_allclose(design.X[:, 2], np.log(frame["x"]))
    with pytest.raises(lmm.LmmError):
        lmm.build_design("y ~ I(eval('1')) + (1 | g)", frame)


class Holder:
    """What somebody might pass as context: it can do more than a formula may ask of it."""

    number = 2.5
    path = pathlib.Path

    def write(self, *args: Any) -> Any:
        pathlib.Path("evil").touch()
        return args


@pytest.mark.parametrize(
    "expression",
    [
        "own.write(x)",
        "own.path('evil').touch()",
        "own.path",
        "own.write",
        "own.__class__",
        "own._x",
        "lib.load('evil')",
        "lib.save('evil', x)",
        "frames.read_pickle('evil')",
        "frames.eval('x')",
        "system.mkdir('evil')",
        "here('evil').touch()",
        "here('evil').open('w')",
        "log(own)",
        "x + own",
        "x[own]",
        "apply(x, own.write)",
        "x.fillna(apply)",
        "f.str.replace('a', apply)",
        "__builtins__['open']('evil', 'w')",
        "apply(__builtins__)",
        "apply(x, _secret=1)",
        "apply.__globals__",
        "special.__builtins__",
        "space.inner.write(x)",
    ],
)
def test_what_is_in_the_context_is_no_way_out(expression: str, target: Path) -> None:
    context = {
        "own": Holder(),
        "lib": np,
        "frames": pd,
        "system": __import__("os"),
        "here": pathlib.Path,
        "apply": lambda values, function=None: values if function is None else function(values),
        "special": scipy.special,
        "space": SimpleNamespace(inner=Holder()),
        "__builtins__": __builtins__,
    }
    for place in ("y ~ x + I({}) + (1 | g)", "y ~ x + offset({}) + (1 | g)"):
        formula = place.format(expression)
        assert refused(lambda: lmm.build_design(formula, DATA, context=context), target)  # noqa: B023


def test_what_the_context_is_for() -> None:
    context = {
        "square": lambda values: values**2,
        "special": scipy.special,
        "math": math,
        "own": Holder(),
        "w": np.sin(np.arange(N)),
        "numpy": np,
        "np": np,
    }
    design = lmm.build_design(
        "y ~ square(x) + I(special.expit(x) * (math).pi) + I(x**3 * (own).number) + w "
        "+ numpy.log(x) + np.exp(x) + (1 | g)",
        DATA,
        context=context,
    )
    x = DATA["x"].to_numpy()
    want = (x**2, scipy.special.expit(x) * np.pi, context["w"], np.log(x), np.exp(x))
    for j, column in zip((1, 2, 4, 5, 6), want, strict=True):
        np.testing.assert_allclose(design.X[:, j], column)


# A saved model in which somebody has changed the recipe.

CODE = "__import__('os').mkdir('evil')"
TAMPERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "code": lambda r: r["parts"].update(fixed=f"1 + I({CODE})"),
    "in a text": lambda r: r["parts"].update(fixed=f"1 + I(x.isin(['`', {CODE}, '`']))"),
    "escaped": lambda r: r["parts"].update(fixed=rf"1 + I(x.isin(['\`', {CODE}, '\`']))"),
    "braces": lambda r: r["parts"].update(fixed=f"1 + {{{CODE}}}"),
    "brackets": lambda r: r["parts"].update(fixed=f"1 + x[{CODE}]"),
    "a second formula": lambda r: r["parts"].update(fixed=f"1 ~ I({CODE})"),
    "stages": lambda r: r["parts"].update(fixed=f"1 + [x ~ I({CODE})]"),
    "bars": lambda r: r["parts"].update(fixed=f"1 | I({CODE})"),
    "random": lambda r: r["parts"].update(random0=f"1 + I({CODE})"),
    "offset": lambda r: r.update(offsets=[CODE]),
    "offset in a text": lambda r: r.update(offsets=[f"o.isin(['`', {CODE}, '`'])"]),
    "offset method": lambda r: r.update(offsets=["o.to_csv('evil')"]),
    "group": lambda r: r["groups"][0].update(factors=[CODE]),
    "group method": lambda r: r["groups"][0].update(factors=["g.to_pickle('evil')"]),
    "column eval": lambda r: (
        r["columns"].update(eval=dict(r["columns"]["x"])),
        r["parts"].update(fixed=f'1 + I(x * 0 + (eval("{CODE}") is None))'),
    ),
    "listed column eval": lambda r: (
        r["columns"].update(eval=dict(r["columns"]["x"])),
        r["variables"]["fixed"].append("eval"),
        r["parts"].update(fixed=f'1 + I(x * 0 + (eval("{CODE}") is None))'),
    ),
    "column open": lambda r: (
        r["columns"].update(open=dict(r["columns"]["x"])),
        r["parts"].update(fixed="1 + I(open('evil', 'w'))"),
    ),
    "context": lambda r: (
        r.update(context=["__import__"]),
        r["parts"].update(fixed=f"1 + I({CODE})"),
    ),
    "builtins in context": lambda r: (
        r.update(context=["__builtins__"]),
        r["parts"].update(fixed="1 + I(__builtins__['open']('evil', 'w'))"),
    ),
    "other spelling": lambda r: r["parts"].update(fixed="1 + I(ｏｐｅｎ('evil', 'w'))"),
    "not a listed column": lambda r: r["parts"].update(fixed="1 + x + g"),
    "nothing learnt": lambda r: r["parts"].update(fixed="1 + poly(x, 2)"),
    "empty": lambda r: r["parts"].update(fixed=""),
    "size": lambda r: r["parts"].update(fixed="1 + I(x * 10**10**9)"),
    "terms": lambda r: r["parts"].update(
        fixed="1 + " + "*".join(f"I(x + {i})" for i in range(30))
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", TAMPERED)
def test_files_run_nothing(change: str, target: Path) -> None:
    m = lmm.lmer("y ~ x + offset(o) + (1 | g)", DATA)
    saved = target.parent.parent / f"{target.parent.name}.lmm"
    m.save(saved)
    with zipfile.ZipFile(saved) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(entries["model.json"])
    TAMPERED[change](meta["design"]["recipe"])
    entries["model.json"] = json.dumps(meta).encode()
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    saved.write_bytes(changed.getvalue())
    if change == "size":  # can only be seen when it is computed, if not at load
        assert refused(lambda: lmm.load(saved).predict(DATA), target)
    else:
        assert refused(lambda: lmm.load(saved), target)


def test_new_data_run_nothing(target: Path) -> None:
    m = lmm.lmer("y ~ poly(x, 2) + f + (1 | g)", DATA)
    odd = DATA.assign(g="__import__('os').mkdir('evil')")
    m.predict(odd, new_levels="population")
    with pytest.raises(lmm.LmmError):
        m.predict(DATA.assign(f="`eval`"))
    assert list(target.parent.iterdir()) == []
