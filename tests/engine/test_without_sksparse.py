"""A machine on which scikit-sparse is not installed, or does not load, without and with cvxopt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lmmsparse as lmm
from lmmsparse.engine.solvers import cvxopt

HIDE = """
import sys, warnings
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden}:
            raise {error}
sys.meta_path.insert(0, Hide())
import numpy as np, pandas as pd
import lmmsparse as lmm
"""
ABSENT = "ModuleNotFoundError(f'No module named {name!r}', name=name)"
BROKEN = "ImportError('libcholmod.so.3: cannot open shared object file')"


NEITHER = ("sksparse", "cvxopt")
has_cvxopt = pytest.mark.skipif(bool(cvxopt.unusable()), reason="cvxopt cannot be used")


def run(code: str, error: str = ABSENT, hidden: tuple[str, ...] = NEITHER) -> str:
    """What a Python prints in which these packages cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", HIDE.format(error=error, hidden=hidden) + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("error", "reason"), [(ABSENT, "No module named"), (BROKEN, "libcholmod.so.3")]
)
def test_one_factor_is_fitted_without_a_word(error: str, reason: str) -> None:
    code = """
m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
print(f"{m.reml_criterion:.4f}", type(m.fit.solver).__name__)
try:
    lmm.Cholmod()
except lmm.MissingPackageError as error:
    print(error)
"""
    out = run(code, error)
    assert out.startswith("1743.6283 Blocked\n")
    assert "Warning" not in out
    for fragment in (
        reason,
        "pip install cvxopt",
        "apt-get install",
        "dnf install",
        "brew install",
        "conda install",
    ):
        assert fragment in out


CROSSED = """
rng = np.random.default_rng(3)
n = 1500
data = pd.DataFrame({"a": rng.integers(0, 300, n), "b": rng.integers(0, LEVELS, n)})
data["y"] = rng.normal(size=300)[data["a"]] + rng.normal(size=LEVELS)[data["b"]]
data["y"] += rng.normal(size=n)
m = lmm.lmer("y ~ 1 + (1 | a) + (1 | b)", data)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("narrow", "name"),
    [
        ("choose._WEIGHTS['Cholmod'] *= 0; choose._WEIGHTS['SuperLU'] *= 1e9", "Blocked"),
        ("choose._WEIGHTS['Cholmod'] *= 0; choose._WEIGHTS['SuperLU'] *= 0", "SuperLU"),
        ("choose._LARGE_CORE = 200", "SuperLU"),
    ],
)
def test_crossed_factors_are_fitted_on_a_slower_path_that_says_so_once(
    narrow: str, name: str
) -> None:
    code = CROSSED.replace("LEVELS", "250")
    narrow = f"from lmmsparse.engine.solvers import choose; choose._DENSE_ENOUGH = 1.1; {narrow}"
    out = run(
        f"{narrow}\n{code}{code}"
        "print(f'{m.reml_criterion:.6f}', type(m.fit.solver).__name__)\n"
        "print([f.level for f in m.convergence.findings if f.code == 'slow-solver'])\n"
    )
    assert out.count("SlowSolverWarning:") == 1
    assert "pip install cvxopt" in out
    assert "['info']" in out
    space: dict[str, object] = {}
    exec("import numpy as np, pandas as pd, lmmsparse as lmm\n" + code, space)
    m = space["m"]
    assert isinstance(m, lmm.LinearMixedModel)
    value = float(out.split(name)[0].split()[-1])
    assert value == pytest.approx(m.reml_criterion, abs=1e-5)


def test_models_of_cholmod_are_read(tmp_path: Path) -> None:
    m = lmm.lmer(
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        lmm.load_dataset("Penicillin"),
        solver=lmm.Cholmod(),
    )
    m.save(tmp_path / "model.lmm")
    code = f"""
m = lmm.load({str(tmp_path / "model.lmm")!r})
print(type(m.fit.solver).__name__, repr(float(m.fit.modes.b[0])))
"""
    name, value = run(code).split()
    assert name == "SuperLU"
    assert float(value) == pytest.approx(m.fit.modes.b[0], rel=1e-9)


@has_cvxopt
def test_cvxopt_takes_its_place_without_a_word(tmp_path: Path) -> None:
    narrow = "from lmmsparse.engine.solvers import choose; choose._DENSE_ENOUGH = 1.1"
    code = CROSSED.replace("LEVELS", "700")
    out = run(
        f"{narrow}; choose._WEIGHTS['Cholmod'] *= 0\n{code}"
        "print(f'{m.reml_criterion:.6f}', m.fit.solver, m.fit.objective.system.describe())\n"
        "print(m.convergence.findings)\n"
        "print(m.coef_table().to_frame()['df'].iloc[0])\n"
        f"m.save({str(tmp_path / 'model.lmm')!r})\n"
        "try:\n    lmm.Cholmod(ordering='metis')\n"
        "except lmm.MissingPackageError as error:\n    print(error)\n",
        hidden=("sksparse",),
    )
    space: dict[str, object] = {}
    exec("import numpy as np, pandas as pd, lmmsparse as lmm\n" + code, space)
    m = space["m"]
    assert isinstance(m, lmm.LinearMixedModel)
    first, findings, df, refused = out.splitlines()
    assert "Cholmod(" in first
    assert "CHOLMOD (cvxopt)" in first
    assert findings == "()"
    assert float(first.split()[0]) == pytest.approx(m.reml_criterion, abs=1e-5)
    assert float(df) == pytest.approx(m.coef_table().to_frame()["df"].iloc[0], rel=1e-4)
    assert refused.startswith("ordering='metis' needs scikit-sparse")
    again = lmm.load(tmp_path / "model.lmm")
    assert again.reml_criterion == pytest.approx(m.reml_criterion, abs=1e-5)


@has_cvxopt
def test_the_options_of_cvxopt_stay_the_users(tmp_path: Path) -> None:
    out = run(
        "from cvxopt import cholmod\n"
        "cholmod.options['supernodal'] = 0\n"
        "for mode in ('auto', 'simplicial', 'supernodal'):\n"
        "    m = lmm.lmer('diameter ~ 1 + (1 | plate) + (1 | sample)',\n"
        "        lmm.load_dataset('Penicillin'), solver=lmm.Cholmod(mode=mode))\n"
        "    print(f'{m.reml_criterion:.6f}', cholmod.options)\n",
        hidden=("sksparse",),
    )
    assert out == "330.860589 {'supernodal': 0}\n" * 3
