"""A model at known parameters and a hypothesis → p-values of fits to responses drawn from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.distributions import chi2_tail, f_tail
from lmmsparse.common.errors import LmmError, LmmWarning
from lmmsparse.common.threads import filtered, one_thread
from lmmsparse.engine.responses import many_response_products
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.generalized.refit import refit_generalized
from lmmsparse.fit.held import theta_names
from lmmsparse.fit.many.batched import can_batch
from lmmsparse.fit.many.moments import moments_of_many
from lmmsparse.fit.many.refit import refit_many
from lmmsparse.fit.problem import term_columns
from lmmsparse.fit.refit import refit_response
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.fit.singular import is_singular
from lmmsparse.fit.verdict import TOLERANCE
from lmmsparse.inference.df.methods import Constant, denominator_df
from lmmsparse.inference.df.satterthwaite import joint_df, matched_df
from lmmsparse.inference.hypotheses.anova import f_test
from lmmsparse.results.generalized import simulate_generalized
from lmmsparse.results.given import Given
from lmmsparse.results.simulate import simulate

TESTS = ("satterthwaite", "kenward-roger", "lrt", "z")


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What came of the fits to some responses, (m,) arrays; p is NaN where there is no fit."""

    p: FloatArray
    converged: BoolArray
    singular: BoolArray


@dataclass(frozen=True, eq=False)
class Experiment:
    """What is repeated.

    Attributes
    ----------
    fit : Fit
        The model that is fitted, with the design of the study.
    small : Fit or None
        The model without what is tested, for likelihood-ratio tests.
    at : Given
        The parameters that responses are drawn with.
    L : (rows, p) array
        The hypothesis Lβ = 0.
    test : str
    """

    fit: Fit
    small: Fit | None
    at: Given
    L: FloatArray
    test: str

    @property
    def together(self) -> bool:
        """Whether many responses are fitted at once."""
        return not isinstance(self.fit, (GeneralizedFit, ResidualFit)) and can_batch(self.fit)


@one_thread
def outcomes(experiment: Experiment, seed: np.random.SeedSequence, n: int) -> Outcomes:
    """Draw n responses, fit each, and test."""
    fit, rng = experiment.fit, np.random.default_rng(seed)
    with filtered(("ignore", LmmWarning)):
        if isinstance(fit, GeneralizedFit):
            return _generalized(experiment, fit, rng, n)
        Y, _ = simulate(fit, n, rng, at=experiment.at)
        if experiment.small is not None:
            return _likelihood_ratios(fit, experiment.small, Y, len(experiment.L))
        if isinstance(fit, ResidualFit):
            return _refitted(experiment, Y)
        table = refit_many(fit, Y, progress=False)
        theta = table[theta_names(fit.design)].to_numpy(dtype=np.float64)
        there = np.flatnonzero(np.isfinite(theta).all(axis=1))
        p = np.full(n, np.nan)
        together = experiment.together and experiment.test != "kenward-roger"
        tested = _together if together else _alone
        p[there] = tested(experiment, Y[:, there], theta[there])
        return Outcomes(
            p, table["converged"].to_numpy(dtype=bool), table["singular"].to_numpy(dtype=bool)
        )


def _together(experiment: Experiment, Y: FloatArray, theta: FloatArray) -> FloatArray:
    """p-values of all responses at once, by Satterthwaite's method or the normal distribution."""
    L, found = experiment.L, moments_of_many(experiment.fit, Y, theta)
    values, vectors = np.linalg.eigh(L @ found.covariance @ L.T)
    rows = np.matmul(vectors.swapaxes(1, 2), L)
    F = (np.einsum("mqi,mi->mq", rows, found.beta) ** 2 / values).mean(axis=1)
    if experiment.test == "z":
        return np.asarray(f_tail(F, len(L), np.inf))
    g = np.einsum("mqi,mkij,mqj->mqk", rows, found.derivatives, rows, optimize=True)
    nu = matched_df(values, g, found.parameters[:, None])
    return np.asarray(f_tail(F, len(L), [joint_df(each) for each in nu]))


def _alone(experiment: Experiment, Y: FloatArray, theta: FloatArray) -> FloatArray:
    """p-values of the responses one by one."""
    fit, design = experiment.fit, experiment.fit.design
    Q, _ = design.internal_columns()
    terms = term_columns(design)
    responses = many_response_products(Y, Q, terms, design.weights, design.offset)
    out = np.empty(Y.shape[1])
    for j in range(Y.shape[1]):
        problem = fit.problem.with_response(replace(design, y=Y[:, j]), responses.one(j))
        one = Fit(problem, replace(fit.optimum, x=theta[j]), fit.optimizer)
        out[j] = _p_value(experiment, one)
    return out


def _p_value(experiment: Experiment, one: Fit) -> float:
    """Of the fit to one response."""
    ddf = "asymptotic" if experiment.test == "z" else experiment.test
    return f_test(one.beta, experiment.L, denominator_df(one, ddf))[3]


def _refitted(experiment: Experiment, Y: FloatArray) -> Outcomes:
    """The responses of a model with a covariance of the residuals one by one."""
    n = Y.shape[1]
    out = Outcomes(np.full(n, np.nan), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool))
    for j in range(n):
        try:
            settled = refit_response(experiment.fit, Y[:, j])
            out.p[j] = _p_value(experiment, settled.fit)
            out.converged[j] = settled.verdict.converged
            out.singular[j] = settled.verdict.singular
        except (LmmError, np.linalg.LinAlgError):
            continue
    return out


def _likelihood_ratios(fit: Fit, small: Fit, Y: FloatArray, df: int) -> Outcomes:
    large, less = (refit_many(each, Y, progress=False) for each in (fit, small))
    ratio = (less["criterion"] - large["criterion"]).to_numpy(dtype=np.float64)
    return Outcomes(
        np.asarray(chi2_tail(np.maximum(ratio, 0.0), df)),
        (large["converged"] & less["converged"]).to_numpy(dtype=bool),
        large["singular"].to_numpy(dtype=bool),
    )


def _generalized(
    experiment: Experiment, fit: GeneralizedFit, rng: np.random.Generator, n: int
) -> Outcomes:
    """Refits one by one, tested by Wald's or the likelihood-ratio χ²."""
    L, small = experiment.L, experiment.small
    out = Outcomes(np.full(n, np.nan), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool))
    Y, _ = simulate_generalized(fit, n, rng, "new", None, experiment.at)
    for j in range(n):
        try:
            one = refit_generalized(fit, Y[:, j])
            reached = _reached(one)
            if small is None:
                out.p[j] = f_test(one.beta, L, Constant(one.vcov, np.inf))[3]
            else:
                assert isinstance(small, GeneralizedFit)
                less = refit_generalized(small, Y[:, j])
                ratio = max(less.criterion - one.criterion, 0.0)
                out.p[j], reached = chi2_tail(ratio, len(L)), reached and _reached(less)
            out.converged[j], out.singular[j] = reached, is_singular(one)
        except (LmmError, np.linalg.LinAlgError):
            continue
    return out


def _reached(fit: GeneralizedFit) -> bool:
    return (fit.optimum.expected_decrease or 0.0) <= TOLERANCE
