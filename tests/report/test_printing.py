"""Printouts against golden files; HTML, Markdown and LaTeX of tables and summaries.

``LMMSPARSE_WRITE=1 pytest tests/report/test_printing.py`` writes the golden files anew.
"""

from __future__ import annotations

import io
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
from lmmsparse.common.table import as_precise_as, by_width, number, p_values

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


def test_p_values_of_a_column_have_the_same_decimals() -> None:
    assert p_values([0.00048, 0.3296, 0.05]) == ["0.000480", "0.329600", "0.050000"]
    assert p_values([0.0012, 0.3296]) == ["0.0012", "0.3296"]
    assert p_values([3.26e-6, 0.04, 1e-20, np.nan]) == ["3.26e-06", "0.0400", "<2e-16", ""]


def test_limits_have_the_decimals_that_their_width_deserves() -> None:
    limits = by_width([14.3814, -0.4815, 237.6807, 0.0], [37.716, 0.6850, 265.1295, np.inf])
    assert limits([14.3814, -0.4815, 237.6807, 0.0]) == ["14.4", "-0.48", "237.7", "0.00"]
    assert limits([37.716, 0.6850, 265.1295, np.inf]) == ["37.7", "0.69", "265.1", "Inf"]


@pytest.mark.parametrize("columns", ["confint", "predict", "tidy", "ranef", "glance"])
def test_frames_are_shown_as_tables(columns: str) -> None:
    m = fit("sleepstudy_slope_reml")
    frames = {
        "confint": lambda: m.confint("wald", which="beta_"),
        "predict": lambda: m.predict(se=True).head(3),
        "tidy": lambda: m.tidy(["fixed", "ran_pars"]),
        "ranef": lambda: m.ranef["Subject"].head(3),
        "glance": m.glance,
    }
    data = frames[columns]()
    table = lmm.Table.from_frame(data, title="A title", notes=["A note."])
    text = str(table)
    assert text.startswith("A title\n")
    assert text.endswith("A note.")
    shown = {
        "confint": "238.0  264.8",
        "predict": "253.664  12.255  229.645  277.683",
        "tidy": "fixed     Intercept             251.405      6.825     36.838  17    <2e-16",
        "ranef": "308      2.259   9.199",
        "glance": " 180  25.59  -871.8",
    }[columns]
    assert " ".join(shown.split()) in " ".join(text.split())
    numbers = data.select_dtypes("number")
    back = table.to_frame()[list(numbers.columns)]
    assert np.array_equal(back.to_numpy(), numbers.to_numpy(), equal_nan=True)


def test_a_frame_must_be_one() -> None:
    with pytest.raises(lmm.OptionError, match="a pandas DataFrame or Series"):
        lmm.Table.from_frame([1.0])
    series = fit("sleepstudy_slope_reml").fixef
    assert "251.41" in str(lmm.Table.from_frame(series))


def test_tables_as_html_csv_latex_and_styler() -> None:
    table = fit("sleepstudy_slope_reml").coef_table(level=0.95)
    assert Cells(table.to_html()).cells[1:3] == ["Estimate", "Std. Error"]
    text = table.to_csv()
    assert text is not None
    read = pd.read_csv(io.StringIO(text), index_col=0)
    assert np.allclose(read, table.to_frame(), rtol=1e-14)
    latex = table.to_latex(caption="Days & nights", label="tab:days")
    assert latex.startswith("\\begin{table}\n\\centering\n\\caption{Days \\& nights}")
    assert "\\label{tab:days}" in latex
    assert table.to_latex() in latex
    pytest.importorskip("jinja2")
    page = table.style.to_html()
    assert ">251.405<" in page
    assert ">&lt;2e-16<" in page or "><2e-16<" in page
    means = fit("cake_linear_reml").emmeans("recipe")
    assert ">A<" in means.style.to_html()


def test_limits_of_the_coefficient_table_belong_to_its_tests() -> None:
    m = fit("sleepstudy_slope_reml")
    frame = m.coef_table(level=0.9).to_frame()
    tidy = m.tidy(conf_int=True, level=0.9).set_index("term")
    assert np.allclose(frame[["lower.CL", "upper.CL"]], tidy[["conf_low", "conf_high"]])
    normal = m.coef_table("none", level=0.95).to_frame()
    assert np.allclose(normal[["lower.CL", "upper.CL"]], m.confint("wald", which="beta_"))


def test_the_printout_says_once_what_was_left_out() -> None:
    m = fit("dietox_missing_reml")
    for text in (repr(m), str(m.summary())):
        assert text.count("72 of 861 rows left out: values are missing") == 1
        assert "Note" not in text


def test_correlations_have_a_key_where_names_are_long() -> None:
    text = str(fit("dietox_litter_reml").summary())
    block = text.split("Correlation of fixed effects:\n")[1].split("\n\n")[0].splitlines()
    assert block[0].split() == [f"({i})" for i in range(1, 10)]
    assert block[-1] == "(10) Evit[T.Evit200]:Cu[T.Cu175]"
    assert max(map(len, block)) <= 88
    cor = fit("dietox_litter_reml").vcov
    sd = np.sqrt(np.diag(cor))
    assert f"{cor.iloc[2, 0] / sd[2] / sd[0]:.3f}" == block[2].split()[1]
