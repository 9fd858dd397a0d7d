"""lmmsparse: linear mixed models with lme4's formulas, sparse and without R."""

from functools import partial

from lmmsparse.datasets import load_dataset
from lmmsparse.design import Design, build_design
from lmmsparse.errors import (
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
    SingularFitWarning,
    SlowSolverWarning,
    StorageError,
    UnknownGroupError,
)
from lmmsparse.fit import Fit, fit_design
from lmmsparse.formula import MixedFormula, parse_formula
from lmmsparse.keywords import no_such_name
from lmmsparse.lmer import anova, bootstrap_lrt, fit_arrays, lmer, load
from lmmsparse.model import LinearMixedModel
from lmmsparse.optimize import Bobyqa, NelderMead, TrustRegion
from lmmsparse.solvers.blocked import Blocked
from lmmsparse.solvers.cholmod import Cholmod
from lmmsparse.solvers.choose import choose_solver
from lmmsparse.solvers.dense import Dense
from lmmsparse.solvers.superlu import SuperLU
from lmmsparse.table import Table
from lmmsparse.varcorr import VarCorr

__version__ = "0.1.0"


# What to write instead of a name that is not here; not a plain function, from which type checkers
# would conclude that every name is.
globals()["__getattr__"] = partial(no_such_name, __name__)


def __dir__() -> list[str]:
    """What is meant to be used, without the modules it is made of."""
    return sorted([*__all__, "__all__", "__doc__", "__name__", "__version__"])


__all__ = [
    "Blocked",
    "Bobyqa",
    "Cholmod",
    "ConvergenceWarning",
    "DataError",
    "Dense",
    "Design",
    "DesignWarning",
    "Finding",
    "Fit",
    "FormulaError",
    "InterruptedWarning",
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
    "SingularFitWarning",
    "SlowSolverWarning",
    "StorageError",
    "SuperLU",
    "Table",
    "TrustRegion",
    "UnknownGroupError",
    "VarCorr",
    "anova",
    "bootstrap_lrt",
    "build_design",
    "choose_solver",
    "fit_arrays",
    "fit_design",
    "lmer",
    "load",
    "load_dataset",
    "parse_formula",
]
