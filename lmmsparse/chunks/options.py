"""What a user says about data that are read in chunks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lmmsparse.common.calls import checked_construction
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import is_whole, refused


@checked_construction
@dataclass(frozen=True)
class Chunks:
    """How data are read in chunks.

    Parameters
    ----------
    rows : int
        Rows in memory at a time, in each process.
    processes : int
        How many work on the chunks; never more than there are parts of the data large enough. The
        result does not depend on it.
    client : object, optional
        A Dask client, or anything else with ``submit``, to work on the chunks instead.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> sleep = lmm.load_dataset("sleepstudy")
    >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", sleep, chunks=lmm.Chunks(rows=50))
    >>> m.fixef.round(3).to_dict()
    {'Intercept': 251.405, 'Days': 10.467}
    """

    rows: int = 1_000_000
    processes: int = 2
    client: Any = None

    def __post_init__(self) -> None:
        for name in ("rows", "processes"):
            value = getattr(self, name)
            if not is_whole(value) or value < 1:
                raise refused(
                    name, "a positive whole number", value, f"Use, for example, {name}=2."
                )
        if self.client is not None and not callable(getattr(self.client, "submit", None)):
            raise refused(
                "client", "a client", self.client, "Pass dask.distributed.Client(), for example."
            )


@checked_construction
@dataclass(frozen=True)
class Batches:
    """Data that a function gives batch by batch, from the beginning whenever it is called.

    Parameters
    ----------
    function : callable
        Without arguments; returns an iterable of tables (pandas, polars, Arrow, mappings of
        arrays) with the same columns.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> sleep = lmm.load_dataset("sleepstudy")
    >>> batches = lmm.Batches(lambda: (part for _, part in sleep.groupby("Subject")))
    >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", batches)
    >>> m.nobs
    180
    """

    function: Callable[[], Iterable[Any]]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise OptionError(
                f"Batches() was given a {type(self.function).__name__}, not a function. The data "
                "are read more than once: pass a function that starts the batches again, such as "
                "lmm.Batches(lambda: read_batches())."
            )
        try:
            inspect.signature(self.function).bind()
        except TypeError as error:
            raise OptionError(
                f"The function of Batches() must not need arguments ({error}). Write, for example, "
                "lmm.Batches(lambda: function(path))."
            ) from error
        except ValueError:  # what Python does not know of a function from elsewhere
            pass
