"""Five models with published lmer results → our summaries and, beside them, lmer's figures.

The figures are those of the published comparison of lmer and statsmodels, digit by digit.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import numpy as np

from lmmsparse.common.render import aligned
from lmmsparse.data.datasets import load_dataset
from lmmsparse.model.linear import LinearMixedModel
from lmmsparse.model.lmer import anova, fit_arrays, lmer


@dataclass(frozen=True)
class Published:
    """What lmer found for one model (REML), as `data/published.toml` describes it."""

    dataset: str
    formula: str
    criterion: str
    loglik: str
    fixef: list[tuple[str, str, str]]
    varcorr: list[tuple[str, str, str]]
    residual: str


def published() -> list[Published]:
    """The five models, as `data/published.toml` has them."""
    text = (resources.files("lmmsparse") / "data" / "published.toml").read_text("utf-8")
    return [Published(**model) for model in tomllib.loads(text)["model"]]


# lmer's own stopping rule leaves the last published digits open by about this much.
RELATIVE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Figure:
    """One number of lmer's, as published, beside ours."""

    label: str
    published: str
    value: float

    @property
    def shown(self) -> str:
        """Ours, with as many digits as the published text has."""
        decimals, exponent = _digits(self.published)
        return f"{self.value:.{decimals}{'f' if exponent == 0 else 'e'}}"

    @property
    def difference(self) -> float:
        """Ours minus lmer's."""
        return self.value - float(self.published)

    @property
    def agrees(self) -> bool:
        """Whether the two differ by no more than rounding and lmer's stopping rule explain."""
        decimals, exponent = _digits(self.published)
        rounding = 0.51 * 10.0 ** (exponent - decimals)
        allowed = max(rounding, RELATIVE_TOLERANCE * abs(float(self.published)))
        return abs(self.difference) <= allowed


def _digits(text: str) -> tuple[int, int]:
    """Decimals and power of ten of a printed number."""
    mantissa, _, exponent = text.partition("e")
    return len(mantissa.partition(".")[2]), int(exponent or 0)


def compare(given: Published, model: LinearMixedModel) -> Iterator[Figure]:
    """Pair every published number of a model with ours."""
    yield Figure("REML criterion", given.criterion, model.reml_criterion)
    yield Figure("log-likelihood", given.loglik, model.loglik)
    for name, estimate, error in given.fixef:
        yield Figure(name, estimate, float(model.fixef[name]))
        if error:
            yield Figure(f"  std. error of {name}", error, float(model.se[name]))
    found = {
        frozenset(name for name in (row["var1"], row["var2"]) if isinstance(name, str)): row["vcov"]
        for row in model.varcorr.to_frame().to_dict("records")
    }
    for var1, var2, value in given.varcorr:
        label = f"covariance of {var1} and {var2}" if var2 else f"variance of {var1}"
        yield Figure(label, value, float(found[frozenset({var1, var2} - {""})]))
    yield Figure("residual variance", given.residual, model.sigma**2)


def run_demo() -> int:
    """Fit the five models, print lmer's figures beside ours; 0 when every figure agrees, else 1."""
    models = []
    figures: list[Figure] = []
    for number, given in enumerate(published(), start=1):
        model = lmer(given.formula, load_dataset(given.dataset))
        pairs = list(compare(given, model))
        _print_heading(f"{number}. {given.formula}    ({given.dataset})")
        print(model.summary())
        print(f"\n{_side_by_side(pairs)}")
        models.append(model)
        figures += pairs
    _compare_pig_models(correlated=models[1], independent=models[2])
    _fit_sitka_from_arrays(models[3])
    agreeing = sum(figure.agrees for figure in figures)
    print(f"\n{agreeing} of {len(figures)} figures agree with lmer's.")
    return 0 if agreeing == len(figures) else 1


def _compare_pig_models(*, correlated: LinearMixedModel, independent: LinearMixedModel) -> None:
    _print_heading("Do the pigs' intercepts and slopes correlate? Model 3 against model 2")
    print(anova(independent, correlated))
    gap = independent.reml_criterion - correlated.reml_criterion
    rows = correlated.varcorr.to_frame()
    correlation = rows.loc[(rows["var1"] == "Intercept") & (rows["var2"] == "Time"), "sdcor"]
    print(f"\nThe REML criteria differ by {gap:.2f} on 1 degree of freedom (lmer: 0.60);")
    print(f"the estimated correlation is {correlation.item():.3f} (lmer: 0.103).")


def _fit_sitka_from_arrays(by_formula: LinearMixedModel) -> None:
    _print_heading("Model 4 from arrays: fit_arrays(y, X, [(tree, None)])")
    sitka = load_dataset("Sitka")
    X = np.column_stack([np.ones(len(sitka)), sitka["Time"]])
    model = fit_arrays(sitka["size"].to_numpy(), X, [(sitka["tree"].to_numpy(), None)])
    print(f"REML criterion {model.reml_criterion:.6f}, by formula {by_formula.reml_criterion:.6f}")


def _side_by_side(figures: list[Figure]) -> str:
    rows = [
        [
            figure.label,
            figure.published,
            figure.shown,
            "0" if figure.shown == figure.published else f"{figure.difference:.1e}",
            "" if figure.agrees else "<- differs",
        ]
        for figure in figures
    ]
    return aligned(["", "lmer", "  here", "difference", ""], rows)


def _print_heading(text: str) -> None:
    print(f"\n{'=' * 88}\n{text}\n{'=' * 88}")
