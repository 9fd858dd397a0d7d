"""`Fit` → tests of leaving out one fixed-effects term that no other term builds on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmmsparse.common.distributions import chi2_tail
from lmmsparse.common.errors import Finding
from lmmsparse.common.findings import announce
from lmmsparse.common.options import one_of
from lmmsparse.common.progress import bar
from lmmsparse.common.table import Table
from lmmsparse.design.reduced import without_fixed
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.refit import again, maximum_likelihood
from lmmsparse.fit.settle import OWN, findings_about, nested, settle
from lmmsparse.inference.df.methods import check_ddf, denominator_df
from lmmsparse.inference.hypotheses.anova import METHOD_NAMES, f_test
from lmmsparse.inference.hypotheses.terms import FixedTerms
from lmmsparse.results.likelihood import criteria

TESTS = ("chisq", "F")
_SPELLED = {"chisq": "chisq", "f": "F"}


def drop1_table(
    fit: Fit, test: str = "chisq", ddf: str = "satterthwaite", progress: bool | None = None
) -> Table:
    """Leave out each term in turn; see `LinearMixedModel.drop1`."""
    spelled = _SPELLED.get(test.lower(), test) if isinstance(test, str) else test
    one_of("test", spelled, TESTS)
    return _by_F(fit, ddf) if spelled == "F" else _by_likelihood(fit, progress)


def _by_F(fit: Fit, ddf: str) -> Table:
    ddf = check_ddf(ddf)
    terms = FixedTerms(fit.design)
    method = denominator_df(fit, ddf)
    chosen = terms.droppable()
    tests = [f_test(fit.beta, terms.deletion(i), method) for i in chosen]
    F, num, den, p = ([np.nan, *(test[j] for test in tests)] for j in range(4))
    return Table(
        {"NumDF": num, "DenDF": den, "F value": F, "Pr(>F)": p},
        ["<none>", *(terms.label(i) for i in chosen)],
        title=f"Single term deletions, {METHOD_NAMES[ddf]}",
    )


def _by_likelihood(fit: Fit, progress: bool | None) -> Table:
    terms = FixedTerms(fit.design)
    whole = maximum_likelihood(fit)
    chosen = terms.droppable()
    parts = []
    with bar("drop1", len(chosen), "refits", progress) as shown:
        for i in chosen:
            small = again(fit, without_fixed(fit.design, i), reml=False)
            parts.append(settle(small, [whole.fit.theta]))
            shown.update()
    whole, parts = nested(whole, parts)
    labels = ["<none>", *(terms.label(i) for i in chosen)]
    refits = list(zip(labels[1:], parts, strict=True))
    own = [] if fit.reml else [(OWN, fit, whole)]
    findings = findings_about([("<none>", whole), *refits] if fit.reml else refits, own)
    announce(findings)
    return _likelihood_table(fit, labels, [each.fit for each in [whole, *parts]], findings)


def _likelihood_table(
    fit: Fit, labels: list[str], fits: list[Fit], findings: Sequence[Finding]
) -> Table:
    whole, *smaller = fits
    npar = np.array([whole.npar - other.npar for other in smaller], dtype=np.float64)
    LRT = np.maximum(0.0, [other.criterion - whole.criterion for other in smaller])
    p = np.where(npar > 0, chi2_tail(LRT, np.maximum(npar, 1.0)), np.nan)
    return Table(
        {
            "npar": [np.nan, *npar.tolist()],
            "AIC": [criteria(other)[0] for other in [whole, *smaller]],
            "LRT": [np.nan, *LRT.tolist()],
            "Pr(>Chisq)": [np.nan, *p.tolist()],
        },
        labels,
        title="Single term deletions, likelihood ratios",
        notes=[
            *(["REML fits were refitted by maximum likelihood."] if fit.reml else []),
            *(finding.message for finding in findings),
        ],
    )
