"""Formula text → `MixedFormula`; knows no data."""

from lmmsparse.formula.formula import MixedFormula, parse_formula

__all__ = ["MixedFormula", "parse_formula"]
