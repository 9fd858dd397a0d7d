"""Which CHOLMOD there is: scikit-sparse's, else cvxopt's, else none."""

from __future__ import annotations

import scipy.sparse as sp

from lmmsparse.common.errors import MissingPackageError
from lmmsparse.engine.solvers import cvxopt as _cvxopt
from lmmsparse.engine.solvers import sksparse as _sksparse
from lmmsparse.engine.solvers.cholesky import SparseCholesky

INSTALL = """\
  without a compiler:  pip install cvxopt (its licence is the GPL)
  fastest, compiled:   pip install scikit-sparse (scikit-sparse==0.4.16 where SuiteSparse is older
                       than 7.4, as in Debian 12), after
    Debian, Ubuntu:    sudo apt-get install libsuitesparse-dev python3-dev g++
    Fedora:            sudo dnf install suitesparse-devel python3-devel gcc-c++
    macOS:             brew install suite-sparse
  conda, instead:      conda install -c conda-forge scikit-sparse"""


def library() -> str:
    """The package whose CHOLMOD is used; nothing where there is none."""
    if not _sksparse.UNUSABLE:
        return "scikit-sparse"
    return "" if _cvxopt.unusable() else "cvxopt"


def require_cholmod(ordering: str = "auto") -> None:
    """Say how to install what is missing."""
    found = library()
    if not found:
        raise MissingPackageError(
            f"CHOLMOD cannot be used: neither scikit-sparse ({_sksparse.UNUSABLE}) nor cvxopt "
            f"({_cvxopt.unusable()}) is there. Leave out solver= for a solver that needs "
            f"neither, or install one:\n{INSTALL}"
        )
    if found == "cvxopt" and ordering not in ("auto", *_cvxopt.ORDERINGS):
        raise MissingPackageError(
            f"ordering={ordering!r} needs scikit-sparse, which cannot be used "
            f"({_sksparse.UNUSABLE}). The CHOLMOD of cvxopt has 'amd' and 'natural'."
        )


def analyze(lower: sp.csc_matrix, ordering: str, mode: str) -> SparseCholesky:
    """Symbolic analysis of a symmetric matrix given by its lower triangle.

    Parameters
    ----------
    lower : csc_matrix
        Lower triangle with the structural pattern.
    ordering : {"amd", "metis", "nesdis", "natural"}
        CHOLMOD's name of the fill-reducing ordering.
    mode : {"auto", "simplicial", "supernodal"}
    """
    require_cholmod(ordering)
    analyze = _sksparse.analyze if library() == "scikit-sparse" else _cvxopt.analyze
    return analyze(lower, ordering, mode)
