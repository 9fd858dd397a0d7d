"""`Design` → findings: what in formula and data makes a fit impossible or doubtful.

One function per question; each returns findings and never raises. `require` turns a finding of
level "error" into the exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import DataError, Finding, NotIdentifiableError
from lmmsparse.common.words import listed
from lmmsparse.design import Design, RandomBlock, own_share
from lmmsparse.design.grouping import same_covariance
from lmmsparse.engine.columns import InternalColumns
from lmmsparse.engine.covariance.correlated import AR1, CompoundSymmetry
from lmmsparse.engine.covariance.structures import CovarianceStructure
from lmmsparse.engine.held import NOTHING, Held

_NEARLY = 1e-7
_READABLE = 1000
_SPANNED = 1e-12


def check_response_varies(design: Design) -> Iterator[Finding]:
    """A constant response has no variance to explain."""
    if design.facts is not None:
        low, high = design.facts.low, design.facts.high
    else:
        y = design.y - design.offset_or_zero
        low, high = float(y.min()), float(y.max())
    if high - low <= 1e-14 * max(abs(low), abs(high)):
        after = " once the offset is subtracted" if design.offset is not None else ""
        yield _error(
            "constant-response",
            f"The response {design.response!r} has the same value ({low:g}) in all {design.n} "
            f"rows{after}. There is no variation to model. Check the column and how rows were "
            "selected.",
        )


def check_rows(design: Design) -> Iterator[Finding]:
    """As many fixed effects as rows leave nothing to estimate a variance from."""
    if design.p >= design.n:
        yield _error(
            "columns-vs-rows",
            f"The model has {design.p} fixed effects for {design.n} rows: nothing is left to "
            "estimate variances from. Leave out fixed effects, or use more rows.",
        )


def check_levels(design: Design) -> Iterator[Finding]:
    """Every grouping factor needs fewer levels than rows, and better several.

    Unless their covariance is known, which tells them from residuals.
    """
    for name, terms in design.groups.items():
        block = design.blocks[terms[0]]
        if block.n_levels >= design.n and block.known is None:
            yield _error(
                "levels-vs-rows",
                f"The grouping factor {name!r} has {block.n_levels} levels in {design.n} rows. "
                "With one row per level its variation cannot be told from the residual variation. "
                "Use a grouping factor with repeated observations, or hold the residual standard "
                "deviation if it is known: fixed={'sigma': 1.0}.",
            )
        elif block.known is not None and not _relates_rows(block):
            yield _error(
                "levels-vs-rows",
                f"The levels of {name!r} that have rows have one each, and by their "
                f"{block.known.kind} they have equal variances and no covariances: their variation "
                "cannot be told from the residual variation. Check the labels, or hold the "
                "residual standard deviation if it is known: fixed={'sigma': 1.0}.",
            )
        elif 1 < block.n_levels < 5:
            yield Finding(
                "few-levels",
                "info",
                f"The grouping factor {name!r} has only {block.n_levels} levels "
                f"({listed(block.levels)}). The estimate of its variance is very uncertain.",
            )


def _relates_rows(block: RandomBlock) -> bool:
    """Whether the known covariance of a factor's levels is more than residuals are."""
    if block.prior is None or len(np.unique(block.codes)) < len(block.codes):
        return True
    r = np.random.default_rng(3).normal(size=(len(block.codes), 1))
    on_levels = np.zeros((block.n_levels, 1))
    on_levels[block.codes] = r
    back = block.prior.solve(on_levels)[block.codes]
    scale = float(np.mean(block.prior.variances[block.codes]))
    return bool(np.abs(back - scale * r).max() > _NEARLY * scale)


def _patterned(structure: CovarianceStructure) -> bool:
    """Whether correlations tell a term from residuals even with one row per random effect."""
    if isinstance(structure, CompoundSymmetry):
        return structure.k > 2 and not structure.hom
    return isinstance(structure, AR1) and structure.k > 2


def check_random_effects(design: Design) -> Iterator[Finding]:
    """A term needs fewer random effects than there are rows."""
    for block in design.blocks:
        effects = block.n_levels * block.k
        known = block.known is not None or _patterned(block.structure)
        if design.n <= effects and block.n_levels < design.n and not known:
            yield _error(
                "effects-vs-rows",
                f"The term {block.source} has {effects} random effects ({block.n_levels} levels × "
                f"{block.k}) for {design.n} rows. Its variances and the residual variance cannot "
                f"be told apart.{_factors_in(design, block)} Use fewer random slopes, or more "
                "observations per level.",
            )


def _factors_in(design: Design, block: RandomBlock) -> str:
    """Which columns of a term are text, of which each level got an effect."""
    if design.recipe is None:
        return ""
    text = [
        name
        for name, info in design.recipe.matrices.columns.items()
        if info.categories
        and isinstance(info.categories[0], str)
        and any(effect.startswith(f"{name}[") for effect in block.names)
    ]
    return f" Each level of {listed(text)} has an effect, as text makes a factor." if text else ""


def check_names(design: Design) -> Iterator[Finding]:
    """Two effects of one name, as of a column "Intercept", could not be told apart in results."""
    for names in (design.x_names, *(block.names for block in design.blocks)):
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            yield _error(
                "same-name",
                f"Two effects of the model would be called {twice[0]!r}. Rename the column, or "
                "leave one of the terms out.",
            )
            return


def check_repeated_terms(design: Design) -> Iterator[Finding]:
    """The same effect must not vary over the same group in two terms."""
    for name, terms in design.groups.items():
        seen: dict[str, str] = {}
        for block in (design.blocks[t] for t in terms):
            for effect in block.names:
                if effect in seen:
                    yield _error(
                        "repeated-effect",
                        f"The random effect {effect} of {name!r} is in two terms, {seen[effect]} "
                        f"and {block.source}. Their variances cannot be told apart. Write it in "
                        "one of them only.",
                    )
                seen.setdefault(effect, block.source)


def check_constant_columns(design: Design) -> Iterator[Finding]:
    """A random-effects column of zeros has no variance."""
    for t, block in enumerate(design.blocks):
        for name, square in zip(block.names, design.squares(t), strict=True):
            if square == 0.0:
                yield _error(
                    "zero-column",
                    f"The random-effects column {name!r} of {block.source} is zero in every row, "
                    "so that its variance has no influence on the fit. Remove it from the term.",
                )


def check_dependent_columns(design: Design) -> Iterator[Finding]:
    """Columns of a term that (nearly) repeat each other make its covariance arbitrary."""
    for t, block in enumerate(design.blocks):
        if block.k == 1:
            continue
        columns = design.some.blocks[t].columns
        share = own_share(columns, _NEARLY)
        if design.facts is not None and share.min() <= _NEARLY:  # in the sample at least
            share = np.maximum(share, own_share(_root_of(design.facts.grams[t]), _NEARLY))
        weak = [name for name, own in zip(block.names, share, strict=True) if own <= _NEARLY]
        if not weak or not columns.any(axis=0).all():
            continue
        repeats = f"{listed(weak)} {'repeats' if len(weak) == 1 else 'repeat'} the others"
        if share.min() <= 1e-12:
            yield _warning(
                "dependent-columns",
                f"The random-effects columns of {block.source} are linearly dependent: {repeats}. "
                "The variances cannot be told apart. Leave out what repeats others.",
            )
        else:
            yield _warning(
                "dependent-columns",
                f"The random-effects columns of {block.source} are nearly linearly dependent: "
                f"{repeats}. The arithmetic loses too many digits to be trusted. Centre "
                "predictors that are far from zero, for example with center(x).",
            )


def check_same_groupings(design: Design) -> Iterator[Finding]:
    """Two grouping factors that put the same rows together share their variance arbitrarily."""
    first = [terms[0] for terms in design.groups.values()]
    for i, s in enumerate(first):
        for t in first[:i]:
            a, b = design.blocks[s], design.blocks[t]
            if not same_covariance(a.known, b.known):  # two covariances of the same levels
                continue
            if a.n_levels == b.n_levels and _same_rows(design, s, t):
                yield _warning(
                    "same-grouping",
                    f"The grouping factors {b.group!r} and {a.group!r} put the same rows "
                    "together. Their variances cannot be told apart, only their sum. Remove one "
                    "of them.",
                )


def _same_rows(design: Design, s: int, t: int) -> bool:
    """Whether two factors with as many levels put the same rows together."""
    if design.facts is not None:
        return design.facts.same_rows(s, t)
    a, b = design.blocks[s], design.blocks[t]
    pairs = a.codes.astype(np.int64) * b.n_levels + b.codes
    return len(np.unique(pairs)) == a.n_levels


def _root_of(G: FloatArray) -> FloatArray:
    """A matrix A with A'A = G."""
    values, vectors = np.linalg.eigh(G)
    return np.asarray(np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T)


def check_split_factors(design: Design) -> Iterator[Finding]:
    """`||` keeps the correlations between the levels of a factor, which is rarely meant."""
    split = {b.source: ", ".join(b.names) for b in design.blocks if b.split and b.k > 1}
    for source, names in split.items():
        yield _warning(
            "split-factor",
            f"In {source} the double bar separates terms, not the levels of a factor: {names} "
            "stay correlated with each other, as in lme4. For independent effects with a variance "
            "each write diag(… | …) with a single bar, or numeric columns.",
        )


def check_random_within_fixed(design: Design) -> Iterator[Finding]:
    """Random effects whose columns the fixed effects already span have no variance to estimate."""
    candidates = [t for t, block in enumerate(design.blocks) if block.n_levels <= design.p]
    if not candidates:
        return
    Q = None if design.facts is not None else design.internal_columns(weighted=False)[0]
    for t in candidates:
        block = design.blocks[t]
        spanned = _spanned_by_sums(design, t) if Q is None else _spanned(design, t, Q)
        for name, nothing_left in zip(block.names, spanned, strict=True):
            if nothing_left:
                yield _warning(
                    "random-within-fixed",
                    f"The fixed effects already have a value for every level of {block.group!r}: "
                    f"nothing is left for the random effect {name} of {block.source}, its "
                    "variance is arbitrary, and standard errors that contain it mean nothing. "
                    "Leave the factor out of the fixed effects, or the random effect out of the "
                    "model.",
                )


def _spanned(design: Design, t: int, Q: InternalColumns) -> list[bool]:
    """Which effects of a term have columns Z that those of X span."""
    block, out = design.blocks[t], []
    for column in block.columns.T:
        Z = np.zeros((design.n, block.n_levels))
        Z[np.arange(design.n), block.codes] = column
        left = Z - Q.times(Q.transposed_times(Z))
        out.append(bool(np.linalg.norm(left) <= 1e-8 * np.linalg.norm(Z)))
    return out


def _spanned_by_sums(design: Design, t: int) -> list[bool]:
    """The same from the sums of all rows."""
    assert design.facts is not None
    products, S = design.facts.products, design.blocks[t].shift
    a, z, k = products.offsets[t], products.offsets[t + 1], products.sizes[t]
    along = products.ZtX[a:z].reshape(-1, k, products.p)
    along = along if S is None else np.matmul(S.T, along)
    squares = np.einsum("lkp,lkp->k", along, along)
    total = design.squares(t, weighted=True) * design.n
    spanned: list[bool] = (total - squares <= _SPANNED * total).tolist()
    return spanned


def check_similar_levels(design: Design) -> Iterator[Finding]:
    """Levels that differ only in whitespace (of a predictor, also in case) are usually typos."""
    found: dict[str, list[str]] = {}
    if design.recipe is not None:
        for name, info in design.recipe.matrices.columns.items():
            found[name] = _misspelt(info.categories or (), True)
    for block in design.blocks:
        if ":" not in block.group and not found.get(block.group):
            found[block.group] = _misspelt(block.levels, False)
    for name, alike in found.items():
        if alike:
            yield _warning(
                "similar-levels",
                f"The factor {name!r} has levels that differ only in whitespace or case: "
                f"{listed([repr(v) for v in alike])}. They are different levels of the model. If "
                "they mean the same, make them one, for example with "
                f"data[{name!r}].str.strip().str.lower().",
            )


def _error(code: str, message: str) -> Finding:
    return Finding(code, "error", message)


def _warning(code: str, message: str) -> Finding:
    return Finding(code, "warning", message)


def _misspelt(levels: Any, capitals: bool) -> list[str]:
    """Levels that become equal without blanks around them, and on request in small letters."""
    if len(levels) > _READABLE:
        return []
    values = levels if isinstance(levels, tuple) else np.asarray(levels, dtype=object)
    texts = [level for level in values if isinstance(level, str)]
    together = "".join(texts)
    if not capitals and together.split() == [together][: len(together)]:  # no blanks
        return []
    alike: dict[str, list[str]] = {}
    for level in texts:
        word = " ".join(level.split())
        alike.setdefault(word.casefold() if capitals else word, []).append(level)
    return [level for group in alike.values() if len(group) > 1 for level in group]


CHECKS: tuple[Callable[[Design], Iterator[Finding]], ...] = (
    check_response_varies,
    check_rows,
    check_levels,
    check_names,
    check_random_effects,
    check_repeated_terms,
    check_constant_columns,
    check_dependent_columns,
    check_same_groupings,
    check_split_factors,
    check_random_within_fixed,
    check_similar_levels,
)


_CHECKED: WeakKeyDictionary[Design, list[Finding]] = WeakKeyDictionary()


# What cannot be told from the residual variance, unless that is known.
_BESIDE_RESIDUALS = ("levels-vs-rows", "effects-vs-rows")


def check_design(design: Design, held: Held = NOTHING) -> list[Finding]:
    """Everything noticed while building the design and by all checks."""
    if design not in _CHECKED:  # asked for before the search and by the verdict after it
        found = [finding for check in CHECKS for finding in check(design)]
        _CHECKED[design] = [*design.findings, *found]
    known = _BESIDE_RESIDUALS if held.sigma is not None else ()
    found = [f for f in _CHECKED[design] if f.code not in known]
    return [*found, *_check_single_levels(design, held)]


def _check_single_levels(design: Design, held: Held) -> Iterator[Finding]:
    """A single level tells a variance only if several of its effects share it.

    Or if the variance is not estimated.
    """
    free = ~held.held(sum(block.structure.n_par for block in design.blocks))
    at = 0
    for block in design.blocks:
        wanted = int(free[at : at + block.structure.n_par].sum())
        at += block.structure.n_par
        if block.n_levels == 1 and wanted and wanted >= block.k:
            yield _error(
                "one-level",
                f"The grouping factor {block.group!r} has a single level ({block.levels[0]}) in "
                "the rows that are fitted: its variance cannot be estimated. Remove the term, "
                "check which rows were dropped, or hold the standard deviation if it is known.",
            )


def require(findings: Iterable[Finding]) -> None:
    """Raise the first finding of level "error"."""
    for finding in findings:
        if finding.level == "error":
            if finding.code in ("constant-response", "same-name"):
                raise DataError(finding.message)
            raise NotIdentifiableError(finding.message)
