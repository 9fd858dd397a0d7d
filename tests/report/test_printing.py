"""Printouts against golden files; HTML, Markdown and LaTeX of tables and summaries.

``LMMSPARSE_WRITE=1 pytest tests/report/test_printing.py`` writes the golden files anew.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from models import fit, frame

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning
from lmmsparse.common.table import as_precise_as, number

GOLDEN = Path(__file__).parent / "golden"


def stopped() -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(
            "Reaction ~ Days + (Days | Subject)",
            frame("sleepstudy"),
            optimizer=lmm.NelderMead(max_eval=12),
        )


def whole(m: lmm.LinearMixedModel) -> str:
    return f"{m!r}\n\n\n{m.summary()}\n"


def compared() -> str:
    small, large = fit("sleepstudy_diag_ml"), fit("sleepstudy_slope_reml")
    return f"{lmm.anova(small, large)}\n"


PRINTOUTS: dict[str, Callable[[], str]] = {
    "sleepstudy": lambda: whole(fit("sleepstudy_slope_reml")),
    "without_tests": lambda: f"{fit('sleepstudy_slope_ml').summary('none')}\n",
    "sleepstudy_kenward_roger": lambda: (
        f"{fit('sleepstudy_slope_reml').summary('kenward-roger')}\n"
    ),
    "weights": lambda: whole(fit("sleepstudy_weights_offset_reml")),
    "missing_rows": lambda: whole(fit("dietox_missing_reml")),
    "no_fixed_effects": lambda: whole(fit("sleepstudy_no_fixed_part_ml")),
    "eighteen_fixed_effects": lambda: whole(fit("cake_factor_reml")),
    "abbreviated_correlations": lambda: whole(fit("dietox_litter_reml")),
    "four_correlated_effects": lambda: f"{fit('psycho_maximal_reml').varcorr}\n",
    "units": lambda: whole(fit("sleepstudy_badly_scaled_reml")),
    "singular": lambda: whole(fit("dyestuff2_reml")),
    "not_converged": lambda: f"{stopped().summary('none')}\n"[-620:],
    "anova": lambda: f"{lmm.anova(fit('cake_factor_reml'))}\n",
    "comparison": compared,
    "ranova": lambda: f"{fit('sleepstudy_slope_reml').ranova()}\n",
    "emmeans": lambda: f"{fit('cake_linear_reml').emmeans('recipe', pairwise=True)}\n",
}


@pytest.mark.parametrize("name", PRINTOUTS)
def test_printout(name: str) -> None:
    path, text = GOLDEN / f"{name}.txt", PRINTOUTS[name]()
    if os.environ.get("LMMSPARSE_WRITE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


class Cells(HTMLParser):
    """The cells of all tables, and whether every tag is closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("th", "td"):
            self.cells[-1] += data


def test_html_shows_what_is_printed() -> None:
    m = fit("dyestuff2_reml")
    page = m._repr_html_()
    cells = Cells(page).cells
    for word in ("REML criterion", "Variance", "Batch", "5.6656", "Pr(>|t|)"):
        assert word in cells
    assert "The fit is singular" in page
    assert "13.81" in Cells(m.varcorr._repr_html_()).cells
    table = lmm.anova(fit("sleepstudy_diag_ml"), fit("sleepstudy_slope_ml"))
    assert "Pr(>Chisq)" in Cells(table._repr_html_()).cells


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.convergence, ("converged; expected further decrease",)),
        (lambda m: m.profile("sigma"), ("Profile likelihood", ">22.", ">28.")),
        (lambda m: m.bootstrap(9, rng=1), ("9 replicates", "Bias", "sd_Days|Subject")),
        (lambda m: m.influence(), ("of single rows", "Cook", ">30<")),
        (lambda m: m.influence("Subject"), ("of levels of Subject", ">309<")),
        (lambda m: m.step(), ("Eliminated", "Model found: Reaction ~ Days + (Days | Subject)")),
    ],
)
def test_what_methods_return_prints_and_has_html(call: Any, words: tuple[str, ...]) -> None:
    value = call(fit("sleepstudy_slope_reml"))
    page, text = value._repr_html_(), repr(value)
    Cells(page)
    for word in words:
        assert word in page
        assert word.strip("<>") in text
    assert "object at" not in text


def test_arrays_of_a_model_do_not_flood_the_screen() -> None:
    text = repr(fit("sleepstudy_slope_reml").fit)
    assert text == (
        "Fit by Blocked(), REML criterion 1743.6283, of\n"
        "Design of Reaction: 180 rows, 2 fixed effects, random effects (Days|Subject): 18 × 2\n"
        "Linear algebra: elimination of 18 levels with 2 effects each, no core"
    )


def test_values_by_group_have_html() -> None:
    m = fit("sleepstudy_slope_reml")
    assert "Subject" in m.ranef._repr_html_()
    assert "309" in m.ranef._repr_html_()
    assert "<pre>array(" in m.cond_var._repr_html_()


def test_findings_have_html_and_stay_data() -> None:
    m = fit("dyestuff2_reml")
    (finding,) = m.convergence.findings
    assert finding._repr_html_().count("singular") >= 2
    assert f"- {finding}" in str(m.convergence)
    assert finding.message.split(".")[0] in m.convergence._repr_html_()


def test_names_cannot_break_out() -> None:
    name = "<b>&|_$"
    table = lmm.Table({name: [1.0, -2e-9]}, ["<none>", "a_b%"], title="x < y & z", notes=["a|b"])
    assert Cells(table._repr_html_()).cells[1] == name
    assert "<b>" not in table._repr_html_()
    latex = table.to_latex()
    assert r"\textless{}b\textgreater{}\&\textbar{}\_\$" in latex
    assert r"a\_b\% & $-2.000 \times 10^{-9}$ \\" in latex
    lines = table.to_markdown().splitlines()
    assert lines[0] == r"**x \< y & z**"
    assert lines[2] == r"|  | \<b>&\|_$ |"
    assert lines[-1] == r"a\|b"


def test_markdown_and_latex_have_all_cells() -> None:
    summary = fit("sleepstudy_slope_reml").summary()
    markdown, latex = summary.to_markdown(), summary.to_latex()
    assert r"| Intercept | 251.405 | 6.825 | 17 | 36.838 | \<2e-16 |" in markdown
    assert "| Subject | Intercept | 612.09 | 24.740 |  |" in markdown
    assert r"Days & 10.467 & 1.546 & 17 & 6.771 & $3.26 \times 10^{-6}$ \\" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\bottomrule") == 2
    assert fit("sleepstudy_slope_reml").varcorr.to_latex() in latex
    assert fit("sleepstudy_slope_reml").varcorr.to_markdown() in markdown


def test_heads_of_correlations_stay_different_and_narrow() -> None:
    rng = np.random.default_rng(3)
    names = [f"a_rather_long_name_of_predictor_{i}" for i in range(10)]
    data = pd.DataFrame(rng.normal(size=(200, 10)), columns=names)
    data["g"] = np.repeat(np.arange(20), 10)
    data["y"] = rng.normal(size=200) + rng.normal(size=20)[data["g"]]
    text = str(lmm.lmer(f"y ~ {' + '.join(names)} + (1 | g)", data).summary())
    block = text.split("Correlation of fixed effects:\n")[1].split("\n\n")[0]
    heads = block.splitlines()[0].split()
    assert len(set(heads)) == 10
    assert max(map(len, block.splitlines())) < 130


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert number(-0.0004, 3) == "0.000"
    assert number(-0.0006, 3) == "-0.001"


def test_infinite_degrees_of_freedom_are_written_alike() -> None:
    m = fit("cake_linear_reml")
    for table in (m.coef_table("asymptotic"), m.emmeans("recipe", ddf="asymptotic")):
        assert " Inf " in str(table)
        assert " inf " not in str(table)


def test_zeros_that_end_a_number_are_left_out_where_they_are_all_of_it() -> None:
    assert as_precise_as([0.250002])([0.147892]) == ["0.1479"]
    assert as_precise_as([0.25])([0.15]) == ["0.15"]
    assert as_precise_as([9.0498])([298.5079]) == ["298.508"]


def test_the_package_shows_what_is_meant_to_be_used() -> None:
    assert {"lmer", "anova", "load_dataset", "errors", "interop"} <= set(dir(lmm))
    assert not {"tangents", "moments", "held"} & set(dir(lmm))
