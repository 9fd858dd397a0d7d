"""Results → figures; all of matplotlib, imported only when a plot is made."""

from lmmsparse.report.plots.check import plot_check
from lmmsparse.report.plots.generalized_plots import GeneralizedPlots
from lmmsparse.report.plots.model_plots import ModelPlots

__all__ = ["GeneralizedPlots", "ModelPlots", "plot_check"]
