"""One `Fit` → F tests of its fixed-effects terms."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import f_tail
from lmmsparse.common.table import Table
from lmmsparse.common.words import listed
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.df.methods import (
    DenominatorDF,
    check_ddf,
    denominator_df,
    joint_notes,
    method_name,
    method_notes,
)
from lmmsparse.inference.hypotheses.contrast import f_statistic
from lmmsparse.inference.hypotheses.terms import FixedTerms, check_type
from lmmsparse.inference.robust.clusters import Robust

_ROMAN = {1: "I", 2: "II", 3: "III"}


def f_test(
    beta: FloatArray, L: FloatArray, method: DenominatorDF
) -> tuple[float, float, float, float, float]:
    """F, numerator and denominator degrees of freedom, p-value and the scale in F of Lβ = 0.

    Parameters
    ----------
    beta : (p,) array
    L : (rows, p) array
        Independent rows; without any, all but the numerator are NaN.
    """
    if len(L) == 0:
        return np.nan, 0.0, np.nan, np.nan, np.nan
    F, scale, den = f_statistic(L, L @ beta, method)
    num = float(np.linalg.matrix_rank(L))
    return F * scale, num, den, float(f_tail(F * scale, num, den)), scale


def anova_table(
    fit: Fit, kind: int = 3, ddf: str = "satterthwaite", robust: Robust | None = None
) -> Table:
    """Test every fixed-effects term by F.

    Returns
    -------
    Table
        ``Sum Sq, Mean Sq, NumDF, DenDF, F value, Pr(>F)``; Mean Sq is F · σ², without the
        scale that Kenward and Roger's method gives F (lmerTest's convention). Robust tests have no
        sums of squares.
    """
    kind, ddf = check_type(kind), check_ddf(ddf)
    method = denominator_df(fit, ddf, robust)
    terms = FixedTerms(fit.design)
    hypotheses = [terms.hypothesis(i, kind) for i in terms.tested]
    tests = [f_test(fit.beta, L, method) for L in hypotheses]
    F, num, den, p, scale = (np.array([test[j] for test in tests]) for j in range(5))
    mean_squares = F / scale * fit.sigma2
    columns = {
        "Sum Sq": mean_squares * num,
        "Mean Sq": mean_squares,
        "NumDF": num,
        "DenDF": den,
        "F value": F,
        "Pr(>F)": p,
    }
    if ddf == "none":
        del columns["DenDF"], columns["Pr(>F)"]
    if robust is not None:
        del columns["Sum Sq"], columns["Mean Sq"]
    notes = []
    if kind == 3 and terms.missing_cells:
        notes.append(
            f"Missing cells: {listed(terms.missing_cells)}. Type III hypotheses then depend on "
            "which cells are there."
        )
    empty = [terms.label(i) for i, test in zip(terms.tested, tests, strict=True) if test[1] == 0]
    if empty:
        notes.append(f"Cannot be told apart from other terms: {listed(empty)}.")
    notes += method_notes(method, np.concatenate([np.zeros((0, fit.design.p)), *hypotheses]))
    notes += joint_notes(method, num.tolist(), F.tolist())
    return Table(
        {name: values.tolist() for name, values in columns.items()},
        [terms.label(i) for i in terms.tested],
        title=f"Type {_ROMAN[kind]} tests of fixed effects, {method_name(ddf, robust)}",
        notes=notes,
    )
