"""Formula and table → what was asked for: its parts, the columns they use, and early refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lmmsparse.common.errors import DataError, Finding, FormulaError
from lmmsparse.common.options import by_name
from lmmsparse.design.expressions import columns_of
from lmmsparse.design.residual import PART
from lmmsparse.design.tables import as_frame
from lmmsparse.formula.formula import MixedFormula, parse_formula
from lmmsparse.formula.parts import Variable, read_part
from lmmsparse.formula.references import references, with_columns
from lmmsparse.formula.residual import ResidualCorrelation, parse_residual, parse_residual_sd
from lmmsparse.formula.tokens import quote_name


@dataclass(frozen=True, eq=False)
class Asked:
    """A formula and the data it is about.

    Attributes
    ----------
    own : mapping
        The user's names.
    parts : mapping
        Formula part → text for formulaic, with `.` written out.
    uses : mapping
        Part → columns that it uses.
    correlation : ResidualCorrelation or None
    sd_text : str
        What is given as ``residual_sd=``.
    """

    parsed: MixedFormula
    response: str
    frame: pd.DataFrame
    own: dict[str, Any]
    parts: dict[str, str]
    uses: dict[str, tuple[str, ...]]
    correlation: ResidualCorrelation | None = None
    sd_text: str = ""

    @property
    def groups(self) -> set[str]:
        own = {factor for term in self.parsed.random for factor in term.factors}
        if self.correlation is None:
            return own
        time = () if self.correlation.time == "1" else (self.correlation.time,)
        return {*own, *self.correlation.factors, *time}

    @property
    def needed(self) -> set[str]:
        """Columns that the formula uses."""
        others = (*self.groups, *self.parsed.offsets)
        columns = list(self.frame.columns)
        read = [columns_of(text, columns, self.own) for text in others]
        return set().union(*self.uses.values(), *read)


def context_of(context: Any) -> dict[str, Any]:
    """What a user gives beside the data, by name."""
    return dict(by_name("context", context, "Write for example context={'square': square}."))


def asked_of(
    formula: str | MixedFormula,
    data: Any,
    context: Any,
    residual: Any = None,
    residual_sd: Any = None,
) -> Asked:
    """Refuse what can be refused before any column is looked at."""
    parsed = formula if isinstance(formula, MixedFormula) else parse_formula(formula)
    if parsed.response is None:
        raise FormulaError(f"The formula {parsed.text!r} has no response. Write it before the ~.")
    correlation = None if residual is None else parse_residual(residual)
    sd = None if residual_sd is None else parse_residual_sd(residual_sd)
    if not parsed.random and correlation is None and sd is None:
        raise FormulaError(
            f"The formula {parsed.text!r} has no random-effects term, such as (1 | group). For a "
            "model without any use statsmodels: ols() for a Gaussian response, glm() for others. "
            "lmer() can also give the residuals a structure, with residual= or residual_sd=."
        )
    frame = as_frame(data)
    columns = list(frame.columns)
    own = context_of(context)
    _check_response_alone(parsed.response, parsed, columns)
    parts = _parts(parsed.response, parsed, columns)
    if sd is not None:
        parts[PART] = sd
    _check_index(parsed, parts, frame)
    _check_readable(parts)
    uses = {part: columns_of(text, columns, own) for part, text in parts.items()}
    sd_text = "" if residual_sd is None else residual_sd.strip()
    return Asked(parsed, parsed.response, frame, own, parts, uses, correlation, sd_text)


def about_idle(parsed: MixedFormula) -> list[Finding]:
    """What there is to say about powers that are none."""
    return [
        Finding(
            "idle-power",
            "warning",
            f"In a formula {written} is {name}, as in R, where powers and products stand for "
            f"interactions. For the square write I({name}**2), or poly({name}, 2) for both.",
        )
        for written, name in dict.fromkeys(parsed.idle)
    ]


def _parts(response: str, parsed: MixedFormula, columns: Sequence[str]) -> dict[str, str]:
    names = set(references(response).names)
    others = " + ".join(f"`{name}`" for name in columns if name not in names)
    parts = {"response": f"0 + {response}", "fixed": _written_out(parsed.fixed, others)}
    for i, term in enumerate(parsed.random):
        parts[f"random{i}"] = with_columns(term.effects, others)
    return parts


def _written_out(text: str, columns: str) -> str:
    """A part with all columns for ".", and without those that it takes away again."""
    whole = with_columns(text, columns)
    if whole == text or "-" not in text:
        return whole
    terms = read_part(whole)
    left = {name for term in terms for v in term for name in _names_in(v)}
    if left.issuperset(references(whole).names):
        return whole
    products = [":".join(_written(v) for v in term) for term in terms if term]
    return " + ".join(["1" if () in terms else "0", *products])


def _names_in(variable: Variable) -> Sequence[str]:
    return [variable.text] if variable.is_column else references(variable.text).names


def _written(variable: Variable) -> str:
    return quote_name(variable.text, quoted=True) if variable.is_column else variable.text


def _check_response_alone(response: str, parsed: MixedFormula, columns: Sequence[str]) -> None:
    """Refuse the response as its own predictor."""
    name = response.strip("`")
    if name not in columns:
        return
    for text, where in [
        (parsed.fixed, "the fixed effects"),
        *((term.effects, term.source) for term in parsed.random),
    ]:
        if name in references(text).columns:
            raise FormulaError(
                f"The response {name!r} is also among the predictors, in {where}. Leave it out "
                "there."
            )


def _check_index(parsed: MixedFormula, parts: Mapping[str, str], frame: pd.DataFrame) -> None:
    """Refuse names of the index, which are no columns."""
    labels = {name for name in frame.index.names if isinstance(name, str)}
    if not labels:
        return
    labels -= set(frame.columns)
    texts = [*parts.values(), *parsed.offsets, *(f for t in parsed.random for f in t.factors)]
    for name in sorted(labels):
        if any(name in references(text).names for text in texts):
            raise DataError(
                f"The formula names {name!r}, which is the index of the data, not a column. Make "
                "it one with data.reset_index()."
            )


def _check_readable(parts: Mapping[str, str]) -> None:
    """Refuse columns named like what means something else in a formula, backquotes or not."""
    for name in {"1", "."} & {name for text in parts.values() for name in references(text).names}:
        raise DataError(
            f"A column named {name!r} cannot be used in a formula, where it stands for "
            f"{'the intercept' if name == '1' else 'all other columns'}, even in backquotes. "
            f"Rename it: data.rename(columns={{{name!r}: 'x1'}})."
        )
