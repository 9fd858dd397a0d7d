"""Models of real data, hard and regular ones, by the default search → SEARCH_REAL.md.

Run: python validation/search_real.py           (seconds; continues where it was stopped)
     python validation/search_real.py --write   (the references in search_real.json; ten minutes)
The exit code is 1 if a fit ends above its reference, or tells a wrong criterion, without a word.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import pandas as pd  # noqa: E402

import lmmsparse as lmm  # noqa: E402
from lmmsparse.common.errors import LmmError, LmmWarning  # noqa: E402
from lmmsparse.fit.coordinates import StandardizedObjective  # noqa: E402
from lmmsparse.fit.fit import Fit  # noqa: E402
from lmmsparse.fit.fitting import fit_design  # noqa: E402
from lmmsparse.optimize import Optimizer  # noqa: E402

Array = npt.NDArray[np.float64]

MODELS = HERE / "search_real.json"
PARTIAL = HERE / ".search_real.partial.jsonl"
HIGH = 1e-5  # above the best
NOTICED = 1e-4  # a criterion that is wrong by more, with a clean verdict, is a silent failure
LARGEST = 4e9  # operations of a check by QR
STARTS = 6
SIMPLEX_UP_TO = 4  # parameters
QUESTIONS = ("not-converged", "exact-fit")  # findings that question the criterion
_EPS = 2.3e-16


@dataclass(frozen=True)
class Result:
    """The default search on one model.

    `criterion` is evaluated by QR of the augmented matrix where that is feasible, like `best`;
    `told` is what the fit says.
    """

    told: float
    criterion: float
    evaluations: int
    seconds: float
    singular: bool
    findings: list[str]
    rounding: float
    error: str

    def above(self, best: float) -> float:
        """The criterion above the reference."""
        return self.criterion - best

    @property
    def said(self) -> bool:
        """Whether a finding questions the criterion."""
        return bool(set(self.findings) & set(QUESTIONS)) or bool(self.error)


def load() -> dict[str, Any]:
    """The models with their references."""
    found: dict[str, Any] = json.loads(MODELS.read_text(encoding="utf-8"))
    return found


def frame(model: dict[str, Any]) -> pd.DataFrame:
    return pd.read_csv(HERE / "search_data" / model["data"])


def lmer(model: dict[str, Any], **options: Any) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(
            model["formula"],
            frame(model),
            reml=model["reml"],
            weights=model["weights"],
            **options,
        )


def by_qr(fit: Fit, theta: Array) -> tuple[float, float]:
    """The criterion at θ by QR of the augmented matrix, and its error; NaN if that is too large."""
    design, template = fit.design, fit.template
    n, p, q = design.n, design.p, template.q
    if (n + q) * float(q + p) ** 2 > LARGEST:
        return np.nan, np.nan
    root = np.sqrt(design.weights_or_one)
    Z = []
    for block, T in zip(design.blocks, template.factors(theta), strict=True):
        part = np.zeros((n, block.n_levels, block.k))
        part[np.arange(n), block.codes] = block.columns @ T
        Z.append(part.reshape(n, -1))
    X, y = root[:, None] * design.X, root * (design.y - design.offset_or_zero)
    if p:
        y = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    A = np.zeros((n + q, q + p + 1))
    A[:n, :q] = root[:, None] * np.hstack(Z)
    A[n:, :q] = np.eye(q)
    A[:n, q : q + p], A[:n, -1] = X, y
    diagonal = np.abs(np.diag(np.linalg.qr(A, mode="r")))
    squares = float(diagonal[-1] ** 2)
    df = n - p if fit.reml else n
    value = 2.0 * np.log(diagonal[:q]).sum() + df * (1.0 + np.log(2.0 * np.pi * squares / df))
    value -= np.log(design.weights_or_one).sum()
    if fit.reml:
        value += 2.0 * np.log(diagonal[q : q + p]).sum()
    return float(value), float(10.0 * _EPS * df * (y @ y) / squares)


def study(model: dict[str, Any]) -> Result:
    """Fit one model by the default search."""
    began = time.perf_counter()
    try:
        m = lmer(model)
        verdict = m.convergence
    except LmmError as error:
        return Result(np.nan, np.nan, 0, np.nan, False, [], np.nan, f"{type(error).__name__}")
    seconds = time.perf_counter() - began
    exact, rounding = by_qr(m.fit, m.theta.to_numpy())
    codes = {finding.code for finding in verdict.findings if finding.level == "warning"}
    return Result(
        told=m.fit.criterion,
        criterion=exact if np.isfinite(exact) else m.fit.criterion,
        evaluations=m.fit.optimum.evaluations,
        seconds=seconds,
        singular=verdict.singular,
        findings=sorted(codes),
        rounding=rounding if np.isfinite(rounding) else 1e-8,
        error="",
    )


# -- references ------------------------------------------------------------------------------------


def reference(model: dict[str, Any]) -> dict[str, Any]:
    """The model with the lowest criterion that many searches find."""
    fits = []
    for fit in _searches(model):
        exact, _ = by_qr(fit, fit.theta)
        fits.append((exact if np.isfinite(exact) else fit.optimum.value, fit))
    value, best = min(fits, key=lambda each: each[0])
    theta = [float(f"{x:.10g}") for x in best.theta]
    return {**model, "best": value, "theta": theta, "found_by": best.optimum.optimizer}


def _searches(model: dict[str, Any]) -> Iterator[Fit]:
    first = lmer(model).fit
    design, scaled = first.design, StandardizedObjective(first.objective)
    d = first.template.n_theta
    rng = np.random.default_rng(7)
    unit = first.template.start
    starts: list[Array] = [first.theta, 0.1 * unit, 10.0 * unit, unit, 0.01 * unit]
    if model["theta"] is not None:
        starts.append(np.array(model["theta"]))
    x = scaled.to_internal(first.theta)
    for i in range(STARTS):
        size = 1.0 if i % 2 else 30.0
        starts.append(scaled.to_theta(size * rng.normal(size=d) * (0.3 + np.abs(x))))
    optimizers: list[tuple[Optimizer, Array]] = [(lmm.TrustRegion(), start) for start in starts]
    few = 400 * d
    for start in (first.theta, starts[-1], unit):
        optimizers.append((lmm.Bobyqa(max_eval=few), start))
        if d <= SIMPLEX_UP_TO:
            optimizers.append((lmm.NelderMead(max_eval=few), start))
    yield first
    best = first
    template = first.template
    for optimizer, start in optimizers:
        theta = np.clip(np.where(template.lower == 0, np.abs(start), start), *_box(first))
        try:
            found = fit_design(design, reml=model["reml"], start=theta, optimizer=optimizer)
            lower = found.criterion < best.criterion
        except (LmmError, np.linalg.LinAlgError):
            continue
        best = found if lower else best
        yield found
    try:
        yield fit_design(design, reml=model["reml"], start=best.theta)
    except (LmmError, np.linalg.LinAlgError):
        return


def _box(fit: Fit) -> tuple[Array, Array]:
    return fit.template.lower, fit.template.upper


def write_references(names: list[str]) -> None:
    """Renew the references of all models, of those without one ("new"), or of some data sets."""
    content = load()
    for i, model in enumerate(content["models"]):
        if names == ["new"]:
            if model["best"] is not None:
                continue
        elif names and not any(name in model["data"] for name in names):
            continue
        if model["kind"] == "hard: exact fit":
            continue  # the criterion has no minimum
        began = time.perf_counter()
        content["models"][i] = new = reference(model)
        seconds = time.perf_counter() - began
        print(f"{model['data']}: {new['best']:.6f}, {new['found_by']}, {seconds:.0f} s", flush=True)
        _store(content)


def _store(content: dict[str, Any]) -> None:
    lines = ",\n".join("  " + json.dumps(m, ensure_ascii=False) for m in content["models"])
    licences = json.dumps(content["licences"], ensure_ascii=False)
    text = f'{{\n"licences": {licences},\n"models": [\n{lines}\n]\n}}\n'
    MODELS.write_text(text, encoding="utf-8")


# -- the study -------------------------------------------------------------------------------------


def results(models: list[dict[str, Any]]) -> list[Result]:
    """One result per model; those that an interrupted run of the same code has found are kept."""
    known = _partial()
    out = []
    with PARTIAL.open("a", encoding="utf-8") as file:
        for model in models:
            key = _key(model)
            if key not in known:
                known[key] = study(model)
                file.write(json.dumps([key, asdict(known[key])]) + "\n")
                file.flush()
            out.append(known[key])
    return out


def _partial() -> dict[str, Result]:
    if not PARTIAL.exists():
        return {}
    lines = PARTIAL.read_text(encoding="utf-8").splitlines()
    return {key: Result(**result) for key, result in map(json.loads, lines)}


def _key(model: dict[str, Any]) -> str:
    """The code and the model."""
    digest = hashlib.sha256()
    for path in sorted((HERE.parent / "lmmsparse").rglob("*.py")):
        digest.update(path.read_bytes())
    digest.update(json.dumps([model["data"], model["formula"], model["reml"]]).encode())
    return digest.hexdigest()


def is_above(model: dict[str, Any], result: Result) -> bool:
    """Whether a fit ends above the reference by more than rounding can explain."""
    if model["best"] is None or result.error:
        return False
    return result.above(model["best"]) > HIGH + 2.0 * result.rounding


def is_silent(model: dict[str, Any], result: Result) -> bool:
    """Whether a fit is wrong without a word."""
    if model["best"] is None or result.said:
        return model["best"] is None and not result.said
    off = max(result.above(model["best"]), abs(result.told - result.criterion))
    return off > NOTICED + 2.0 * result.rounding


def table(models: list[dict[str, Any]], found: list[Result]) -> list[str]:
    """One line per kind, one for all."""
    lines = [
        "| kind | fits | singular | evaluations: median / 90 % / most | above the best | worst "
        "| wrong and said | wrong and silent |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    kinds = list(dict.fromkeys(model["kind"] for model in models))
    groups = [(kind, [i for i, m in enumerate(models) if m["kind"] == kind]) for kind in kinds]
    for kind, which in [*groups, ("**all**", list(range(len(models))))]:
        rows = [(models[i], found[i]) for i in which]
        counts = np.array([r.evaluations for _, r in rows if not r.error] or [0])
        high = [is_above(m, r) for m, r in rows]
        silent = [is_silent(m, r) for m, r in rows]
        wrong = [
            (h or (m["best"] is None)) and r.said for (m, r), h in zip(rows, high, strict=True)
        ]
        excess = [r.above(m["best"]) for m, r in rows if m["best"] is not None and not r.error]
        cells = [
            kind,
            str(len(rows)),
            str(sum(r.singular for _, r in rows)),
            f"{np.median(counts):.0f} / {np.quantile(counts, 0.9):.0f} / {counts.max()}",
            str(sum(high)),
            f"{max(excess):.1g}" if excess else "–",
            str(sum(wrong)),
            str(sum(silent)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def report(models: list[dict[str, Any]], found: list[Result], licences: dict[str, str]) -> str:
    """The study as Markdown."""
    pairs = list(zip(models, found, strict=True))
    shown = [(m, r) for m, r in pairs if is_above(m, r) or is_silent(m, r) or r.error]
    cases = [
        f"| {m['kind']} | {m['source']} | `{m['formula'].replace('|', chr(92) + '|')}` "
        f"| {'REML' if m['reml'] else 'ML'} | {r.evaluations} "
        f"| {'–' if m['best'] is None or r.error else format(r.above(m['best']), '.2g')} "
        f"| {', '.join(r.findings) or '–'}{r.error} |"
        for m, r in shown
    ]
    regular = [(m, r) for m, r in pairs if m["kind"] == "regular"]
    hard = [(m, r) for m, r in pairs if m["kind"] != "regular"]
    seconds = sum(r.seconds for r in found if np.isfinite(r.seconds))
    sources = sorted({m["source"] for m in models})
    by_package: dict[str, list[str]] = {}
    for source in sources:
        package, _, name = source.partition("::")
        by_package.setdefault(package, []).append(name)
    return "\n".join(
        [
            "# The default search on real data",
            "",
            "Written by `python validation/search_real.py`; do not edit.",
            "",
            f"{len(models)} models: {len(regular)} as an analyst might fit them, and {len(hard)} "
            "on which former versions of the search, or lme4, ended too high; these were drawn at "
            "random and make no scientific sense (`search_real.json` has both). *Best*: the lowest "
            "criterion of some twenty searches (`--write`), evaluated by QR of the augmented "
            "matrix, as is the criterion at the θ of the default search. *Above*: by more than "
            f"{HIGH:g} and rounding. *Wrong and said*: with a finding that questions the "
            f"criterion. *Wrong and silent*: with a clean verdict, above the best by more than "
            f"{NOTICED:g}, or with a criterion that is told wrong by so much.",
            "",
            *table(models, found),
            "",
            f"All fits together took {seconds:.0f} seconds.",
            "",
            f"## Above the best, told wrong, or refused: {len(shown)}",
            "",
            *(
                [
                    "| kind | data | formula | criterion | evaluations | above | findings |",
                    "|---|---|---|---|--:|--:|---|",
                    *cases,
                    "",
                ]
                if cases
                else []
            ),
            "## Data",
            "",
            "From R packages, under their licences; the columns that are used. The responses of "
            "hard models are transformed as `search_real.json` says.",
            "",
            "| package | licence | data sets |",
            "|---|---|---|",
            *(
                f"| {package} | {licences[package].replace('|', 'or')} | {', '.join(names)} |"
                for package, names in by_package.items()
            ),
            "",
            f"lmmsparse {lmm.__version__}, numpy {np.__version__}.",
            "",
        ]
    )


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--write"]:
        write_references(arguments[1:])
        return 0
    content = load()
    models: list[dict[str, Any]] = content["models"]
    found = results(models)
    text = report(models, found, content["licences"])
    (HERE / "SEARCH_REAL.md").write_text(text, encoding="utf-8")
    PARTIAL.unlink()
    pairs = list(zip(models, found, strict=True))
    high = sum(is_above(m, r) for m, r in pairs)
    silent = sum(is_silent(m, r) for m, r in pairs)
    print(f"{high} of {len(pairs)} fits above the best, {silent} wrong without a word.")
    return 1 if silent else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
