"""What the solvers rely on, for the scikit-sparse that is installed, cvxopt and SuperLU."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg as sla
import scipy.sparse as sp

import lmmsparse as lmm
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.solvers import cvxopt as _cvxopt
from lmmsparse.engine.solvers import sksparse as _sksparse
from lmmsparse.engine.solvers.cholesky import SparseCholesky
from lmmsparse.engine.solvers.selected_inverse import SelectedInverse

Array = npt.NDArray[np.float64]

ORDERINGS = ("amd", "metis", "nesdis", "natural")
MODES = ("auto", "simplicial", "supernodal")
every_way = pytest.mark.parametrize(
    ("ordering", "mode"),
    [
        *((ordering, mode) for ordering in ORDERINGS for mode in MODES),
        *((f"cvxopt-{ordering}", mode) for ordering in _cvxopt.ORDERINGS for mode in MODES),
        ("superlu", ""),
    ],
)
every_mode = pytest.mark.parametrize("mode", [*MODES, *(f"cvxopt-{mode}" for mode in MODES)])


def matrix(theta: float, levels: tuple[int, ...] = (40, 25, 7), n: int = 130) -> sp.csc_matrix:
    """Lower triangle of θ²Z'Z + I for crossed intercepts: one pattern at every θ, zeros too."""
    rng = np.random.default_rng(5)
    starts = np.concatenate([[0], np.cumsum(levels)])
    columns = np.column_stack(
        [start + rng.integers(0, size, n) for start, size in zip(starts, levels, strict=False)]
    )
    values = rng.normal(size=columns.shape)
    Z = sp.csc_matrix(
        (values.ravel(), (np.repeat(np.arange(n), len(levels)), columns.ravel())),
        shape=(n, starts[-1]),
    )
    lower = sp.csc_matrix(sp.tril(Z.T @ Z + sp.eye(starts[-1])))
    lower.sort_indices()
    lower.data *= theta**2
    lower.data[lower.indptr[:-1]] += 1.0
    return lower


def dense(lower: sp.csc_matrix) -> Array:
    L = lower.toarray()
    return np.asarray(L + np.tril(L, -1).T)


def analyze(lower: sp.csc_matrix, ordering: str, mode: str) -> SparseCholesky:
    if ordering == "superlu":
        return lmm.SuperLU().analyze(lower)[0]
    words = f"{ordering}-{mode}"
    if "cvxopt" in words:
        if _cvxopt.unusable():
            pytest.skip("cvxopt cannot be used")
        ordering, mode = words.replace("cvxopt-", "").split("-")
        return _cvxopt.analyze(lower, ordering, mode)
    return _sksparse.analyze(lower, ordering, mode)


def factorized(lower: sp.csc_matrix, ordering: str = "amd", mode: str = "auto") -> SparseCholesky:
    factor = analyze(lower, ordering, mode)
    factor.factorize(lower)
    return factor


def filled(lower: sp.csc_matrix, permutation: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Where the factor may be nonzero, by elimination on the pattern alone."""
    pattern = sp.csc_matrix((np.ones(lower.nnz), lower.indices, lower.indptr), lower.shape)
    full = dense(pattern)[np.ix_(permutation, permutation)] != 0
    for k in range(len(full)):
        rows = k + 1 + np.flatnonzero(full[k + 1 :, k])
        full[np.ix_(rows, rows)] = True
    return np.tril(full)


@pytest.fixture
def b() -> Array:
    return np.random.default_rng(8).normal(size=(72, 3))


# One factorization --------------------------------------------------------------------------------


@every_way
def test_L_is_the_factor_of_the_permuted_matrix(ordering: str, mode: str) -> None:
    lower = matrix(1.3)
    M = dense(lower)
    factor = factorized(lower, ordering, mode)
    perm = factor.permutation()
    assert sorted(perm) == list(range(72))
    assert perm.dtype == np.intp
    if ordering.endswith("natural"):
        assert list(perm) == list(range(72))
    L = factor.lower().toarray()
    np.testing.assert_allclose(L, sla.cholesky(M[np.ix_(perm, perm)], lower=True), atol=1e-12)
    assert factor.logdet() == pytest.approx(np.linalg.slogdet(M)[1], rel=1e-13)


@every_way
@pytest.mark.parametrize("shape", [(72, 3), (72, 1), (72,), (72, 0)])
def test_solves(ordering: str, mode: str, shape: tuple[int, ...], b: Array) -> None:
    lower = matrix(1.3)
    M = dense(lower)
    factor = factorized(lower, ordering, mode)
    b = np.asfortranarray(b.ravel()[: int(np.prod(shape))].reshape(shape))
    P = np.eye(72)[factor.permutation()]
    L = factor.lower().toarray()
    C = factor.half_solve(b)
    assert C.shape == factor.solve(b).shape == shape
    np.testing.assert_allclose(C, np.linalg.solve(L, P @ b), atol=1e-12)
    np.testing.assert_allclose(C.T @ C, b.T @ np.linalg.solve(M, b), atol=1e-11)
    np.testing.assert_allclose(factor.solve(b), np.linalg.solve(M, b), atol=1e-12)


@every_mode
def test_solves_take_any_layout_and_leave_it_alone(mode: str, b: Array) -> None:
    factor = factorized(matrix(1.3), mode=mode)
    fixed = np.asfortranarray(b)
    fixed.flags.writeable = False
    before = fixed.copy()
    for solve in (factor.solve, factor.half_solve):
        expected = solve(np.ascontiguousarray(b))
        np.testing.assert_array_equal(solve(fixed), expected)
        np.testing.assert_array_equal(solve(np.repeat(b, 2, axis=1)[:, ::2]), expected)
        # One column and three need not go through the same loops.
        np.testing.assert_allclose(solve(fixed[:, 0]), expected[:, 0], rtol=1e-13, atol=1e-14)
        result = solve(fixed)
        result += 1.0
        np.testing.assert_array_equal(solve(fixed), expected)
    np.testing.assert_array_equal(fixed, before)


# The pattern --------------------------------------------------------------------------------------


@every_way
def test_pattern_of_L_is_structural(ordering: str, mode: str) -> None:
    identity = matrix(0.0)
    factor = factorized(identity, ordering, mode)
    L = factor.lower()
    for j in range(72):
        rows = L.indices[L.indptr[j] : L.indptr[j + 1]]
        assert rows[0] == j
        assert (np.diff(rows) > 0).all()
    stored = sp.csc_matrix((np.ones(L.nnz), L.indices, L.indptr), L.shape).toarray() != 0
    assert stored[filled(identity, factor.permutation())].all()
    np.testing.assert_array_equal(L.toarray(), np.eye(72))
    for theta in (1.3, 0.0, 0.4):
        factor.factorize(matrix(theta))
        again = factor.lower()
        np.testing.assert_array_equal(again.indptr, L.indptr)
        np.testing.assert_array_equal(again.indices, L.indices)


@every_way
@pytest.mark.parametrize("theta", [0.0, 1.3])
def test_selected_inverse_of_L(ordering: str, mode: str, theta: float) -> None:
    lower = matrix(theta)
    factor = factorized(lower, ordering, mode)
    L = factor.lower()
    perm = factor.permutation()
    inverse = np.linalg.inv(dense(lower))[np.ix_(perm, perm)]
    columns = np.repeat(np.arange(72), np.diff(L.indptr))
    np.testing.assert_allclose(
        SelectedInverse(L.indptr, L.indices)(L.data), inverse[L.indices, columns], atol=1e-13
    )


@every_mode
def test_L_belongs_to_the_caller(mode: str, b: Array) -> None:
    factor = factorized(matrix(1.3), mode=mode)
    L = factor.lower()
    kept, x = L.toarray(), factor.solve(b)
    factor.factorize(matrix(0.4))
    np.testing.assert_array_equal(L.toarray(), kept)
    factor.factorize(matrix(1.3))
    L.data[:] = 0.0
    factor.permutation()[:] = 0
    np.testing.assert_array_equal(factor.solve(b), x)
    np.testing.assert_array_equal(factor.lower().toarray(), kept)


# Many factorizations ------------------------------------------------------------------------------


@every_way
def test_factorizing_again_equals_factorizing_afresh(ordering: str, mode: str, b: Array) -> None:
    factor = analyze(matrix(1.0), ordering, mode)
    for theta in (1.3, 0.0, 200.0, 0.4):
        lower = matrix(theta)
        before = lower.copy()
        factor.factorize(lower)
        np.testing.assert_array_equal(lower.data, before.data)
        np.testing.assert_array_equal(lower.indices, before.indices)
        M = dense(lower)
        assert factor.logdet() == pytest.approx(np.linalg.slogdet(M)[1], rel=1e-12)
        np.testing.assert_allclose(M @ factor.solve(b), b, atol=1e-8)
        C = factor.half_solve(b)
        np.testing.assert_allclose(C.T @ C, b.T @ np.linalg.solve(M, b), rtol=1e-9, atol=1e-11)


@every_way
def test_a_copy_is_independent(ordering: str, mode: str, b: Array) -> None:
    factor = factorized(matrix(1.3), ordering, mode)
    copy = factor.copy()
    expected = copy.solve(b), copy.half_solve(b)
    logdet, L = copy.logdet(), copy.lower().toarray()
    factor.factorize(matrix(0.4))
    assert copy.logdet() == logdet != factor.logdet()
    results = copy.solve(b), copy.half_solve(b)
    for result, value in zip(results, expected, strict=True):
        # A solve may turn LDL' into LL', which rounds anew.
        np.testing.assert_allclose(result, value, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(copy.lower().toarray(), L, rtol=1e-13)
    copy.factorize(matrix(0.7))
    np.testing.assert_allclose(dense(matrix(0.4)) @ factor.solve(b), b, atol=1e-12)
    np.testing.assert_allclose(dense(matrix(0.7)) @ copy.solve(b), b, atol=1e-12)


@pytest.mark.long
@every_mode
def test_results_outlive_their_factor(mode: str, b: Array) -> None:
    factor = factorized(matrix(1.3), mode=mode)
    L, x, perm = factor.lower(), factor.solve(b), factor.permutation()
    kept = L.copy(), x.copy(), perm.copy()
    del factor
    gc.collect()
    [np.full(1000, 7.0) for _ in range(100)]
    np.testing.assert_array_equal(L.data, kept[0].data)
    np.testing.assert_array_equal(x, kept[1])
    np.testing.assert_array_equal(perm, kept[2])


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


@pytest.mark.long
@needs_proc
@every_mode
def test_factors_are_freed(mode: str) -> None:
    lower = matrix(1.0, levels=(500, 500), n=4000)
    bad = lower.copy()
    bad.data[0] = np.nan

    def use() -> int:
        factor = factorized(lower, mode=mode)
        factor.permutation()
        factor.logdet()
        with pytest.raises(NumericalError):
            factor.factorize(bad)
        factor.factorize(lower)
        factor.copy().lower()
        return int(factor.lower().data.nbytes)

    size = min(use() for _ in range(3))
    before = resident()
    for _ in range(30):
        use()
    gc.collect()
    assert resident() - before < 10 * size


@needs_proc
def test_analyses_are_freed() -> None:
    identity = sp.csc_matrix(sp.eye(20_000))

    def use() -> None:
        analyze(identity, "natural", "simplicial").permutation()

    use()
    before = resident()
    for _ in range(100):
        use()
    gc.collect()
    assert resident() - before < 100 * identity.indices.nbytes


# Trouble ------------------------------------------------------------------------------------------


def broken() -> Iterator[tuple[str, sp.csc_matrix]]:
    for name, place, value in [
        ("negative diagonal", 0, -1.0),
        ("indefinite", 1, 1e6),
        ("nan on the diagonal", 0, np.nan),
        ("nan below it", 1, np.nan),
        ("infinite", 0, np.inf),
    ]:
        lower = matrix(1.3)
        lower.data[place] = value
        yield name, lower


@every_way
@pytest.mark.parametrize("name", [name for name, _ in broken()])
def test_not_positive_definite(name: str, ordering: str, mode: str, b: Array) -> None:
    factor = factorized(matrix(1.3), ordering, mode)
    x = factor.solve(b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NumericalError, match="could not be factored"):
            factor.factorize(dict(broken())[name])
    factor.factorize(matrix(1.3))
    np.testing.assert_allclose(factor.solve(b), x, rtol=1e-12)


@every_mode
def test_pivots_of_very_different_size_are_no_cause_for_a_warning(mode: str, b: Array) -> None:
    lower = matrix(1.3)
    lower.data[0] = 1e17
    factor = factorized(lower, mode=mode)
    x = factor.solve(b)
    assert np.isfinite(factor.half_solve(b)).all()
    np.testing.assert_allclose(dense(lower)[1:] @ x, b[1:], atol=1e-10)


# From outside -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordering", ["auto", *ORDERINGS])
@pytest.mark.parametrize("mode", MODES)
def test_every_option_gives_the_same_fit(ordering: str, mode: str) -> None:
    formula, data = "diameter ~ 1 + (1 | plate) + (1 | sample)", lmm.load_dataset("Penicillin")
    m = lmm.lmer(formula, data, solver=lmm.Cholmod(ordering=ordering, mode=mode))
    reference = lmm.lmer(formula, data, solver=lmm.Dense())
    assert m.reml_criterion == pytest.approx(reference.reml_criterion, abs=1e-9)
    for group in ("plate", "sample"):
        np.testing.assert_allclose(m.ranef[group], reference.ranef[group], atol=1e-6)
        np.testing.assert_allclose(m.cond_var[group], reference.cond_var[group], rtol=1e-5)


# Memory -------------------------------------------------------------------------------------------


class Exhausted(Exception):
    """What CHOLMOD says when it has no memory."""


@pytest.mark.skipif(bool(_sksparse.UNUSABLE), reason="scikit-sparse cannot be used")
@pytest.mark.parametrize("step", ["factorize", "half_solve", "solve", "lower", "copy"])
def test_want_of_memory_is_the_usual_error(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what would need less, at every step, and the factor can be used again."""
    lower = matrix(0.7)
    factor = factorized(lower)
    b = np.ones((lower.shape[0], 2))
    want = factor.solve(b)

    class Full:
        def __getattr__(self, name: str) -> object:
            raise Exhausted("out of memory")

    monkeypatch.setattr(_sksparse, "_EXHAUSTED", (Exhausted,))
    for attribute in ("_factor", "_symbolic") if step == "factorize" else ("_factor",):
        if hasattr(factor, attribute):
            monkeypatch.setattr(factor, attribute, Full())
    argument = {"factorize": (lower,), "half_solve": (b,), "solve": (b,)}.get(step, ())
    if step == "copy" and not _sksparse.IS_04:
        return  # nothing is copied
    with pytest.raises(MemoryError, match="Fit fewer levels or simpler random-effects"):
        getattr(factor, step)(*argument)
    monkeypatch.undo()
    factor.factorize(lower)
    np.testing.assert_array_equal(factor.solve(b), want)


def test_want_of_memory_passes_through_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no error of one response or replicate: nothing is put down, all ends."""
    m = lmm.lmer(
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        lmm.load_dataset("Penicillin"),
        solver=lmm.SuperLU(),
    )

    def full(*_: object) -> None:
        raise MemoryError("of numpy's own")

    monkeypatch.setattr(type(m.fit.objective.system._work.factor), "factorize", full)  # type: ignore[attr-defined]
    calls = [
        lambda: m.refit(m.simulate(1, rng=1).iloc[:, 0]),
        lambda: m.refit_many(m.simulate(2, rng=1)),
        lambda: m.bootstrap(2, rng=1),
        lambda: m.bootstrap(2, rng=1, statistic=lambda each: each.sigma),
        lambda: m.profile(which="sigma"),
        lambda: m.influence("plate"),
    ]
    for call in calls:
        with pytest.raises(MemoryError, match="of numpy's own"):
            call()
