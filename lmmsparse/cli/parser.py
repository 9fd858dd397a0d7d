"""What may be typed in a terminal, and what is said about it."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any

from lmmsparse import __version__
from lmmsparse.data.reading import READABLE
from lmmsparse.inference.df.methods import METHODS
from lmmsparse.inference.intervals.confint import METHODS as CI_METHODS
from lmmsparse.optimize import Bobyqa, NelderMead, Optimizer, TrustRegion

Command = Callable[[argparse.Namespace], int]
Options = argparse._ActionsContainer
OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "bobyqa": Bobyqa,
    "nelder-mead": NelderMead,
    "trust-region": TrustRegion,
}


def _level(text: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not 0 < level < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return level


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name.strip() and sign and value.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} must be COLUMN=..., with a name and a value")
    return name.strip(), value.strip()


class _Parser(argparse.ArgumentParser):
    """A parser that does not keep to itself that nothing can be printed."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if (stream := file or sys.stderr) is not None:
            print(message, end="", file=stream, flush=True)


def make_parser(fitting: Command, demonstrating: Command, listing: Command) -> _Parser:
    """The parser, with what runs each command."""
    parser = _Parser(
        prog="lmmsparse",
        description="Mixed models with lme4's formulas.",
    )
    parser.add_argument("--version", action="version", version=f"lmmsparse {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fit = commands.add_parser(
        "fit",
        help="fit a model and print its summary",
        description="Fit a linear or generalized linear mixed model and print its summary.",
        epilog='Example: lmmsparse fit "Reaction ~ Days + (Days|Subject)" sleepstudy',
    )
    _add_model(fit)
    _add_tests(fit.add_argument_group("tests and shares of variance"))
    _add_means(fit.add_argument_group("marginal means"))
    _add_output(fit.add_argument_group("where results go"))
    fit.set_defaults(run=fitting)

    demo = commands.add_parser("demo", help="fit five models beside lmer's published figures")
    demo.set_defaults(run=demonstrating)

    datasets = commands.add_parser("datasets", help="list the shipped data sets")
    datasets.add_argument("name", nargs="?", help="describe this one")
    datasets.set_defaults(run=listing)
    return parser


def _add_model(fit: Options) -> None:
    fit.add_argument("formula", help='for example "size ~ Time + (Time|tree)"')
    fit.add_argument(
        "data",
        help=f"one of {READABLE}, - for CSV from the standard input, or the name of a shipped "
        "data set",
    )
    fit.add_argument(
        "--family",
        metavar="NAME",
        help="fit a generalized model: binomial, poisson, negative_binomial, gamma, "
        "inverse_gaussian",
    )
    fit.add_argument("--link", metavar="NAME", help="link of the family, such as probit")
    fit.add_argument(
        "--n-agq", type=int, metavar="N", help="nodes of adaptive quadrature (default: Laplace)"
    )
    fit.add_argument("--ml", action="store_true", help="maximum likelihood instead of REML")
    fit.add_argument("--weights", metavar="COLUMN", help="column of prior weights")
    fit.add_argument("--offset", metavar="COLUMN", help="column to add to the linear predictor")
    fit.add_argument(
        "--residual", metavar="TEXT", help='correlation of residuals, for example "ar1(t | g)"'
    )
    fit.add_argument(
        "--residual-sd", metavar="TEXT", help='what their log sd depends on, for example "~ sex"'
    )
    fit.add_argument(
        "--na-action",
        choices=("omit", "exclude", "raise"),
        default="omit",
        help="what to do with rows that have missing values (default: omit)",
    )
    fit.add_argument(
        "--missing",
        metavar="TEXT",
        action="append",
        default=[],
        help="what stands for a missing value in the file, besides NA, NaN and nothing (may be "
        "given several times)",
    )
    fit.add_argument(
        "--encoding",
        metavar="NAME",
        help="of a text file, such as cp1252; if not given, UTF-8, or a guess that is named",
    )
    fit.add_argument(
        "--sep",
        metavar="CHARACTER",
        help="what stands between the columns of a text file: , ; tab ... (default: by suffix and "
        "first line)",
    )
    fit.add_argument(
        "--coding",
        metavar="COLUMN=NAME",
        type=_pair,
        action="append",
        default=[],
        help="coding of a factor: treatment, sum, diff, helmert, poly (may be given several times)",
    )
    fit.add_argument("--optimizer", choices=tuple(OPTIMIZERS), help="how to search the optimum")


def _add_tests(fit: Options) -> None:
    fit.add_argument(
        "--ddf", metavar="METHOD", help=f"degrees of freedom of the tests: {', '.join(METHODS)}"
    )
    fit.add_argument(
        "--ci",
        metavar="METHOD",
        help=f"also print confidence intervals: {', '.join(CI_METHODS)}",
    )
    fit.add_argument("--level", type=_level, default=0.95, help="confidence level (default: 0.95)")
    fit.add_argument(
        "--robust", metavar="KIND", help="cluster-robust standard errors: CR0, CR1, CR2, CR3"
    )
    fit.add_argument(
        "--cluster",
        metavar="COLUMN",
        help="the clusters (default: the grouping factor that holds all others)",
    )
    fit.add_argument("--anova", action="store_true", help="also test the fixed-effects terms")
    fit.add_argument("--r2", action="store_true", help="also print R² and intraclass correlations")
    fit.add_argument("--ranef", action="store_true", help="also print the random effects")


def _add_means(fit: Options) -> None:
    fit.add_argument(
        "--emmeans",
        metavar="FACTORS",
        action="append",
        default=[],
        help="also print marginal means, of 'A', of 'A, B', or of 'A | B': A within each level of "
        "B (may be given several times)",
    )
    fit.add_argument("--pairwise", action="store_true", help="all differences of these means")
    fit.add_argument(
        "--contrasts",
        choices=("pairwise", "trt.vs.ctrl", "consec"),
        help="differences of these means: all, from the first, from the level before",
    )
    fit.add_argument("--reverse", action="store_true", help="turn the differences round")
    fit.add_argument(
        "--adjust",
        metavar="METHOD",
        help="for several differences: tukey (default), holm, bonferroni, sidak, fdr, none",
    )
    fit.add_argument(
        "--at",
        metavar="COLUMN=VALUES",
        type=_pair,
        action="append",
        default=[],
        help="hold a predictor of these means at values, such as Days=0,9 (may be given several "
        "times)",
    )
    fit.add_argument(
        "--emmeans-weights",
        choices=("equal", "proportional"),
        help="how these means weight the levels they average over (default: equal)",
    )
    fit.add_argument(
        "--type",
        choices=("link", "response"),
        help="scale of these means (default: link); on the response differences are ratios",
    )
    fit.add_argument(
        "--regrid",
        action="store_true",
        help="map to the response before averaging: differences of probabilities, not odds ratios",
    )


def _add_output(fit: Options) -> None:
    fit.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    fit.add_argument(
        "--json",
        metavar="FILE",
        help="also write the results to FILE as JSON; - prints JSON and nothing else",
    )
