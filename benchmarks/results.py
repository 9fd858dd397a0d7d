"""RESULTS.md: a section by each script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"


def write_section(title: str, lines: Sequence[str]) -> None:
    """Put a section in place of the one of the same title, or at the end."""
    text = RESULTS.read_text(encoding="utf-8")
    section = "\n".join([f"## {title}", "", *lines])
    old = re.compile(rf"^## {re.escape(title)}\n.*?(?=\n## |\Z)", flags=re.S | re.M)
    if old.search(text):
        text = old.sub(lambda _: section.rstrip() + "\n", text)
    else:
        text = text.rstrip() + "\n\n" + section
    RESULTS.write_text(text.rstrip() + "\n", encoding="utf-8")


def write_beginning(lines: Sequence[str]) -> None:
    """Put these lines in place of what stands before the first section."""
    text = RESULTS.read_text(encoding="utf-8")
    rest = text[text.index("\n## ") :] if "\n## " in text else "\n"
    RESULTS.write_text("\n".join(lines).rstrip() + "\n" + rest, encoding="utf-8")
