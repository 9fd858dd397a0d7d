"""`Fit` ↔ one file: a zip archive of plain arrays and JSON, without pickle.

Nothing in a file is executed when it is read. What the formula names is checked again before it is
evaluated on new data.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from lmmsparse._types import FloatArray, ObjectArray
from lmmsparse.correlated import AR1, CompoundSymmetry
from lmmsparse.covariance import CovarianceStructure, Diagonal, Unstructured
from lmmsparse.design import Design, Grouping, LevelKey, RandomBlock
from lmmsparse.design.state import (
    decode_index,
    decode_recipe,
    encode_index,
    encode_recipe,
)
from lmmsparse.errors import Finding, LmmError, StorageError
from lmmsparse.fit import Fit
from lmmsparse.held import Held
from lmmsparse.keywords import brief
from lmmsparse.optimize import Bobyqa, NelderMead, Optimizer, Optimum, Status, TrustRegion
from lmmsparse.solvers._sksparse import UNUSABLE
from lmmsparse.solvers.base import PLSSolver
from lmmsparse.solvers.blocked import Blocked
from lmmsparse.solvers.cholmod import Cholmod
from lmmsparse.solvers.dense import Dense
from lmmsparse.solvers.superlu import SuperLU

_FORMAT = "lmmsparse model"
_VERSION = 1
_OPTIMIZERS: dict[str, type[Any]] = {c.__name__: c for c in (TrustRegion, Bobyqa, NelderMead)}
_SPARSE = ("data", "indices", "indptr")
_SOLVERS: dict[str, type[Any]] = {c.__name__: c for c in (Blocked, Cholmod, Dense, SuperLU)}
_STRUCTURES: dict[str, type[Any]] = {
    c.__name__: c for c in (Unstructured, Diagonal, CompoundSymmetry, AR1)
}


def save_fit(fit: Fit, path: str | Path) -> None:
    """Write a fit to `path`.

    Raises
    ------
    StorageError
        If a label cannot be stored, or an optimizer or solver is not one of the package's own.
    """
    arrays: dict[str, ObjectArray] = {}
    meta = {
        "format": _FORMAT,
        "version": _VERSION,
        "reml": fit.reml,
        "design": _encode_design(fit.design, arrays),
        "optimum": {
            "value": fit.optimum.value,
            "status": fit.optimum.status.name,
            "evaluations": fit.optimum.evaluations,
            "optimizer": fit.optimum.optimizer,
            "expected_decrease": fit.optimum.expected_decrease,
        },
        "optimizer": _encode_option(fit.optimizer, _OPTIMIZERS),
        "solver": _encode_option(fit.solver, _SOLVERS),
        "held": {"theta": [list(each) for each in fit.held.theta], "sigma": fit.held.sigma},
    }
    arrays["optimum.x"] = fit.optimum.x
    arrays["optimum.trace"] = fit.optimum.trace
    target = _as_path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise StorageError(
            f"{target} cannot be written: "
            + ("it is a directory" if target.is_dir() else f"there is no directory {target.parent}")
            + ". A model is stored in one file. Name a file in a directory that exists."
        )
    partial = target.with_name(target.name + ".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.json", json.dumps(meta))
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    partial.replace(target)


def _as_path(path: Any) -> Path:
    try:
        return Path(path)
    except TypeError as error:
        raise StorageError(
            f"{brief(path)} is not a path. A model is stored in one file. Name it, for example "
            "'model.lmm'."
        ) from error


def load_fit(path: str | Path) -> Fit:
    """Read a fit from `path`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    StorageError
        If it is not a model, is damaged, or was written by a newer version.
    """
    source = _as_path(path)
    if source.is_dir():
        raise StorageError(
            f"{source} is a directory. A model is stored in one file. Name the file that "
            "m.save(path) has written."
        )
    try:
        with zipfile.ZipFile(source) as archive:
            if "model.json" not in archive.namelist():
                raise StorageError(_foreign(path))
            meta = json.loads(archive.read("model.json"))
            if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
                raise StorageError(_foreign(path))
            if meta["version"] > _VERSION:
                raise StorageError(
                    f"{path} was written by a newer version of lmmsparse. Its file version is "
                    f"{meta['version']}, readable is {_VERSION}. Update lmmsparse to read it."
                )
            arrays = {
                name.removesuffix(".npy"): np.lib.format.read_array(
                    io.BytesIO(archive.read(name)), allow_pickle=False
                )
                for name in archive.namelist()
                if name.endswith(".npy")
            }
        return _decode(meta, arrays)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except StorageError:
        raise
    except zipfile.BadZipFile as error:
        raise StorageError(_foreign(path)) from error
    except (
        KeyError, ValueError, TypeError, IndexError, AttributeError, EOFError, OSError,
        RuntimeError, MemoryError, OverflowError, LmmError, zipfile.error, zlib.error,
    ) as error:  # fmt: skip
        raise StorageError(
            f"{path} is damaged: {type(error).__name__} while reading it ({error}). It cannot be "
            "restored from what is left. Save the model again."
        ) from error


def _foreign(path: str | Path) -> str:
    return (
        f"{path} is not a model saved by lmmsparse, or is damaged from the start. Only files "
        "written by m.save(path) can be read. Check the path."
    )


def _encode_option(option: Any, known: dict[str, type[Any]]) -> dict[str, Any]:
    name = type(option).__name__
    if known.get(name) is not type(option):
        raise StorageError(
            f"The model was fitted with {name}, which is not part of lmmsparse and cannot be "
            f"stored. Refit with one of {', '.join(known)} before saving."
        )
    return {"name": name, "options": asdict(option)}


def _decode_option(meta: dict[str, Any], known: dict[str, type[Any]]) -> Any:
    return known[meta["name"]](**meta["options"])


def _encode_design(design: Design, arrays: dict[str, ObjectArray]) -> dict[str, Any]:
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
    blocks = []
    for i, block in enumerate(design.blocks):
        if not any(block.grouping is g for g in groupings):
            j = len(groupings)
            groupings.append(block.grouping)
            arrays[f"group{j}.codes"] = block.grouping.codes
            arrays[f"group{j}.combinations"] = block.grouping.key.combinations
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
        "groupings": [
            {
                "name": g.name,
                "levels": encode_index(g.levels),
                "components": [encode_index(c) for c in g.key.components],
            }
            for g in groupings
        ],
        "blocks": blocks,
        "recipe": None if design.recipe is None else encode_recipe(design.recipe),
    }


def _decode_design(meta: dict[str, Any], arrays: dict[str, ObjectArray]) -> Design:
    groupings = []
    for j, group in enumerate(meta["groupings"]):
        components = tuple(decode_index(c) for c in group["components"])
        key = LevelKey(components, arrays[f"group{j}.combinations"])
        codes = arrays[f"group{j}.codes"].astype(np.intp)
        groupings.append(Grouping(group["name"], decode_index(group["levels"]), codes, key))
    blocks = []
    for i, block in enumerate(meta["blocks"]):
        structure: CovarianceStructure = _decode_option(block["structure"], _STRUCTURES)
        columns = np.asfortranarray(arrays[f"block{i}.columns"], dtype=np.float64)
        blocks.append(
            RandomBlock(
                groupings[block["grouping"]],
                tuple(block["names"]),
                columns,
                structure,
                block["source"],
                bool(block["split"]),
            )
        )
    recipe = meta["recipe"]
    keys = [block.grouping.key for block in blocks]
    design = Design(
        formula=str(meta["formula"]),
        response=str(meta["response"]),
        y=arrays["y"].astype(np.float64),
        fixed=_decode_fixed(arrays, len(meta["x_names"])),
        x_names=tuple(meta["x_names"]),
        dropped=tuple(meta["dropped"]),
        blocks=tuple(blocks),
        weights=arrays.get("weights"),
        offset=arrays.get("offset"),
        index=decode_index(meta["index"]),
        rows=arrays["rows"].astype(np.intp),
        na_action=str(meta["na_action"]),
        findings=tuple(Finding(*finding) for finding in meta["findings"]),
        recipe=None if recipe is None else decode_recipe(recipe, keys),
    )
    _check_shapes(design)
    return design


def _decode_fixed(arrays: Mapping[str, ObjectArray], p: int) -> FloatArray | sp.csr_array:
    if "X" in arrays:
        return np.asfortranarray(arrays["X"], dtype=np.float64)
    data, indices, indptr = (arrays[f"X.{name}"] for name in _SPARSE)
    X = sp.csr_array((data.astype(np.float64), indices, indptr), shape=(len(arrays["y"]), p))
    X.check_format()
    return X


def _check_shapes(design: Design) -> None:
    n = design.n
    lengths = [design.fixed.shape[0], len(design.rows), *(len(b.codes) for b in design.blocks)]
    lengths += [len(b.columns) for b in design.blocks]
    lengths += [len(a) for a in (design.weights, design.offset) if a is not None]
    fits = all(length == n for length in lengths) and design.p == len(design.x_names)
    for block in design.blocks:
        fits = fits and block.k == len(block.names) == block.structure.k
        fits = fits and int(block.codes.min()) >= 0 and int(block.codes.max()) < block.n_levels
    if not fits:
        raise ValueError("arrays of different lengths")


def _decode_held(meta: dict[str, Any]) -> Held:
    held = meta.get("held", {"theta": [], "sigma": None})
    sigma = None if held["sigma"] is None else float(held["sigma"])
    return Held(tuple((int(i), float(value)) for i, value in held["theta"]), sigma)


def _decode(meta: dict[str, Any], arrays: dict[str, ObjectArray]) -> Fit:
    found = meta["optimum"]
    optimum = Optimum(
        x=arrays["optimum.x"].astype(np.float64),
        value=float(found["value"]),
        status=Status[found["status"]],
        evaluations=int(found["evaluations"]),
        optimizer=str(found["optimizer"]),
        trace=arrays["optimum.trace"],
        expected_decrease=found["expected_decrease"],
    )
    optimizer: Optimizer = _decode_option(meta["optimizer"], _OPTIMIZERS)
    solver: PLSSolver
    if meta["solver"]["name"] == Cholmod.__name__ and UNUSABLE:
        solver = SuperLU()  # the same sums without scikit-sparse
    else:
        solver = _decode_option(meta["solver"], _SOLVERS)
    design = _decode_design(meta["design"], arrays)
    fit = Fit(design, bool(meta["reml"]), optimum, optimizer, solver, _decode_held(meta))
    if len(optimum.x) != fit.template.n_theta:
        raise ValueError("the number of covariance parameters does not match the design")
    return fit
