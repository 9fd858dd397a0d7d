"""lmmsparse: linear mixed models with lme4's formulas, sparse and without R."""

import sys
from functools import partial

from lmmsparse import interop
from lmmsparse.chunks.options import Batches, Chunks
from lmmsparse.common import errors
from lmmsparse.common.calls import no_such_name
from lmmsparse.common.errors import (
    ConvergenceWarning,
    DataError,
    DesignWarning,
    Finding,
    FormulaError,
    InterruptedWarning,
    LmmError,
    LmmWarning,
    MissingPackageError,
    NotFittedByError,
    NotIdentifiableError,
    NumericalError,
    OptionError,
    RowsNotKeptError,
    SingularFitWarning,
    SlowSolverWarning,
    StorageError,
    UnknownColumnError,
    UnknownGroupError,
)
from lmmsparse.common.table import Table
from lmmsparse.data.datasets import load_dataset
from lmmsparse.design import Design, build_design
from lmmsparse.design.known import Covariance, Precision
from lmmsparse.design.pedigree import Pedigree
from lmmsparse.engine import families
from lmmsparse.engine.solvers.blocked import Blocked
from lmmsparse.engine.solvers.cholmod import Cholmod
from lmmsparse.engine.solvers.choose import choose_solver
from lmmsparse.engine.solvers.dense import Dense
from lmmsparse.engine.solvers.krylov.solver import Krylov
from lmmsparse.engine.solvers.superlu import SuperLU
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.fitting import fit_design
from lmmsparse.formula.formula import MixedFormula, parse_formula
from lmmsparse.model.generalized import GeneralizedLinearMixedModel
from lmmsparse.model.glmer import glmer
from lmmsparse.model.linear import LinearMixedModel
from lmmsparse.model.lmer import anova, compare, fit_arrays, lmer
from lmmsparse.model.products import cross_products, load
from lmmsparse.model.several import bootstrap_lrt, pool
from lmmsparse.optimize import Bobyqa, NelderMead, TrustRegion
from lmmsparse.results.varcorr import VarCorr

__version__ = "0.1.0"

# Users filter warnings by the name of their module: it stays short, wherever they live.
sys.modules[f"{__name__}.errors"] = errors


def __dir__() -> list[str]:
    """What is meant to be used, without the modules it is made of."""
    return sorted([*__all__, "__all__", "__doc__", "__name__", "__version__"])


__all__ = [
    "Batches",
    "Blocked",
    "Bobyqa",
    "Cholmod",
    "Chunks",
    "ConvergenceWarning",
    "Covariance",
    "DataError",
    "Dense",
    "Design",
    "DesignWarning",
    "Finding",
    "Fit",
    "FormulaError",
    "GeneralizedLinearMixedModel",
    "InterruptedWarning",
    "Krylov",
    "LinearMixedModel",
    "LmmError",
    "LmmWarning",
    "MissingPackageError",
    "MixedFormula",
    "NelderMead",
    "NotFittedByError",
    "NotIdentifiableError",
    "NumericalError",
    "OptionError",
    "Pedigree",
    "Precision",
    "RowsNotKeptError",
    "SingularFitWarning",
    "SlowSolverWarning",
    "StorageError",
    "SuperLU",
    "Table",
    "TrustRegion",
    "UnknownColumnError",
    "UnknownGroupError",
    "VarCorr",
    "anova",
    "bootstrap_lrt",
    "build_design",
    "choose_solver",
    "compare",
    "cross_products",
    "errors",
    "families",
    "fit_arrays",
    "fit_design",
    "glmer",
    "interop",
    "lmer",
    "load",
    "load_dataset",
    "parse_formula",
    "pool",
]

# What to write instead of a name that is not here; not a plain function, from which type checkers
# would conclude that every name is.
globals()["__getattr__"] = partial(no_such_name, __name__, LinearMixedModel, __all__)
