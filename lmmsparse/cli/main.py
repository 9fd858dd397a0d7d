"""The words typed in a terminal → a fitted model, what it found written and printed.

Whatever the user can get wrong ends in one paragraph on stderr and exit code 2, never in a
traceback.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lmmsparse.cli.demo import run_demo
from lmmsparse.cli.output import check_output, check_place, is_standard_output, write
from lmmsparse.cli.parser import OPTIMIZERS, make_parser
from lmmsparse.cli.results import Results
from lmmsparse.cli.terminal import complain, discard, open_streams
from lmmsparse.common.errors import LmmError, LmmWarning, OptionError
from lmmsparse.data.datasets import DATASETS, load_dataset
from lmmsparse.data.reading import read_data
from lmmsparse.engine.families import family_named
from lmmsparse.inference.df.methods import check_ddf
from lmmsparse.inference.intervals.confint import check_method
from lmmsparse.inference.robust.clusters import check_kind
from lmmsparse.model.generalized import GeneralizedLinearMixedModel
from lmmsparse.model.glmer import glmer
from lmmsparse.model.linear import LinearMixedModel
from lmmsparse.model.lmer import lmer
from lmmsparse.optimize import Optimizer

_MEANS = ("pairwise", "contrasts", "reverse", "adjust", "at", "emmeans_weights", "type", "regrid")


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
        options = make_parser(_fit, _demo, _datasets).parse_args(arguments)
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
    data = read_data(options.data, options.missing, encoding=options.encoding, sep=options.sep)
    results = Results(_model(data, options), data, options)
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
    if options.robust is not None:
        check_kind("--robust", options.robust)
    if options.cluster is not None and options.robust is None:
        raise OptionError("--cluster goes with --robust, for example --robust CR2.")
    asked = [name for name in _MEANS if getattr(options, name)]
    if asked and not options.emmeans:
        name = asked[0].replace("_", "-")
        raise OptionError(f"--{name} is about --emmeans. Name factors by it.")
    check_output(options.data)
    if options.json is not None and is_standard_output(options.json):
        options.json = "-"
    if options.json not in (None, "-"):
        check_place(options.json, options.data)


def _model(
    data: Any, options: argparse.Namespace
) -> LinearMixedModel | GeneralizedLinearMixedModel:
    if options.weights in ("equal", "proportional") and options.weights not in data:
        raise OptionError(
            f"--weights names a column. For marginal means write --emmeans-weights "
            f"{options.weights}."
        )
    given: dict[str, Any] = {
        "weights": options.weights,
        "offset": options.offset,
        "na_action": options.na_action,
        "contrasts": dict(options.coding) or None,
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
