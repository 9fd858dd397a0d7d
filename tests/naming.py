"""R's and our names of effects, groups and levels → one spelling both sides share."""

from __future__ import annotations

import re

_LEVEL = re.compile(r"\[(?:T\.)?([^\]]*)\]")


def effect(name: str) -> str:
    """`Machine[T.B]` and `MachineB`, `x:f` and `f:x`, `I(x ** 2)` and `I(x^2)` become equal."""
    text = "Intercept" if name == "(Intercept)" else name
    text = _LEVEL.sub(r"\1", text).replace("**", "^").replace(" ", "")
    return ":".join(sorted(_split(text)))


def group(name: str) -> tuple[str, ...]:
    """`a:b`, `b:a` and `b:(a)` are the same grouping: its factors, sorted."""
    return tuple(sorted(_factors(name)))


def level(group_name: str, label: object) -> str:
    """The label of a level with its parts in the order of `group`."""
    factors = _factors(group_name)
    text = str(label)
    if len(factors) == 1:
        return text
    parts = text.split(":")
    if len(parts) != len(factors):
        raise ValueError(f"level {text!r} of {group_name!r} does not have {len(factors)} parts")
    return ":".join(part for _, part in sorted(zip(factors, parts, strict=True)))


def term_group(name: str, known: set[tuple[str, ...]]) -> tuple[str, ...]:
    """The group of a term; lme4 calls the second term of a group `Subject.1`."""
    if group(name) in known:
        return group(name)
    return group(re.sub(r"\.\d+$", "", name))


def _factors(name: str) -> list[str]:
    return name.replace("(", "").replace(")", "").replace(" ", "").split(":")


def _split(text: str) -> list[str]:
    """Parts between the colons that are outside parentheses."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == ":" and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]
