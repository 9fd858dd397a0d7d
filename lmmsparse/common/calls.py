"""A call whose arguments do not fit the function → an error that names the one that was meant.

The signature is looked at when a call has failed: a `TypeError` from inside a function whose
arguments fit is not touched.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

from lmmsparse.common.errors import OptionError
from lmmsparse.common.habits import habit
from lmmsparse.common.memory import enough_memory
from lmmsparse.common.options import check_jobs, check_level, yes_or_no
from lmmsparse.common.words import close_match

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

# Options that mean the same everywhere, also where a call has no use for them.
_EVERYWHERE: dict[str, Callable[[Any], Any]] = {"level": check_level, "n_jobs": check_jobs}


def no_such_name(module: str, models: type, public: Sequence[str], name: str) -> NoReturn:
    """Raise for a name that a module does not have, and say what to write instead.

    Parameters
    ----------
    models : type
        The class of fitted models, whose members other packages have as functions.
    public : sequence of str
        Names that the module has.
    """
    text = f"module {module!r} has no attribute {name!r}"
    member = getattr(models, name) if name in dir(models) and name[0] != "_" else None
    if advice := habit("makers", name):
        text += f". {advice}"
    elif callable(member):
        text += f". It is a method of the fitted model. Write m.{name}({_usual(member)})."
    elif member is not None:
        text += f". It is a member of the fitted model. Write m.{name}."
    elif advice := habit("members", name):
        text += f". {advice}"
    elif name[0] != "_":
        text += "." * bool(hint := close_match(name, public)) + hint
    raise AttributeError(text, name=name)


def _usual(method: Callable[..., Any]) -> str:
    """What a call of a method cannot do without, as text."""
    needed = [
        parameter.name
        for parameter in list(inspect.signature(method).parameters.values())[1:]
        if parameter.default is inspect.Parameter.empty
        and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    return ", ".join("rng=1" if name == "rng" else name for name in needed)


def not_called(what: str) -> Callable[[C], C]:
    """Decorate a class of results so that calling one, as R and others do, says what to write."""

    def decorate(kind: C) -> C:
        def call(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
            raise OptionError(what)

        # Not in the class body, where type checkers would take every call for one that is meant.
        kind.__call__ = call  # type: ignore[method-assign]
        return kind

    return decorate


def _looks_like(name: str, member: str) -> bool:
    """Whether a member may be meant: they begin alike, or differ by a letter."""
    begin_alike = name[:4] == member[:4] and len(name) >= 4
    return begin_alike or difflib.SequenceMatcher(None, name, member).ratio() >= 0.85


def explained_members(kind: C, section: str = "members") -> C:
    """Decorate a class so that a member it does not have says what to write instead.

    Parameters
    ----------
    section : str
        Of the habits that are looked up.
    """
    members = [name for name in dir(kind) if not name.startswith("_")]

    def missing(self: Any, name: str) -> Any:
        if hasattr(kind, name):  # a property that raised: once more, for its own message
            return object.__getattribute__(self, name)
        text = f"{kind.__name__!r} object has no attribute {name!r}"
        close = [m for m in members if _looks_like(name.lower(), m)]
        close = difflib.get_close_matches(name.lower(), close, n=1, cutoff=0.0)
        if advice := getattr(kind, "_instead", {}).get(name, habit(section, name)):
            text += f". {advice}"
        elif close and not name.startswith("_"):
            text += f". Did you mean {close[0]!r}?"
        raise AttributeError(text, name=name, obj=self)

    # Not in the class body, where type checkers would take every name for a member.
    kind.__getattr__ = missing  # type: ignore[attr-defined]
    return kind


def checked_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function so that a wrong argument list says what to write instead."""
    signature = inspect.signature(function)
    own = [p for name, p in signature.parameters.items() if name != "self"]
    parameters = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
    closed = len(parameters) == len(own)
    known = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    checks = {p.name: (p.default, check) for p in parameters if (check := _check_of(p))}
    if "which" in known:  # a level may be meant for it, and the call itself says so
        checks.pop("level", None)
    places = [(i, name) for i, name in enumerate(signature.parameters) if name in checks]
    places = [(i, name) for i, name in places if not _by_name_only(signature, name)]

    def look_at(name: str, value: Any) -> None:
        default, check = checks[name]
        if value is not default:
            check(value)

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in kwargs.items():
            if closed and name not in known:
                raise OptionError(unknown_keyword(called, name, known))
            if name in checks:
                look_at(name, value)
        for i, name in places:
            if i < len(args):
                look_at(name, args[i])
        try:
            with enough_memory():
                return function(*args, **kwargs)
        except TypeError:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:  # it was not entered
                raise OptionError(_misfit(called, parameters, kwargs, str(error))) from error
            raise

    return checked


def checked_construction(kind: C) -> C:
    """Decorate a class so that its constructor is a checked function."""
    kind.__init__ = checked_keywords(kind.__init__)  # type: ignore[misc]
    return kind


def _check_of(parameter: inspect.Parameter) -> Callable[[Any], Any] | None:
    """What is asked of a value before a call begins; None where the call itself asks."""
    if parameter.annotation in ("bool", "bool | None"):
        return partial(yes_or_no, parameter.name)
    return _EVERYWHERE.get(parameter.name)


def _by_name_only(signature: inspect.Signature, name: str) -> bool:
    return signature.parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def _misfit(
    function: str, parameters: list[inspect.Parameter], given: dict[str, Any], error: str
) -> str:
    """The message for arguments that are missing, too many, or given twice."""
    names = [p.name for p in parameters]
    missing = re.match(r"missing a required (?:keyword-only )?argument: '(\w+)'", error)
    if missing is not None:
        name = missing.group(1)
        why = habit("needed", f"{function}.{name}") or habit("needed", name)
        why = why or f"It cannot be left out. Write {function}(..., {name}=...)."
        return f"{function}() was not given {name!r}. {why}"
    if error.startswith("multiple values"):
        twice = ", ".join(repr(name) for name in names if name in given)
        others = [name for name in names if name not in given]
        return (
            f"{function}() got {twice} twice, by name and by position. Its arguments are "
            f"{', '.join(names)}. Give all by name"
            + (f", such as {others[-1]}=." if others else ".")
        )
    if function == "LinearMixedModel":
        return (
            "LinearMixedModel() takes a fit only, as lmm.fit_design returns it. Write "
            "lmm.lmer(formula, data) to fit a model."
        )
    first = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    rest = [name for name in names if name not in first]
    if not names:
        return f"{function}() takes no arguments. Leave it out."
    return (
        f"{function}() was given too many arguments. By position it takes "
        f"{', '.join(first) or 'none'}. "
        + (
            f"Give the others by name: {', '.join(f'{n}=' for n in rest)}."
            if rest
            else "Leave out the others."
        )
    )


def unknown_keyword(function: str, name: str, known: list[str]) -> str:
    """The message for a keyword that a function does not have."""
    folded = {option.lower(): option for option in known}
    close = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    hint = habit("keywords", f"{function}.{name}")
    hint = hint or ("Write kind=." if name == "type" and "kind" in known else "")
    hint = hint or habit("keywords", name)
    hint = hint or (f"Did you mean {folded[close[0]]}=?" if close else "")
    rest = f"Its options are {', '.join(known)}." if known else "It takes none."
    return " ".join(filter(None, [f"{function}() has no option {name!r}.", hint, rest]))
