"""`Fit` → the model that backward elimination leaves: random effects first, then fixed effects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmsparse.common.errors import Finding, OptionError
from lmmsparse.common.findings import announce
from lmmsparse.common.options import names_in, share
from lmmsparse.common.render import Section, Shown
from lmmsparse.common.table import Table, counts
from lmmsparse.common.words import listed
from lmmsparse.design.reduced import formula_of, without_fixed, without_random
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.least_squares import LeastSquares, least_squares
from lmmsparse.fit.refit import again, still_fixed
from lmmsparse.fit.settle import Settled, carried, findings_about, settle
from lmmsparse.inference.df.methods import Constant, check_ddf, denominator_df, method_name
from lmmsparse.inference.hypotheses.anova import f_test
from lmmsparse.inference.hypotheses.ranova import reduced_fits, table_of
from lmmsparse.inference.hypotheses.terms import FixedTerms


@dataclass(frozen=True, eq=False, repr=False)
class Step(Shown):
    """What backward elimination did.

    Attributes
    ----------
    random, fixed : Table
        ``Eliminated`` (in which step, 0 for what stays) and the tests as `ranova` and `drop1` have
        them, each at the last time it was made.
    formula : str
        Of the model that is left; empty for a model made from arrays.
    model : LinearMixedModel or None
        The model that is left; None if it has no random effects any more.
    """

    random: Table
    fixed: Table
    formula: str
    model: Any

    @property
    def _sections(self) -> tuple[Section, ...]:
        left = self.formula or "a model made from arrays"
        if self.model is None:
            left += "  (no random effects left: a linear model)"
        last = Section(lines=(f"Model found: {left}",))
        return self.random.section, self.fixed.section, last


_Row = tuple[str, int, list[float]]  # a term, when it went (0: never, -1: no term), its test
_OF_RANDOM = ("npar", "logLik", "AIC", "LRT", "Df", "Pr(>Chisq)")
_OF_FIXED = ("Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)")


def step(
    fit: Fit,
    make_model: Callable[[Fit], Any],
    ddf: str = "satterthwaite",
    alpha_random: float = 0.1,
    alpha_fixed: float = 0.05,
    reduce_random: bool = True,
    reduce_fixed: bool = True,
    keep: Collection[str] = (),
    progress: bool | None = None,
) -> Step:
    """Eliminate terms one by one, the least significant first; see `LinearMixedModel.step`.

    Notes
    -----
    Random effects are tested by likelihood ratio with the criterion of the fit and plain χ²
    p-values, fixed effects by F tests of those that no other term builds on.

    References
    ----------
    Kuznetsova, Brockhoff & Christensen (2017), Journal of Statistical Software 82(13), section 3.
    """
    ddf = check_ddf(ddf)
    for name, alpha in (("alpha_random", alpha_random), ("alpha_fixed", alpha_fixed)):
        share(name, alpha, f"Use, for example, {name}=0.05.", ends=True)
    labels = [term.label for term in FixedTerms(fit.design).terms]
    keep = names_in("keep", keep, f"Name some of {listed(labels)}.")
    unknown = [name for name in keep if name not in labels]
    if unknown:
        raise OptionError(
            f"keep= names {unknown[0]!r}, which is not a term of the fixed effects. The terms are "
            f"{listed(labels)}. Name some of them."
        )
    random, model, first = _random(fit, alpha_random if reduce_random else 1.0, progress)
    table, model, second = _fixed(model, ddf, alpha_fixed if reduce_fixed else 1.0, keep)
    announce([*first, *second])
    if isinstance(model, Fit):
        return Step(random, table, formula_of(model.design), make_model(model))
    return Step(random, table, formula_of(model.design), None)


def _random(
    fit: Fit, alpha: float, progress: bool | None
) -> tuple[Table, Fit | LeastSquares, tuple[Finding, ...]]:
    rows: list[_Row] = []
    current, gone = settle(fit), 0
    refits: list[tuple[str, Settled]] = []
    own: list[tuple[str, Fit, Settled]] = []
    title = f"random effects ({'REML' if fit.reml else 'ML'})"
    while True:
        found = reduced_fits(current, progress)
        model = found.whole.fit
        if gone == 0:
            own = [("the fit", fit, found.whole)]
        else:
            refits[-1] = (refits[-1][0], found.whole)
        refits += found.refits
        frame = table_of(found).to_frame()
        values = frame.to_numpy(dtype=np.float64)
        labels = [str(label) for label in frame.index]
        if not rows:
            rows.append((labels[0], -1, values[0].tolist()))
        p = np.nan_to_num(values[1:, -1], nan=-1.0)
        worst = int(np.argmax(p)) if len(p) else 0
        if not len(p) or p[worst] <= alpha:
            rows += [(name, 0, v.tolist()) for name, v in zip(labels[1:], values[1:], strict=True)]
            findings = findings_about(refits, own)
            return _table(rows, _OF_RANDOM, title, findings), model, findings
        gone += 1
        rows.append((labels[worst + 1], gone, values[worst + 1].tolist()))
        reduction = found.what[worst]
        design = without_random(model.design, reduction)
        if not design.blocks and design.residual is None:
            findings = findings_about(refits, own)
            left = least_squares(design, model.held.sigma)
            return _table(rows, _OF_RANDOM, title, findings), left, findings
        smaller = again(model, design, held=still_fixed(model, reduction))
        current = settle(smaller, [carried(model, smaller)])
        refits.append((f"the model without {reduction.label}", current))


def _table(
    rows: list[_Row],
    names: tuple[str, ...],
    of_what: str,
    findings: Sequence[Finding] = (),
) -> Table:
    columns = {"Eliminated": [np.nan if order < 0 else float(order) for _, order, _ in rows]}
    columns.update({name: [row[2][j] for row in rows] for j, name in enumerate(names)})
    return Table(
        columns,
        [row[0] for row in rows],
        title=f"Backward elimination of {of_what}",
        notes=[finding.message for finding in findings],
        formats={"Eliminated": counts},
    )


def _fixed(
    model: Fit | LeastSquares, ddf: str, alpha: float, keep: list[str]
) -> tuple[Table, Fit | LeastSquares, tuple[Finding, ...]]:
    rows: list[_Row] = []
    refits: list[tuple[str, Settled]] = []
    gone = 0
    while True:
        terms = FixedTerms(model.design)
        method = denominator_df(model, ddf) if isinstance(model, Fit) else _known_df(model)
        sigma2 = model.sigma2 if isinstance(model, Fit) else model.sigma2()
        chosen = terms.droppable()
        tests = []
        for i in chosen:
            F, num, den, p, scale = f_test(model.beta, terms.deletion(i), method)
            mean = F / scale * sigma2
            # A term whose columns others repeat takes nothing with it.
            tests.append([mean * num, mean, num, den, F, p if num else 1.0])
        free = [j for j, i in enumerate(chosen) if terms.label(i) not in keep]
        worst = max(free, key=lambda j: tests[j][-1], default=None)
        if worst is None or not tests[worst][-1] > alpha:
            rows += [(terms.label(i), 0, test) for i, test in zip(chosen, tests, strict=True)]
            break
        gone += 1
        rows.append((terms.label(chosen[worst]), gone, tests[worst]))
        design = without_fixed(model.design, chosen[worst])
        if isinstance(model, Fit):
            settled = settle(again(model, design), [model.theta])
            refits.append((f"the model without {rows[-1][0]}", settled))
            model = settled.fit
        else:
            model = least_squares(design, model.known_sigma)
    used = method_name(ddf) if isinstance(model, Fit) else "least squares"
    findings = findings_about(refits)
    return _table(rows, _OF_FIXED, f"fixed effects, {used}", findings), model, findings


def _known_df(model: LeastSquares) -> Constant:
    return Constant(model.covariance(), np.inf if model.known_sigma is not None else model.df)
