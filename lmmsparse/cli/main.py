"""The words typed in a terminal → a fitted model, what it found written and printed.

Whatever the user can get wrong ends in one paragraph on stderr and exit code 2, never in a
traceback.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lmmsparse import __version__
from lmmsparse.cli.demo import run_demo
from lmmsparse.cli.output import check_place, write
from lmmsparse.cli.results import Results
from lmmsparse.cli.terminal import complain, discard, open_streams
from lmmsparse.common.errors import LmmError, LmmWarning, OptionError
from lmmsparse.data.datasets import DATASETS, load_dataset
from lmmsparse.data.reading import READABLE, read_data
from lmmsparse.engine.families import family_named
from lmmsparse.inference.df.methods import METHODS, check_ddf
from lmmsparse.inference.intervals.confint import METHODS as CI_METHODS
from lmmsparse.inference.intervals.confint import check_method
from lmmsparse.model.generalized import GeneralizedLinearMixedModel
from lmmsparse.model.glmer import glmer
from lmmsparse.model.linear import LinearMixedModel
from lmmsparse.model.lmer import lmer
from lmmsparse.optimize import Bobyqa, NelderMead, Optimizer, TrustRegion

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "bobyqa": Bobyqa,
    "nelder-mead": NelderMead,
    "trust-region": TrustRegion,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after the command's name; those of this process when None.

    Returns
    -------
    int
        The exit code: 0, or 2 when something the user gave cannot be used.
    """
    try:
        return _run(arguments)
    except LmmError as error:
        complain(f"lmmsparse: {error}")
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        discard(sys.stdout)
        return 0
    except OSError as error:  # files have errors of their own: this is the terminal's
        discard(sys.stdout)
        complain(
            f"lmmsparse: The results cannot be printed: {error.strerror}. Free some space, or "
            "send the output to another place."
        )
        return 2
    except MemoryError:
        complain(
            "lmmsparse: The memory does not suffice. Fit fewer rows, or simpler random effects."
        )
        return 2
    except KeyboardInterrupt:
        complain("lmmsparse: interrupted")
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    open_streams()
    try:
        options = _parser().parse_args(arguments)
    except SystemExit:  # help and versions are printed by then
        sys.stdout.flush()
        raise
    with warnings.catch_warnings():
        warnings.simplefilter("always", LmmWarning)
        warnings.showwarning = _noting()
        code = int(options.run(options))
        sys.stdout.flush()
        return code


def _fit(options: argparse.Namespace) -> int:
    _check(options)
    model = _model(options)
    results = Results(model, options)
    if options.json is not None:  # first: whoever reads what is printed may close the pipe
        write(options.json, results.as_json())
    if options.json != "-":
        print(results.as_markdown() if options.markdown else results.as_text())
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse before anything is fitted what would be refused after."""
    if options.family is None and (options.link is not None or options.n_agq is not None):
        raise OptionError("--link and --n-agq go with --family.")
    structured = options.residual is not None or options.residual_sd is not None
    if options.family is not None and structured:
        raise OptionError("--residual and --residual-sd go with linear models, without --family.")
    if options.family is not None and (options.ddf is not None or options.ml):
        raise OptionError(
            "--ddf and --ml are for linear mixed models. Generalized models are fitted by maximum "
            "likelihood and tested by the normal distribution. Leave them out."
        )
    if options.ddf is not None:
        check_ddf(options.ddf)
    if options.ci is not None:
        check_method(options.ci)
    if options.pairwise and not options.emmeans:
        raise OptionError("--pairwise is about --emmeans. Name factors by it.")
    if options.json not in (None, "-"):
        check_place(options.json, options.data)


def _model(options: argparse.Namespace) -> LinearMixedModel | GeneralizedLinearMixedModel:
    data = read_data(options.data, options.missing, encoding=options.encoding, sep=options.sep)
    given: dict[str, Any] = {
        "weights": options.weights,
        "offset": options.offset,
        "na_action": options.na_action,
        "optimizer": _optimizer(options.optimizer),
    }
    if options.family is None:
        given |= {"residual": options.residual, "residual_sd": options.residual_sd}
        return lmer(options.formula, data, reml=not options.ml, **given)
    family = family_named(options.family)
    if options.link is not None:
        family = replace(family, link=options.link)
    n_agq = 1 if options.n_agq is None else options.n_agq
    return glmer(options.formula, data, family, n_agq=n_agq, **given)


def _optimizer(name: str | None) -> Optimizer | None:
    return None if name is None else OPTIMIZERS[name]()


def _datasets(options: argparse.Namespace) -> int:
    width = max(map(len, DATASETS))
    if options.name is None:
        for info in DATASETS.values():
            print(f"{info.name:<{width}}  {info.rows:>6} rows  {info.title}")
        print("\nMore about one of them: lmmsparse datasets NAME")
        return 0
    load_dataset(options.name)
    info = DATASETS[options.name]
    print(f"{info.name}: {info.title}, {info.rows} rows\n")
    print(textwrap.fill(info.description, 88), end="\n\n")
    width = max(map(len, info.columns))
    for column, meaning in info.columns.items():
        print(f"  {column:<{width}}  {meaning}{' (factor)' if column in info.factors else ''}")
    print(f"\nSource: {info.source}")
    print(textwrap.fill(f"Citation: {info.citation}", 88, subsequent_indent="  "))
    return 0


def _demo(options: argparse.Namespace) -> int:
    del options
    return run_demo()


def _noting() -> Callable[..., None]:
    """A function that prints each warning once."""
    said: set[str] = set()

    def note(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        label = "note" if issubclass(category, LmmWarning) else category.__name__
        if str(message) not in said:
            complain(f"{label}: {message}")
        said.add(str(message))

    return note


def _level(text: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not 0 < level < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return level


class _Parser(argparse.ArgumentParser):
    """A parser that does not keep to itself that nothing can be printed."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if (stream := file or sys.stderr) is not None:
            print(message, end="", file=stream, flush=True)


def _parser() -> argparse.ArgumentParser:
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
    fit.add_argument("--optimizer", choices=tuple(OPTIMIZERS), help="how to search the optimum")
    fit.add_argument(
        "--ddf", metavar="METHOD", help=f"degrees of freedom of the tests: {', '.join(METHODS)}"
    )
    fit.add_argument(
        "--ci",
        metavar="METHOD",
        help=f"also print confidence intervals: {', '.join(CI_METHODS)}",
    )
    fit.add_argument("--level", type=_level, default=0.95, help="confidence level (default: 0.95)")
    fit.add_argument("--ranef", action="store_true", help="also print the random effects")
    fit.add_argument("--anova", action="store_true", help="also test the fixed-effects terms")
    fit.add_argument(
        "--emmeans",
        metavar="FACTORS",
        action="append",
        default=[],
        help="also print marginal means, of 'A', of 'A, B', or of 'A | B': A within each level of "
        "B (may be given several times)",
    )
    fit.add_argument("--pairwise", action="store_true", help="differences of the marginal means")
    fit.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    fit.add_argument(
        "--json",
        metavar="FILE",
        help="also write the results to FILE as JSON; - prints JSON and nothing else",
    )
    fit.set_defaults(run=_fit)

    demo = commands.add_parser("demo", help="fit five models beside lmer's published figures")
    demo.set_defaults(run=_demo)

    datasets = commands.add_parser("datasets", help="list the shipped data sets")
    datasets.add_argument("name", nargs="?", help="describe this one")
    datasets.set_defaults(run=_datasets)
    return parser
