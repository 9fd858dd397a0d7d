"""The registry and simulated models, each fitted by all searches → SEARCH.md.

Run: python validation/search_study.py [models per kind]   (about ten minutes with the default, 20)
The exit code is 1 if the default search ends above another one, or is not called converged.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import models  # noqa: E402
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
from simulated_models import simulated  # noqa: E402

import lmmsparse as lmm  # noqa: E402
from lmmsparse.common.errors import LmmWarning, NotIdentifiableError  # noqa: E402
from lmmsparse.design import Design, build_design  # noqa: E402
from lmmsparse.design.checks import check_design, require  # noqa: E402
from lmmsparse.fit.coordinates import StandardizedObjective  # noqa: E402
from lmmsparse.fit.fit import Fit  # noqa: E402
from lmmsparse.fit.fitting import fit_design  # noqa: E402
from lmmsparse.fit.problem import make_template  # noqa: E402
from lmmsparse.fit.verdict import is_singular, judge  # noqa: E402
from lmmsparse.optimize import Optimizer  # noqa: E402

Array = npt.NDArray[np.float64]

HIGH = 1e-7
SEARCHES: dict[str, Optimizer] = {
    "TrustRegion": lmm.TrustRegion(),
    "Bobyqa": lmm.Bobyqa(),
    "NelderMead": lmm.NelderMead(max_eval=20_000),
}
NELDER_MEAD_UP_TO = 6  # parameters
NELDER_MEAD_EFFECTS = 2_000
OTHER_STARTS = 3
OTHER_STARTS_EFFECTS = 600


@dataclass(frozen=True)
class Problem:
    """A model to be fitted."""

    kind: str
    name: str
    design: Design
    reml: bool
    start: Array | None


@dataclass(frozen=True)
class Run:
    """One search on one problem."""

    value: float
    evaluations: int
    seconds: float
    singular: bool


@dataclass(frozen=True)
class Result:
    """All searches on one problem."""

    kind: str
    name: str
    n_theta: int
    runs: dict[str, Run]
    elsewhere: float  # lowest criterion from other starts
    converged: bool
    expected: float
    differences: float  # the same by differences of the criterion, NaN where not taken
    probed: float  # how far nearby points lie below the optimum
    rounding: float  # error of the criterion by rounding
    told: float  # reported value minus the criterion at the reported θ

    @property
    def best(self) -> float:
        return min(run.value for run in self.runs.values())

    def above(self, search: str) -> float:
        """The criterion of a search above the best of all searches."""
        return self.runs[search].value - self.best

    @property
    def allowed(self) -> float:
        """What two values of the criterion may differ by, each with its own rounding error."""
        return HIGH + 2.0 * self.rounding

    @property
    def limit(self) -> int:
        """Evaluations the search is meant to stay within."""
        return 12 if self.n_theta <= 3 else 20


def problems(per_kind: int) -> Iterator[Problem]:
    """The registry, then the simulated models."""
    for name, model in models.MODELS.items():
        yield Problem("registry", name, models.fit(name).fit.design, model["reml"], None)
    for model in simulated(per_kind):
        design = build_design(model.formula, model.data, weights=model.weights)
        try:
            require(check_design(design))
        except NotIdentifiableError:
            continue
        start = np.zeros(make_template(design).n_theta) if model.zero_start else None
        name = f"{model.formula}, {'REML' if model.reml else 'ML'}, seed {model.seed}"
        yield Problem(model.kind, name, design, model.reml, start)


def study(problem: Problem) -> Result:
    """Fit one problem by every search that is not hopelessly slow on it."""
    runs, fits = {}, {}
    for name, search in SEARCHES.items():
        if name == "NelderMead" and (
            fits["TrustRegion"].template.n_theta > NELDER_MEAD_UP_TO
            or fits["TrustRegion"].template.q > NELDER_MEAD_EFFECTS
        ):
            continue
        began = time.perf_counter()
        fit = fit_design(problem.design, reml=problem.reml, start=problem.start, optimizer=search)
        seconds = time.perf_counter() - began
        fits[name] = fit
        runs[name] = Run(fit.optimum.value, fit.optimum.evaluations, seconds, is_singular(fit))
    fit = fits["TrustRegion"]
    verdict = judge(fit)
    solution = fit.modes.solution
    # r² is what is left of y'Wy, and enters the criterion by its logarithm.
    rounding = 1e-15 * fit.objective.df * fit.objective.response.yty / solution.pwrss
    return Result(
        kind=problem.kind,
        name=problem.name,
        n_theta=fit.template.n_theta,
        runs=runs,
        elsewhere=from_elsewhere(problem, fit),
        converged=verdict.converged,
        expected=verdict.expected_decrease,
        differences=decrease_by_differences(fit),
        probed=probe(fit),
        rounding=rounding,
        told=abs(fit.optimum.value - fit.criterion),
    )


def from_elsewhere(problem: Problem, fit: Fit) -> float:
    """The lowest criterion that the default search reaches from other starts."""
    if fit.template.q > OTHER_STARTS_EFFECTS:
        return np.inf
    rng = np.random.default_rng(11)
    scaled = StandardizedObjective(fit.objective)
    values = [np.inf]
    for _ in range(OTHER_STARTS):
        x = scaled.to_internal(fit.theta)
        start = x + rng.normal(size=len(x)) * (0.5 + np.abs(x))
        theta = scaled.to_theta(start)
        bounded = np.isfinite(fit.template.lower)
        theta[bounded] = np.abs(theta[bounded])
        other = fit_design(problem.design, reml=problem.reml, start=theta)
        values.append(other.optimum.value)
    return min(values)


def decrease_by_differences(fit: Fit) -> float:
    """½ g'H⁻¹g from differences of the criterion, for regular fits of small models."""
    d = fit.template.n_theta
    if is_singular(fit) or d > 3 or fit.template.q > OTHER_STARTS_EFFECTS:
        return np.nan
    scaled = StandardizedObjective(fit.objective)
    x = scaled.to_internal(fit.theta)
    h = 1e-3 * np.diag(np.maximum(1.0, np.abs(x)))
    g = np.array([(scaled(x + e) - scaled(x - e)) / (2.0 * e.sum()) for e in h])
    # A second width takes the third derivatives out.
    wide = np.array([(scaled(x + 2 * e) - scaled(x - 2 * e)) / (4.0 * e.sum()) for e in h])
    g = (4.0 * g - wide) / 3.0
    H = np.array(
        [
            [
                (scaled(x + a + b) - scaled(x + a - b) - scaled(x - a + b) + scaled(x - a - b))
                / (4.0 * a.sum() * b.sum())
                for b in h
            ]
            for a in h
        ]
    )
    return float(0.5 * g @ np.linalg.solve(H, g))


def probe(fit: Fit) -> float:
    """How far the criterion falls below the optimum at random points near and far."""
    rng = np.random.default_rng(12)
    scaled = StandardizedObjective(fit.objective)
    x = scaled.to_internal(fit.theta)
    if fit.template.q > OTHER_STARTS_EFFECTS:
        return 0.0
    points = (x + size * rng.normal(size=len(x)) for size in (1e-3, 1e-2, 0.1, 1) for _ in "123456")
    return max(0.0, *(fit.optimum.value - scaled(point) for point in points))


def spread(values: list[int]) -> str:
    """Median and maximum."""
    return f"{np.median(values):.0f} / {max(values)}" if values else "–"


def by_kind(results: list[Result]) -> list[str]:
    """One line per kind, and one for all."""
    lines = [
        "| kind | fits | θ | singular | TrustRegion: worst excess | Bobyqa: above / worst "
        "| Nelder–Mead: above / worst | TrustRegion: evaluations | Bobyqa | Nelder–Mead "
        "| seconds |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    groups = [(kind, list(rows)) for kind, rows in groupby(results, key=lambda r: r.kind)]
    for kind, rows in [*groups, ("**all**", results)]:
        sizes = [row.n_theta for row in rows]
        cells = [kind, str(len(rows)), f"{min(sizes)}–{max(sizes)}"]
        cells.append(str(sum(row.runs["TrustRegion"].singular for row in rows)))
        cells.append(f"{max(row.above('TrustRegion') for row in rows):.0e}")
        evaluations, seconds = [], []
        for search in SEARCHES:
            done = [row for row in rows if search in row.runs]
            if search != "TrustRegion":
                high = [row.above(search) for row in done if row.above(search) > row.allowed]
                worst = max((row.above(search) for row in done), default=0.0)
                cells.append(f"{len(high)} / {worst:.0e}" if done else "–")
            evaluations.append(spread([row.runs[search].evaluations for row in done]))
            seconds.append(f"{sum(row.runs[search].seconds for row in done):.1f}")
        lines.append("| " + " | ".join([*cells, *evaluations, " / ".join(seconds)]) + " |")
    return lines


def remarkable(results: list[Result]) -> list[tuple[str, list[str]]]:
    """Headings and the cases under them."""
    above = [r for r in results if r.above("TrustRegion") > r.allowed]
    slow = [r for r in results if r.runs["TrustRegion"].evaluations > r.limit]
    verdicts = [r for r in results if not r.converged]
    lower = [r for r in results if r.elsewhere < r.runs["TrustRegion"].value - r.allowed]
    loud = [r for r in results if r.rounding > HIGH]
    return [
        (
            "The default search above another one",
            [f"{r.kind}: {r.name}: by {r.above('TrustRegion'):.2g}" for r in above],
        ),
        (
            "More evaluations than meant (12 with up to 3 parameters, otherwise 20)",
            [f"{r.kind}: {r.name}: {r.runs['TrustRegion'].evaluations}" for r in slow],
        ),
        ("Not called converged", [f"{r.kind}: {r.name}: {r.expected:.1g}" for r in verdicts]),
        (
            f"A lower minimum from one of {OTHER_STARTS} random starts",
            [
                f"{r.kind}: {r.name}: lower by {r.runs['TrustRegion'].value - r.elsewhere:.2g} "
                f"({found_by(r)})"
                for r in lower
            ],
        ),
        (
            f"Criteria that rounding puts off by more than {HIGH:g}",
            [f"{r.kind}: {r.name}: {r.rounding:.0e}" for r in loud],
        ),
    ]


def found_by(result: Result) -> str:
    """Which searches, from the usual start, reach what another start has found."""
    others = [
        name for name, run in result.runs.items() if run.value <= result.elsewhere + result.allowed
    ]
    return f"reached by {' and '.join(others)}" if others else "no search gets there"


def report(results: list[Result], seconds: float) -> str:
    """The study as Markdown."""
    tr = [r.runs["TrustRegion"] for r in results]
    compared = [r for r in results if np.isfinite(r.differences)]
    flags = [
        r
        for r in results
        for name in ("Bobyqa", "NelderMead")
        if name in r.runs
        and r.runs[name].singular != r.runs["TrustRegion"].singular
        and abs(r.runs[name].value - r.runs["TrustRegion"].value) < 1e-6
    ]
    sections: list[str] = []
    for title, cases in remarkable(results):
        sections += [f"## {title}: {len(cases)}", "", *(f"- {case}" for case in cases)]
        sections += [""] if cases else []
    few = [r.evaluations for r, result in zip(tr, results, strict=True) if result.n_theta <= 3]
    many = [r.evaluations for r, result in zip(tr, results, strict=True) if result.n_theta > 3]
    quiet = [r for r in results if r.rounding <= HIGH]
    return "\n".join(
        [
            "# The default search against the others",
            "",
            "Written by `python validation/search_study.py`; do not edit.",
            "",
            f"{len(results)} fits: {sum(r.kind == 'registry' for r in results)} of the registry "
            f"and {sum(r.kind != 'registry' for r in results)} of simulated data "
            "(`simulated_models.py`). Every model is fitted by `TrustRegion` (the default), "
            "`Bobyqa` and, with up to "
            f"{NELDER_MEAD_UP_TO} parameters and {NELDER_MEAD_EFFECTS} random effects, "
            "`NelderMead`, from the same start. *Excess*: the criterion above the lowest of the "
            f"three. *Above*: fits whose excess is more than {HIGH:g} plus the rounding errors of "
            "the two criteria. *Evaluations*: median / maximum. *Seconds*: all fits of a kind, by "
            "search.",
            "",
            *by_kind(results),
            "",
            "## Conclusion",
            "",
            *conclusion(results, few, many, compared, len(flags), quiet),
            "",
            *sections,
            f"lmmsparse {lmm.__version__}, numpy {np.__version__}; {seconds / 60:.0f} minutes.",
            "",
        ]
    )


def conclusion(
    results: list[Result],
    few: list[int],
    many: list[int],
    compared: list[Result],
    flags: int,
    quiet: list[Result],
) -> list[str]:
    """What the study says, in words."""
    high = {
        name: sum(r.above(name) > r.allowed for r in results if name in r.runs) for name in SEARCHES
    }
    lower = sum(r.elsewhere < r.runs["TrustRegion"].value - r.allowed for r in results)
    return [
        f"- The default search ends above another one in {high['TrustRegion']} of {len(results)} "
        f"fits, Bobyqa in {high['Bobyqa']}, Nelder–Mead in {high['NelderMead']}. Where the "
        f"criterion is exact to {HIGH:g}, its worst excess is "
        f"{max(r.above('TrustRegion') for r in quiet):.0e}.",
        f"- Evaluations with up to three parameters: median {np.median(few):.0f}, at most "
        f"{max(few)}; with more: median {np.median(many):.0f}, at most {max(many)}.",
        f"- It is called converged in {sum(r.converged for r in results)} fits; the largest "
        f"expected decrease is {max(r.expected for r in results):.0e}. Differences of the "
        f"criterion, taken at {len(compared)} regular optima, leave "
        f"{max((r.differences - r.rounding for r in compared), default=0.0):.0e} at most.",
        "- Random points around the optima lie lower by "
        f"{max(r.probed for r in quiet):.0e} at most.",
        f"- The reported value is the criterion at the reported θ to "
        f"{max(r.told for r in results):.0e}.",
        f"- Searches that reach the same criterion disagree on whether the fit is singular in "
        f"{flags} comparisons.",
        f"- From random starts a lower minimum is found in {lower} fits: the criterion has "
        "several minima there, and no search that starts once is sure of the lowest.",
    ]


def main(arguments: list[str]) -> int:
    per_kind = int(arguments[0]) if arguments else 20
    began = time.perf_counter()
    results: list[Result] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        for problem in problems(per_kind):
            result = study(problem)
            results.append(result)
            if result.above("TrustRegion") > result.allowed or not result.converged:
                print(f"{result.kind}: {result.name}: {_short(result)}", flush=True)
    text = report(results, time.perf_counter() - began)
    (HERE / "SEARCH.md").write_text(text, encoding="utf-8")
    failed = [r for r in results if r.above("TrustRegion") > r.allowed or not r.converged]
    print(f"{len(results) - len(failed)} of {len(results)} fits are as good as any search's.")
    return 1 if failed else 0


def _short(result: Result) -> dict[str, Any]:
    return {name: (run.value, run.evaluations) for name, run in result.runs.items()}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
