"""θ and φ of a model → which combinations of its variance parameters the data do not determine.

Those along which V does not change: a correlation that all rows of a group share is the variance of
a random intercept, for example. It is seen in the information about all of them, variances and
covariances of the random effects among them, at which no variance of zero hides anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import Finding
from lmmsparse.common.words import listed
from lmmsparse.design import Design
from lmmsparse.engine.residual.parts import LARGEST, ClusterParts, clusters
from lmmsparse.fit.held import theta_names
from lmmsparse.fit.problem import term_columns
from lmmsparse.fit.residual.problem import ResidualProblem

_FEW = 2e6  # elements of matrices that are looked at
_MOST = 1e8
_NOTHING = 1e-9
_PART = 0.05


def undetermined_residuals(
    problem: ResidualProblem, theta: FloatArray, phi: FloatArray
) -> list[tuple[str, ...]]:
    """Sets of parameters of which only a combination is determined.

    Parameters
    ----------
    theta, phi : arrays
        Where the fit is.
    """
    design, structure, template = problem.design, problem.structure, problem.template
    terms = term_columns(design)
    varies = np.concatenate([template.free, problem.free_phi, [problem.held.sigma is None]])
    whole = clusters(structure, terms)
    if max(rows.shape[1] for rows in whole) > LARGEST or not varies.any():
        return []
    total = sum(rows.shape[0] * rows.shape[1] ** 2 for rows in whole) * len(varies)
    X = np.zeros((structure.n, 0))
    nothing = np.zeros((0, len(varies)))
    for share in dict.fromkeys((min(1.0, _FEW / total), 1.0)):
        if share == 1.0 and total > _MOST:
            return []
        some = [rows[: max(1, int(np.ceil(share * len(rows))))] for rows in whole]
        parts = ClusterParts(structure, template, terms, X, theta, phi, some)
        nothing = _null(parts.traces()[np.ix_(varies, varies)])
        if not len(nothing):
            return []
    assert design.residual is not None
    of_phi = design.residual.parameter_names
    names = np.array([*theta_names(design), *of_phi, "sigma"], dtype=object)[varies]
    own = len(theta)
    out = []
    for row in nothing:
        involved = np.abs(row) > _PART * np.abs(row).max()
        if (involved & (np.flatnonzero(varies) >= own)).any():
            out.append(tuple(str(name) for name in names[involved]))
    return list(dict.fromkeys(out))


def _null(J: FloatArray) -> FloatArray:
    """Directions without information, in units of the parameters, (m, r)."""
    size = np.sqrt(np.maximum(np.diag(J), 0.0))
    size = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(J / np.outer(size, size))
    return np.asarray(vectors[:, values < _NOTHING * max(float(values[-1]), 1e-300)].T)


def residual_findings(design: Design, sets: Sequence[tuple[str, ...]]) -> list[Finding]:
    """What is to be said of parameters that the data cannot tell apart."""
    return [
        Finding(
            "residual-not-identified",
            "warning",
            f"The data cannot tell {listed(names, 12)} apart: other values of them give the same "
            "covariance of the response, and what is reported is one of many. "
            f"{_advice(design)}",
        )
        for names in sets
    ]


def _advice(design: Design) -> str:
    residual = design.residual
    assert residual is not None
    grouping = residual.grouping
    same = [
        block.source
        for block in design.blocks
        if grouping is not None
        and block.n_levels == len(grouping.levels)
        and len(np.unique(block.codes.astype(np.int64) * block.n_levels + grouping.codes))
        == block.n_levels
    ]
    if same:
        return f"Leave out {same[0]}, whose group is that of {residual.text}."
    return f"Use a simpler structure than {residual.text}."
