"""The arrows between rooms: which room may import which, and what may be loaded when a module is imported.

A room is a package or module of `mlagent_jax`, without that prefix. The sandbox's worker is a room of its own, since it
runs where the rest of the project cannot be seen.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A room may import the rooms that are named for it, all of which stand above it; `experiments` may import any.
ARROWS = {
    # What every room may use.
    "errors": "",
    "host_memory": "",
    "files": "",
    "folders": "",
    "fields": "errors",
    "finite": "errors",
    "blobs": "files",
    "jsonl": "errors files",
    "run_folder": "",
    # The model, which knows nothing of agents.
    "text": "errors files",
    "parallel": "errors fields",
    "nn": "parallel",
    "models": "errors folders fields finite text parallel nn",
    "tracking": "errors files fields jsonl run_folder parallel",
    "training": "errors fields finite run_folder parallel models",
    "generate": "errors fields finite parallel nn models",
    "serving": "errors text generate",
    # The environment, which knows nothing of models.
    "sandbox.sandbox_worker": "",
    "sandbox": "errors fields blobs sandbox.sandbox_worker",
    "grading": "errors sandbox.sandbox_worker sandbox",
    "tasks": "errors files fields sandbox grading",
    "environment": "errors fields blobs sandbox.sandbox_worker sandbox grading tasks",
    "rewards": "errors fields grading tasks environment",
    # Agents join the two; learning stands on top.
    "pipelines": "errors",
    "agent": "errors files fields jsonl text generate sandbox grading tasks environment rewards pipelines",
    "exploration": "errors fields text tasks pipelines agent",
    "evaluation": "errors files jsonl run_folder grading tasks environment agent",
    "sft": "errors fields finite text parallel nn models tracking training",
    "ppo": "errors fields finite jsonl run_folder text parallel nn models tracking training generate tasks environment "
    "agent",
    "planner": "errors text parallel models training generate sft ppo",
}

# Packages that take long to import, and where importing a module may load them. Elsewhere they are imported by the
# functions that need them, or not at all.
SLOW = {"jax": "jax", "flax": "jax", "optax": "jax", "orbax": "jax"} | {
    name: name for name in ("pandas", "scipy", "sklearn", "torch", "transformers")
}
MAY_LOAD = {
    **dict.fromkeys(
        ("finite", "nn", "models", "parallel", "tracking", "training", "generate", "serving"), "jax"
    ),
    **dict.fromkeys(("sft", "ppo", "planner", "agent.model_policy"), "jax"),
    **dict.fromkeys(
        ("tasks.checks", "tasks.leak_checks", "tasks.noise", "tasks.rows", "tasks.pickled_frames"), "pandas"
    ),
    "tasks.user_table": "pandas sklearn",
    "pipelines.helpers": "scipy",
}
# These run where nothing else is installed or visible, or before anything else.
ONLY_STANDARD_LIBRARY = ("sandbox.sandbox_worker", "errors", "files", "folders", "fields", "blobs", "jsonl")

Sources = Mapping[str, ast.Module]
Check = Callable[[Sources], list[str]]


def wrong_arrows(sources: Sources) -> list[str]:
    """Imports of rooms that ARROWS does not allow, and modules that belong to no room."""
    found = []
    for name in sources:
        room = room_of(name)
        if room == "experiments" or name == "mlagent_jax":
            continue
        if room is None:
            found.append(f"{name} belongs to no room of ARROWS")
            continue
        allowed = {room, *ARROWS[room].split()}
        found += [
            f"{name} imports {imported}, but the room {room} may not import {room_of(imported)}"
            for imported in sorted(imports(sources, name))
            if imported in sources and room_of(imported) not in allowed
        ]
    return found


def circles(sources: Sources) -> list[str]:
    """A circle of modules that import one another, in functions too, if there is one."""
    graph = {name: imports(sources, name) & sources.keys() - {name} for name in sources}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def slow_imports(sources: Sources) -> list[str]:
    """Modules whose import loads a slow package that MAY_LOAD does not allow."""
    found = []
    graph = {name: imports(sources, name, at_import=True) for name in sources}
    for name in sources:
        if not name.startswith("mlagent_jax."):
            continue
        may_load = (longest_prefix(MAY_LOAD, name.removeprefix("mlagent_jax.")) or "").split()
        loaded = {SLOW[top] for top in loaded_packages(graph, name) if top in SLOW}
        found += [f"importing {name} loads {package}" for package in sorted(loaded - set(may_load))]
    return found


def foreign_imports(sources: Sources) -> list[str]:
    """Imports beyond the standard library, where only that may be loaded."""
    found = []
    for name, tree in sources.items():
        room = room_of(name)
        if room not in ONLY_STANDARD_LIBRARY:
            continue
        found += [
            f"{name} imports {imported}"
            for imported in sorted(imports(sources, name, at_import=True))
            if imported.partition(".")[0] not in {*sys.stdlib_module_names, "mlagent_jax"}
        ]
        if room == "sandbox.sandbox_worker":  # a package of its own where it runs
            absolute = [
                node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level
            ]
            names = [node.module or "" for node in absolute]
            names += [
                alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
            ]
            found += [
                f"{name} imports {other} absolutely" for other in names if other.startswith("mlagent_jax")
            ]
    return found


def room_of(name: str) -> str | None:
    """The room of a module: the longest one whose name it begins with."""
    if name.partition(".")[0] == "experiments":
        return "experiments"
    rooms = {room: room for room in ARROWS}
    return longest_prefix(rooms, name.removeprefix("mlagent_jax."))


def longest_prefix(values: Mapping[str, str], name: str) -> str | None:
    found = [prefix for prefix in values if f"{name}.".startswith(f"{prefix}.")]
    return values[max(found, key=len)] if found else None


def imports(sources: Sources, name: str, at_import: bool = False) -> set[str]:
    """What a module imports: other modules by their full names. at_import: not what its functions import."""
    is_package = any(other.startswith(f"{name}.") for other in sources)
    package = name.split(".") if is_package else name.split(".")[:-1]
    found = set()
    for node in import_statements(sources[name], at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in sources else base)
    return found


@functools.cache
def import_statements(tree: ast.AST, at_import: bool) -> list[ast.Import | ast.ImportFrom]:
    found = []
    for child in ast.iter_child_nodes(tree):
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if isinstance(child, ast.Import | ast.ImportFrom):
            found.append(child)
        elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case) and not (
            at_import and (is_function or is_for_types)
        ):
            found += import_statements(child, at_import)
    return found


def loaded_packages(graph: Mapping[str, set[str]], name: str) -> set[str]:
    """The top-level names of what importing a module loads, directly or by other modules of ours."""
    seen, found, waiting = set(), set(), [name]
    while waiting:
        module = waiting.pop()
        if module in seen or module not in graph:
            continue
        seen.add(module)
        waiting += [module.rpartition(".")[0], *graph[module]]  # a package's __init__ runs first
        found |= {imported.partition(".")[0] for imported in graph[module]}
    return found


@pytest.fixture(scope="module")
def sources() -> Sources:
    """The modules of both packages by name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_bytes()
        )
        for package in ("mlagent_jax", "experiments")
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def test_rooms_import_only_the_rooms_above_them(sources: Sources) -> None:
    assert wrong_arrows(sources) == []
    rooms = list(ARROWS)
    assert {room_of(name) for name in sources} >= set(rooms), "ARROWS names a room that is gone"
    for position, imported in enumerate(ARROWS.values()):
        assert set(imported.split()) <= set(rooms[:position])


def test_modules_import_one_another_without_circles(sources: Sources) -> None:
    assert circles(sources) == []


def test_importing_a_module_loads_nothing_slow(sources: Sources) -> None:
    assert slow_imports(sources) == []


def test_what_must_run_anywhere_uses_only_the_standard_library(sources: Sources) -> None:
    assert foreign_imports(sources) == []


@pytest.mark.parametrize(
    ("check", "name", "line"),
    [
        (wrong_arrows, "nn.norm", "from mlagent_jax.agent.policy import Policy"),
        (wrong_arrows, "environment.mdp", "def f():\n    from mlagent_jax.models import qwen2"),
        (wrong_arrows, "tasks.task", "import mlagent_jax.environment.state"),
        (wrong_arrows, "evaluation.scores", "if True:\n    import experiments.workdir"),
        (wrong_arrows, "a_new_room.module", "import math"),
        (circles, "grading.metrics", "from mlagent_jax.grading import spec"),
        (circles, "files", "def f():\n    import mlagent_jax.jsonl"),
        (slow_imports, "grading.labels", "import pandas as pd"),
        (slow_imports, "tasks.loader", "from mlagent_jax.tasks.rows import arrays"),
        (slow_imports, "agent.prompt", "try:\n    import flax.nnx\nexcept ImportError:\n    pass"),
        (foreign_imports, "sandbox.sandbox_worker.names", "import numpy"),
        (
            foreign_imports,
            "sandbox.sandbox_worker.names",
            "import mlagent_jax.sandbox.sandbox_worker.protocol",
        ),
    ],
)
def test_a_turned_arrow_is_found(sources: Sources, check: Check, name: str, line: str) -> None:
    name = f"mlagent_jax.{name}"
    before = sources.get(name, ast.Module([], []))
    changed = dict(sources) | {name: ast.Module([*before.body, *ast.parse(line).body], [])}
    assert any(name in found for found in check(changed))
