"""A call whose arguments do not fit the function → an error that names the one that was meant.

The signature is looked at when a call has failed: a `TypeError` from inside a function whose
arguments fit is not touched.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import yes_or_no

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

# What users of R and of statsmodels write from habit.
_HABITS = {
    "REML": "Write reml=True or reml=False.",
    "ML": "Write reml=False for maximum likelihood.",
    "control": "Pass optimizer= or solver= instead.",
    "groups": "Write the grouping factor into the formula, as in (1 | group).",
    "re_formula": "Write random slopes into the formula, as in (x | group).",
    "family": "Responses are Gaussian here; for others use lme4, glmmTMB or MixedModels.jl.",
    "subset": "Select the rows of the data before the call.",
    "re_form": "Write random=True, random=False (R's NA), or random='~(1 | group)'.",
    "allow_new_levels": "Write new_levels='population'.",
    "se_fit": "Write se=True.",
    "nsim": "Write n= for the number of draws.",
    "seed": "Write rng= with a whole number or a numpy generator.",
    "use_u": "Write random='keep' to keep the estimated random effects.",
    "parm": "Write which= for the parameters.",
    "test": "Terms of a model are tested by m.drop1(test=...) or lmm.anova(m).",
    "alpha": "Write level= for the confidence level, 1 - alpha.",
}

# Arguments that cannot be left out: why, and what to write.
_NEEDED = {
    "rng": "Results must be reproducible. Write rng=1, or rng=numpy.random.default_rng(1).",
    "name": "It names the data set. Write for example load_dataset('sleepstudy').",
    "n": "It counts the draws. Write for example n=1000.",
    "lmer.data": "The names in a formula are its columns. Write lmm.lmer(formula, data).",
    "VarCorr.terms": "It is made by a fitted model. Write m.varcorr.",
    "VarCorr.sigma": "It is made by a fitted model. Write m.varcorr.",
    "for_marginaleffects.data": "Models do not keep theirs. Write for_marginaleffects(m, data).",
}


# What a fitted model is asked for by users of R, statsmodels and scikit-learn.
_MEMBERS = {
    "anova": "Write lmm.anova(m), or lmm.anova(m1, m2).",
    "AIC": "Write m.aic.",
    "BIC": "Write m.bic.",
    "VarCorr": "Write m.varcorr.",
    "logLik": "Write m.loglik.",
    "llf": "Write m.loglik.",
    "params": "Write m.fixef.",
    "fe_params": "Write m.fixef.",
    "coef_": "Write m.fixef.",
    "bse": "Write m.se.",
    "bse_fe": "Write m.se.",
    "cov_re": "Write m.varcorr.",
    "scale": "Write m.sigma ** 2.",
    "random_effects": "Write m.ranef.",
    "random": "Write m.ranef.",
    "effects": "Write m.fixef or m.ranef.",
    "rsquared": "Write m.r2.",
    "t_test": "Write m.contrast(L).",
    "f_test": "Write m.contrast(L).",
    "wald_test": "Write m.contrast(L).",
    "model_matrix": "The matrices are members of m.fit and m.fit.design.",
    "p_values": "Write m.coef_table().",
    "fittedvalues": "Write m.fitted.",
    "resid": "Write m.residuals.",
    "pvalues": "Write m.coef_table().",
    "tvalues": "Write m.coef_table().",
    "conf_int": "Write m.confint().",
    "cov_params": "Write m.vcov.",
    "getME": "The matrices are members of m.fit and m.fit.design.",
    "update": "Call lmm.lmer again with the formula that is meant.",
    "lsmeans": "Write m.emmeans(...).",
    "converged": "Write m.convergence.converged.",
    "isSingular": "Write m.is_singular().",
    "isREML": "Write m.reml.",
    "REMLcrit": "Write m.reml_criterion.",
    "ngrps": "Write m.n_groups.",
    "rePCA": "Write m.rank_pca().",
    "allFit": "Write m.all_fit().",
    "bootMer": "Write m.bootstrap(n, rng=1).",
    "rand": "Write m.ranova().",
    "ls_means": "Write m.emmeans(...).",
    "hatvalues": "Write m.influence().leverage.",
    "cooks_distance": "Write m.influence().cooks_distance.",
    "rstudent": "Write m.influence().rstudent.",
    "qqmath": "Write m.plot.caterpillar(), or m.plot.qq() for the residuals.",
    "dotplot": "Write m.plot.caterpillar().",
    "KRmodcomp": "Write lmm.anova(m, ddf='kenward-roger'), or m.contrast(L, ddf='kenward-roger').",
    "PBmodcomp": "Write lmm.bootstrap_lrt(small, large, n, rng=1).",
    "aicc": "Compute it from m.aic, m.npar and m.nobs.",
    "to_latex": "Write m.summary().to_latex().",
    "to_markdown": "Write m.summary().to_markdown().",
    "slopes": "Slopes of a predictor are contrasts of the fixed effects: m.contrast(L).",
    "emtrends": "Slopes of a predictor are contrasts of the fixed effects: m.contrast(L).",
    "score": "Write m.r2().",
}


# What a package for mixed models is asked for by users of others.
_MAKERS = {
    "nlmer": "Models are linear here; for others use nlme or saemix.",
    "mixedlm": "Write lmm.lmer(formula, data) with the groups in the formula: y ~ x + (1 | g).",
    "MixedLM": "Write lmm.fit_arrays(y, X, [(groups, None)]).",
    "Lmer": "Write lmm.lmer(formula, data).",
    "lme": "Write lmm.lmer(formula, data) with the groups in the formula: y ~ x + (1 | g).",
    "lmm": "Write lmm.lmer(formula, data).",
    "fit": "Write lmm.lmer(formula, data).",
    "read_csv": "Write pandas.read_csv(path).",
}


def no_such_name(module: str, models: type, name: str) -> NoReturn:
    """Raise for a name that a module does not have, and say what to write instead.

    Parameters
    ----------
    module : str
    models : type
        The class of fitted models, whose members other packages have as functions.
    name : str
    """
    text = f"module {module!r} has no attribute {name!r}"
    member = getattr(models, name) if name in dir(models) and name[0] != "_" else None
    if name in _MAKERS:
        text += f". {_MAKERS[name]}"
    elif callable(member):
        text += f". It is a method of the fitted model. Write m.{name}({_usual(member)})."
    elif member is not None:
        text += f". It is a member of the fitted model. Write m.{name}."
    elif name in _MEMBERS:
        text += f". {_MEMBERS[name]}"
    raise AttributeError(text, name=name)


def _usual(method: Callable[..., Any]) -> str:
    """What a call of a method cannot do without, as text."""
    needed = [
        parameter.name
        for parameter in list(inspect.signature(method).parameters.values())[1:]
        if parameter.default is inspect.Parameter.empty
        and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    return ", ".join("rng=1" if name == "rng" else name for name in needed)


def not_called(what: str) -> Callable[[C], C]:
    """Decorate a class of results so that calling one, as R and others do, says what to write."""

    def decorate(kind: C) -> C:
        def call(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
            raise OptionError(what)

        # Not in the class body, where type checkers would take every call for one that is meant.
        kind.__call__ = call  # type: ignore[method-assign]
        return kind

    return decorate


def _looks_like(name: str, member: str) -> bool:
    """Whether a member may be meant: they begin alike, or differ by a letter."""
    begin_alike = name[:4] == member[:4] and len(name) >= 4
    return begin_alike or difflib.SequenceMatcher(None, name, member).ratio() >= 0.85


def explained_members(kind: C) -> C:
    """Decorate a class so that a member it does not have says what to write instead."""
    members = [name for name in dir(kind) if not name.startswith("_")]

    def missing(self: Any, name: str) -> Any:
        if hasattr(kind, name):  # a property that raised: once more, for its own message
            return object.__getattribute__(self, name)
        text = f"{kind.__name__!r} object has no attribute {name!r}"
        close = [m for m in members if _looks_like(name.lower(), m)]
        close = difflib.get_close_matches(name.lower(), close, n=1, cutoff=0.0)
        if name in _MEMBERS:
            text += f". {_MEMBERS[name]}"
        elif close and not name.startswith("_"):
            text += f". Did you mean {close[0]!r}?"
        raise AttributeError(text, name=name, obj=self)

    # Not in the class body, where type checkers would take every name for a member.
    kind.__getattr__ = missing  # type: ignore[attr-defined]
    return kind


def checked_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function so that a wrong argument list says what to write instead."""
    signature = inspect.signature(function)
    own = [p for name, p in signature.parameters.items() if name != "self"]
    parameters = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
    closed = len(parameters) == len(own)
    known = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    flags = {p.name: p.default for p in parameters if p.annotation in ("bool", "bool | None")}
    places = [(i, name) for i, name in enumerate(signature.parameters) if name in flags]
    places = [(i, name) for i, name in places if not _by_name_only(signature, name)]

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in kwargs.items():
            if closed and name not in known:
                raise OptionError(unknown_keyword(called, name, known))
            if name in flags and value is not flags[name]:
                yes_or_no(name, value)
        for i, name in places:
            if i < len(args) and args[i] is not flags[name]:
                yes_or_no(name, args[i])
        try:
            return function(*args, **kwargs)
        except TypeError:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:  # it was not entered
                raise OptionError(_misfit(called, parameters, kwargs, str(error))) from error
            raise

    return checked


def checked_construction(kind: C) -> C:
    """Decorate a class so that its constructor is a checked function."""
    kind.__init__ = checked_keywords(kind.__init__)  # type: ignore[misc]
    return kind


def _by_name_only(signature: inspect.Signature, name: str) -> bool:
    return signature.parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def _misfit(
    function: str, parameters: list[inspect.Parameter], given: dict[str, Any], error: str
) -> str:
    """The message for arguments that are missing, too many, or given twice."""
    names = [p.name for p in parameters]
    missing = re.match(r"missing a required (?:keyword-only )?argument: '(\w+)'", error)
    if missing is not None:
        name = missing.group(1)
        why = _NEEDED.get(f"{function}.{name}") or _NEEDED.get(
            name, f"It cannot be left out. Write {function}(..., {name}=...)."
        )
        return f"{function}() was not given {name!r}. {why}"
    if error.startswith("multiple values"):
        twice = ", ".join(repr(name) for name in names if name in given)
        return (
            f"{function}() got {twice} twice, by name and by position. Its arguments are "
            f"{', '.join(names)}."
        )
    if function == "LinearMixedModel":
        return (
            "LinearMixedModel() takes a fit only, as lmm.fit_design returns it. Write "
            "lmm.lmer(formula, data) to fit a model."
        )
    first = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    rest = [name for name in names if name not in first]
    if not names:
        return f"{function}() takes no arguments. Leave it out."
    return (
        f"{function}() was given too many arguments. By position it takes "
        f"{', '.join(first) or 'none'}. "
        + (
            f"Give the others by name: {', '.join(f'{n}=' for n in rest)}."
            if rest
            else "Leave out the others."
        )
    )


def unknown_keyword(function: str, name: str, known: list[str]) -> str:
    """The message for a keyword that a function does not have."""
    folded = {option.lower(): option for option in known}
    close = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    hint = "Write kind=." if name == "type" and "kind" in known else _HABITS.get(name, "")
    hint = hint or (f"Did you mean {folded[close[0]]}=?" if close else "")
    return (
        f"{function}() has no option {name!r}. {hint} Its options are {', '.join(known)}.".replace(
            "  ", " "
        )
    )
