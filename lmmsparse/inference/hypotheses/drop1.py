"""`Fit` → tests of leaving out one fixed-effects term that no other term builds on."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.findings import announce
from lmmsparse.common.options import one_of
from lmmsparse.common.progress import bar
from lmmsparse.common.table import Table
from lmmsparse.design.reduced import leaving_out
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.monte_carlo import monte_carlo_note
from lmmsparse.fit.refit import again, maximum_likelihood
from lmmsparse.fit.settle import OWN, findings_about, nested, settle
from lmmsparse.inference.df.methods import check_ddf, denominator_df, method_name
from lmmsparse.inference.hypotheses.anova import f_test
from lmmsparse.inference.hypotheses.lrt import deletion_table
from lmmsparse.inference.hypotheses.terms import FixedTerms

TESTS = ("chisq", "F")
_SPELLED = {"chisq": "chisq", "f": "F"}


def drop1_table(
    fit: Fit, test: str = "chisq", ddf: str = "satterthwaite", progress: bool | None = None
) -> Table:
    """Leave out each term in turn; see `LinearMixedModel.drop1`."""
    spelled = _SPELLED.get(test.lower(), test) if isinstance(test, str) else test
    one_of("test", spelled, TESTS)
    ddf = check_ddf(ddf)
    return _by_F(fit, ddf) if spelled == "F" else _by_likelihood(fit, progress)


def _by_F(fit: Fit, ddf: str) -> Table:
    terms = FixedTerms(fit.design)
    method = denominator_df(fit, ddf)
    chosen = terms.droppable()
    tests = [f_test(fit.beta, terms.deletion(i), method) for i in chosen]
    F, num, den, p = ([np.nan, *(test[j] for test in tests)] for j in range(4))
    return Table(
        {"NumDF": num, "DenDF": den, "F value": F, "Pr(>F)": p},
        ["<none>", *(terms.label(i) for i in chosen)],
        title=f"Single term deletions, {method_name(ddf)}",
    )


def _by_likelihood(fit: Fit, progress: bool | None) -> Table:
    terms = FixedTerms(fit.design)
    whole = maximum_likelihood(fit)
    chosen = terms.droppable()
    parts = []
    with bar("drop1", len(chosen), "refits", progress) as shown:
        for i in chosen:
            small = again(fit, leaving_out(fit.design, i), reml=False)
            parts.append(settle(small, [whole.fit.theta]))
            shown.update()
    whole, parts = nested(whole, parts)
    labels = [terms.label(i) for i in chosen]
    refits = list(zip(labels, parts, strict=True))
    own = [] if fit.reml else [(OWN, fit, whole)]
    findings = findings_about([("<none>", whole), *refits] if fit.reml else refits, own)
    announce(findings)
    notes = ["REML fits were refitted by maximum likelihood."] if fit.reml else []
    notes += [finding.message for finding in findings]
    fits = [each.fit for each in [whole, *parts]]
    return deletion_table(fits, labels, [*notes, *monte_carlo_note(fits)])
