"""Names of comparisons → weights of the means that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.habits import habit
from lmmsparse.common.options import is_whole
from lmmsparse.common.table import label_text
from lmmsparse.common.words import alternatives, brief, close_match, listed
from lmmsparse.inference.means.weights import level_weights

_METHODS = ("pairwise", "trt.vs.ctrl", "consec")
Comparisons = tuple[list[str], FloatArray]


def check_contrasts(contrasts: Any, pairwise: bool) -> Any:
    """What is compared: a name, a mapping, or None for the means themselves."""
    if contrasts is None:
        return "pairwise" if pairwise else None
    if isinstance(contrasts, Mapping):
        if not contrasts:
            raise OptionError("contrasts is empty. Give at least one: {'name': {'level': 1, ...}}.")
    elif not isinstance(contrasts, str) or contrasts not in _METHODS:
        raise OptionError(
            f"contrasts must be {alternatives(_METHODS)}, or a mapping of names to weights of the "
            f"means, not {brief(contrasts)}.{_meant(contrasts)}"
        )
    if pairwise and contrasts != "pairwise":
        raise OptionError(
            f"pairwise=True and contrasts={brief(contrasts)} are two different sets of "
            "comparisons. Leave one of them out."
        )
    return contrasts


def _meant(contrasts: Any) -> str:
    """What is written here for a kind of comparisons by another name."""
    if not isinstance(contrasts, str):
        return ""
    if contrasts.startswith("rev") and contrasts[3:] in _METHODS:
        return f" Write contrasts={contrasts[3:]!r} and reverse=True."
    other = habit("words", f"contrasts.{contrasts.lower()}")
    return f" Write contrasts={other!r}." if other else close_match(contrasts, _METHODS)


def comparisons(
    contrasts: Any, labels: Sequence[str], values: Sequence[Any], reverse: bool, ref: Any
) -> Comparisons:
    """Names and weights of comparisons between some means.

    Parameters
    ----------
    contrasts : str or mapping
        As `check_contrasts` returns it.
    labels : sequence of str
        The means in words.
    values : sequence
        Of the one predictor whose means they are, or their labels.
    reverse : bool
        Turn every difference round.
    ref : level, position or None
        What the others are compared with by ``"trt.vs.ctrl"``; the first if None.
    """
    k = len(labels)
    if isinstance(contrasts, Mapping):
        names = [str(name) for name in contrasts]
        rows = [level_weights(f"contrasts[{n!r}]", given, values) for n, given in contrasts.items()]
        W = np.array(rows)
        return names, -W if reverse else W
    if contrasts == "pairwise":
        pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
        if reverse:
            pairs = [(i, j) for i in range(k) for j in range(i)]
    elif contrasts == "consec":
        pairs = [(i, i + 1) if reverse else (i + 1, i) for i in range(k - 1)]
    else:
        at = _reference(ref, labels)
        pairs = [(at, i) if reverse else (i, at) for i in range(k) if i != at]
    W = np.zeros((len(pairs), k))
    for row, (i, j) in enumerate(pairs):
        W[row, i], W[row, j] = 1.0, -1.0
    return [f"{labels[i]} - {labels[j]}" for i, j in pairs], W


def _reference(ref: Any, labels: Sequence[str]) -> int:
    if ref is None:
        return 0
    parts = ref if isinstance(ref, (tuple, list)) else [ref]
    text = ", ".join(map(label_text, parts))
    if text in labels:
        return list(labels).index(text)
    if is_whole(ref) and -len(labels) <= ref < len(labels):
        return int(ref) % len(labels)
    raise OptionError(
        f"ref must be one of the means that are compared, {listed(labels)}, not {brief(ref)}."
    )
