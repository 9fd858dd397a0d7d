"""The scikit-learn regressor: its checks, and cross-validation over groups."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import DataError, OptionError

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from lmmsparse.interop.sklearn import LinearMixedModelRegressor

pytestmark = pytest.mark.filterwarnings("ignore::lmmsparse.errors.LmmWarning")


class _Deal:
    """Five groups by position: the tables of scikit-learn's checks have none."""

    def __call__(self, column: pd.Series) -> Any:
        return np.arange(len(column)) % 5

    def __repr__(self) -> str:  # names the tests, which every worker must name alike
        return "deal"


deal = _Deal()


@parametrize_with_checks(
    [LinearMixedModelRegressor("~ . + (1 | deal(x0))", context={"deal": deal}, random=False)],
    expected_failed_checks=lambda estimator: {
        "check_regressors_no_decision_function": "its y is a column of X, so that there is no "
        "variance to estimate: an error here",
    },
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def table() -> tuple[pd.DataFrame, pd.Series]:
    data = lmm.load_dataset("sleepstudy")
    return data[["Days", "Subject"]], data["Reaction"]


def regressor(**options: Any) -> LinearMixedModelRegressor:
    return LinearMixedModelRegressor("~ Days + (Days | Subject)", **options)


def test_it_is_lmer() -> None:
    X, y = table()
    m = lmm.lmer("Reaction ~ Days + (Days | Subject)", X.assign(Reaction=y))
    fitted = regressor().fit(X, y)
    np.testing.assert_allclose(fitted.predict(X), m.fitted, rtol=1e-12)
    np.testing.assert_allclose(
        regressor(random=False).fit(X, y).predict(X), m.predict(random=False), rtol=1e-12
    )
    assert fitted.score(X, y) > 0.8
    assert fitted.feature_names_in_.tolist() == ["Days", "Subject"]


def test_polars_tables_are_read() -> None:
    pl = pytest.importorskip("polars")
    X, y = table()
    X = X.assign(Subject=X["Subject"].astype(str))
    got = regressor().fit(pl.from_pandas(X), y.to_numpy()).predict(pl.from_pandas(X))
    np.testing.assert_allclose(got, regressor().fit(X, y).predict(X), rtol=1e-12)


def test_cross_validation_over_groups_predicts_new_ones_by_the_population() -> None:
    X, y = table()
    folds = GroupKFold(6)
    got = cross_val_predict(regressor(), X, y, groups=X["Subject"], cv=folds)
    for train, test in folds.split(X, y, X["Subject"]):
        m = lmm.lmer("y ~ Days + (Days | Subject)", X.iloc[train].assign(y=y.iloc[train]))
        np.testing.assert_allclose(got[test], m.predict(X.iloc[test], random=False), rtol=1e-10)


def test_it_fits_into_scikit_learns_tools() -> None:
    X, y = table()
    search = GridSearchCV(
        regressor(),
        {"formula": ["~ Days + (1 | Subject)", "~ 1 + (1 | Subject)"]},
        cv=GroupKFold(3),
    ).fit(X, y, groups=X["Subject"])
    assert search.best_params_["formula"] == "~ Days + (1 | Subject)"
    pipeline = make_pipeline("passthrough", clone(regressor())).fit(X, y)
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(again.predict(X), pipeline.predict(X))


@pytest.mark.parametrize("name", ["y", "y_", "Reaction"])
def test_a_response_named_like_a_column(name: str) -> None:
    X, y = table()
    named = X.rename(columns={"Days": name})
    formula = f"~ {name} + (1 | Subject)"
    got = LinearMixedModelRegressor(formula).fit(named, y).predict(named)
    want = LinearMixedModelRegressor("~ Days + (1 | Subject)").fit(X, y).predict(X)
    np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize(
    ("formula", "kind", "text"),
    [
        ("Days", OptionError, "formula must be a formula, not 'Days'"),
        (None, OptionError, "formula must be a formula, not None"),
        ("log(y) ~ Days + (1|Subject)", OptionError, "TransformedTargetRegressor"),
        ("Days ~ 1 + (1|Subject)", OptionError, "'Days' is a column of X"),
        ("~ Dys + (1|Subject)", DataError, "Did you mean 'Days'"),
    ],
)
def test_wrong_formulas_are_explained(formula: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind) as error:
        LinearMixedModelRegressor(formula).fit(*table())
    assert text in str(error.value)


def test_missing_columns_are_named() -> None:
    fitted = regressor().fit(*table())
    with pytest.raises(ValueError, match="Subject"):
        fitted.predict(table()[0][["Days"]])


def test_coefficients() -> None:
    X, y = table()
    fitted = regressor().fit(X, y)
    effects = fitted.model_.fixef
    assert fitted.intercept_ == effects["Intercept"]
    np.testing.assert_array_equal(fitted.coef_, effects[["Days"]])
    assert fitted.coef_names_.tolist() == ["Days"]
    population = LinearMixedModelRegressor("~ Days + (Days | Subject)", random=False).fit(X, y)
    line = population.intercept_ + X[["Days"]].to_numpy() @ population.coef_
    np.testing.assert_allclose(population.predict(X), line)
    without = LinearMixedModelRegressor("~ 0 + Days + (1 | Subject)").fit(X, y)
    assert without.intercept_ == 0.0


def test_arrays_without_names() -> None:
    X, y = table()
    named = regressor(columns=["Days", "Subject"])
    plain = LinearMixedModelRegressor("~ x0 + (x0 | x1)")
    right = regressor().fit(X, y).predict(X)
    for one in (named, plain):
        np.testing.assert_allclose(one.fit(X.to_numpy(), y).predict(X.to_numpy()), right)
    scaled = make_pipeline(StandardScaler(), clone(named)).fit(X, y)
    np.testing.assert_allclose(scaled.predict(X), right, rtol=1e-6)
    assert scaled[-1].coef_[0] == pytest.approx(10.467286 * X["Days"].std(ddof=0), rel=1e-5)
    tables = make_pipeline(StandardScaler(), regressor()).set_output(transform="pandas")
    np.testing.assert_allclose(tables.fit(X, y).predict(X), right, rtol=1e-6)
    with pytest.raises(OptionError, match="'Days', but X is an array, whose columns are x0, x1"):
        make_pipeline(StandardScaler(), regressor()).fit(X, y)
    with pytest.raises(OptionError, match="give a name for each"):
        regressor(columns=["Days"]).fit(X.to_numpy(), y)
