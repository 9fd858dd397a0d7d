"""What went wrong or deserves attention → exceptions, warnings and `Finding`s.

Every error text says what is wrong, with the user's own names and numbers, and what to do; and why,
where that is not plain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmmsparse.common.render import Section, html_of

Level = Literal["info", "warning", "error"]


class LmmError(Exception):
    """Base class of every error lmmsparse raises on purpose."""


class FormulaError(LmmError, ValueError):
    """A formula that cannot be read; points at the place with a caret.

    Parameters
    ----------
    message : str
        What is wrong, why, and what to write instead.
    text : str, optional
        The formula as the user wrote it.
    position : int, optional
        Offset into `text` at which the trouble starts.
    length : int, optional
        How many characters the caret line underlines.
    """

    def __init__(
        self,
        message: str,
        text: str | None = None,
        position: int | None = None,
        length: int = 1,
    ) -> None:
        self.message = message
        self.text = text
        self.position = position
        self.length = max(1, length)
        super().__init__(self._render())

    def _render(self) -> str:
        if self.text is None or self.position is None:
            return self.message
        flat = self.text.replace("\n", " ").replace("\t", " ")
        caret = " " * self.position + "^" * self.length
        return f"{self.message}\n    {flat}\n    {caret}"

    def __reduce__(self) -> tuple[type[FormulaError], tuple[object, ...]]:
        return (FormulaError, (self.message, self.text, self.position, self.length))


class DataError(LmmError, ValueError):
    """Data that do not fit the formula or the model."""


class NotIdentifiableError(DataError):
    """A model whose parameters the data cannot tell apart."""


class OptionError(LmmError, ValueError):
    """An argument with an invalid value."""


class UnknownGroupError(LmmError, KeyError):
    """A name that is not one of the model's grouping factors."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would show it in quotation marks


class UnknownColumnError(LmmError, KeyError):
    """A name that is not one of a table's columns."""

    def __str__(self) -> str:
        return str(self.args[0])


class NotFittedByError(LmmError, AttributeError):
    """A quantity that belongs to the other criterion (ML or REML) than the one fitted."""


class RowsNotKeptError(LmmError, ValueError):
    """Something that needs the rows of the data, asked of a model that was fitted in chunks."""


class StorageError(LmmError, ValueError):
    """A file that is not a saved model, is damaged, or comes from a newer version."""


class MissingPackageError(LmmError, ImportError):
    """Something that needs a package which is not installed or cannot be loaded."""


class NumericalError(LmmError, ArithmeticError):
    """A factorization or a search that broke down."""


class LmmWarning(UserWarning):
    """Base class of every warning lmmsparse gives."""


class ConvergenceWarning(LmmWarning):
    """The search stopped where the criterion can still be lowered noticeably."""


class SingularFitWarning(LmmWarning):
    """The estimated covariance of some random effects is not of full rank."""


class SlowSolverWarning(LmmWarning):
    """A model that would be fitted faster if scikit-sparse or cvxopt could be used."""


class InterruptedWarning(LmmWarning):
    """A computation that was stopped by Ctrl-C and gives what it had found until then."""


class DesignWarning(LmmWarning):
    """The model that is fitted differs from what was written (dropped columns or rows)."""


@dataclass(frozen=True)
class Finding:
    """One thing a check has found, as data.

    Attributes
    ----------
    code : str
        Stable machine-readable name, for example ``"rank-deficient"``.
    level : {"info", "warning", "error"}
        Whether it only informs, warns, or stops the fit.
    message : str
        What was found, why it matters, what to do.
    """

    code: str
    level: Level
    message: str

    def __str__(self) -> str:
        return self.message

    def _repr_html_(self) -> str:
        return html_of([Section(f"{self.code} ({self.level})", lines=(self.message,))])
