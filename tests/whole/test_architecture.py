"""The house rules that can be read off the source: who may import whom, and how a file looks."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import models

PACKAGE = models.VALIDATION.parent / "lmmsparse"

# A part may import those before it, but for the parts that know less.
ORDER = (
    "common",
    "formula",
    "optimize",
    "data",
    "engine",
    "design",
    "fit",
    "results",
    "inference",
    "report",
    "chunks",
    "model",
    "__init__",
    "interop",
    "cli",
    "__main__",
)
KNOWS_ONLY = {
    "formula": ("common",),
    "optimize": ("common",),
    "data": ("common",),
    "engine": ("common", "optimize"),
    "chunks": (*ORDER[: ORDER.index("results")], "results"),
    "interop": ORDER[:-3],
    "__init__": (*ORDER[: ORDER.index("__init__")], "interop"),  # as a name; its modules are not
}

# Third-party packages that only some places may know about: patterns of module names, each of
# which covers the modules inside that package too.
ONLY_IN = {
    "formulaic": ("design",),
    "joblib": ("common.processes",),
    "matplotlib": ("report.plots",),
    "nlopt": ("optimize.bounded",),
    "arviz": ("interop.arviz",),
    "marginaleffects": ("interop.marginaleffects",),
    "polars": ("interop.marginaleffects",),
    "scipy.stats": ("common.distributions",),
    "scipy.interpolate": ("common.curves",),
    "scipy.optimize": ("common.curves", "optimize.quasi_newton"),
    "sklearn": ("interop.sklearn",),
    "dask": ("chunks.dask",),
    "distributed": ("chunks.dask",),
    "pyarrow": ("chunks.arrow", "chunks.write"),
    "cvxopt": ("engine.solvers.cvxopt",),
    "sksparse": ("engine.solvers.sksparse",),
    "tqdm": ("common.progress",),
    "pandas": (
        "common.table",
        "data",
        "design",
        "fit",
        "results",
        "inference",
        "report",
        "mixed_model",
        "model",
        "generalized_model",
        "chunks",
        "interop",
    ),
}

# Slow to import, or not needed by most: these may be imported inside functions, and only where
# ONLY_IN says.
DEFERRED = ("cvxopt", "dask", "distributed", "matplotlib", "nlopt", "pyarrow")
DEFERRED += ("scipy.interpolate", "scipy.optimize", "scipy.stats")

MAX_LINES = 400
# Classes whose methods are documented one by one.
LONGER = dict.fromkeys(("model.inference", "model.generalized", "model.generalized_inference"), 560)


@dataclass(frozen=True)
class Module:
    """One source file: `solvers.base` for lmmsparse/solvers/base.py, `__init__` for the top."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def unit(self) -> str:
        return self.name.split(".")[0]

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All of the tree."""
        return list(ast.walk(self.tree))

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"


def _read(path: Path) -> Module:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return Module(".".join(parts), path, ast.parse(path.read_text(encoding="utf-8")))


MODULES = {module.name: module for module in map(_read, sorted(PACKAGE.rglob("*.py")))}


def _imports(module: Module) -> list[ast.Import | ast.ImportFrom]:
    return [n for n in module.nodes if isinstance(n, ast.Import | ast.ImportFrom)]


def _imported_names(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Absolute dotted names; `from a import b` gives `a.b`, be it a module or an attribute."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _own_module(dotted: str) -> str | None:
    """The module of ours that a dotted name belongs to, None for a foreign one."""
    head, _, rest = dotted.partition(".")
    if head != PACKAGE.name:
        return None
    while rest and rest not in MODULES:
        rest = rest.rpartition(".")[0]
    return rest or "__init__"


def _own_imports(module: Module) -> set[str]:
    names = {_own_module(name) for node in _imports(module) for name in _imported_names(node)}
    return {name for name in names if name is not None}


def _is_one_of(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, p) or fnmatch(name, f"{p}.*") for p in patterns)


def every_module(rule: Callable[[Module], None]) -> Callable[[], None]:
    """A rule for one module → a test of all of them, which names every one that breaks it."""

    def test() -> None:
        broken = []
        for module in MODULES.values():
            try:
                rule(module)
            except AssertionError as error:
                broken.append(f"{module.name}: {str(error).splitlines()[0]}")
        assert not broken, "\n".join(broken)

    test.__name__, test.__doc__ = rule.__name__, rule.__doc__
    return test


@every_module
def test_every_module_has_a_place(module: Module) -> None:
    assert module.unit in ORDER, f"decide where {module.name} lives"


@every_module
def test_imports_point_down(module: Module) -> None:
    below = ORDER[: ORDER.index(module.unit)]
    allowed = {module.unit, *KNOWS_ONLY.get(module.unit, below)}
    beyond = {name for name in _own_imports(module) if MODULES[name].unit not in allowed}
    assert not beyond, f"{module.name} may import {sorted(allowed)} only"


def test_there_is_no_cycle() -> None:
    graph = {name: _own_imports(module) - {name} for name, module in MODULES.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())


@every_module
def test_imports_are_absolute_and_at_the_top(module: Module) -> None:
    deferred = []
    for scope in module.nodes:
        if not isinstance(
            scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        ):
            continue
        for node in ast.walk(scope):
            if isinstance(node, ast.Import | ast.ImportFrom):
                deferred += [n for n in _imported_names(node) if not _is_one_of(n, DEFERRED)]
    assert not deferred, f"{module.name} imports inside a function or class"
    relative = [n.lineno for n in _imports(module) if isinstance(n, ast.ImportFrom) and n.level]
    assert not relative, f"{module.name} has relative imports on lines {relative}"


@every_module
def test_nothing_is_imported_by_stealth(module: Module) -> None:
    names = {n.id for n in module.nodes if isinstance(n, ast.Name)}
    names |= {n.attr for n in module.nodes if isinstance(n, ast.Attribute)}
    assert not names & {"TYPE_CHECKING", "import_module", "__import__"}


@every_module
def test_third_party_packages_stay_where_they_belong(module: Module) -> None:
    for node in _imports(module):
        for name in _imported_names(node):
            for package, allowed in ONLY_IN.items():
                if _is_one_of(name, (package,)):
                    assert _is_one_of(module.name, allowed), f"{module.name} imports {name}"


@every_module
def test_files_are_short_and_introduced(module: Module) -> None:
    assert ast.get_docstring(module.tree), f"{module.name} has no docstring"
    lines = len(module.path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGER.get(module.name, MAX_LINES), f"{module.name} has {lines} lines"


@every_module
def test_star_imports_are_not_used(module: Module) -> None:
    assert not [n for node in _imports(module) for n in _imported_names(node) if n.endswith(".*")]


@every_module
def test_warnings_are_given_in_one_place(module: Module) -> None:
    """`common.findings.warn` knows which line is the user's."""
    if module.name == "common.findings":
        return
    names = ("warn", "warn_explicit")
    for node in module.nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.module != "warnings", f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and node.attr in names:
            whose = node.value.id if isinstance(node.value, ast.Name) else ""
            assert whose != "warnings", f"line {node.lineno}"


def test_systems_are_known_where_they_are_made_only() -> None:
    """Everybody else asks for what `PLSSystem` promises."""
    concrete = {
        node.name
        for name, module in MODULES.items()
        if name.startswith("engine.solvers.")
        for node in module.nodes
        if isinstance(node, ast.ClassDef) and node.name.endswith(("System", "Factor", "Point"))
        if "Protocol" not in {base.id for base in node.bases if isinstance(base, ast.Name)}
    }
    assert "BlockedSystem" in concrete
    for name, module in MODULES.items():
        if not name.startswith("engine.solvers"):
            names = {n.id for n in module.nodes if isinstance(n, ast.Name)}
            names |= {d.rpartition(".")[2] for i in _imports(module) for d in _imported_names(i)}
            assert not names & concrete, f"{name} names {names & concrete}"


def test_the_root_is_small() -> None:
    entries = [p for p in PACKAGE.iterdir() if p.name not in {"__pycache__", "py.typed"}]
    assert len(entries) <= 16, sorted(p.name for p in entries)
