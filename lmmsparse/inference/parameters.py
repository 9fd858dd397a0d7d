"""`Fit` → names of its covariance parameters as standard deviations and correlations."""

from __future__ import annotations

from lmmsparse.fit import Fit


def parameter_names(fit: Fit) -> list[str]:
    """Names in θ's order, ``"sigma"`` last: ``sd_Days|Subject``, ``cor_Days.Intercept|Subject``.

    A name that two terms would share gets a number: ``sd_Intercept|g``, ``sd_Intercept|g.1``.
    """
    names: list[str] = []
    for block in fit.design.blocks:
        for row, column in block.structure.entries:
            if row == column:
                name = f"sd_{block.names[row]}|{block.group}"
            else:
                name = f"cor_{block.names[row]}.{block.names[column]}|{block.group}"
            count = sum(n == name or n.startswith(f"{name}.") for n in names)
            names.append(f"{name}.{count}" if count else name)
    return [*names, "sigma"]


def theta_names(fit: Fit) -> list[str]:
    """Names of θ itself in lme4's manner: ``Subject.Intercept``, ``Subject.Days.Intercept``."""
    names = []
    for block in fit.design.blocks:
        for row, column in block.structure.entries:
            effects = [block.names[row]] + ([block.names[column]] if row != column else [])
            names.append(".".join([block.group, *effects]))
    return names
