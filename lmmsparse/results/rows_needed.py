"""Who needs the rows of the data, and what to use where a fit does not keep them."""

from __future__ import annotations

from lmmsparse.common.errors import RowsNotKeptError
from lmmsparse.fit.fit import Fit


def with_rows(fit: Fit, what: str, instead: str) -> Fit:
    """The fit, if it keeps the rows of its data.

    Parameters
    ----------
    what : str
        What is asked for, as the user writes it.
    instead : str
        What to do where there are no rows, as a sentence.

    Raises
    ------
    RowsNotKeptError
    """
    if fit.design.facts is not None:
        raise RowsNotKeptError(
            f"{what} needs the rows of the data, which a model fitted in chunks does not keep. "
            f"{instead}"
        )
    return fit


PREDICT = "Use m.predict_batches(source), chunk by chunk, or m.write_predictions(source, folder)."
RESIDUALS = "Use m.residual_batches(source), chunk by chunk."
IN_MEMORY = "Fit a part of the data in memory, for example the rows of some groups."
ANOTHER = "Put it into the data as a column, and fit again: lmm.lmer(formula, source)."
PILOT = (
    "Fit a part of the data in memory, for example the rows of some groups, and ask its model for "
    "the power with more levels: m.power(term, along=group, n=[...], rng=...)."
)
