"""Simulated data of known parameters → how often intervals cover: predictions and fixed effects.

Usage: OPENBLAS_NUM_THREADS=1 python validation/coverage.py [--replicates 500] [--jobs 1]

Writes COVERAGE.md. The truth of each case is the fit of a data set; responses are drawn from it,
refitted, and the intervals of the refit compared with what is known about the draw.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats

import lmmsparse as lmm

Array = np.ndarray[Any, np.dtype[np.float64]]
LEVEL = 0.95
DRAWS = 60
PROFILES = 5  # every so many replicates


@dataclass(frozen=True)
class Case:
    """A model whose fit to a data set is the truth."""

    title: str
    formula: str
    data: str
    weighted: bool = False

    def truth(self) -> lmm.LinearMixedModel:
        """The fit; with weights and an offset if asked for."""
        data = lmm.load_dataset(self.data)
        options: dict[str, str] = {}
        if self.weighted:
            data["w"] = np.random.default_rng(8).uniform(0.4, 2.5, len(data))
            data["shift"] = np.linspace(-20.0, 20.0, len(data))
            options = {"weights": "w", "offset": "shift"}
        return lmm.lmer(self.formula, data, **options)


CASES = {
    "six groups": Case("Dyestuff, 6 groups of 5", "Yield ~ 1 + (1 | Batch)", "Dyestuff"),
    "nested": Case("Pastes, nested, 10 × 3 × 2", "strength ~ 1 + (1 | batch/cask)", "Pastes"),
    "crossed": Case(
        "Penicillin, crossed, 24 × 6", "diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"
    ),
    "slopes": Case(
        "sleepstudy, slopes, with weights and offset",
        "Reaction ~ Days + (Days | Subject)",
        "sleepstudy",
        weighted=True,
    ),
}


def _covered(frame: pd.DataFrame, truth: Array) -> float:
    inside = (frame["lower"].to_numpy() <= truth) & (truth <= frame["upper"].to_numpy())
    return float(inside.mean())


def _random_part(model: lmm.LinearMixedModel, rng: np.random.Generator) -> Array:
    """Zb with new random effects b."""
    fit = model.fit
    total = np.zeros(fit.design.n)
    for block, T in zip(fit.design.blocks, fit.template.factors(fit.theta), strict=True):
        b = fit.sigma * rng.standard_normal((block.n_levels, block.k)) @ T.T
        total += np.einsum("nk,nk->n", block.columns, b[block.codes])
    return total


def replicates(case: Case, seeds: Sequence[int]) -> list[Mapping[str, float]]:
    """Coverage of every interval in simulated data sets."""
    truth = case.truth()
    return [_replicate(truth, seed) for seed in seeds]


def _replicate(truth: lmm.LinearMixedModel, seed: int) -> Mapping[str, float]:
    rng = np.random.default_rng([20, seed])
    design, sigma = truth.fit.design, truth.sigma
    noise = sigma / np.sqrt(design.weights_or_one)
    population = design.X @ truth.fixef.to_numpy() + design.offset_or_zero
    mean = population + _random_part(truth, rng)
    y = mean + noise * rng.standard_normal(design.n)
    again = mean + noise * rng.standard_normal(design.n)
    elsewhere = population + _random_part(truth, rng) + noise * rng.standard_normal(design.n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        m = truth.refit(y)
        out = {"singular": float(m.is_singular())}
        questions = {
            "mean of a row, its groups known": (True, "confidence", mean),
            "mean of a row, population": (False, "confidence", population),
            "new observation, groups known": (True, "prediction", again),
            "new observation, new groups": (False, "prediction", elsewhere),
        }
        for name, (random, interval, target) in questions.items():
            for draws in (0, DRAWS):
                frame = m.predict(
                    random=random, interval=interval, theta_draws=draws, rng=seed, level=LEVEL
                )
                how = "θ drawn" if draws else "θ known"
                out[f"{name} | {how}"] = _covered(frame, target)
        beta = truth.fixef.to_numpy()
        for ddf in ("asymptotic", "satterthwaite", "kenward-roger"):
            table = m.coef_table(ddf).to_frame()
            half = table["Std. Error"] * stats.t.ppf(0.5 + LEVEL / 2, table["df"])
            inside = np.abs(table["Estimate"].to_numpy() - beta) <= half.to_numpy()
            out[f"fixed effects | {ddf}"] = float(inside.mean())
        if seed % PROFILES == 0:
            limits = m.confint("profile", LEVEL, which="beta_")
            out["fixed effects | profile"] = _covered(limits, beta)
    return out


def report(results: Mapping[str, pd.DataFrame], replicates: int) -> str:
    """The tables as Markdown."""
    lines = [
        "# Coverage of intervals",
        "",
        f"`python validation/coverage.py --replicates {replicates}`. Shares of 95 % intervals that "
        "cover, in percent, with the standard error of the simulation. Truth: the REML fit of each "
        "data set; responses are drawn from it (new random effects each time) and refitted by "
        "REML. Rows of a data set are averaged.",
        "",
        f"*θ known*: limits as by default, from the joint covariance of (b, β) given the estimated "
        f"variances. *θ drawn*: `theta_draws={DRAWS}`, the variances' own uncertainty included.",
        "",
    ]
    for name, frame in results.items():
        case = CASES[name]
        lines += [
            f"## {case.title}",
            "",
            f"`{case.formula}`; {100 * frame['singular'].mean():.0f} % of the refits are singular.",
            "",
            "| interval for | θ known | θ drawn |",
            "|---|---|---|",
        ]
        predictions = [c.partition(" | ")[0] for c in frame if c.endswith("θ known")]
        for what in predictions:
            cells = [_cell(frame[f"{what} | {how}"]) for how in ("θ known", "θ drawn")]
            lines.append(f"| {what} | {' | '.join(cells)} |")
        lines += ["", "| fixed effects by | covers |", "|---|---|"]
        for how in ("asymptotic", "satterthwaite", "kenward-roger", "profile"):
            lines.append(f"| {how} | {_cell(frame[f'fixed effects | {how}'])} |")
        lines.append("")
    return "\n".join(lines)


def _cell(values: pd.Series) -> str:
    known = values.dropna()
    error = known.std(ddof=1) / np.sqrt(len(known))
    return f"{100 * known.mean():.1f} ± {100 * error:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    results = {}
    for name, case in CASES.items():
        parts = np.array_split(np.arange(options.replicates), max(1, options.replicates // 25))
        done = Parallel(n_jobs=options.jobs)(
            delayed(replicates)(case, part.tolist()) for part in parts
        )
        results[name] = pd.DataFrame([row for part in done for row in part])
        print(name, results[name].mean().round(3).to_dict(), flush=True)
        path = Path(__file__).parent / "COVERAGE.md"
        path.write_text(report(results, options.replicates), encoding="utf-8")


if __name__ == "__main__":
    main()
