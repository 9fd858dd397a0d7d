"""Formula and source → the sums of a model without the model; what was saved → what it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmmsparse.chunks.choose import design_of_data
from lmmsparse.chunks.options import Chunks
from lmmsparse.chunks.products import ModelProducts
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import DataError
from lmmsparse.common.threads import one_thread
from lmmsparse.design import Design
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.storage import load_stored
from lmmsparse.formula.formula import parse_formula
from lmmsparse.model.generalized import GeneralizedLinearMixedModel
from lmmsparse.model.linear import LinearMixedModel


@checked_keywords
@one_thread
def cross_products(
    formula: str,
    source: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    chunks: Chunks | None = None,
) -> ModelProducts:
    """Sum the rows of data in chunks to all that a linear mixed model needs of them.

    Pass the result to `lmer` instead of the data, as often as you like: by REML and by maximum
    likelihood, with other optimizers, solvers and start values, or parameters held. Nothing is read
    again, and each fit is the same as that of the data with ``chunks=``.

    Parameters
    ----------
    formula : str
        For example ``"y ~ x + (x | subject) + (1 | item)"``; `lmer` takes no other with the result.
    source : path, table or Batches
        All data that `lmer` takes; tables in memory are read in chunks too.
    weights, offset : str, optional
        Names of columns.
    na_action : {"omit", "raise"}
        Rows with missing values: left out, or refused.
    contrasts, context : mapping, optional
        As for `lmer`.
    chunks : Chunks, optional
        Rows at a time and number of processes.

    Returns
    -------
    ModelProducts
        Has ``formula``, ``nobs``, ``n_groups`` and ``save(path)``, whose file `load` reads. It
        holds the sums and a sample of about 100,000 rows.

    Raises
    ------
    FormulaError
        The formula cannot be read.
    DataError
        The data do not fit the formula.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> sleep = lmm.load_dataset("sleepstudy")
    >>> products = lmm.cross_products("Reaction ~ Days + (Days | Subject)", sleep)
    >>> products
    Cross-products of Reaction ~ Days + (Days | Subject): 180 rows, Subject (18 levels)
    >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", products)
    >>> round(m.reml_criterion, 4)
    1743.6283
    """
    parsed = parse_formula(formula)
    if isinstance(source, ModelProducts):
        raise DataError(
            "cross_products() was given cross-products, whose rows are summed already. Pass them "
            "to lmm.lmer, or data to this function."
        )
    design = design_of_data(
        parsed,
        source,
        Chunks() if chunks is None else chunks,
        weights=weights,
        offset=offset,
        na_action=na_action,
        contrasts=contrasts,
        context=context,
    )
    return ModelProducts(design)


@checked_keywords
def load(path: str | Path) -> LinearMixedModel | GeneralizedLinearMixedModel | ModelProducts:
    """Read what a method `save` has written: a model, or cross-products.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    LinearMixedModel, GeneralizedLinearMixedModel or ModelProducts
        With identical results; nothing in the file is executed.

    Raises
    ------
    StorageError
        If the file is not a saved model, nor saved cross-products, or is damaged.
    """
    stored = load_stored(path)
    if isinstance(stored, Design):
        return ModelProducts(stored)
    if isinstance(stored, GeneralizedFit):
        return GeneralizedLinearMixedModel(stored)
    return LinearMixedModel(stored)
