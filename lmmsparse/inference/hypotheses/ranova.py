"""`Fit` → likelihood-ratio tests of its random effects, one reduction at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.errors import Finding
from lmmsparse.common.findings import announce
from lmmsparse.common.progress import bar
from lmmsparse.common.table import Table
from lmmsparse.design import Design
from lmmsparse.design.reduced import Reduction, formula_order, reductions_of
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.least_squares import least_squares
from lmmsparse.fit.monte_carlo import monte_carlo_note
from lmmsparse.fit.refit import reduced_fit
from lmmsparse.fit.settle import OWN, Settled, carried, findings_about, nested, settle
from lmmsparse.inference.hypotheses.boundary import MIXTURE, boundary
from lmmsparse.inference.hypotheses.lrt import deletions


@dataclass(frozen=True, eq=False)
class Reductions:
    """A fit and every smaller version of its random effects.

    Attributes
    ----------
    smaller : list of (Settled or Design)
        The design where no random effect is left.
    """

    whole: Settled
    what: list[Reduction]
    smaller: list[Settled | Design]

    @property
    def refits(self) -> list[tuple[str, Settled]]:
        """The smaller models that were fitted, with their labels."""
        return [
            (reduction.label, each)
            for reduction, each in zip(self.what, self.smaller, strict=True)
            if isinstance(each, Settled)
        ]


def reduced_fits(fit: Settled, progress: bool | None = None) -> Reductions:
    """Fit every smaller version of the random effects."""
    whole, design = fit, fit.fit.design
    order = [i for i in formula_order(design) if testable(fit.fit, i)]
    reductions = [r for i in order for r in reductions_of(design, i)]
    smaller: list[Settled | Design] = []
    with bar("ranova", len(reductions), "refits", progress) as shown:
        for reduction in reductions:
            small = reduced_fit(whole.fit, reduction)
            if isinstance(small, Fit):
                smaller.append(settle(small, [carried(whole.fit, small)]))
            else:
                smaller.append(small)
            shown.update()
    fitted = [j for j, each in enumerate(smaller) if isinstance(each, Settled)]
    template = whole.fit.template
    nothing = [template.with_held(np.zeros(template.n_theta))]
    whole, parts = nested(
        whole,
        [each for each in smaller if isinstance(each, Settled)],
        nothing if len(fitted) < len(smaller) else [],
    )
    for j, part in zip(fitted, parts, strict=True):
        smaller[j] = part
    return Reductions(whole, reductions, smaller)


def ranova_table(fit: Fit, progress: bool | None = None) -> Table:
    """Reduce every random-effects term in turn and compare likelihoods.

    Notes
    -----
    The criterion of the fit is kept: REML fits are compared by REML. The p-values of the table
    ignore that a variance cannot be negative and are too large; a note, and ``Pr(>Chibarsq)``, give
    those of the mixture of χ² distributions that allows for it (see `Boundary`), NaN where it is
    not known.
    """
    found = reduced_fits(settle(fit), progress)
    findings = findings_about(found.refits, [(OWN, fit, found.whole)])
    announce(findings)
    return table_of(found, findings)


def table_of(found: Reductions, findings: Sequence[Finding] = ()) -> Table:
    """The tests of a fit against its reductions."""
    fit, reductions = found.whole.fit, found.what
    smaller = [each.fit if isinstance(each, Settled) else each for each in found.smaller]
    held = [i for i in formula_order(fit.design) if not testable(fit, i)]
    results = [_criterion(fit, small) for small in smaller]
    criterion = np.array([fit.criterion, *(value for value, _ in results)])
    columns = deletions(criterion, np.array([fit.npar, *(n for _, n in results)], dtype=np.float64))
    notes, mixture = [], [np.nan]
    for reduction, small, lrt in zip(reductions, smaller, columns["LRT"][1:], strict=True):
        null = boundary(fit, small)
        mixture.append(np.nan if null is None else null.p(lrt))
        if null is not None:
            notes.append(f"{reduction.label}: {null.said(lrt)}")
    for i in held:
        notes.append(f"{fit.design.blocks[i].source}: not tested, as parameters of it are fixed.")
    notes += [finding.message for finding in findings]
    notes += monte_carlo_note([fit, *(each for each in smaller if isinstance(each, Fit))])
    return Table(
        columns,
        ["<none>", *(reduction.label for reduction in reductions)],
        title=f"Likelihood-ratio tests of random effects ({'REML' if fit.reml else 'ML'})",
        notes=notes,
        beside={MIXTURE: mixture},
    )


def testable(fit: Fit, position: int) -> bool:
    """Whether a term can be reduced: none of its parameters is held by the user."""
    return bool(fit.template.free[fit.template.slices[position]].all())


def _criterion(fit: Fit, small: Fit | Design) -> tuple[float, int]:
    """Criterion and number of parameters."""
    if isinstance(small, Fit):
        return small.criterion, small.npar
    linear = least_squares(small, fit.held.sigma)
    return linear.criterion(fit.reml), linear.npar
