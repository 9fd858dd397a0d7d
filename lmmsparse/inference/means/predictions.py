"""Predictions of a transformed response → predictions of the response."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmsparse.common.errors import OptionError
from lmmsparse.design import Design
from lmmsparse.inference.means.scale import no_way_back, response_scale


def mapped_back(design: Design, found: pd.Series | pd.DataFrame) -> pd.Series | pd.DataFrame:
    """Predictions and limits mapped back; standard errors by the delta method."""
    scale = response_scale(design)
    if scale is None:
        if unknown := no_way_back(design):
            raise OptionError(
                f"type='response' needs the way back from {unknown}, which is not known. Predict "
                "without it, and map the predictions back."
            )
        return found
    with np.errstate(all="ignore"):
        if isinstance(found, pd.Series):
            return pd.Series(scale.inverse(found.to_numpy()), found.index, name=found.name)
        fit, se = found["fit"].to_numpy(), found["se"].to_numpy()
        ends = [scale.inverse(found[side].to_numpy()) for side in ("lower", "upper")]
        columns = {
            "fit": scale.inverse(fit),
            "se": np.abs(scale.slope(fit)) * se,
            "lower": np.minimum(*ends),
            "upper": np.maximum(*ends),
        }
    return pd.DataFrame(columns, index=found.index)
