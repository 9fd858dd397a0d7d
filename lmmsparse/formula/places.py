"""A place in a formula: what stands there, and the error that points at it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from lmmsparse.common.errors import FormulaError

_QUOTED_OR_BLANK = re.compile(r"""`[^`]*`|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\s+""", re.DOTALL)


def one_line(text: str) -> str:
    r"""A formula with single blanks; those inside quotes and backquotes belong to names and texts.

    Examples
    --------
    >>> one_line("y  ~ `a  b`\n + (1 | g)")
    'y ~ `a  b` + (1 | g)'
    """
    return _QUOTED_OR_BLANK.sub(lambda f: " " if f[0].isspace() else f[0], text).strip()


@dataclass(frozen=True)
class Place:
    """``text[start:end]``, where `text` is a whole formula or a part of one."""

    text: str = field(repr=False)
    start: int
    end: int

    @property
    def written(self) -> str:
        """What the user wrote there, with single blanks; names and texts in quotes as they are."""
        return one_line(self.text[self.start : self.end])

    def fail(self, message: str) -> NoReturn:
        """Raise a `FormulaError` that underlines this place."""
        raise FormulaError(message, self.text, self.start, self.end - self.start)
