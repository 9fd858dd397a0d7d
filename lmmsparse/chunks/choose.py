"""Formula and data of any kind → a design, made in memory or in chunks; which, and what is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from lmmsparse.chunks.batch import Source
from lmmsparse.chunks.dask import DaskSource, own_client
from lmmsparse.chunks.design import design_in_chunks
from lmmsparse.chunks.options import Chunks
from lmmsparse.chunks.products import ModelProducts, design_of_products
from lmmsparse.chunks.room import free_memory
from lmmsparse.chunks.source import check_chunks, lazy_source, reads_always, source_of
from lmmsparse.common.errors import Finding, OptionError
from lmmsparse.design import Design, build_design
from lmmsparse.design.asked import asked_of
from lmmsparse.formula.formula import MixedFormula

_SHARE = 0.5  # of the memory that is free


def design_of_data(
    formula: MixedFormula,
    data: Any,
    chunks: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
    residual: str | None = None,
    residual_sd: str | None = None,
) -> Design:
    """The design of data in memory, or of data that are read in chunks; see `build_design`."""
    options: dict[str, Any] = {"weights": weights, "offset": offset, "na_action": na_action}
    options |= {"contrasts": contrasts, "context": context}
    more: dict[str, Any] = {"known": known, "residual": residual, "residual_sd": residual_sd}
    if isinstance(data, ModelProducts):
        return design_of_products(formula, data, {**options, **more, "chunks": chunks})
    asked = check_chunks(chunks)
    source = lazy_source(data) if asked is None else source_of(data)
    if source is None:
        return build_design(formula, data, **options, **more)
    if asked is not None or reads_always(data):
        _check_independent(more)
        how = asked or Chunks()
        if how.client is None and isinstance(source, DaskSource):
            how = replace(how, client=own_client())
        return design_in_chunks(formula, source, how, **options)
    needed, free = _needed(formula, source, context), free_memory()
    if needed > _SHARE * free:
        _check_independent(more)
        said = Finding("read-in-chunks", "info", _said(source, needed, free, "in chunks"))
        return design_in_chunks(formula, source, Chunks(), **options, findings=[said])
    design = build_design(formula, data, **options, **more)
    said = Finding("read-in-memory", "info", _said(source, needed, free, "into memory"))
    return replace(design, findings=(*design.findings, said))


def _check_independent(given: Mapping[str, Any]) -> None:
    """Refuse structures for which sums over rows that are apart are not enough."""
    for name, value in given.items():
        if value is not None:
            raise OptionError(
                f"{name}= is not there for data that are read in chunks, where rows are summed "
                "wherever they are found. Read the data into memory, or leave it out."
            )


def _needed(formula: MixedFormula, source: Source, context: Mapping[str, Any] | None) -> float:
    """Bytes that the model takes in memory, about."""
    frame = pd.DataFrame({name: [float("nan")] for name in source.names})
    asked = asked_of(formula, frame, context)
    fixed = 1 + 2 * len(asked.uses["fixed"])
    random = sum(1 + len(asked.uses[f"random{i}"]) for i in range(len(formula.random)))
    return 8.0 * (3 * fixed + random + 10) * source.count()


def _said(source: Source, needed: float, free: float, how: str) -> str:
    return (
        f"{source.what} was read {how}: the model takes about {needed / 2**20:.0f} MiB there, and "
        f"{free / 2**20:.0f} MiB were free. chunks=lmm.Chunks(...) reads in chunks in any case."
    )
