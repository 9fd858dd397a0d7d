"""Design → `Fit`: the search, its verdict, refits, files."""

from lmmsparse.fit.fit import Fit
from lmmsparse.fit.fitting import fit_design

__all__ = ["Fit", "fit_design"]
