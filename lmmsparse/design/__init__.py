"""Formula and data → design matrices; the only part that knows formulaic and tables."""

from lmmsparse.design.arrays import design_from_arrays
from lmmsparse.design.build import build_design
from lmmsparse.design.columns import ColumnInfo
from lmmsparse.design.design import Design, RandomBlock
from lmmsparse.design.grouping import Grouping, LevelKey
from lmmsparse.design.matrices import MatrixRecipe
from lmmsparse.design.rank import own_share
from lmmsparse.design.recipe import GroupRecipe, Recipe
from lmmsparse.design.tables import as_frame, check_unique

__all__ = [
    "ColumnInfo",
    "Design",
    "GroupRecipe",
    "Grouping",
    "LevelKey",
    "MatrixRecipe",
    "RandomBlock",
    "Recipe",
    "as_frame",
    "build_design",
    "check_unique",
    "design_from_arrays",
    "own_share",
]
