"""The documentation: every Python block runs, every call in a table too; README shows the truth."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType

import models
import pytest

import lmmsparse as lmm
from lmmsparse.model.mixed import MixedModel

ROOT = models.VALIDATION.parent
NAMES = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


pages = _load("pages")


@pytest.mark.parametrize("name", NAMES)
def test_every_block_runs_and_every_call_in_a_table_exists(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    namespace: dict[str, object] = {}
    pages.run(text, name, namespace, draw=False)
    monkeypatch.chdir(tmp_path)
    calls = [*pages.calls(text)]
    if name == "docs/features.md":
        calls += pages.calls(text, "statsmodels")
    calls += [(line, f"lmm.lmer({text!r}, d)") for line, text in pages.calls(text, "formula")]
    for line, code in calls:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(code, f"{name}, line {line}", "exec"), namespace)
        except Exception as error:
            pytest.fail(f"{name}, line {line}: {code}: {type(error).__name__}: {error}")


def test_the_outputs_that_the_readme_shows_are_what_its_code_prints() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert pages.refreshed(text, "README.md") == text  # else: python tools/pages.py README.md


def test_files_that_the_page_for_contributors_names_are_there() -> None:
    text = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    named = [name for name in re.findall(r"`([\w./-]+)`", text) if "/" in name]
    assert len(named) > 30
    places = (ROOT, ROOT / "lmmsparse")
    missing = [n for n in named if not any((place / n).exists() for place in places)]
    assert not missing


def test_the_reference_has_every_member_of_the_models() -> None:
    """In the part that asks for it; where it goes is for the author of a member to say."""
    page = (ROOT / "docs" / "reference" / "model.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: lmmsparse\.(?:model\.mixed\.)?(\w+)\.(\w+)$", page, re.M))
    both = {name for name in vars(MixedModel) if name[0] != "_"}
    members = {("MixedModel", name) for name in both}
    for kind in (lmm.LinearMixedModel, lmm.GeneralizedLinearMixedModel):
        own = [part for part in kind.__mro__ if part not in (MixedModel, object)]
        members |= {(kind.__name__, n) for part in own for n in vars(part) if n[0] != "_"}
    # Of these the other kind of model says only that it has none.
    absent = {("GeneralizedLinearMixedModel", name) for name in ("sigma", "reml_criterion")}
    assert shown == members - absent


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("```python\n1 / 0\n```", "ZeroDivisionError"),
        ("```python\nimport warnings\nwarnings.warn('oh')\n```", "without saying so"),
        ("```python warns\n1\n```", "says that it warns"),
        ("```python raises\n1\n```", "says that it raises"),
        ("```python loud\n1\n```", "no option 'loud'"),
        ("```python\nimport matplotlib.pyplot as p\np.figure()\n```", "what is to be seen"),
    ],
)
def test_a_page_that_is_wrong_is_refused(block: str, complaint: str) -> None:
    with pytest.raises(pages.PageError, match=complaint):
        pages.run(block, "a page")


def test_a_block_is_left_out_of_tests_where_its_package_is_missing() -> None:
    text = "```python needs=no_such_package\nimport no_such_package\n```\n"
    ((_, output),) = pages.run(text, "a page", draw=False)
    assert output == pages.Output()
    with pytest.raises(pages.PageError, match="no_such_package"):
        pages.run(text, "a page")


def test_blocks_of_a_page_share_their_names_and_show_their_last_value() -> None:
    text = "```python\na = 2\n```\ntext\n```python hide\nprint('b')\na + 1\n```\n"
    (_, first), (block, second) = pages.run(text, "a page")
    assert (first.text, second.text) == ("", "b\n3")
    assert (block.options, block.line) == ({"hide"}, 6)


def test_calls_in_tables_are_found_in_their_column_whatever_bars_they_hold() -> None:
    text = "| R | lmmsparse |\n|---|---|\n| `no` | `f(1 | g)`, `h` |\n\n| a |\n|---|\n| `no` |\n"
    assert list(pages.calls(text)) == [(3, "f(1 | g)"), (3, "h")]


def test_stale_outputs_are_refreshed_and_other_text_is_left() -> None:
    stale = "a\n```python\n1 + 1\n```\n```text\n3\n```\nb\n```text\nc\n```\n"
    assert pages.refreshed(stale, "a page") == stale.replace("3", "2")
