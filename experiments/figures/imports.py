"""Which module and which room of the project imports which, read from the source."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("mlagent_jax", "experiments")
TOP = "experiments"
COMPUTED = "<computed>"  # stands for a module whose name is not in the source

Sources = Mapping[str, ast.Module]
Rooms = dict[str, Counter[str]]
ImportNode = ast.Import | ast.ImportFrom | ast.Call


def read_sources(root: Path = ROOT) -> Sources:
    """The modules of both packages, by their full names."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): _parsed(
            path.read_bytes()
        )
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }


@functools.cache
def _parsed(source: bytes) -> ast.Module:
    """Cached, since tests read copies of the project that differ in a file or two."""
    return ast.parse(source)


def room_imports(root: Path = ROOT) -> Rooms:
    """The rooms that each room imports, with the number of imports.

    A room is a package or a single module of `mlagent_jax`, or `experiments` as a whole.
    """
    sources = read_sources(root)
    rooms: Rooms = {}
    for name in sources:
        room = _room(name)
        if room is None:  # mlagent_jax/__init__.py
            continue
        others = [
            other for imported in imports(sources, name) if (other := _room(imported)) not in (None, room)
        ]
        rooms.setdefault(room, Counter()).update(other for other in others if other)
    return rooms


def _room(module: str) -> str | None:
    """ "mlagent_jax.ppo.loop" -> "ppo"; None for what is no part of this project."""
    first, *rest = module.split(".")
    if first == TOP:
        return TOP
    return rest[0] if first in PACKAGES and rest else None


def imports(sources: Sources, name: str, at_import: bool = False) -> list[str]:
    """What a module imports, by full names: modules of `sources`, or whatever else a statement names.

    A name is there once for each statement or call. at_import: without what its functions and type checkers import.
    """
    found: list[str] = []
    for node in _import_nodes(sources[name], at_import):
        found += sorted(set(_imported(node, name, sources)))
    return found


def _imported(node: ImportNode, name: str, sources: Sources) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _base(node, name, sources)
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield full if full in sources else base
    else:
        yield _named(node.args[0]) if node.args else COMPUTED


def _base(node: ast.ImportFrom, name: str, sources: Sources) -> str:
    """The full name of the module that stands after "from"."""
    if not node.level:
        return node.module or ""
    is_package = any(other.startswith(f"{name}.") for other in sources)
    package = name.split(".") if is_package else name.split(".")[:-1]
    parts = package[: len(package) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _named(argument: ast.expr) -> str:
    """The module that `import_module` is called with, or the package in which it looks for it."""
    if (
        isinstance(argument, ast.JoinedStr)
        and argument.values
        and isinstance(argument.values[0], ast.Constant)
    ):
        return str(argument.values[0].value).rpartition(".")[0] or COMPUTED
    return (
        argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else COMPUTED
    )


@functools.cache
def _import_nodes(tree: ast.Module, at_import: bool) -> list[ImportNode]:
    found: list[ImportNode] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if at_import and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Call) and _is_import_call(node)
        ):
            found.append(node)
        waiting += reversed([*ast.iter_child_nodes(node)])
    return found


def _is_import_call(call: ast.Call) -> bool:
    """Whether this is a call of `importlib.import_module` or of `__import__`."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in ("import_module", "__import__")
