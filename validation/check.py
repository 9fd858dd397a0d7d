"""The registry's models, fitted here, against lme4's stored references → RESULTS.md.

Run: python validation/check.py [regular expression of model names]
A run restricted by an expression prints its results and leaves RESULTS.md alone. The exit code is 1
if any quantity lies outside its tolerance.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import models  # noqa: E402
import numpy as np  # noqa: E402
import scipy  # noqa: E402
from checking import cell, run  # noqa: E402
from quantities import QUANTITIES, quantities_of  # noqa: E402
from tolerances import AGAINST_LME4  # noqa: E402

import lmmsparse as lmm  # noqa: E402


@dataclass(frozen=True)
class Result:
    """One model: criteria, evaluations and the largest error of every quantity."""

    name: str
    ours: float
    reference: float
    default: float
    evaluations: tuple[int, int]
    singular: bool
    errors: dict[str, float]
    problems: list[str]


def check(name: str) -> Result:
    """Compare one model; what cannot even be computed counts as an infinite error."""
    ref = models.reference(name)
    errors: dict[str, float] = {}
    problems: list[str] = []
    try:
        model = models.fit(name)
    except Exception as error:  # one broken model must not hide the others
        problems.append(f"no fit: {type(error).__name__}: {error}")
        return Result(name, np.nan, ref["criterion"], np.nan, (0, 0), False, {}, problems)
    for quantity in quantities_of(name):
        try:
            found = QUANTITIES[quantity](model, ref)
            at = int(np.argmax(list(found.values())))  # a NaN counts as the largest
            worst, errors[quantity] = list(found.items())[at]
        except Exception as error:
            errors[quantity] = np.inf
            worst = f"{type(error).__name__}: {error}"
        if not errors[quantity] <= AGAINST_LME4[quantity]:
            problems.append(f"{quantity}: {errors[quantity]:.1e} ({worst})")
    if not model.convergence.converged:
        problems.append(f"not called converged: {model.convergence.status}")
    return Result(
        name=name,
        ours=model.reml_criterion if ref["reml"] else model.deviance,
        reference=ref["criterion"],
        default=ref["default_fit"]["criterion"],
        evaluations=(model.convergence.evaluations, ref["default_fit"]["evaluations"]),
        singular=ref["singular"],
        errors=errors,
        problems=problems,
    )


def report(results: list[Result]) -> str:
    """The written results as Markdown."""
    versions = models.reference(results[0].name)
    failed = [result for result in results if result.problems]
    below = [result for result in results if result.default - result.ours > 1e-3]
    criteria = [
        "| model | criterion here | − lme4's best | lmer() by default − lme4's best "
        "| evaluations here / lmer() |",
        "|---|--:|--:|--:|--:|",
    ]
    errors = [
        "| model | " + " | ".join(name.replace("_", " ") for name in QUANTITIES) + " |",
        "|---|" + "--:|" * len(QUANTITIES),
    ]
    for result in results:
        mark = " (singular)" if result.singular else ""
        criteria.append(
            f"| {result.name}{mark} | {result.ours:.6f} | {result.ours - result.reference:.1e} "
            f"| {result.default - result.reference:.1e} "
            f"| {result.evaluations[0]} / {result.evaluations[1]} |"
        )
        cells = [cell(result.errors, quantity, AGAINST_LME4[quantity]) for quantity in QUANTITIES]
        errors.append(f"| {result.name} | " + " | ".join(cells) + " |")
    limits = " | ".join(f"{AGAINST_LME4[quantity]:g}" for quantity in QUANTITIES)
    errors.insert(2, f"| *tolerance* | {limits} |")
    problems = [f"- {r.name}: {problem}" for r in failed for problem in r.problems]
    lower = ", ".join(f"{r.name} ({r.default - r.ours:.3g})" for r in below) or "none"
    return "\n".join(
        [
            "# lmmsparse against lme4",
            "",
            "Written by `python validation/check.py`; do not edit.",
            "",
            f"{len(results)} models, {len(results) - len(failed)} within every tolerance. "
            f"References: lme4 {versions['lme4']}, {versions['R'].split(' (')[0]}, polished to the "
            f"optimum (see README.md). Here: lmmsparse {lmm.__version__}, numpy {np.__version__}, "
            f"scipy {scipy.__version__}.",
            "",
            "Models on which `lmer()` with its default settings stops more than 0.001 above the "
            f"criterion reached here, and by how much: {lower}.",
            "",
            *(["Outside tolerance:", "", *problems, ""] if problems else []),
            "## Criterion",
            "",
            *criteria,
            "",
            "## Largest error of every quantity",
            "",
            "Relative, on the scales of `tests/quantities.py`: random effects in units of their "
            "standard deviation, rows and predictions in units of σ, coefficients in units of "
            "themselves or their standard error. `criterion` is the excess over lme4's (0 if "
            "lower). `–`: not identified in that model.",
            "",
            *errors,
            "",
        ]
    )


def main() -> int:
    return run(
        models.MODELS,
        "validation/models.json",
        check,
        lambda result: result.name,
        report,
        HERE / "RESULTS.md",
        "{} of {} models agree with lme4.",
    )


if __name__ == "__main__":
    raise SystemExit(main())
