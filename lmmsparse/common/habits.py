"""What users of other packages write from habit → what to write instead."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from functools import cache
from importlib import resources

from lmmsparse.common.words import close_match, listed


@cache
def _habits() -> dict[str, dict[str, str]]:
    text = (resources.files("lmmsparse") / "common" / "habits.toml").read_text("utf-8")
    return tomllib.loads(text)


def habit(section: str, name: str) -> str:
    """What to write instead of a name of a section of `habits.toml`; nothing for unknown ones."""
    return _habits()[section].get(name, "")


def no_member(name: str, columns: Collection[str]) -> str:
    """The message for a member that a table of these columns does not have."""
    text = f"'Table' object has no attribute {name!r}"
    advice = f"Write table[{name!r}]." if name in columns else habit("tables", name)
    return f"{text}. {advice}" if advice else text


def no_column(name: object, columns: Sequence[str], rows: Sequence[str]) -> str:
    """The message for a column that a table does not have."""
    if name in list(rows):
        return f"{name!r} is a row, not a column. Write table.to_frame().loc[{name!r}]."
    return (
        f"{name!r} is not a column of the table.{close_match(str(name), columns)} Its columns are "
        f"{listed(columns, 20)}."
    )
