"""The generalized models of generalized.json, fitted here, against R's references → GENERALIZED.md.

Run: python validation/check_generalized.py [regular expression of model names]
A run restricted by an expression prints its results and leaves GENERALIZED.md alone. The exit code
is 1 if any quantity lies outside its tolerance.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import generalized_models as models  # noqa: E402
import numpy as np  # noqa: E402
import scipy  # noqa: E402
from checking import cell, run  # noqa: E402
from generalized_quantities import AGAINST_R, QUANTITIES  # noqa: E402

import lmmsparse as lmm  # noqa: E402


@dataclass(frozen=True)
class Result:
    """One model: what was found, and the largest error of every quantity."""

    name: str
    ref: dict[str, Any]
    ours: float
    evaluations: int
    seconds: float
    errors: dict[str, float]
    findings: list[str]
    problems: list[str]


def check(name: str) -> Result:
    """Compare one model; what cannot even be computed counts as an infinite error."""
    ref = models.reference(name)
    errors: dict[str, float] = {}
    problems: list[str] = []
    started = time.perf_counter()
    try:
        model = models.fit(name)
    except Exception as error:  # one broken model must not hide the others
        problems.append(f"no fit: {type(error).__name__}: {error}")
        return Result(name, ref, np.nan, 0, 0.0, {}, [], problems)
    seconds = time.perf_counter() - started
    for quantity, compare in QUANTITIES.items():
        worst = ""
        try:
            found = compare(model, ref)
            if not found:
                continue
            at = int(np.argmax(list(found.values())))  # a NaN counts as the largest
            worst, errors[quantity] = list(found.items())[at]
        except Exception as error:
            errors[quantity] = np.inf
            worst = f"{type(error).__name__}: {error}"
        if not errors[quantity] <= AGAINST_R[quantity]:
            problems.append(f"{quantity}: {errors[quantity]:.1e} ({worst})")
    verdict = model.convergence
    if not verdict.converged:
        problems.append(f"not called converged: {verdict.status}")
    findings = [finding.code for finding in verdict.findings]
    return Result(
        name, ref, model.minus2loglik, verdict.evaluations, seconds, errors, findings, problems
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0e}"


def report(results: list[Result]) -> str:
    """The written results as Markdown."""
    failed = [result for result in results if result.problems]
    fits = [
        "| model | family(link) | rows | −2 log L here | − R's | evaluations | s | findings "
        "| R: optimum by | \\|gradient\\| | glmmTMB − definition | lme4 − definition |",
        "|---|---|--:|--:|--:|--:|--:|---|---|--:|--:|--:|",
    ]
    errors = [
        "| model | " + " | ".join(name.replace("_", " ") for name in QUANTITIES) + " |",
        "|---|" + "--:|" * len(QUANTITIES),
        "| *tolerance* | "
        + " | ".join(f"{AGAINST_R[quantity]:g}" for quantity in QUANTITIES)
        + " |",
    ]
    for result in results:
        ref, model = result.ref, models.MODELS[result.name]
        more = f", n_agq={model['n_agq']}" if "n_agq" in model else ""
        more += f", {model['information']}" if "information" in model else ""
        apart = [_apart(ref["agreement"].get(program)) for program in ("glmmTMB", "lme4")]
        gradient = (ref["agreement"].get("glmmTMB") or {}).get("gradient")
        gradient = ref["agreement"].get("gradient", gradient)
        fits.append(
            f"| {result.name} | {ref['family']}({ref['link']}){more} | {ref['n']} "
            f"| {result.ours:.6f} | {result.ours - ref['minus2loglik']:.0e} "
            f"| {result.evaluations} | {result.seconds:.2f} | {', '.join(result.findings) or '–'} "
            f"| {ref['source'].split(',')[0]} | {_number(gradient)} | {apart[0]} | {apart[1]} |"
        )
        cells = [cell(result.errors, quantity, AGAINST_R[quantity]) for quantity in QUANTITIES]
        errors.append(f"| {result.name} | " + " | ".join(cells) + " |")
    problems = [f"- {r.name}: {problem}" for r in failed for problem in r.problems]
    total = sum(result.seconds for result in results)
    most = max(results, key=lambda result: result.evaluations)
    return "\n".join(
        [
            "# Generalized models against R",
            "",
            "Written by `python validation/check_generalized.py`; do not edit. How the references "
            "are made: README.md.",
            "",
            f"{len(results)} models, {len(results) - len(failed)} within every tolerance. Here: "
            f"lmmsparse {lmm.__version__}, numpy {np.__version__}, scipy {scipy.__version__}; "
            f"all fits together {total:.1f} s, most evaluations {most.evaluations} ({most.name}).",
            "",
            *(["Outside tolerance:", "", *problems, ""] if problems else []),
            "## Fits",
            "",
            "The gradient is R's, of −2 log L at its optimum. The last two columns are the largest "
            "distance of the program's criterion from the definition's, at the optimum and three "
            "points away from it; lme4 is compared where its likelihood is the same one.",
            "",
            *fits,
            "",
            "## Largest error of every quantity",
            "",
            "On the scales of `tests/generalized_quantities.py`: −2 log L in its own units, all "
            "else relative, random effects in units of their standard deviation.",
            "",
            *errors,
            "",
        ]
    )


def _apart(found: dict[str, Any] | None) -> str:
    values = [
        abs(v) for k, v in (found or {}).items() if k in ("optimum", "points") and v is not None
    ]
    return _number(max(values)) if values else "–"


def _line(result: Result) -> str:
    return (
        f"{result.name:<28}{result.ours:14.5f} {result.evaluations:4d} evaluations "
        f"{result.seconds:6.2f} s {' '.join(result.findings)}"
    )


def main() -> int:
    return run(
        models.MODELS,
        "validation/generalized.json",
        check,
        _line,
        report,
        HERE / "GENERALIZED.md",
        "{} of {} generalized models agree with R.",
    )


if __name__ == "__main__":
    raise SystemExit(main())
