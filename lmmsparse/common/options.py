"""An option's value → the value, or an error that says what the option may be.

Whatever is given - an array, a table, None, an object of somebody else's - is judged by its type
before it is compared, so that no other package's words reach the user.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmsparse.common.errors import OptionError
from lmmsparse.common.habits import habit
from lmmsparse.common.words import alternatives, brief


def one_of(name: str, value: Any, choices: Sequence[str], why: str = "") -> str:
    """A word out of several; `why` is a sentence on what the option is about."""
    if isinstance(value, str) and value in choices:
        return value
    raise refused(name, alternatives(choices), value, why)


def a_text(name: str, value: Any) -> str:
    """Any text."""
    if isinstance(value, str):
        return value
    raise refused(name, "a text", value)


def word_of(name: str, value: Any, choices: Sequence[str], why: str = "") -> str:
    """As `one_of`, but in any case, and by the names other packages have."""
    if isinstance(value, str) and value not in choices:
        plain = re.sub(r"[^a-z]", "", value.lower())
        plain = habit("words", f"{name}.{plain}") or plain
        value = next((each for each in choices if re.sub(r"[^a-z]", "", each) == plain), value)
    return one_of(name, value, choices, why)


def refused(name: str, kind: str, value: Any, *advice: str) -> OptionError:
    """The error for an option that is not of its kind."""
    return OptionError(
        " ".join([f"{name} must be {kind}, not {brief(value)}.", *filter(None, advice)])
    )


_MEANS = {"reml": "True (REML) or False (maximum likelihood)"}


def yes_or_no(name: str, value: Any) -> bool:
    """True or False, also numpy's."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise refused(name, _MEANS.get(name, "True or False"), value)


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """A whole number from `least` on."""
    if is_whole(value) and value >= least:
        return int(value)
    kinds = {0: "a non-negative whole number", 1: "a positive whole number"}
    raise refused(name, kinds.get(least, f"a whole number from {least} on"), value)


def positive(name: str, value: Any, advice: str = "") -> float:
    """A positive finite number."""
    if is_number(value) and 0.0 < value < np.inf:
        return float(value)
    raise refused(name, "a positive number", value, advice)


def share(name: str, value: Any, advice: str = "", *, ends: bool = False) -> float:
    """A number between 0 and 1; with `ends`, these two as well."""
    if is_number(value) and (0.0 < value < 1.0 or (ends and value in (0.0, 1.0))):
        return float(value)
    raise refused(name, "a number between 0 and 1", value, advice)


def names_in(name: str, value: Any, use: str) -> list[str]:
    """One name or several, as a list."""
    names = several(value)
    if all(isinstance(item, str) for item in names):
        return [str(item) for item in names]
    raise refused(name, "a name or several", value, use)


def several(value: Any) -> list[Any]:
    """The items of a collection; a text, a mapping or what is no collection is one item."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        try:
            return list(value)
        except Exception:  # iteration is the giver's code: an array without dimensions, say
            return [value]
    return [value]


def array_of(name: str, value: Any) -> NDArray[Any]:
    """What numpy makes of a value, which may be an object of somebody else's that fails."""
    try:
        return np.asarray(value)
    except Exception as error:
        raise refused(name, f"an array ({type(error).__name__}: {error})", value) from error


def mapping(name: str, value: Any, use: str) -> Mapping[Any, Any]:
    """A mapping; an empty one for None."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    raise refused(name, "a mapping", value, use)


def by_name(name: str, value: Any, use: str) -> Mapping[str, Any]:
    """A mapping whose keys are names; an empty one for None."""
    found = mapping(name, value, use)
    for key in found:
        if not isinstance(key, str):
            raise refused(f"A name in {name}=", "a text", key, use)
    return found


def check_level(level: Any, name: str = "level") -> float:
    """A confidence level as a float strictly between 0 and 1."""
    return share(name, level, f"Use, for example, {name}=0.95 for 95 %.")


def check_counts(n: Any, n_jobs: Any) -> None:
    """Refuse numbers of replicates and processes that are none."""
    whole_number("n", n)
    check_jobs(n_jobs)


def check_jobs(n_jobs: Any) -> int:
    """A number of processes: positive, or negative as joblib counts them."""
    if is_whole(n_jobs) and n_jobs != 0:
        return int(n_jobs)
    raise refused("n_jobs", "a positive whole number, or -1 for all processors", n_jobs)


def as_generator(rng: Any) -> np.random.Generator:
    """A generator, or one made from a seed."""
    if isinstance(rng, np.random.Generator):
        return rng
    if is_whole(rng) and rng >= 0:
        return np.random.default_rng(int(rng))
    raise refused(
        "rng", "a numpy random generator or a seed", rng, "Use a whole number such as rng=1."
    )


def is_whole(value: Any) -> bool:
    """Whether a value is one whole number; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is one real number; True and False are none."""
    return is_whole(value) or isinstance(value, (float, np.floating))
