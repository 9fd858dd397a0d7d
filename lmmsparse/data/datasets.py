"""The name of a shipped data set → a DataFrame whose factors carry R's level order.

The files in `data/` hold the values exactly as R's packages publish them; what is a factor, and
which level comes first, is decided here and nowhere else.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType

import pandas as pd

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import brief


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about one shipped data set.

    Attributes
    ----------
    name : str
        The name `load_dataset` takes.
    title : str
        One line: what was measured, on what.
    description : str
        How the data came about.
    rows : int
        Number of observations.
    columns : mapping of str to str
        Column name to its meaning, in the order of the columns.
    factors : tuple of str
        The columns that `load_dataset` returns as (unordered) Categorical.
    source : str
        The R package and data set with the same values.
    citation : str
        The publication to cite.
    """

    name: str
    title: str
    description: str
    rows: int
    columns: Mapping[str, str]
    factors: tuple[str, ...]
    source: str
    citation: str
    _file: str = field(repr=False)
    _levels: Mapping[str, tuple[int, ...]] = field(
        default_factory=lambda: MappingProxyType({}), repr=False
    )


_DAVIES = (
    "Davies, O. L. and Goldsmith, P. L. (eds) (1972). Statistical Methods in Research and "
    "Production, 4th ed. Oliver and Boyd, section {}."
)

_ALL = (
    DatasetInfo(
        name="Dyestuff",
        title="Yield of dyestuff from six batches of an intermediate product",
        description=(
            "Five preparations of the dyestuff Naphthalene Black 12B were made from each of six "
            "samples of an intermediate product (H-acid), to learn how much of the variation in "
            "yield comes from the batch."
        ),
        rows=30,
        columns=MappingProxyType(
            {
                "Batch": "batch of the intermediate product, A to F",
                "Yield": "yield of one preparation, in grams of standard colour",
            }
        ),
        factors=("Batch",),
        source="R package lme4, Dyestuff",
        citation=_DAVIES.format("6.4"),
        _file="Dyestuff.csv",
    ),
    DatasetInfo(
        name="Dyestuff2",
        title="Generated data laid out like Dyestuff, without variation between batches",
        description=(
            "Numbers constructed so that the mean square between batches is smaller than the one "
            "within: the estimated batch variance is zero and the fit is singular."
        ),
        rows=30,
        columns=MappingProxyType(
            {"Batch": "batch, A to F", "Yield": "generated yield, arbitrary units"}
        ),
        factors=("Batch",),
        source="R package lme4, Dyestuff2",
        citation=(
            "Box, G. E. P. and Tiao, G. C. (1973). Bayesian Inference in Statistical Analysis. "
            "Addison-Wesley, section 5.1.2."
        ),
        _file="Dyestuff2.csv",
    ),
    DatasetInfo(
        name="InstEval",
        title="Ratings of lectures by students at ETH Zürich",
        description=(
            "Each row is one student's rating of one lecture of one lecturer. Students and "
            "lecturers are partially crossed; the codes are anonymized."
        ),
        rows=73_421,
        columns=MappingProxyType(
            {
                "s": "student, 2,972 levels between 1 and 2972",
                "d": "lecturer, 1,128 levels between 1 and 2160",
                "studage": "semester in which the student is enrolled: 2, 4, 6, 8",
                "lectage": "how many semesters ago the lecture took place: 1 to 6",
                "service": "1 if the lecture is held for another department than the lecturer's",
                "dept": "department of the lecture, 14 random codes between 1 and 15",
                "y": "rating, from 1 (poor) to 5 (very good)",
            }
        ),
        factors=("s", "d", "studage", "lectage", "service", "dept"),
        source="R package lme4, InstEval",
        citation=(
            "Bates, D., Mächler, M., Bolker, B. and Walker, S. (2015). Fitting linear "
            "mixed-effects models using lme4. Journal of Statistical Software 67(1). "
            "Data: ETH Zürich, students' evaluation of teaching."
        ),
        _file="InstEval.csv.gz",
        _levels=MappingProxyType({"dept": (15, 5, 10, 12, 6, 7, 4, 8, 9, 14, 1, 3, 11, 2)}),
    ),
    DatasetInfo(
        name="Pastes",
        title="Strength of a chemical paste by delivery batch and cask",
        description=(
            "Ten delivery batches were sampled at random, three casks in each, and every cask's "
            "sample was assayed twice: casks are nested in batches."
        ),
        rows=60,
        columns=MappingProxyType(
            {
                "strength": "strength of the paste in one assay",
                "batch": "delivery batch, A to J",
                "cask": "cask within its batch, a to c (the labels repeat from batch to batch)",
                "sample": "batch and cask together, A:a to J:c",
            }
        ),
        factors=("batch", "cask", "sample"),
        source="R package lme4, Pastes",
        citation=_DAVIES.format("6.5"),
        _file="Pastes.csv",
    ),
    DatasetInfo(
        name="Penicillin",
        title="Penicillin assays: six samples on each of 24 plates",
        description=(
            "Six samples of penicillin were tested by the B. subtilis plate method on each of 24 "
            "plates: samples and plates are fully crossed."
        ),
        rows=144,
        columns=MappingProxyType(
            {
                "diameter": "diameter of the zone in which growth is inhibited, in mm",
                "plate": "assay plate, a to x",
                "sample": "sample of penicillin, A to F",
            }
        ),
        factors=("plate", "sample"),
        source="R package lme4, Penicillin",
        citation=_DAVIES.format("6.6"),
        _file="Penicillin.csv",
    ),
    DatasetInfo(
        name="Sitka",
        title="Growth of 79 Sitka spruce trees in 1988, with and without ozone",
        description=(
            "The size of every tree was measured five times, about once a month; 54 trees grew in "
            "chambers enriched with ozone, 25 were controls."
        ),
        rows=395,
        columns=MappingProxyType(
            {
                "size": "logarithm of height times squared diameter",
                "Time": "days since 1 January 1988",
                "tree": "number of the tree, 1 to 79",
                "treat": "control or ozone",
            }
        ),
        factors=("tree", "treat"),
        source="R package MASS, Sitka",
        citation=(
            "Diggle, P. J., Liang, K.-Y. and Zeger, S. L. (1994). Analysis of Longitudinal Data. "
            "Clarendon Press. Also in Venables, W. N. and Ripley, B. D. (2002). Modern Applied "
            "Statistics with S, 4th ed. Springer."
        ),
        _file="Sitka.csv",
    ),
    DatasetInfo(
        name="cake",
        title="Breakage angle of chocolate cakes by recipe and baking temperature",
        description=(
            "A split-plot experiment: in each of 15 replicates a batch of every recipe was mixed "
            "(whole unit) and divided over six baking temperatures (sub-units)."
        ),
        rows=270,
        columns=MappingProxyType(
            {
                "replicate": "replicate, 1 to 15",
                "recipe": "recipe, A to C",
                "temperature": "baking temperature in °F as a factor: 175, 185, …, 225",
                "angle": "angle at which the cake broke, in degrees",
                "temp": "baking temperature in °F as a number",
            }
        ),
        factors=("replicate", "recipe", "temperature"),
        source="R package lme4, cake (there `temperature` is an ordered factor)",
        citation=(
            "Cook, F. E. (1938). Chocolate cake, I. Optimum baking temperature. Master's thesis, "
            "Iowa State College. Published in Cochran, W. G. and Cox, G. M. (1957). Experimental "
            "Designs, 2nd ed. Wiley, p. 300."
        ),
        _file="cake.csv",
    ),
    DatasetInfo(
        name="dietox",
        title="Growth of 72 pigs on diets with vitamin E and copper",
        description=(
            "Slaughter pigs were weighed every week for twelve weeks in a 3 × 3 factorial "
            "experiment on vitamin E and copper in the feed; the pigs come from 21 litters."
        ),
        rows=861,
        columns=MappingProxyType(
            {
                "Pig": "the pig, 72 identification numbers",
                "Evit": "vitamin E in the feed: 0, 100 or 200 mg per kg",
                "Cu": "copper in the feed: 0, 35 or 175 mg per kg",
                "Litter": "litter the pig comes from, 21 levels between 1 and 24",
                "Start": "weight in the first week, in kg",
                "Weight": "weight, in kg",
                "Feed": "feed eaten so far, in kg (missing in the first week)",
                "Time": "week of the experiment, 1 to 12",
            }
        ),
        factors=("Pig", "Evit", "Cu", "Litter"),
        source="R package geepack, dietox",
        citation=(
            "Lauridsen, C., Højsgaard, S. and Sørensen, M. T. (1999). Influence of dietary "
            "rapeseed oil, vitamin E, and copper on the performance and the antioxidative and "
            "oxidative status of pigs. Journal of Animal Science 77, 906-916."
        ),
        _file="dietox.csv",
    ),
    DatasetInfo(
        name="oats",
        title="Yield of oats in a split-plot field trial: three varieties, four nitrogen doses",
        description=(
            "Six blocks of three main plots, each split into four sub-plots. Varieties were given "
            "to the main plots and nitrogen doses to the sub-plots."
        ),
        rows=72,
        columns=MappingProxyType(
            {
                "B": "block, I to VI",
                "V": "variety: Golden.rain, Marvellous, Victory",
                "N": "nitrogen, 0.0cwt to 0.6cwt per acre",
                "Y": "yield of a sub-plot of 1/80 acre, in quarter pounds",
            }
        ),
        factors=("B", "V", "N"),
        source="R package MASS, oats",
        citation=(
            "Yates, F. (1935). Complex experiments. Supplement to the Journal of the Royal "
            "Statistical Society 2, 181-247."
        ),
        _file="oats.csv",
    ),
    DatasetInfo(
        name="sleepstudy",
        title="Reaction times of 18 people during ten days of sleep restriction",
        description=(
            "The group with three hours in bed. Days 0 and 1 were adaptation and training, day 2 "
            "the baseline; sleep was restricted after it."
        ),
        rows=180,
        columns=MappingProxyType(
            {
                "Reaction": "average reaction time of the day, in ms",
                "Days": "day of the study, 0 to 9",
                "Subject": "number of the person, 308 to 372",
            }
        ),
        factors=("Subject",),
        source="R package lme4, sleepstudy",
        citation=(
            "Belenky, G. et al. (2003). Patterns of performance degradation and restoration during "
            "sleep restriction and subsequent recovery: a sleep dose-response study. Journal of "
            "Sleep Research 12, 1-12."
        ),
        _file="sleepstudy.csv",
    ),
)

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({info.name: info for info in _ALL})
"""The shipped data sets by name, in alphabetical order (capital letters first)."""


@checked_keywords
def load_dataset(name: str) -> pd.DataFrame:
    """Load a data set that ships with lmmsparse.

    Parameters
    ----------
    name : str
        One of the names in `DATASETS`, for example ``"sleepstudy"``.

    Returns
    -------
    DataFrame
        A new frame at every call, with a default index. Grouping columns and factors are
        Categorical, with the levels in the order R has them; whole-number labels stay integers.

    Raises
    ------
    OptionError
        No data set has that name.

    Notes
    -----
    R has `temperature` of cake and `studage` and `lectage` of InstEval as ordered factors, which R
    codes by polynomials. Here they are unordered with the same order of levels; write
    ``C(temperature, contr.poly)`` for R's coding.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> sleep = lmm.load_dataset("sleepstudy")
    >>> sleep.shape
    (180, 3)
    >>> list(sleep["Subject"].cat.categories[:3])
    [308, 309, 310]
    """
    info = DATASETS.get(name) if isinstance(name, str) else None
    if info is None:
        raise OptionError(_unknown(name))
    with resources.as_file(resources.files("lmmsparse") / "data" / info._file) as path:
        frame = pd.read_csv(path)
    for column in info.factors:
        # Without stated levels pandas sorts: numbers by value, text by character, as R did.
        frame[column] = pd.Categorical(frame[column], categories=info._levels.get(column))
    return frame


def _unknown(name: object) -> str:
    wanted = brief(name).strip("'").casefold()
    by_folded = {known.casefold(): known for known in DATASETS}
    close = [by_folded[match] for match in difflib.get_close_matches(wanted, by_folded, cutoff=0.6)]
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return (
        f"There is no data set named {brief(name)}. {hint}"
        f"lmmsparse ships these: {', '.join(DATASETS)}. Names are case-sensitive."
    )
