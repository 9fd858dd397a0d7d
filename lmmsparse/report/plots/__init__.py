"""Results → figures; all of matplotlib, imported only when a plot is made."""

from lmmsparse.report.plots.model_plots import ModelPlots

__all__ = ["ModelPlots"]
