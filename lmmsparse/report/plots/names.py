"""The name of a parameter → a label for an axis."""

from __future__ import annotations

from lmmsparse.fit.fit import Fit
from lmmsparse.results.parameters import parameter_names


def parameter_labels(fit: Fit) -> dict[str, str]:
    """Every covariance parameter of `confint` in words; fixed effects keep their names.

    Returns
    -------
    dict
        ``"sd_Days|Subject"`` → ``"SD of Days | Subject"``, …
    """
    labels = []
    for block in fit.design.blocks:
        structure = block.structure
        for common, (row, column) in zip(structure.labels, structure.entries, strict=True):
            if common:
                what = {"sd": "SD", "rho": "Correlation"}.get(common, common)
            elif row == column:
                what = f"SD of {block.names[row]}"
            else:
                what = f"Correlation of {block.names[column]} and {block.names[row]}"
            labels.append(f"{what} | {block.group}")
    labels.append("Residual SD")
    out = dict(zip(parameter_names(fit), labels, strict=True))
    return {**out, **{name: name for name in fit.design.x_names}}
