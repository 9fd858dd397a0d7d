"""Grouping factor → its values: a dictionary that names the factors there are, and shows itself."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any, TypeVar

import pandas as pd

from lmmsparse.common.calls import not_called
from lmmsparse.common.errors import UnknownGroupError
from lmmsparse.common.table import Table
from lmmsparse.common.words import close_match

V = TypeVar("V")
_ROWS, _WIDTH = 20, 88


def own_name(name: Any, groups: Iterable[str]) -> Any:
    """The name of a grouping factor here, where it may be lme4's: b:a for a:b of (1 | a/b)."""
    known = set(groups)
    if isinstance(name, str) and name not in known:
        turned = ":".join(reversed(name.split(":")))
        return turned if turned in known else name
    return name


@not_called(
    "Values by grouping factor are members, not methods. Write m.ranef, m.coef or m.cond_var "
    "without parentheses; one factor is m.ranef['group']."
)
class ByGroup(dict[str, V]):
    """Grouping factor → values, in the order of the model's terms.

    Examples
    --------
    >>> groups = ByGroup({"Subject": 1.5})
    >>> groups["Subject"]
    1.5
    >>> groups["subject"]
    Traceback (most recent call last):
    lmmsparse.common.errors.UnknownGroupError: 'subject' is not a grouping factor of the model. ...
    """

    def __missing__(self, name: Any) -> V:
        if (own := own_name(name, self)) in self:
            return self[own]
        raise UnknownGroupError(
            f"{name!r} is not a grouping factor of the model."
            f"{close_match(str(name), self)} "
            + (f"Name one of {', '.join(map(repr, self))}." if self else "It has none.")
        )

    def __getattr__(self, name: str) -> Any:
        advice = f" Write [{name!r}]." if name in self else ""
        raise AttributeError(f"Values by grouping factor have no attribute {name!r}.{advice}")

    def __repr__(self) -> str:
        return "\n\n".join(_shown(name, value) for name, value in self.items()) or "{}"

    def _repr_html_(self) -> str:
        parts = []
        for name, value in self.items():
            if isinstance(value, pd.DataFrame):
                parts.append(_table(name, value)._repr_html_())
                continue
            text = f"<pre>{html.escape(repr(value))}</pre>"
            parts.append(f"<div style='font-weight:600'>{html.escape(name)}</div>{text}")
        return "".join(parts)


def _table(name: str, value: pd.DataFrame) -> Table:
    rest = [f"… ({len(value)} rows)"] if len(value) > _ROWS else []
    return Table.from_frame(value.head(_ROWS), title=name, notes=rest)


def _shown(name: str, value: Any) -> str:
    """A factor's values below its name, of long tables the first rows."""
    if not isinstance(value, pd.DataFrame):
        return f"{name}\n{value!r}"
    text = str(_table(name, value))
    if len(value) <= len(value.columns) and max(map(len, text.splitlines())) > _WIDTH:
        return str(Table.from_frame(value.T, title=name))
    return text
