"""Pedigrees, precisions and covariances: what they are made of, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import known
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import lmmsparse as lmm
from lmmsparse.design.generations import _Columns, _Rows, generations, inbreeding
from lmmsparse.fit.problem import products_of


def small(**columns: Any) -> pd.DataFrame:
    frame = {"id": ["a", "b", "c", "d"], "sire": ["", "", "a", "a"], "dam": ["", "", "b", "b"]}
    return pd.DataFrame({**frame, **columns})


def rows(ids: Any, n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame({"y": rng.normal(size=n), "id": rng.choice(np.asarray(ids), n)})


@pytest.mark.parametrize("seed", range(4))
def test_inbreeding_and_precision_of_any_order_of_rows(seed: int) -> None:
    frame = known.pedigree(80, 8, seed)
    A = known.relationships(frame)
    pedigree = lmm.Pedigree.from_frame(frame.sample(frac=1.0, random_state=seed))
    F = pedigree.inbreeding
    assert F.max() > 0.05
    np.testing.assert_allclose(F[A.index], np.diag(A) - 1.0, atol=1e-12)
    Q = pedigree.precision
    own = A.loc[pedigree.labels, pedigree.labels].to_numpy()
    np.testing.assert_allclose(Q.toarray() @ own, np.eye(80), atol=1e-10)
    assert Q.nnz < 0.2 * 80**2


@pytest.mark.parametrize("way", ["rows", "columns"])
def test_both_ways_to_inbreeding(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = _Columns if way == "rows" else _Rows
    monkeypatch.setattr(other, "cost", lambda *_: np.inf)
    if way == "columns":
        monkeypatch.setattr(_Columns, "cost", lambda *_: 0.0)
    frame = known.pedigree(120, 10, 7)
    at = {label: i for i, label in enumerate(frame["id"])}
    sire, dam = (frame[c].map(at).fillna(-1).to_numpy(dtype=np.intp) for c in ("sire", "dam"))
    F = inbreeding(sire, dam, generations(sire, dam))
    np.testing.assert_allclose(F, np.diag(known.relationships(frame)) - 1.0, atol=1e-12)


def test_selfing() -> None:
    frame = pd.DataFrame({"id": [1, 2, 3], "sire": [None, 1, 2], "dam": [None, 1, 2]})
    with pytest.raises(lmm.DataError, match="sires and dams: 1, 2"):
        lmm.Pedigree.from_frame(frame)
    pedigree = lmm.Pedigree.from_frame(frame, hermaphrodites=True)
    assert pedigree.inbreeding.tolist() == [0.0, 0.5, 0.75]


def test_a_large_pedigree_takes_no_time() -> None:
    rng = np.random.default_rng(0)
    n, per = 100_000, 10_000
    sire, dam = np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    for g in range(1, 10):
        before = np.arange((g - 1) * per, g * per)
        own = slice(g * per, (g + 1) * per)
        sire[own] = 1 + rng.choice(rng.choice(before[::2], 100), per)
        dam[own] = 1 + rng.choice(rng.choice(before[1::2], 3000), per)
    start = time.process_time()
    pedigree = lmm.Pedigree(np.arange(1, n + 1), sire, dam)
    assert pedigree.precision.shape == (n, n)
    assert time.process_time() - start < 8.0  # it is below one on an idle machine
    assert pedigree.inbreeding.max() > 0.0


@pytest.mark.parametrize("nothing", [None, np.nan, "", 0, "0"])
def test_unknown_parents(nothing: Any) -> None:
    frame = small(sire=[nothing, nothing, "a", "a"], dam=[nothing, nothing, "b", nothing])
    pedigree = lmm.Pedigree.from_frame(frame)
    assert list(pedigree.labels) == ["a", "b", "c", "d"]
    A = np.linalg.inv(pedigree.precision.toarray())
    np.testing.assert_allclose(A[2], [0.5, 0.5, 1.0, 0.25], atol=1e-12)


def test_an_animal_may_be_called_0() -> None:
    pedigree = lmm.Pedigree([0, 1, 2], [np.nan, np.nan, 0], [np.nan, np.nan, 1])
    A = np.linalg.inv(pedigree.precision.toarray())
    assert A[2, 0] == pytest.approx(0.5)


def test_parents_without_a_row_are_founders() -> None:
    frame = pd.DataFrame({"id": [10, 11], "sire": [1, 1], "dam": [np.nan, 2]})
    pedigree = lmm.Pedigree.from_frame(frame)
    assert list(pedigree.labels) == [10, 11, 1, 2]
    assert all(isinstance(int(label), int) for label in pedigree.labels)
    d = rows([10, 11, 1])
    m = lmm.build_design("y ~ 1 + (1 | id)", d, known={"id": pedigree})
    assert m.blocks[0].n_levels == 4


def test_columns_by_other_names_and_other_tables() -> None:
    frame = small().rename(columns={"id": "animal", "sire": "father", "dam": "mother"})
    names = {"id": "animal", "sire": "father", "dam": "mother"}
    one = lmm.Pedigree.from_frame(frame, **names)
    other = lmm.Pedigree.from_frame(frame.to_dict("list"), **names)
    assert (one.precision != other.precision).nnz == 0
    with pytest.raises(lmm.DataError, match="no column 'id'"):
        lmm.Pedigree.from_frame(frame)


# What is wrong → the pedigree, and what is said.
BAD_PEDIGREES: dict[str, tuple[pd.DataFrame, str]] = {
    "its own ancestor": (
        small(sire=["d", "", "a", "a"], dam=["", "", "b", "b"]),
        r"its own ancestor: '[ad]' → '[ad]' → '[ad]'",
    ),
    "its own parent": (small(sire=["a", "", "a", "a"]), r"its own ancestor: 'a' → 'a' "),
    "a longer cycle": (
        pd.DataFrame(
            {"id": list("abcx"), "sire": ["c", "a", "b", "a"], "dam": ["x", None, None, None]}
        ),
        r"its own ancestor: ('[abcx]' → )+'[abcx]'",
    ),
    "sires that are dams": (
        small(sire=["", "", "a", "b"], dam=["", "", "b", "a"]),
        "animals that are sires and dams: 'a', 'b'",
    ),
    "two entries": (
        pd.DataFrame(
            {"id": ["a", "b", "c", "c"], "sire": ["", "", "a", ""], "dam": ["b"] * 4}
        ).assign(dam=["", "", "b", "b"]),
        "two entries that differ: 'c'",
    ),
    "no label": (small(id=["a", "b", None, "d"]), "without the label of an animal"),
    "types": (
        pd.DataFrame({"id": [1, 2, 3], "sire": ["", "", "1"], "dam": ["", "", "2"]}),
        r"has '1' \(str\) as a parent and 1 \(int\) as an animal",
    ),
}


@pytest.mark.parametrize("what", BAD_PEDIGREES)
def test_bad_pedigrees(what: str) -> None:
    frame, said = BAD_PEDIGREES[what]
    with pytest.raises(lmm.DataError, match=said):
        lmm.Pedigree.from_frame(frame)


def test_an_entry_may_be_repeated() -> None:
    frame = pd.concat([small(), small().tail(2)])
    assert len(lmm.Pedigree.from_frame(frame).labels) == 4


def test_animals_that_the_pedigree_does_not_have() -> None:
    pedigree = lmm.Pedigree.from_frame(small())
    with pytest.raises(lmm.DataError, match=r"pedigree of 'id' does not have .*: '[ef]', '[ef]'"):
        lmm.lmer("y ~ 1 + (1 | id)", rows(list("abef")), known={"id": pedigree})


def test_whole_numbers_and_text_are_different_labels() -> None:
    pedigree = lmm.Pedigree([1, 2, 3], [None, None, 1], [None, None, 2])
    with pytest.raises(lmm.DataError, match=r"holds? '1' \(str\) in the data|has '.' \(str\)"):
        lmm.lmer("y ~ 1 + (1 | id)", rows(list("123")), known={"id": pedigree})
    for ids in ([1.0, 2.0, 3.0], pd.array([1, 2, 3], dtype="Int64"), pd.Categorical([1, 2, 3])):
        d = rows([1, 2, 3])
        d["id"] = pd.Series(ids).take(d["id"].to_numpy(dtype=int) - 1).reset_index(drop=True)
        design = lmm.build_design("y ~ 1 + (1 | id)", d, known={"id": pedigree})
        assert list(design.blocks[0].levels) == [1, 2, 3]


A3 = pd.DataFrame(0.5 + 0.5 * np.eye(3), index=list("abc"), columns=list("abc"))


def _changed(i: int, j: int, value: float) -> pd.DataFrame:
    out = A3.copy()
    out.iloc[i, j] = value
    return out


BAD_COVARIANCES: dict[str, tuple[Any, Any, str]] = {
    "not symmetric": (_changed(0, 1, 0.4), None, r"not symmetric: .*\('[ab]', '[ab]'\).*0.1"),
    "indefinite": (
        pd.DataFrame([[1.0, 2.0], [2.0, 1.0]], index=list("ab"), columns=list("ab")),
        None,
        r"smallest eigenvalue is -1 \(its largest is 3\)",
    ),
    "singular": (
        pd.DataFrame(np.ones((3, 3)), index=list("abc"), columns=list("abc")),
        None,
        "not positive definite: its smallest eigenvalue",
    ),
    "no variance": (_changed(1, 1, 0.0), None, "diagonal element of 'b' is 0"),
    "other labels": (
        A3.rename(columns={"c": "z"}),
        None,
        "no column is named 'c'",
    ),
    "repeated labels": (A3.to_numpy(), ["a", "b", "a"], "repeat: 'a'"),
    "too few labels": (A3.to_numpy(), ["a", "b"], "2 labels for the 3 rows"),
    "no labels": (A3.to_numpy(), None, "has no labels"),
    "not square": (A3.to_numpy()[:2], ["a", "b"], r"shape \(2, 3\)"),
    "missing values": (_changed(0, 1, np.nan), None, "missing or infinite"),
    "missing labels": (A3.to_numpy(), ["a", None, "b"], "missing values"),
}


@pytest.mark.parametrize("kind", [lmm.Covariance, lmm.Precision])
@pytest.mark.parametrize("what", BAD_COVARIANCES)
def test_bad_matrices(what: str, kind: Any) -> None:
    matrix, labels, said = BAD_COVARIANCES[what]
    with pytest.raises((lmm.DataError, lmm.OptionError), match=said):
        kind(matrix, labels=labels)


def test_a_sparse_precision_that_is_none() -> None:
    Q, labels = known.lattice()
    W = np.diag(np.diag(Q)) - Q
    with pytest.raises(lmm.DataError, match="factor below 1"):  # intrinsic: rows sum to zero
        lmm.Precision(sp.csr_array(np.diag(W.sum(axis=0)) - W), labels=labels)
    lopsided = sp.lil_array(Q)
    lopsided[0, 1] += 0.25
    with pytest.raises(lmm.DataError, match=r"\('r0c[01]', 'r0c[01]'\).* difference of 0.25"):
        lmm.Precision(lopsided, labels=labels)


def test_labels_may_be_in_another_order_on_the_columns() -> None:
    moved = known.kernel().iloc[:, ::-1]
    other = lmm.Covariance(moved)
    np.testing.assert_allclose(other.prior.variances, np.diag(known.kernel()))


def test_what_known_takes() -> None:
    d = known.data()
    Q, cells = known.lattice()
    formula = "y ~ x + (1 | cell)"
    for given, said in (
        ({"cels": lmm.Precision(Q, cells)}, "Did you mean 'cell'"),
        ({"cell": Q}, r"lmm.Covariance\(A, labels=...\)"),
        (lmm.Precision(Q, cells), "must be a mapping"),
        ({"cell": None}, "labelled DataFrame"),
    ):
        with pytest.raises(lmm.OptionError, match=said):
            lmm.lmer(formula, d, known=given)
    with pytest.raises(lmm.OptionError, match="combination of factors"):
        lmm.lmer("y ~ x + (1 | cell:herd)", d, known={"cell:herd": lmm.Precision(Q, cells)})
    inverse = pd.DataFrame(np.linalg.inv(Q), index=cells, columns=cells)
    a = lmm.lmer(formula, d, known={"cell": inverse})
    b = lmm.lmer(formula, d, known={"cell": lmm.Precision(sp.coo_array(Q), cells)})
    assert a.reml_criterion == pytest.approx(b.reml_criterion, abs=1e-8)


def test_arrays_take_the_same() -> None:
    d = known.data()
    known_of = known.known_of("(1 | id)")
    m = lmm.lmer("y ~ x + (1 | id)", d, known=known_of)
    X = np.column_stack([np.ones(len(d)), d["x"]])
    same = lmm.fit_arrays(d["y"], X, [(d["id"], None)], known=known_of)
    assert same.reml_criterion == pytest.approx(m.reml_criterion, abs=1e-8)
    with pytest.raises(lmm.OptionError, match="no grouping factor"):
        lmm.fit_arrays(d["y"], X, [(d["id"].to_numpy(), None)], known=known_of)


def test_one_row_per_level_is_no_fault() -> None:
    d = known.data().drop_duplicates("id")
    formula = "y ~ x + (1 | id)"
    with pytest.raises(lmm.NotIdentifiableError, match=r"[Oo]ne row per level"):
        lmm.lmer(formula, d)
    m = lmm.lmer(formula, d, known=known.known_of(formula))
    assert not [f for f in m.convergence.findings if f.code == "not-identified"]


def test_what_the_data_cannot_tell_is_said() -> None:
    d = known.data().drop_duplicates("id")
    labels = sorted(d["id"])
    proportional = lmm.Covariance(3.0 * np.eye(len(labels)), labels)
    with pytest.raises(lmm.NotIdentifiableError, match="by their covariance they have equal"):
        lmm.lmer("y ~ x + (1 | id)", d, known={"id": proportional})
    founders = lmm.Pedigree([*labels, "z"], [""] * 55 + ["a5"], [""] * 56)
    with pytest.raises(lmm.NotIdentifiableError, match="by their pedigree they have equal"):
        lmm.lmer("y ~ x + (1 | id)", d, known={"id": founders})
    with pytest.warns(lmm.DesignWarning, match="cannot tell apart|put the same rows together"):
        lmm.lmer(
            "y ~ x + (1 | id) + (1 | pe)",
            known.data(),
            known={"id": lmm.Covariance(np.eye(60), known.pedigree()["id"].tolist())},
        )


def test_a_solver_that_does_not_know_it_is_refused() -> None:
    class Mine:
        def build(self, products: Any, template: Any) -> Any:
            return lmm.Dense().build(products, template)

    formula = "y ~ x + (1 | id)"
    with pytest.raises(lmm.OptionError, match="Mine cannot work with the known covariance of id"):
        lmm.lmer(formula, known.data(), known=known.known_of(formula), solver=Mine())
    assert lmm.lmer(formula, known.data(), solver=Mine()).nobs == 150


def test_the_solver_that_is_chosen() -> None:
    """Sparse where M is, dense where the matrix is."""
    rng = np.random.default_rng(1)
    n = 600
    B = rng.normal(size=(n, 2 * n))
    dense = pd.DataFrame(B @ B.T / n)
    d = pd.DataFrame({"y": rng.normal(size=n), "id": np.arange(n)})
    design = lmm.build_design("y ~ 1 + (1 | id)", d, known={"id": dense})
    assert isinstance(lmm.choose_solver(products_of(design)[0]), lmm.Blocked)
    sire = np.where(np.arange(n) < 50, 0, 1 + rng.integers(0, 25, n) * 2)
    dam = np.where(np.arange(n) < 50, 0, 2 + rng.integers(0, 25, n) * 2)
    pedigree = lmm.Pedigree(np.arange(1, n + 1), sire, dam)
    design = lmm.build_design("y ~ 1 + (1 | id)", d.assign(id=d["id"] + 1), known={"id": pedigree})
    assert isinstance(lmm.choose_solver(products_of(design)[0]), lmm.Cholmod)


def test_a_damaged_file_is_refused(tmp_path: Any) -> None:
    formula = "y ~ x + (1 | id)"
    m = lmm.lmer(formula, known.data(), known=known.known_of(formula))
    m.save(tmp_path / "m.lmm")
    content = bytearray((tmp_path / "m.lmm").read_bytes())
    at = content.find(b"sires") + 200
    content[at] ^= 255
    (tmp_path / "m.lmm").write_bytes(bytes(content))
    with pytest.raises(lmm.StorageError):
        lmm.load(tmp_path / "m.lmm")
