"""What users of other packages write from habit → what to write instead."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources


@cache
def _habits() -> dict[str, dict[str, str]]:
    text = (resources.files("lmmsparse") / "common" / "habits.toml").read_text("utf-8")
    return tomllib.loads(text)


def habit(section: str, name: str) -> str:
    """What to write instead of a name of a section of `habits.toml`; nothing for unknown ones."""
    return _habits()[section].get(name, "")
