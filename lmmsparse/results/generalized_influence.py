"""`GeneralizedFit` → how much each level of a grouping moves the fixed effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.errors import DataError, LmmError, OptionError
from lmmsparse.common.progress import run
from lmmsparse.common.threads import one_thread
from lmmsparse.common.words import listed
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.generalized.refit import without_rows
from lmmsparse.fit.verdict import TOLERANCE
from lmmsparse.results.influence import Influence, grouping_of


@one_thread
def influence_generalized(
    fit: GeneralizedFit, groups: Any, progress: bool | None = None
) -> Influence:
    """Cook's distance and dfbeta of every level of a grouping, by refits without it.

    Notes
    -----
    Cook's distance is dfbeta' Cov(β̂)⁻¹ dfbeta / p, NaN without fixed effects.
    """
    design = fit.design
    if groups is None:
        raise OptionError(
            "Influence of single rows is for linear mixed models. Name a grouping whose levels are "
            f"left out in turn, for example m.influence({next(iter(design.groups))!r}), or labels "
            "of the rows."
        )
    codes, levels, name = grouping_of(fit, groups)
    if len(levels) < 2:
        raise DataError(
            f"The grouping {name!r} has one level only, without which no row is left to fit. "
            "Choose a grouping with several levels."
        )
    labels, problems, off = list(levels), {}, []
    dfbeta = np.full((len(labels), design.p), np.nan)

    def leave_out(level: int) -> None:
        label = labels[level]
        try:
            left = without_rows(fit, codes != level)
        except (LmmError, np.linalg.LinAlgError) as error:
            problems[label] = str(error)
            return
        decrease = left.optimum.expected_decrease
        if decrease is None or decrease > TOLERANCE:
            off.append(label)
            problems[label] = "the refit has not reached its optimum"
        kept = [design.x_names.index(each) for each in left.design.x_names]
        dfbeta[level, kept] = left.beta - fit.beta[kept]
        lost = [each for j, each in enumerate(design.x_names) if j not in kept]
        if lost:
            problems[label] = f"without it {listed(lost)} cannot be estimated"

    calls = [(level,) for level in range(len(labels))]
    done = run(leave_out, calls, "influence", unit="levels", progress=progress)
    for label in labels[len(done.results) :]:
        problems[label] = "interrupted before it was left out"
    V = np.where(np.isfinite(fit.vcov), fit.vcov, 0.0)
    inverse = np.linalg.pinv(V, hermitian=True) if design.p else V
    cook = np.einsum("li,ij,lj->l", dfbeta, inverse, dfbeta) / (design.p or np.nan)
    index = levels.rename(name)
    return Influence(
        cooks_distance=pd.Series(cook, index=index, name="cooks_distance"),
        dfbeta=pd.DataFrame(dfbeta, index=index, columns=pd.Index(design.x_names, dtype=object)),
        problems=problems,
        findings=(),
        unconverged=tuple(off),
        _group=name,
    )
