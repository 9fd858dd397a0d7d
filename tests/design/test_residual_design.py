"""``residual=`` and ``residual_sd=``: what is read from text and data, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from residual_models import teeth

import lmmsparse as lmm
from lmmsparse.formula.residual import parse_residual, parse_residual_sd


def _fit(**options: Any) -> Any:
    data = options.pop("data", None)
    formula = options.pop("formula", "y ~ visit + (1 | child)")
    return lmm.lmer(formula, teeth() if data is None else data, **options)


def test_text_is_taken_apart() -> None:
    found = parse_residual(" car1( age |site:child )")
    assert (found.kind, found.time, found.factors) == ("car1", "age", ("site", "child"))
    assert parse_residual("cs(1 | g)").time == "1"
    assert parse_residual_sd("~ log(x) + f") == "1 + log(x) + f"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("arma(visit | child)", "'arma', which is not known.*Known are ar1"),
        ("ar2(visit | child)", "Did you mean"),
        ("ar1", "cannot be read"),
        ("ar1(visit)", "grouping"),
        ("ar1( | child)", "left of"),
        ("ar1(1 | child)", "does not say when"),
        ("us(1 | child)", "does not say when"),
        ("ar1(visit + age | child)", "more than one time"),
        ("ar1(visit | site/child)", "one grouping"),
        ("ar1(visit | child) + ar1(age | child)", "one time and one grouping"),
        ("ar1(nothing | child)", "'nothing'"),
        ("ar1(visit | nobody)", "'nobody'"),
        (3, "must be text"),
    ],
)
def test_residual_that_cannot_be_read(text: Any, says: str) -> None:
    with pytest.raises((lmm.LmmError, TypeError, ValueError), match=says):
        _fit(residual=text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sex", "starts with ~"),
        ("~ 1", "no terms"),
        ("~ 0 + sex", "leaves out the intercept"),
        ("~ sex + (1 | child)", "random effects or an offset"),
        ("~ sex + offset(age)", "random effects or an offset"),
        ("~ nothing", "'nothing'"),
        (["sex"], "one-sided formula"),
    ],
)
def test_residual_sd_that_cannot_be_read(text: Any, says: str) -> None:
    with pytest.raises(lmm.LmmError, match=says):
        _fit(residual_sd=text)


def _changed(**columns: Any) -> pd.DataFrame:
    return teeth().assign(**columns)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"residual": "ar1(visit | child)", "data": _changed(visit=1)},
            r"two rows of c00 at visit = 1 .*time of its own",
        ),
        (
            {"residual": "us(visit | child)", "data": _changed(visit=1), "formula": "y ~ age"},
            r"two rows of c00 at visit = 1",
        ),
        ({"residual": "ar1(age | child)"}, r"must be whole numbers.*10\.3 is none.*Use car1"),
        (
            {"residual": "car1(age | child)", "data": _changed(age=teeth()["age"] - 10)},
            "is negative in .*subtract the smallest",
        ),
        (
            {"residual": "ar1(visit | child)", "data": _changed(visit=teeth()["visit"] - 2)},
            "is negative",
        ),
        (
            {"residual": "car1(age | child)", "data": _changed(age=np.inf), "formula": "y ~ visit"},
            "infinite",
        ),
        (
            {"residual": "ar1(sex | child)", "formula": "y ~ visit"},
            "text, whose order is not known",
        ),
        (
            {"residual": "ar1(visit | row)", "data": _changed(row=np.arange(len(teeth())))},
            "single row in every group.*no pair",
        ),
        (
            {"residual": "ar1(visit | sex)", "data": teeth().drop_duplicates(["sex", "visit"])},
            "several levels of 'child'.*fill",
        ),
        ({"residual": "cs(1 | sex)"}, "several levels of 'child'.*fill.*child:sex"),
        (
            {"residual": "us(visit | child)", "data": teeth().head(14), "formula": "y ~ visit"},
            "too few.*more groups than visits",
        ),
        (
            {"residual_sd": "~ log(visit)", "data": _changed(visit=teeth()["visit"] - 1)},
            "infinite.*logarithm of zero",
        ),
        ({"residual_sd": "~ one", "data": _changed(one=2.5)}, "same in all rows.*sigma"),
        ({"residual_sd": "~ visit + I(2 * visit)"}, "linearly dependent"),
        (
            {"residual": "us(visit | child)", "residual_sd": "~ sex", "fixed": {"sd.2": 1.0}},
            "cannot be held one by one",
        ),
        ({"residual": "ar1(visit | child)", "fixed": {"Phi": 1.5}}, "correlation that ar1"),
        ({"residual": "ar1(visit | child)", "fixed": {"Rho": 0.5}}, "'Rho'.*Phi"),
    ],
)
def test_data_that_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(lmm.LmmError, match=says):
        _fit(**options)


def test_a_visit_that_is_never_seen() -> None:
    visit = pd.Categorical(teeth()["visit"], [1, 2, 3, 4, 5])
    with pytest.raises(lmm.DataError, match="visit 5 of 'visit' is never seen"):
        _fit(residual="us(visit | child)", data=_changed(visit=visit), formula="y ~ sex")


def test_visits_that_are_never_seen_together() -> None:
    data = teeth()
    early = data["child"] < "c13"
    data = data[(early & (data["visit"] < 3)) | (~early & (data["visit"] > 2))]
    with pytest.raises(lmm.NotIdentifiableError, match="visits 1 and 3 are seen together in 0"):
        _fit(residual="us(visit | child)", data=data, formula="y ~ sex")


@pytest.mark.parametrize("column", ["visit", "child", "age"])
def test_missing_values_leave_out_rows(column: str) -> None:
    data = teeth()
    data[column] = data[column].astype(object)
    data.loc[[4, 20], column] = np.nan
    if column != "child":
        data[column] = data[column].astype(float)
    options = {"residual": "ar1(visit | child)", "residual_sd": "~ log(age)"}
    m = lmm.lmer("y ~ sex", data, **options)  # type: ignore[arg-type]
    want = lmm.lmer("y ~ sex", data.drop(index=[4, 20]), **options)  # type: ignore[arg-type]
    assert m.nobs == len(data) - 2
    assert m.fit.criterion == pytest.approx(want.fit.criterion, abs=1e-7)


def test_order_of_the_rows_and_labels_do_not_matter() -> None:
    data = teeth()
    order = np.random.default_rng(0).permutation(len(data))
    for options in (
        {"residual": "ar1(visit | child)", "residual_sd": "~ sex"},
        {"residual": "us(visit | child)"},
        {"residual": "cs(visit | child)"},
    ):
        m = lmm.lmer("y ~ visit", data, **options)  # type: ignore[arg-type]
        other = lmm.lmer("y ~ visit", data.iloc[order], **options)  # type: ignore[arg-type]
        assert other.fit.criterion == pytest.approx(m.fit.criterion, abs=1e-7)
        np.testing.assert_allclose(
            other.residuals_of("normalized").sort_index(), m.residuals_of("normalized"), atol=1e-5
        )


def test_units_do_not_matter() -> None:
    data = teeth()
    m = lmm.lmer("y ~ sex", data, residual="car1(age | child)", residual_sd="~ age")
    days = data.assign(age=365.25 * data["age"])
    other = lmm.lmer("y ~ sex", days, residual="car1(age | child)", residual_sd="~ age")
    assert other.fit.criterion == pytest.approx(m.fit.criterion, abs=1e-7)
    own, rescaled = m.residual.parameters, other.residual.parameters
    assert rescaled["Phi"] == pytest.approx(own["Phi"] ** (1 / 365.25), rel=1e-5)
    assert rescaled["logsd.age"] == pytest.approx(own["logsd.age"] / 365.25, rel=1e-3)


@pytest.mark.long
def test_where_the_origin_is_does_not_matter() -> None:
    """σ is that of year 0; everything else is the same."""
    data = teeth().assign(year=lambda d: 400.0 + d["visit"], since=lambda d: d["visit"] - 2.5)
    for formula in ("y ~ since * sex + (since | child)", "y ~ since", "y ~ since + (1 | child)"):
        m = lmm.lmer(formula, data, residual_sd="~ since + sex")
        other = lmm.lmer(formula, data, residual_sd="~ year + sex")
        assert other.convergence.converged
        assert other.fit.criterion == pytest.approx(m.fit.criterion, abs=1e-6)
        np.testing.assert_allclose(other.se, m.se, rtol=1e-5)
        np.testing.assert_allclose(
            other.residual.parameters.to_numpy(),
            m.residual.parameters.to_numpy(),
            rtol=1e-3,
            atol=1e-4,
        )
        tables = [each.coef_table("satterthwaite").to_frame()["df"] for each in (m, other)]
        np.testing.assert_allclose(tables[1], tables[0], rtol=1e-3)
        tables = [each.coef_table("kenward-roger").to_frame()["df"] for each in (m, other)]
        np.testing.assert_allclose(tables[1], tables[0], rtol=1e-3)
    later = data.assign(year=lambda d: 20.0 + d["visit"])
    other = lmm.lmer(formula, later, residual_sd="~ year + sex")
    for names in (("logsd.since", "logsd.year"), ("sd_Intercept|child",) * 2, ("since",) * 2):
        limits = [
            each.confint(which=n).to_numpy() for each, n in zip((m, other), names, strict=True)
        ]
        np.testing.assert_allclose(limits[1], limits[0], rtol=1e-3, atol=1e-4)


def test_gaps_are_known() -> None:
    """Missed occasions count: Φ² between the first and the third."""
    data = teeth()
    m = lmm.lmer("y ~ sex", data, residual="ar1(visit | child)")
    other = lmm.lmer("y ~ sex", data, residual="car1(visit | child)")
    assert other.fit.criterion == pytest.approx(m.fit.criterion, abs=1e-7)
    assert other.residual.parameters["Phi"] == pytest.approx(m.residual.parameters["Phi"], rel=1e-4)


def test_visits_of_a_categorical_are_occasions() -> None:
    data = teeth()
    names = pd.Categorical.from_codes(data["visit"] - 1, ["baseline", "week 1", "week 2", "week 3"])
    m = lmm.lmer("y ~ sex", data, residual="ar1(visit | child)")
    other = lmm.lmer("y ~ sex", data.assign(visit=names), residual="ar1(visit | child)")
    assert other.fit.criterion == pytest.approx(m.fit.criterion, abs=1e-9)


def test_text_that_holds_numbers_is_ordered_by_them() -> None:
    """Not v1, v10, v2, …; the same for new data."""
    data = teeth()
    m = lmm.lmer("y ~ sex", data, residual="ar1(visit | child)")
    named = data.assign(visit=[f"v{7 + visit}" for visit in data["visit"]])
    other = lmm.lmer("y ~ sex", named, residual="ar1(visit | child)")
    assert other.fit.criterion == pytest.approx(m.fit.criterion, abs=1e-9)
    rows, left = named.iloc[3:4], named.drop(index=named.index[3])
    part = lmm.lmer("y ~ sex", left, residual="ar1(visit | child)")
    plain = lmm.lmer("y ~ sex", data.drop(index=data.index[3]), residual="ar1(visit | child)")
    assert part.predict(rows).iloc[0] == pytest.approx(plain.predict(data.iloc[3:4]).iloc[0])


def test_text_without_an_order_is_refused(tmp_path: Path) -> None:
    data, order = teeth(), ["baseline", "later", "then", "last"]
    names = np.array(order)[data["visit"] - 1]
    with pytest.raises(lmm.DataError, match=r"text, whose order is not known.*pandas.Categorical"):
        lmm.lmer("y ~ sex", data.assign(visit=names), residual="ar1(visit | child)")
    listed = data.assign(visit=pd.Categorical(names, order))
    m = lmm.lmer("y ~ sex", listed, residual="ar1(visit | child)")
    m.save(tmp_path / "m.lmm")
    for model in (m, lmm.load(tmp_path / "m.lmm")):
        with pytest.raises(lmm.DataError, match="whose order new data do not have"):
            model.predict(listed.iloc[:2])


def test_generalized_models_refuse_it_by_name() -> None:
    data = teeth().assign(z=lambda d: (d["y"] > 21).astype(int))
    for option in ({"residual": "ar1(visit | child)"}, {"residual_sd": "~ sex"}):
        with pytest.raises(lmm.OptionError, match=f"no option {next(iter(option))!r}.*lmm.lmer"):
            lmm.glmer("z ~ visit + (1 | child)", data, "binomial", **option)  # type: ignore[arg-type]


@pytest.mark.long
def test_pairs_of_rows_in_large_groups() -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.normal(size=8000), "x": rng.uniform(1, 5, 8000)})
    data = data.assign(g=np.arange(8000) // 2000, f=np.arange(8000) % 3)
    with pytest.raises(lmm.DataError, match=r"8e\+06 pairs of rows"):
        lmm.lmer("y ~ 1", data, residual="cs(1 | g)", residual_sd="~ x")
    m = lmm.lmer("y ~ 1", data, residual="cs(1 | g)", residual_sd="~ C(f)")
    assert m.convergence.converged


def test_no_random_effects_without_a_structure() -> None:
    with pytest.raises(lmm.FormulaError, match=r"no random-effects term.*residual="):
        lmm.lmer("y ~ visit", teeth())
