"""A machine on which nlopt is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nlopt":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
import lmmsparse as lmm
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HIDE + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_only_what_needs_it_says_so() -> None:
    out = run("""
data = lmm.load_dataset("sleepstudy")
formula = "Reaction ~ Days + (Days | Subject)"
m = lmm.lmer(formula, data)
print(f"{m.reml_criterion:.4f}")
for optimizer in (lmm.Bobyqa(), lmm.NelderMead()):
    try:
        lmm.lmer(formula, data, optimizer=optimizer)
    except lmm.MissingPackageError as error:
        print(error)
print(m.all_fit().to_frame().shape[0])
print(m.all_fit())
print(len(m.confint(method="profile")))
""")
    lines = out.splitlines()
    assert lines[0] == "1743.6283"
    for line, name in zip(lines[1:3], ("Bobyqa", "NelderMead"), strict=True):
        assert line.startswith(f"{name} needs the package nlopt")
        assert "pip install nlopt" in line
    assert "Bobyqa and NelderMead were left out" in out
    assert lines[-1] == "6"


@pytest.mark.long
def test_searches_that_need_it_are_left_out_and_the_verdict_says_so() -> None:
    out = run("""
from lmmsparse.fit.search import other_searches
print([type(each).__name__ for each in other_searches(3)])
data = lmm.load_dataset("sleepstudy")
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    m = lmm.lmer("Reaction ~ Days + (Days | Subject)", data, optimizer=lmm.TrustRegion(max_eval=2))
print(m.convergence.converged, [f.message for f in m.convergence.findings])
""")
    assert out.startswith("['QuasiNewton', 'TrustRegion']\nFalse")
    assert "need the package nlopt were not tried: pip install nlopt." in out


def test_a_model_found_by_it_is_read(tmp_path: object) -> None:
    path = f"{tmp_path}/model.lmm"
    code = """
import lmmsparse as lmm
m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"),
             optimizer=lmm.Bobyqa())
"""
    space: dict[str, object] = {}
    exec(code, space)
    space["m"].save(path)  # type: ignore[attr-defined]
    assert run(f"m = lmm.load({path!r})\nprint(f'{{m.reml_criterion:.4f}}')") == "1743.6283\n"
