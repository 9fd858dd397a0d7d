"""Generalized fits of the same data → likelihood-ratio tests, deletions and reductions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.options import positive
from lmmsparse.common.progress import bar
from lmmsparse.common.table import Table
from lmmsparse.common.words import brief
from lmmsparse.design import Design
from lmmsparse.design.reduced import Reduction, formula_order, leaving_out, reductions_of
from lmmsparse.engine.generalized.laplace_point import Parameters
from lmmsparse.fit.generalized.fit import GeneralizedFit, fitted_generalized
from lmmsparse.fit.generalized.problem import GeneralizedProblem
from lmmsparse.fit.generalized.without import log_likelihood_without
from lmmsparse.fit.refit import still_fixed
from lmmsparse.inference.hypotheses.lrt import check_same_data, compared, deletion_table
from lmmsparse.inference.hypotheses.lrt import deletions as columns_of_deletions
from lmmsparse.inference.hypotheses.nesting import why_not_contained
from lmmsparse.inference.hypotheses.terms import FixedTerms


def likelihood_ratios(fits: Sequence[GeneralizedFit], labels: Sequence[str]) -> Table:
    """Compare nested models, smallest first.

    Raises
    ------
    DataError
        If they were not fitted to the same response and rows.
    OptionError
        If their likelihoods cannot be compared.
    """
    check_same_data(fits)
    kinds = {(fit.problem.n_agq, fit.problem.information) for fit in fits}
    if len(kinds) > 1:
        raise OptionError(
            "The models were fitted with different n_agq or information. Their likelihoods are "
            "different approximations. Fit all in the same way."
        )
    if len({type(fit.family).__name__ for fit in fits}) > 1 and any(
        fit.family.discrete != fits[0].family.discrete for fit in fits
    ):
        raise DataError(
            "Some of the families are discrete and some continuous. Their likelihoods cannot be "
            "compared."
        )
    order = sorted(range(len(fits)), key=lambda i: fits[i].npar)
    used, names = [fits[i] for i in order], [labels[i] for i in order]
    columns, _, notes = compared(used, names, _why_not, "-2*log(L)")
    if len({fit.covariance_parameters for fit in used}) > 1:
        notes.append("Variances cannot be negative: tests that set one to zero are conservative.")
    title = ["Likelihood-ratio tests"]
    title += [
        f"{name}: {fit.design.formula or fit.design.response}, {fit.family}"
        for name, fit in zip(names, used, strict=True)
    ]
    return Table(
        {name: values.tolist() for name, values in columns.items()},
        names,
        title="\n".join(title),
        notes=notes,
    )


def _why_not(small: GeneralizedFit, large: GeneralizedFit) -> str:
    one, other = small.family, large.family
    if one.link != other.link:
        return "their links differ"
    nested = type(one) is type(other) or (one.name, other.name) == ("poisson", "negative binomial")
    return why_not_contained(small, large) if nested else "their families differ"


def refitted(problem: GeneralizedProblem, design: Design, like: GeneralizedFit) -> GeneralizedFit:
    """The same model of another design."""
    other = replace(problem, design=design)
    return fitted_generalized(other, like.optimizer)


def deletions(fit: GeneralizedFit, progress: bool | None) -> Table:
    """Leave out each fixed-effects term that no other builds on."""
    terms = FixedTerms(fit.design)
    chosen = terms.droppable()
    parts = []
    with bar("drop1", len(chosen), "refits", progress) as shown:
        for i in chosen:
            parts.append(refitted(fit.problem, leaving_out(fit.design, i), fit))
            shown.update()
    return deletion_table([fit, *parts], [terms.label(i) for i in chosen])


def reductions(fit: GeneralizedFit, progress: bool | None) -> Table:
    """Reduce the random effects by one effect, or by one term, at a time."""
    what = [r for i in formula_order(fit.design) for r in reductions_of(fit.design, i)]
    values, npar = [], []
    with bar("ranova", len(what), "refits", progress) as shown:
        for reduction in what:
            value, parameters = _reduced(fit, reduction)
            values.append(value)
            npar.append(float(parameters))
            shown.update()
    return Table(
        columns_of_deletions(np.array([fit.criterion, *values]), np.array([fit.npar, *npar])),
        ["<none>", *(reduction.label for reduction in what)],
        title="ANOVA-like table for random effects: single term deletions",
        notes=["Variances cannot be negative: the tests are conservative."],
    )


def _reduced(fit: GeneralizedFit, reduction: Reduction) -> tuple[float, int]:
    """−2 log-likelihood and parameters of a smaller model."""
    blocks = list(fit.design.blocks)
    if reduction.block is None:
        del blocks[reduction.position]
    else:
        blocks[reduction.position] = reduction.block
    own = fit.design.p + fit.family.estimates_delta
    if not blocks:
        return -2.0 * log_likelihood_without(fit.problem), own
    design = replace(fit.design, blocks=tuple(blocks), formula="", recipe=None)
    problem = replace(
        fit.problem, design=design, held=replace(still_fixed(fit, reduction), sigma=1.0)
    )
    small = fitted_generalized(problem, fit.optimizer)
    return small.criterion, small.npar


def criterion_at(
    fit: GeneralizedFit, beta: FloatArray, theta: FloatArray, dispersion: float | None
) -> float:
    """−2 log-likelihood at given parameters, β in the user's columns.

    Raises
    ------
    OptionError
        For a dispersion that the model does not estimate.
    NumericalError
        If the likelihood cannot be evaluated there.
    """
    delta = fit.delta
    if dispersion is not None:
        delta = float(np.log(positive("dispersion", dispersion)))
        if not fit.family.estimates_delta and abs(delta - fit.delta) > 1e-9:
            raise OptionError(
                f"dispersion={brief(dispersion)} was given, but the {fit.family.name} model has "
                f"it held at {np.exp(fit.delta):g}. Leave it out."
            )
    internal = fit.problem.rows.basis.R @ beta if len(beta) else beta
    at = Parameters(np.asarray(internal), np.asarray(theta, dtype=np.float64), delta)
    return fit.problem.deviance.point(at, fit.u).value
