"""A place in a formula: what stands there, and the error that points at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from lmmsparse.common.errors import FormulaError


@dataclass(frozen=True)
class Place:
    """``text[start:end]``, where `text` is a whole formula or a part of one."""

    text: str = field(repr=False)
    start: int
    end: int

    @property
    def written(self) -> str:
        """What the user wrote there, on one line."""
        return " ".join(self.text[self.start : self.end].split())

    def fail(self, message: str) -> NoReturn:
        """Raise a `FormulaError` that underlines this place."""
        raise FormulaError(message, self.text, self.start, self.end - self.start)
