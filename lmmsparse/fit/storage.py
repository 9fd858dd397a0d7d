"""`Fit` ↔ one file: a zip archive of plain arrays and JSON, without pickle.

Nothing in a file is executed when it is read, and nothing in it is believed: every field is checked
by its type, its range and what it has to agree with, formulas as if the user had written them, and
at the end criterion and effects of the model that was read have to be those that were stored.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.archive import Archive, Arrays, write_archive
from lmmsparse.common.arrays import FloatArray, ObjectArray, ones_once
from lmmsparse.common.errors import Finding, MissingPackageError, StorageError
from lmmsparse.common.fields import (
    choice,
    flag,
    items,
    number,
    optional,
    options,
    plain,
    record,
    text,
    whole,
)
from lmmsparse.common.files import opened
from lmmsparse.design import Design, Grouping, RandomBlock
from lmmsparse.design.state import check_recipe, decode_recipe, encode_recipe
from lmmsparse.design.values import decode_index, encode_index
from lmmsparse.engine.covariance.correlated import AR1, CompoundSymmetry
from lmmsparse.engine.covariance.structures import CovarianceStructure, Diagonal, Unstructured
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
    check_generalized,
    decode_family,
    decode_generalized,
    encode_generalized,
    wider_bounds,
)
from lmmsparse.fit.problem import Problem
from lmmsparse.fit.residual.fit import residual_fit
from lmmsparse.fit.residual.stored import decode_residual, encode_residual
from lmmsparse.fit.stored_facts import decode_facts, encode_facts
from lmmsparse.fit.stored_groupings import decode_grouping, encode_grouping
from lmmsparse.fit.stored_solution import check_solution
from lmmsparse.optimize import Bobyqa, NelderMead, QuasiNewton, StructuredSearch, TrustRegion
from lmmsparse.optimize.base import Optimizer, Optimum, Status

_FORMAT = "lmmsparse model"
_VERSION = 3  # 1 had no list of its arrays and no checksums, 2 no structures, no sums of rows
_OPTIMIZERS: dict[str, type[Any]] = {
    c.__name__: c for c in (TrustRegion, StructuredSearch, Bobyqa, NelderMead, QuasiNewton)
}
_OPTIMUM = ("value", "status", "evaluations", "optimizer", "expected_decrease")
_SPARSE = ("data", "indices", "indptr")
_SOLVERS: dict[str, type[Any]] = {
    c.__name__: c for c in (Blocked, Cholmod, Dense, Krylov, SuperLU, NoEffects)
}
_STRUCTURES: dict[str, type[Any]] = {
    c.__name__: c for c in (Unstructured, Diagonal, CompoundSymmetry, AR1)
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
        "design": _encode_design(fit.design, arrays),
        "optimum": {
            "value": fit.optimum.value,
            "status": fit.optimum.status.name,
            "evaluations": fit.optimum.evaluations,
            "further_evaluations": fit.optimum.further_evaluations,
            "start": fit.optimum.start,
            "optimizer": fit.optimum.optimizer,
            "expected_decrease": fit.optimum.expected_decrease,
        },
        "optimizer": _encode_option(fit.optimizer, _OPTIMIZERS),
        "solver": _encode_option(fit.solver, _SOLVERS),
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
    write_archive(path, meta, {name: _plain_array(array) for name, array in arrays.items()})


def _plain_array(array: ObjectArray) -> ObjectArray:
    """Double precision and whole numbers: nothing else is in a file."""
    if array.dtype.kind == "f":
        return array.astype(np.float64, copy=False)
    return array.astype(np.int64 if array.dtype.itemsize > 4 else np.int32, copy=False)


def load_fit(path: str | Path) -> Fit:
    """Read a fit from `path`."""
    with opened(path) as file:
        try:
            archive = Archive(file)
            if not archive.has_model:
                raise StorageError(_foreign(path))
            meta, as_written = archive.json()
            version = _version(path, meta)
            if not as_written and (version > 1 or "arrays" in meta):
                raise ValueError("its text is not what was stored")
            return _decode(meta, Arrays(archive, meta.get("arrays") if version > 1 else None))
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
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
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


def _encode_option(option: Any, known: dict[str, type[Any]]) -> dict[str, Any]:
    name = type(option).__name__
    if known.get(name) is not type(option):
        raise StorageError(
            f"The model was fitted with {name}, which is not part of lmmsparse and cannot be "
            f"stored. Refit with one of {', '.join(known)} before saving."
        )
    return {"name": name, "options": plain(option)}


def _decode_option(meta: Any, known: dict[str, type[Any]]) -> Any:
    record(meta, ("name", "options"))
    kind = known[choice(meta["name"], known)]
    return kind(**options(meta["options"], kind))


def _encode_design(design: Design, arrays: dict[str, ObjectArray]) -> dict[str, Any]:
    design = replace(design.some, findings=design.findings)
    arrays["y"], arrays["rows"] = design.y, design.rows
    if isinstance(design.fixed, np.ndarray):
        arrays["X"] = design.fixed
    else:
        for name in _SPARSE:
            arrays[f"X.{name}"] = getattr(design.fixed, name)
    if design.weights is not None:
        arrays["weights"] = design.weights
    if design.offset is not None:
        arrays["offset"] = design.offset
    groupings: list[Grouping] = []
    stored, blocks = [], []
    for i, block in enumerate(design.blocks):
        if not any(block.grouping is g for g in groupings):
            j = len(groupings)
            groupings.append(block.grouping)
            stored.append(encode_grouping(block.grouping, f"group{j}", arrays))
        arrays[f"block{i}.columns"] = block.columns
        blocks.append(
            {
                "grouping": next(j for j, g in enumerate(groupings) if g is block.grouping),
                "names": list(block.names),
                "structure": _encode_option(block.structure, _STRUCTURES),
                "source": block.source,
                "split": block.split,
            }
        )
    return {
        "formula": design.formula,
        "response": design.response,
        "x_names": list(design.x_names),
        "dropped": list(design.dropped),
        "na_action": design.na_action,
        "findings": [[f.code, f.level, f.message] for f in design.findings],
        "index": encode_index(design.index),
        "groupings": stored,
        "blocks": blocks,
        "recipe": None if design.recipe is None else encode_recipe(design.recipe),
        **encode_residual(design.residual, arrays),
    }


_DESIGN = (
    "formula", "response", "x_names", "dropped", "na_action", "findings", "index", "groupings",
    "blocks", "recipe",
)  # fmt: skip


def _decode_design(meta: Any, arrays: Arrays) -> Design:
    record(meta, _DESIGN, ("residual",))
    y = arrays.numbers("y", None)
    x_names, dropped = items(meta["x_names"], text), items(meta["dropped"], text)
    index = decode_index(meta["index"])
    na_action = choice(meta["na_action"], ("omit", "exclude", "raise"))
    if na_action == "exclude":
        arrays.check_allocation(len(index))
    groupings = [
        decode_grouping(group, f"group{j}", len(y), arrays)
        for j, group in enumerate(items(meta["groupings"], dict))
    ]
    blocks = [
        _decode_block(block, f"block{i}", len(y), groupings, arrays)
        for i, block in enumerate(items(meta["blocks"], dict))
    ]
    residual = None
    if "residual" in meta:
        residual = decode_residual(meta["residual"], len(y), blocks, arrays)
    if not (blocks or residual) or any(all(b.grouping is not g for b in blocks) for g in groupings):
        raise ValueError("grouping factors without terms")
    weights = arrays.numbers("weights", len(y)) if "weights" in arrays else None
    if weights is not None and not (weights > 0).all():
        raise ValueError("weights that are not positive")
    keys = [block.grouping.key for block in blocks]
    design = Design(
        formula=text(meta["formula"]),
        response=text(meta["response"]),
        y=y,
        fixed=_decode_fixed(arrays, len(y), len(x_names)),
        x_names=x_names,
        dropped=dropped,
        blocks=tuple(blocks),
        weights=weights,
        offset=arrays.numbers("offset", len(y)) if "offset" in arrays else None,
        index=index,
        rows=arrays.whole("rows", len(y), len(index), increasing=True),
        na_action=na_action,
        findings=tuple(_decode_finding(each) for each in items(meta["findings"], list)),
        recipe=optional(meta["recipe"], lambda recipe: decode_recipe(recipe, keys)),
        residual=residual,
    )
    check_recipe(design)
    return design


def _decode_finding(meta: list[Any]) -> Finding:
    code, level, message = items(meta, text, 3)
    choice(level, ("info", "warning", "error"))
    return Finding(code, level, message)  # type: ignore[arg-type]


def _decode_block(
    meta: Any, name: str, n: int, groupings: list[Grouping], arrays: Arrays
) -> RandomBlock:
    record(meta, ("grouping", "names", "structure", "source", "split"))
    structure: CovarianceStructure = _decode_option(meta["structure"], _STRUCTURES)
    names = items(meta["names"], text, structure.k)
    return RandomBlock(
        groupings[whole(meta["grouping"], 0, len(groupings) - 1)],
        names,
        ones_once(np.asfortranarray(arrays.numbers(f"{name}.columns", n, len(names)))),
        structure,
        text(meta["source"]),
        flag(meta["split"]),
    )


def _decode_fixed(arrays: Arrays, n: int, p: int) -> FloatArray | sp.csr_array:
    if "X" in arrays:
        return ones_once(np.asfortranarray(arrays.numbers("X", n, p)))
    data = arrays.numbers("X.data", None)
    indices = arrays.whole("X.indices", len(data), p)
    indptr = arrays.whole("X.indptr", n + 1, len(data) + 1)
    X = sp.csr_array((data, indices, indptr), shape=(n, p))
    X.check_format(full_check=True)
    return X


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
        start=text(meta.get("start", "")),
    )


_MODEL = ("format", "version", "reml", "design", "optimum", "optimizer", "solver")


def _decode(meta: dict[str, Any], arrays: Arrays) -> Fit:
    record(meta, _MODEL, ("held", "arrays", "generalized", "facts"))
    optimizer: Optimizer = _decode_option(meta["optimizer"], _OPTIMIZERS)
    solver: PLSSolver
    try:
        solver = _decode_option(meta["solver"], _SOLVERS)
    except MissingPackageError:
        solver = SuperLU()  # the same sums without CHOLMOD
    design = _decode_design(meta["design"], arrays)
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
    first = 0 if said is None else design.p
    if not all(np.isclose(optimum.x[first + i], value) for i, value in held.theta):
        raise ValueError("covariance parameters that are held at other values")
    if said is not None:
        parts = design, solver, held, optimum, optimizer
        generalized = decode_generalized(said, arrays, *parts)
        q = generalized.template.q
        own = arrays.numbers("beta", design.p), arrays.numbers("modes", q)
        arrays.check_all_taken()
        check_generalized(generalized, own)
        return generalized
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
