"""`Fit`, or the sums for one, ↔ one file: a zip archive of plain arrays and JSON, without pickle.

Nothing in a file is executed when it is read, and nothing in it is believed: every field is checked
by its type, its range and what it has to agree with, formulas as if the user had written them, and
at the end criterion and effects of the model that was read have to be those that were stored.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lmmsparse.common.archive import Archive, Arrays, write_archive
from lmmsparse.common.arrays import FloatArray, ObjectArray
from lmmsparse.common.errors import MissingPackageError, StorageError
from lmmsparse.common.fields import (
    choice,
    flag,
    items,
    number,
    optional,
    record,
    text,
    whole,
)
from lmmsparse.common.files import opened
from lmmsparse.design import Design
from lmmsparse.engine.held import Held
from lmmsparse.engine.solvers.base import PLSSolver
from lmmsparse.engine.solvers.blocked import Blocked
from lmmsparse.engine.solvers.cholmod import Cholmod
from lmmsparse.engine.solvers.dense import Dense
from lmmsparse.engine.solvers.krylov.solver import Krylov
from lmmsparse.engine.solvers.none import NoEffects
from lmmsparse.engine.solvers.superlu import SuperLU
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.generalized.stored import (
    checked_generalized,
    decode_family,
    decode_generalized,
    encode_generalized,
    wider_bounds,
)
from lmmsparse.fit.problem import Problem
from lmmsparse.fit.residual.fit import residual_fit
from lmmsparse.fit.stored_design import (
    decode_design,
    decode_option,
    encode_design,
    encode_option,
    plain_array,
)
from lmmsparse.fit.stored_facts import decode_facts, encode_facts
from lmmsparse.fit.stored_solution import check_solution
from lmmsparse.formula.formula import parse_formula
from lmmsparse.optimize import Bobyqa, NelderMead, QuasiNewton, StructuredSearch, TrustRegion
from lmmsparse.optimize.base import Optimizer, Optimum, Status

_FORMAT = "lmmsparse model"
_PRODUCTS = "lmmsparse cross-products"
_VERSION = 3  # 1 had no list of its arrays and no checksums, 2 no structures, no sums of rows
_OPTIMIZERS: dict[str, type[Any]] = {
    c.__name__: c for c in (TrustRegion, StructuredSearch, Bobyqa, NelderMead, QuasiNewton)
}
_LONGEST_START = 200
_OPTIMUM = ("value", "status", "evaluations", "optimizer", "expected_decrease")
_SOLVERS: dict[str, type[Any]] = {
    c.__name__: c for c in (Blocked, Cholmod, Dense, Krylov, SuperLU, NoEffects)
}


def _version_of(design: Design) -> int:
    """The oldest that can say it."""
    known = any(block.known for block in design.blocks)
    newer = known or design.residual is not None or design.facts is not None
    return _VERSION if newer else 2


def save_fit(fit: Fit, path: str | Path) -> None:
    """Write a fit to `path`."""
    arrays: dict[str, ObjectArray] = {}
    meta: dict[str, Any] = {
        "format": _FORMAT,
        "version": _version_of(fit.design),
        "reml": fit.reml,
        "design": encode_design(fit.design, arrays),
        "optimum": {
            "value": fit.optimum.value,
            "status": fit.optimum.status.name,
            "evaluations": fit.optimum.evaluations,
            "further_evaluations": fit.optimum.further_evaluations,
            "start": fit.optimum.start,
            "optimizer": fit.optimum.optimizer,
            "expected_decrease": fit.optimum.expected_decrease,
        },
        "optimizer": encode_option(fit.optimizer, _OPTIMIZERS),
        "solver": encode_option(fit.solver, _SOLVERS),
        "held": {"theta": [list(each) for each in fit.held.theta], "sigma": fit.held.sigma},
    }
    if fit.held.residual:
        meta["held"]["residual"] = [list(each) for each in fit.held.residual]
    if fit.design.facts is not None:
        meta["facts"] = encode_facts(fit.design.facts, arrays)
    if isinstance(fit, GeneralizedFit):
        meta["generalized"] = encode_generalized(fit, arrays)
    arrays["beta"], arrays["modes"] = fit.beta, fit.b
    arrays["optimum.x"] = fit.optimum.x
    arrays["optimum.trace"] = fit.optimum.trace
    _write(path, meta, arrays)


def save_products(design: Design, path: str | Path) -> None:
    """Write a design without rows to `path`."""
    assert design.facts is not None
    arrays: dict[str, ObjectArray] = {}
    meta = {
        "format": _PRODUCTS,
        "version": _VERSION,
        "design": encode_design(design, arrays),
        "facts": encode_facts(design.facts, arrays),
    }
    _write(path, meta, arrays)


def _write(path: str | Path, meta: dict[str, Any], arrays: dict[str, ObjectArray]) -> None:
    write_archive(path, meta, {name: plain_array(array) for name, array in arrays.items()})


def load_stored(path: str | Path) -> Fit | Design:
    """Read from `path` a fit, or a design without rows."""
    with opened(path) as file:
        try:
            archive = Archive(file)
            if not archive.has_model:
                raise StorageError(_foreign(path))
            meta, as_written = archive.json()
            version = _version(path, meta)
            if not as_written and (version > 1 or "arrays" in meta):
                raise ValueError("its text is not what was stored")
            arrays = Arrays(archive, meta.get("arrays") if version > 1 else None)
            decode = _decode_products if meta["format"] == _PRODUCTS else _decode
            with np.errstate(all="ignore"):  # what comes of other numbers is refused
                return decode(meta, arrays)
        except (StorageError, MemoryError):
            raise
        except zipfile.BadZipFile as error:
            raise StorageError(_foreign(path)) from error
        except Exception as error:  # whatever a damaged file brings about
            raise StorageError(
                f"{path} is damaged: {type(error).__name__} while reading it ({error!s:.200}). "
                "Save the model again."
            ) from error


def _version(path: str | Path, meta: Any) -> int:
    if not isinstance(meta, dict) or meta.get("format") not in (_FORMAT, _PRODUCTS):
        raise StorageError(_foreign(path))
    version = whole(meta["version"], low=1)
    if version > _VERSION:
        raise StorageError(
            f"{path} was written by a newer version of lmmsparse (file version {version}, "
            f"readable is {_VERSION}). Update lmmsparse to read it."
        )
    return version


def _foreign(path: str | Path) -> str:
    what = "is not a model saved by m.save(path), or is damaged from the start"
    return f"{path} {what}. Check the path."


def _decode_held(meta: Any, lower: FloatArray, upper: FloatArray) -> Held:
    record(meta, ("theta", "sigma"), ("residual",))
    theta: list[tuple[int, float]] = []
    for position, value in items(meta["theta"], lambda pair: items(pair, lambda each: each, 2)):
        i = whole(position, theta[-1][0] + 1 if theta else 0, len(lower) - 1)
        theta.append((i, number(value, lower[i], upper[i])))
    sigma = optional(meta["sigma"], number)
    if sigma is not None and not sigma > 0:
        raise ValueError("a residual standard deviation that is not positive")
    residual = items(meta.get("residual", []), lambda pair: items(pair, lambda each: each, 2))
    return Held(tuple(theta), sigma, tuple((text(name), number(v)) for name, v in residual))


def _decode_optimum(meta: Any, lower: FloatArray, upper: FloatArray, arrays: Arrays) -> Optimum:
    record(meta, _OPTIMUM, optional=("further_evaluations", "start"))
    x = arrays.numbers("optimum.x", len(lower))
    if not ((lower <= x) & (x <= upper)).all():
        raise ValueError("covariance parameters beyond their bounds")
    evaluations = whole(meta["evaluations"], 1, 2**53)
    trace = arrays.any_numbers("optimum.trace", None, len(x) + 1)
    if np.isnan(trace).any() or len(trace) > evaluations:
        raise ValueError("a search that cannot have been")
    return Optimum(
        x=x,
        value=number(meta["value"]),
        status=Status[choice(meta["status"], Status.__members__)],
        evaluations=evaluations,
        optimizer=choice(meta["optimizer"], _OPTIMIZERS),
        trace=trace,
        expected_decrease=optional(meta["expected_decrease"], number),
        further_evaluations=whole(meta.get("further_evaluations", 0), low=0),
        start=text(meta.get("start", ""), _LONGEST_START),
    )


_MODEL = ("format", "version", "reml", "design", "optimum", "optimizer", "solver")


def _decode(meta: dict[str, Any], arrays: Arrays) -> Fit:
    record(meta, _MODEL, ("held", "arrays", "generalized", "facts"))
    optimizer: Optimizer = decode_option(meta["optimizer"], _OPTIMIZERS)
    solver: PLSSolver
    try:
        solver = decode_option(meta["solver"], _SOLVERS)
    except MissingPackageError:
        solver = SuperLU()  # the same sums without CHOLMOD
    design = decode_design(meta["design"], arrays)
    if "facts" in meta:
        design = decode_facts(meta["facts"], design, arrays)
    nothing: list[FloatArray] = [np.zeros(0)]
    lower = np.concatenate(nothing + [block.structure.lower() for block in design.blocks])
    upper = np.concatenate(nothing + [block.structure.upper() for block in design.blocks])
    said = meta.get("generalized")
    of_x = lower, upper
    if said is not None:
        of_x = wider_bounds(lower, upper, design.p, decode_family(said))
    elif design.residual is not None:
        open_ = np.full(len(design.residual.parameter_names), np.inf)
        of_x = np.append(lower, -open_), np.append(upper, open_)
    optimum = _decode_optimum(meta["optimum"], *of_x, arrays)
    held = _decode_held(meta.get("held", {"theta": [], "sigma": None}), lower, upper)
    if held.residual and design.residual is None:
        raise ValueError("parameters of residuals that have none")
    first = 0 if said is None else design.p
    if not all(np.isclose(optimum.x[first + i], value) for i, value in held.theta):
        raise ValueError("covariance parameters that are held at other values")
    if said is not None:
        parts = design, solver, held, optimum, optimizer
        generalized = decode_generalized(said, arrays, *parts)
        q = generalized.template.q
        own = arrays.numbers("beta", design.p), arrays.numbers("modes", q)
        arrays.check_all_taken()
        return checked_generalized(generalized, own)
    fit: Fit
    if design.residual is not None:
        fit = residual_fit(design, flag(meta["reml"]), solver, held, optimum, optimizer)
    else:
        fit = Fit(Problem(design, flag(meta["reml"]), solver, held), optimum, optimizer)
    effects = None
    if whole(meta["version"]) > 1:
        effects = arrays.numbers("beta", design.p), arrays.numbers("modes", fit.template.q)
    arrays.check_all_taken()
    check_solution(fit, effects)
    return fit


def _decode_products(meta: dict[str, Any], arrays: Arrays) -> Design:
    record(meta, ("format", "version", "design", "facts", "arrays"))
    whole(meta["version"], low=_VERSION)
    design = decode_design(meta["design"], arrays)
    known = any(block.known is not None for block in design.blocks)
    if known or design.residual is not None or design.na_action == "exclude":
        raise ValueError("a design that cannot be without its rows")
    parse_formula(design.formula)
    design = decode_facts(meta["facts"], design, arrays)
    arrays.check_all_taken()
    return design
