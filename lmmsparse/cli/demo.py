"""Five models with published lmer results → our summaries and, beside them, lmer's figures.

The figures are those of the published comparison of lmer and statsmodels, digit by digit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.render import aligned
from lmmsparse.data.datasets import load_dataset
from lmmsparse.lmer import anova, fit_arrays, lmer
from lmmsparse.model import LinearMixedModel


@dataclass(frozen=True)
class Published:
    """What lmer found for one model (REML), digits as published.

    Attributes
    ----------
    dataset, formula : str
        The data and the model.
    criterion, loglik : str
        REML criterion and restricted log-likelihood.
    fixef : tuple of (name, estimate, standard error or "")
        Fixed effects.
    varcorr : tuple of (var1, var2 or "", value)
        Variances and covariances of the random effects.
    residual : str
        Residual variance σ².
    """

    dataset: str
    formula: str
    criterion: str
    loglik: str
    fixef: tuple[tuple[str, str, str], ...]
    varcorr: tuple[tuple[str, str, str], ...]
    residual: str


PUBLISHED = (
    Published(
        dataset="dietox",
        formula="Weight ~ Time + (1|Pig)",
        criterion="4809.550672",
        loglik="-2404.7753",
        fixef=(("Intercept", "15.723523", "0.788"), ("Time", "6.942505", "0.033")),
        varcorr=(("Intercept", "", "40.393952"),),
        residual="11.366919",
    ),
    Published(
        dataset="dietox",
        formula="Weight ~ Time + (1+Time|Pig)",
        criterion="4434.094918",
        loglik="-2217.0475",
        fixef=(("Intercept", "15.738650", "0.550"), ("Time", "6.939014", "0.080")),
        varcorr=(
            ("Intercept", "", "19.493450"),
            ("Time", "", "0.416062"),
            ("Intercept", "Time", "0.293832"),
        ),
        residual="6.037450",
    ),
    Published(
        dataset="dietox",
        formula="Weight ~ Time + (1|Pig) + (0+Time|Pig)",
        criterion="4434.696128",
        loglik="-2217.3481",
        fixef=(("Intercept", "15.738750", "0.554"), ("Time", "6.938991", "0.080")),
        varcorr=(("Intercept", "", "19.840877"), ("Time", "", "0.423383")),
        residual="6.028198",
    ),
    Published(
        dataset="Sitka",
        formula="size ~ Time + (1|tree)",
        criterion="164.776806",
        loglik="-82.3884",
        fixef=(("Intercept", "2.273244", "0.088"), ("Time", "0.012685", "")),
        varcorr=(("Intercept", "", "0.374513"),),
        residual="0.039206",
    ),
    Published(
        dataset="Sitka",
        formula="size ~ Time + (1+Time|tree)",
        criterion="124.966889",
        loglik="-62.4834",
        fixef=(("Intercept", "2.273244", "0.101"), ("Time", "0.012685", "")),
        varcorr=(
            ("Intercept", "", "0.646457"),
            ("Time", "", "7.31667e-06"),
            ("Intercept", "Time", "-0.00140594"),
        ),
        residual="0.0264416",
    ),
)

# lmer's own stopping rule leaves the last published digits open by about this much.
RELATIVE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Figure:
    """One number of lmer's beside ours.

    Attributes
    ----------
    label : str
        What the number is.
    published : str
        lmer's, as published.
    value : float
        Ours.
    """

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


def compare(published: Published, model: LinearMixedModel) -> Iterator[Figure]:
    """Pair every published number of a model with ours.

    Parameters
    ----------
    published : Published
        lmer's results.
    model : LinearMixedModel
        The same model, fitted here.

    Yields
    ------
    Figure
        In the order criterion, fixed effects, variances.
    """
    yield Figure("REML criterion", published.criterion, model.reml_criterion)
    yield Figure("log-likelihood", published.loglik, model.loglik)
    for name, estimate, error in published.fixef:
        yield Figure(name, estimate, float(model.fixef[name]))
        if error:
            yield Figure(f"  std. error of {name}", error, float(model.se[name]))
    found = {
        frozenset(name for name in (row["var1"], row["var2"]) if isinstance(name, str)): row["vcov"]
        for row in model.varcorr.to_frame().to_dict("records")
    }
    for var1, var2, value in published.varcorr:
        label = f"covariance of {var1} and {var2}" if var2 else f"variance of {var1}"
        yield Figure(label, value, float(found[frozenset({var1, var2} - {""})]))
    yield Figure("residual variance", published.residual, model.sigma**2)


def run_demo() -> int:
    """Fit the five models, print each summary and lmer's figures beside ours.

    Returns
    -------
    int
        0 when every figure agrees, else 1.
    """
    models = []
    figures: list[Figure] = []
    for number, published in enumerate(PUBLISHED, start=1):
        model = lmer(published.formula, load_dataset(published.dataset))
        pairs = list(compare(published, model))
        _print_heading(f"{number}. {published.formula}    ({published.dataset})")
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
