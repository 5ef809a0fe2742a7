"""Imports and helper functions in one fixed order, no more than the script uses.

With it, the same set of edits gives the same text in whatever order they were made, as far as they commute,
and its execution is found in the cache.
"""

from __future__ import annotations

import ast
import functools

import libcst as cst

from mlagent_jax.agent.edits import script
from mlagent_jax.agent.edits.names import IMPORTS, MODULE_ALIASES, helpers


def tidy(module: cst.Module) -> str:
    """The script's text with its preamble put in order. Idempotent."""
    sources = helpers()
    body = [node for node in module.body if not _is_helper(node)]
    used = _names(module.with_changes(body=body).code)
    added = sorted(used & set(sources))
    used = used.union(*(_names(sources[name]) for name in added))
    if len(body) != len(module.body) or added:
        module = module.with_changes(body=_with_helpers(body, added))
    return _with_imports(module, used).code


@functools.lru_cache(maxsize=64)
def _names(code: str) -> frozenset[str]:
    """Names used anywhere but in imports, keyword arguments and attributes."""
    return frozenset(node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name))


def _is_helper(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.FunctionDef) and node.name.value in helpers()


def _with_helpers(body: list, names: list[str]) -> list:
    """The statements with these helper functions after the preamble."""
    place = _end_of_preamble(body)
    functions = [script.statements(helpers()[name])[0] for name in names]
    new = [node.with_changes(leading_lines=_blank(2)) for node in functions]
    rest = body[place:]
    if rest:
        rest[0] = rest[0].with_changes(leading_lines=_blank(2 if names else 1))
    return [*body[:place], *new, *rest]


def _blank(lines: int) -> list[cst.EmptyLine]:
    return [cst.EmptyLine(indent=False)] * lines


def _end_of_preamble(body: list) -> int:
    """Index of the first statement that is neither the docstring nor an import."""
    return next(
        (i for i, node in enumerate(body) if not (_import(node) or (i == 0 and _docstring(node)))), len(body)
    )


def _docstring(node: cst.CSTNode) -> bool:
    line = node.body[0] if isinstance(node, cst.SimpleStatementLine) else None
    return isinstance(line, cst.Expr) and isinstance(line.value, cst.SimpleString)


def _import(node: cst.CSTNode) -> cst.Import | cst.ImportFrom | None:
    line = node.body[0] if isinstance(node, cst.SimpleStatementLine) and len(node.body) == 1 else None
    return line if isinstance(line, cst.Import | cst.ImportFrom) else None


def _with_imports(module: cst.Module, used: frozenset[str]) -> cst.Module:
    """Plain imports, then `from` imports, both sorted; what the script imported itself stays if used."""
    plain = {MODULE_ALIASES[name] for name in used if name in MODULE_ALIASES}
    members: dict[str, set[str]] = {}
    rest = []
    leading = None
    for node in module.body:
        line = _import(node)
        if line is None:
            rest.append(node)
            continue
        leading = node.leading_lines if leading is None else leading
        if (
            isinstance(line, cst.ImportFrom)
            and line.module is not None
            and not isinstance(line.names, cst.ImportStar)
        ):
            kept = {script.source_of(alias).rstrip(", ") for alias in line.names if _bound(alias) in used}
            members.setdefault(script.source_of(line.module), set()).update(kept)
        elif isinstance(line, cst.ImportFrom) or any(_bound(alias) in used for alias in line.names):
            plain.add(script.source_of(line))
    for name in used & set(IMPORTS):
        members.setdefault(IMPORTS[name], set()).add(name)
    lines = sorted(plain) + [
        f"from {source} import {', '.join(sorted(names))}"
        for source, names in sorted(members.items())
        if names
    ]
    if not lines:
        return module.with_changes(body=rest)
    block = list(script.statements("\n".join(lines) + "\n"))
    block[0] = block[0].with_changes(leading_lines=_blank(1) if leading is None else leading)
    place = 1 if rest and _docstring(rest[0]) else 0
    return module.with_changes(body=[*rest[:place], *block, *rest[place:]])


def _bound(alias: cst.ImportAlias) -> str:
    """The name that an import binds."""
    return alias.evaluated_alias or alias.evaluated_name.partition(".")[0]
