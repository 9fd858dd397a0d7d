"""Memory that has run out → a sentence on what would need less."""

from __future__ import annotations

_ADVICE = (
    "Fit fewer levels of crossed grouping factors or simpler random-effects terms, read the rows "
    "in chunks (chunks=lmm.Chunks(rows=250_000)), leave out solver= where one is given, or use a "
    "machine with more memory."
)


class enough_memory:
    """What is done inside says in a sentence of its own when memory runs out.

    A class, as a generator would cost as much as what small models compute.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and issubclass(kind, MemoryError):
            said = str(error)
            if not said.endswith("more memory."):  # it has been said inside
                raise MemoryError(f"Memory ran out{f' ({said})' if said else ''}. {_ADVICE}")
