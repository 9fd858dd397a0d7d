"""An option's value → the value, or an error that says what the option may be.

Whatever is given - an array, a table, None, an object of somebody else's - is judged by its type
before it is compared, so that no other package's words reach the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lmmsparse.common.errors import OptionError


def brief(value: Any) -> str:
    """A value as a message shows it: as it is written, or its type where that is long."""
    try:
        text = repr(value)
    except Exception:  # whatever somebody's own __repr__ does
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def one_of(name: str, value: Any, choices: Sequence[str], why: str) -> str:
    """A word out of several.

    Parameters
    ----------
    name : str
        The option.
    value : object
        What was given.
    why : str
        A sentence: what the option is about.
    """
    if isinstance(value, str) and value in choices:
        return value
    raise OptionError(
        f"{name}={brief(value)} does not exist. {why} Choose {alternatives(choices)}."
    )


def yes_or_no(name: str, value: Any, why: str = "") -> bool:
    """True or False, also numpy's."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise OptionError(
        f"{name}={brief(value)} is neither True nor False. {why} Pass one of the two.".replace(
            "  ", " "
        )
    )


def whole_number(name: str, value: Any, least: int, why: str, use: str) -> int:
    """A whole number from `least` on."""
    if is_whole(value) and value >= least:
        return int(value)
    kind = {0: "a whole number from 0 on", 1: "a positive whole number"}[least]
    raise OptionError(f"{name}={brief(value)} is not {kind}. {why} {use}")


def share(name: str, value: Any, why: str, use: str, *, ends: bool = False) -> float:
    """A number between 0 and 1; with `ends`, these two as well."""
    if not is_number(value):
        raise OptionError(f"{name}={brief(value)} is not a number. {why} {use}")
    number = float(value)
    if 0.0 < number < 1.0 or (ends and number in (0.0, 1.0)):
        return number
    raise OptionError(f"{name}={brief(value)} is not between 0 and 1. {why} {use}")


def names_in(name: str, value: Any, why: str, use: str) -> list[str]:
    """One name or several, as a list."""
    names = several(value)
    if all(isinstance(item, str) for item in names):
        return [str(item) for item in names]
    raise OptionError(f"{name}={brief(value)} is neither a name nor several. {why} {use}")


def several(value: Any) -> list[Any]:
    """The items of a collection; a text, a mapping or what is no collection is one item."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        try:
            return list(value)
        except Exception:  # iteration is the giver's code: an array without dimensions, say
            return [value]
    return [value]


def mapping(name: str, value: Any, why: str, use: str) -> Mapping[Any, Any]:
    """A mapping; an empty one for None."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    raise OptionError(f"{name}={brief(value)} is not a mapping. {why} {use}")


def check_level(level: Any, name: str = "level") -> float:
    """A confidence level as a float strictly between 0 and 1."""
    return share(
        name, level, "It is a share, not a percentage.", f"Use, for example, {name}=0.95 for 95 %."
    )


def check_counts(n: Any, n_jobs: Any) -> None:
    """Refuse numbers of replicates and processes that are none."""
    whole_number("n", n, 1, "It counts replicates.", "Use 1 or more.")
    check_jobs(n_jobs)


def check_jobs(n_jobs: Any) -> int:
    """A number of processes: positive, or negative as joblib counts them."""
    if is_whole(n_jobs) and n_jobs != 0:
        return int(n_jobs)
    raise OptionError(
        f"n_jobs={brief(n_jobs)} is not a positive whole number. It counts the processes that "
        "share the work. Use 1 or more, or -1 for all processors."
    )


def as_generator(rng: Any) -> np.random.Generator:
    """A generator, or one made from a seed."""
    if isinstance(rng, np.random.Generator):
        return rng
    if is_whole(rng) and rng >= 0:
        return np.random.default_rng(int(rng))
    raise OptionError(
        f"rng={brief(rng)} is neither a random generator nor a seed. Results must be reproducible. "
        "Pass rng=np.random.default_rng(1), or a whole number such as rng=1."
    )


def is_whole(value: Any) -> bool:
    """Whether a value is one whole number; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is one real number; True and False are none."""
    return is_whole(value) or isinstance(value, (float, np.floating))


def alternatives(choices: Sequence[str]) -> str:
    """`'a', 'b' or 'c'`."""
    shown = [repr(choice) for choice in choices]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
