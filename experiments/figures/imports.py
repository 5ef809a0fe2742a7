"""Which room of the library imports which, read from the source."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("mlagent_jax", "experiments")
TOP = "experiments"

Rooms = dict[str, Counter[str]]


def room_imports(root: Path = ROOT) -> Rooms:
    """For each room the rooms that it imports, with the number of import statements.

    A room is a package or a single module of `mlagent_jax`, or `experiments` as a whole.
    """
    rooms: Rooms = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            room = _room(module)
            if room is None:  # mlagent_jax/__init__.py
                continue
            imported = rooms.setdefault(room, Counter())
            for name in _imported(ast.parse(path.read_text(encoding="utf-8"))):
                other = _room(name)
                if other is not None and other != room:
                    imported[other] += 1
    return rooms


def _room(module: str) -> str | None:
    """ "mlagent_jax.ppo.loop" -> "ppo"; None for what is no part of this project."""
    first, *rest = module.split(".")
    if first == TOP:
        return TOP
    return rest[0] if first in PACKAGES and rest else None


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in PACKAGES:  # from mlagent_jax import rewards
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module
