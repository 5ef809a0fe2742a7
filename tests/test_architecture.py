"""The arrows between rooms: which room may import which, and what may be loaded when a module is imported.

A room is a package or module of `mlagent_jax`, without that prefix. The sandbox's worker is a room of its own, since it
runs where the rest of the project cannot be seen.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest

from experiments.figures.imports import COMPUTED, PACKAGES, ROOT, Sources, imports, read_sources

# A room may import the rooms that are named for it, all of which stand below it; `experiments` may import any.
ARROWS = {
    # Learning stands on top, agents join the two halves below.
    "planner": "errors text parallel models training generate sft ppo",
    "ppo": "errors fields finite jsonl run_folder text parallel nn models tracking training generate tasks environment "
    "agent",
    "sft": "errors fields finite text parallel nn models tracking training",
    "evaluation": "errors files jsonl run_folder grading tasks environment pipelines llm agent",
    "exploration": "errors fields text tasks pipelines agent",
    "controls": "errors files fields jsonl sandbox grading tasks environment rewards pipelines agent",
    "agent": "fields jsonl text generate llm sandbox grading tasks environment rewards pipelines",
    "pipelines": "",
    # The environment, which knows nothing of models.
    "rewards": "errors fields grading tasks environment",
    "environment": "errors fields blobs sandbox.sandbox_worker sandbox grading tasks",
    "tasks": "errors files fields packages sandbox grading",
    "grading": "errors sandbox.sandbox_worker sandbox",
    "sandbox": "errors fields blobs single_flight sqlite_store sandbox.sandbox_worker",
    "sandbox.sandbox_worker": "",
    # The model, which knows nothing of agents.
    "llm": "errors fields jsonl packages single_flight sqlite_store text parallel models generate",
    "serving": "text generate",
    "generate": "errors fields finite parallel nn models",
    "training": "errors fields finite run_folder parallel models",
    "tracking": "errors files fields jsonl run_folder parallel",
    "models": "errors folders fields finite text parallel nn",
    "nn": "parallel",
    "parallel": "errors fields",
    "text": "errors files",
    # Small modules.
    "run_folder": "",
    "jsonl": "errors files",
    "blobs": "files",
    "finite": "errors",
    "fields": "errors",
    "folders": "",
    "files": "",
    "host_memory": "",
    "packages": "errors",
    "single_flight": "",
    "sqlite_store": "",
    "errors": "",
}

# Packages that take long to import, and the modules whose import may load them. Elsewhere they are imported by the
# functions that need them, or not at all.
SLOW = dict.fromkeys(("jax", "jaxlib", "flax", "optax", "orbax", "chex"), "jax") | {
    name: name
    for name in (
        *("pandas", "scipy", "sklearn", "torch", "transformers", "tensorflow", "keras", "matplotlib", "gguf"),
        *("docker", "ray", "openai", "optuna", "selenium"),
        *("tensorboardX", "tensorboard", "wandb", "mlflow", "trackio"),
    )
}
MAY_LOAD = {
    **dict.fromkeys(("finite", "nn", "models", "parallel", "training", "generate", "serving"), "jax"),
    **dict.fromkeys(("sft", "ppo", "planner", "agent.model_policy", "tracking.tracker"), "jax"),
    "llm.checkpoint": "jax",
    "tracking.tensorboard_backend": "tensorboardX",
    "tracking.wandb_backend": "wandb",
    "tracking.mlflow_backend": "mlflow",
    "tracking.trackio_backend": "trackio",
    **dict.fromkeys(
        ("tasks.checks", "tasks.leak_checks", "tasks.noise", "tasks.rows", "tasks.pickled_frames"), "pandas"
    ),
    "tasks.user_table": "pandas sklearn",
    "pipelines.helpers": "scipy",
    **dict.fromkeys(("sandbox.containers", "sandbox.docker", "sandbox.doctor"), "docker"),
    "sandbox.containers.settings": "",
    # A run needs JAX anyway. Commands that don't train start at once.
    "experiments": "jax pandas docker",
    "experiments.figures": "scipy",
    "experiments.figures.ablations": "jax docker",  # it checks that the runs are those of the suite
    "experiments.tasks": "pandas sklearn",
    **dict.fromkeys(("experiments.ablations", "experiments.configs", "experiments.cli.program"), ""),
}
# These run where nothing else is installed or visible, or before anything else.
ONLY_STANDARD_LIBRARY = (
    *("sandbox.sandbox_worker", "errors", "files", "folders", "fields", "blobs", "jsonl", "run_folder"),
    "host_memory",
)
# What one of them imports if it is there.
OPTIONAL = {("mlagent_jax.sandbox.sandbox_worker.script", "threadpoolctl")}
# What is imported by names that the source does not have: the packages that scripts use.
COMPUTED_IMPORTS = {("mlagent_jax.sandbox.sandbox_worker.server", COMPUTED)}
# Folders of the repository that are not installed with the two packages.
NOT_INSTALLED = ("tests", "tasks", "launch")

Check = Callable[[Sources], list[str]]


def wrong_arrows(sources: Sources) -> list[str]:
    """Imports of rooms that ARROWS does not allow, and modules that belong to no room."""
    found = []
    for name in sources:
        imported = set(imports(sources, name))
        found += [
            f"{name} imports {other}, which is not installed with it"
            for other in sorted(imported)
            if other.partition(".")[0] in NOT_INSTALLED
        ]
        room = room_of(name)
        if room == "experiments":
            continue
        if name == "mlagent_jax":
            found += [f"{name} imports {other}, and so every room would" for other in sorted(imported)]
        elif room is None:
            found.append(f"{name} belongs to no room of ARROWS")
        else:
            found += [
                f"{name} imports {other}, but the room {room} may not import {room_of(other)}"
                for other in sorted(imported)
                if is_ours(other) and room_of(other) not in (room, *ARROWS[room].split())
            ]
            if COMPUTED in imported and (name, COMPUTED) not in COMPUTED_IMPORTS:
                found.append(f"{name} imports a module whose name is computed: write out where it is")
    return found


def unused_arrows(sources: Sources) -> list[str]:
    """Rooms that ARROWS allows another one to import, and that it doesn't."""
    used: dict[str, set[str | None]] = {room: set() for room in ARROWS}
    for name in sources:
        room = room_of(name)
        if room in used:
            used[room] |= {room_of(other) for other in imports(sources, name) if is_ours(other)}
    return [
        f"{room} does not import {other}"
        for room, granted in ARROWS.items()
        for other in granted.split()
        if other not in used[room]
    ]


def circles(sources: Sources) -> list[str]:
    """A circle of modules that import one another, in functions too, if there is one."""
    graph = {name: set(imports(sources, name)) & sources.keys() - {name} for name in sources}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def slow_imports(sources: Sources) -> list[str]:
    """Modules whose import loads a slow package that MAY_LOAD does not allow."""
    found = []
    graph = {name: set(imports(sources, name, at_import=True)) for name in sources}
    for name in sources:
        loaded = {SLOW[top] for top in loaded_packages(graph, name) if top in SLOW}
        found += [f"importing {name} loads {package}" for package in sorted(loaded - may_load(name))]
    return found


def may_load(name: str) -> set[str]:
    return set((longest_prefix(MAY_LOAD, name.removeprefix("mlagent_jax.")) or "").split())


def foreign_imports(sources: Sources) -> list[str]:
    """Imports beyond the standard library, where only that may be loaded."""
    found = []
    for name, tree in sources.items():
        room = room_of(name)
        if room not in ONLY_STANDARD_LIBRARY:
            continue
        found += [
            f"{name} imports {imported}"
            for imported in sorted(set(imports(sources, name)))
            if imported.partition(".")[0] not in {*sys.stdlib_module_names, "mlagent_jax"}
            and (name, imported) not in OPTIONAL | COMPUTED_IMPORTS
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


def is_ours(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES


def room_of(name: str) -> str | None:
    """The room of a module: the longest one whose name it begins with."""
    if name.partition(".")[0] == "experiments":
        return "experiments"
    rooms = {room: room for room in ARROWS}
    return longest_prefix(rooms, name.removeprefix("mlagent_jax."))


def longest_prefix(values: Mapping[str, str], name: str) -> str | None:
    found = [prefix for prefix in values if f"{name}.".startswith(f"{prefix}.")]
    return values[max(found, key=len)] if found else None


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
    return read_sources()


def test_rooms_import_only_the_rooms_below_them(sources: Sources) -> None:
    assert wrong_arrows(sources) == []
    rooms = list(ARROWS)
    assert {room_of(name) for name in sources} >= set(rooms), "ARROWS names a room that is gone"
    for position, imported in enumerate(ARROWS.values()):
        assert set(imported.split()) <= set(rooms[position + 1 :])


def test_every_arrow_is_used(sources: Sources) -> None:
    assert unused_arrows(sources) == []


def test_modules_import_one_another_without_circles(sources: Sources) -> None:
    assert circles(sources) == []


def test_importing_a_module_loads_nothing_slow(sources: Sources) -> None:
    assert slow_imports(sources) == []


def test_nothing_slow_is_loaded_by_way_of_other_packages(sources: Sources) -> None:
    """What Python has loaded after it has imported every module that may load nothing slow."""
    light = [name for name in sources if not may_load(name)]
    assert len(light) > 100
    program = f"import sys, {', '.join(light)}; print(*sorted({set(SLOW)} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == []


def test_what_must_run_anywhere_uses_only_the_standard_library(sources: Sources) -> None:
    assert foreign_imports(sources) == []


@pytest.mark.parametrize(
    ("check", "name", "line"),
    [
        (wrong_arrows, "nn.norm", "from mlagent_jax.agent.policy import Policy"),
        (wrong_arrows, "nn.norm", "from ..agent import policy"),
        (wrong_arrows, "environment.mdp", "def f():\n    from mlagent_jax.models import qwen2"),
        (wrong_arrows, "tasks.task", "import mlagent_jax.environment.state"),
        (wrong_arrows, "tasks.task", "import mlagent_jax"),
        (wrong_arrows, "evaluation.scores", "if True:\n    import experiments.workdir"),
        (wrong_arrows, "a_new_room.module", "import math"),
        (wrong_arrows, "nn.norm", "importlib.import_module('mlagent_jax.agent.policy')"),
        (wrong_arrows, "nn.norm", "f = lambda name: import_module(f'mlagent_jax.agent.{name}')"),
        (wrong_arrows, "nn.norm", "def f(name):\n    return __import__(f'mlagent_jax.{name}')"),
        (wrong_arrows, "nn.norm", "def f(name):\n    return importlib.import_module(name)"),
        (wrong_arrows, "", "from mlagent_jax.errors import UserError"),
        (wrong_arrows, "grading.grade", "import tests.fakes"),
        (wrong_arrows, "experiments.run", "from tests import fakes"),
        (circles, "grading.metrics", "from mlagent_jax.grading import spec"),
        (circles, "files", "def f():\n    import mlagent_jax.jsonl"),
        (slow_imports, "grading.labels", "import pandas as pd"),
        (slow_imports, "tasks.loader", "from mlagent_jax.tasks.rows import arrays"),
        (slow_imports, "agent.prompt", "import tensorflow"),
        (slow_imports, "sandbox.open", "import ray, docker, openai"),
        (slow_imports, "tracking.tracker", "import tensorboardX"),
        (slow_imports, "text.chat", "torch = importlib.import_module('torch')"),
        (slow_imports, "experiments.settings", "import torch"),
        (slow_imports, "experiments.tasks", "import jax"),
        (slow_imports, "agent.prompt", "try:\n    import flax.nnx\nexcept ImportError:\n    pass"),
        (foreign_imports, "sandbox.sandbox_worker.names", "import numpy"),
        (foreign_imports, "files", "def f():\n    import numpy"),
        (foreign_imports, "run_folder", "def f():\n    import numpy"),
        (foreign_imports, "host_memory", "import numpy"),
        (
            foreign_imports,
            "sandbox.sandbox_worker.names",
            "import mlagent_jax.sandbox.sandbox_worker.protocol",
        ),
    ],
)
def test_a_turned_arrow_is_found(sources: Sources, check: Check, name: str, line: str) -> None:
    if not name.startswith("experiments."):
        name = f"mlagent_jax.{name}".removesuffix(".")
    before = sources.get(name, ast.Module([], []))
    changed = dict(sources) | {name: ast.Module([*before.body, *ast.parse(line).body], [])}
    assert any(name in found for found in check(changed))
