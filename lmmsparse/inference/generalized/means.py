"""`GeneralizedFit` → estimated marginal means, on the scale of the link or of the response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.options import one_of
from lmmsparse.common.table import Table, as_precise_as, fixed
from lmmsparse.engine.families import Binomial
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.generalized.wald import as_normal
from lmmsparse.inference.hypotheses.emmeans import emmeans_table

_TYPES = ("link", "response")


def means_table(
    fit: GeneralizedFit,
    specs: str | Sequence[str],
    pairwise: bool,
    adjust: str,
    kind: str,
    at: Mapping[str, Any] | None,
    level: float,
) -> Table:
    """Marginal means or their differences; see the model's `emmeans`."""
    one_of("type", kind, _TYPES, "It is the scale of the means.")
    table = as_normal(emmeans_table(fit, specs, pairwise, adjust, "asymptotic", at, level))
    notes = [*table.notes]
    family = fit.family
    if kind == "link":
        notes.append(f"On the scale of the {family.link} link.")
        return Table(table.columns, table.index, table.title, notes, table.formats)
    columns = {name: np.asarray(values) for name, values in table.columns.items()}
    if pairwise:
        return _ratios(fit, table, columns, notes)
    eta, se = columns["emmean"], columns["SE"]
    limits = [family.mean(columns[side]) for side in ("lower.CL", "upper.CL")]
    means = family.mean(eta)
    notes.append(f"Mapped from the scale of the {family.link} link, random effects at zero.")
    own = {
        "response": means,
        "SE": np.abs(family.mean_slope(eta)) * se,
        "lower.CL": np.minimum(*limits),
        "upper.CL": np.maximum(*limits),
    }
    formats = dict.fromkeys(own, as_precise_as(_finite(own["SE"])))
    return _made(own, table, notes, formats)


def _ratios(
    fit: GeneralizedFit, table: Table, columns: dict[str, FloatArray], notes: list[str]
) -> Table:
    family = fit.family
    odds = isinstance(family, Binomial) and family.link == "logit"
    if not odds and family.link != "log":
        notes.append(f"Differences are on the scale of the {family.link} link.")
        return Table(table.columns, table.index, table.title, notes, table.formats)
    name = "odds.ratio" if odds else "ratio"
    ratio = np.exp(columns["estimate"])
    notes.append(f"Tests are on the scale of the {family.link} link.")
    own = {name: ratio, "SE": ratio * columns["SE"]}
    own.update({key: columns[key] for key in ("z.ratio", "p.value")})
    precise = as_precise_as(_finite(own["SE"]))
    formats = {name: precise, "SE": precise, "z.ratio": fixed(3)}
    formats["p.value"] = table.formats["p.value"]
    return _made(own, table, notes, formats)


def _finite(values: FloatArray) -> list[float]:
    return [float(v) for v in values[np.isfinite(values)]]


def _made(
    columns: Mapping[str, FloatArray], table: Table, notes: list[str], formats: Mapping[str, Any]
) -> Table:
    plain = {name: np.asarray(values).tolist() for name, values in columns.items()}
    return Table(plain, table.index, table.title, notes, formats)
