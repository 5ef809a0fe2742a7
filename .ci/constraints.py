#!/usr/bin/env python3
"""Prints the versions of everything that this environment has of the project's requirements, as constraints for pip.

    .venv/bin/python .ci/constraints.py > constraints.txt

What an extra needs and is not installed here is left out, and named on standard error.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = ("test",)  # extras that have to be there
# What .ci/extras.sh installs in place of the extra `mlflow`.
CLIENTS = ("mlflow-skinny", "alembic", "sqlalchemy")


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def closure(lines: Iterable[str]) -> tuple[dict[str, str], set[str]]:
    """All packages that these requirements need: the versions of those that are installed, and the others' names."""
    found: dict[str, str] = {}
    absent: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(Requirement(line), frozenset[str]()) for line in lines]
    while waiting:
        requirement, asked = waiting.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in asked or {""}):
            continue
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            absent.add(name)
            continue
        if name != project()["name"]:  # an extra may name others
            found[name] = package.version.partition("+")[0]  # torch's "+cpu" is not on PyPI
        waiting += [(Requirement(line), key[1]) for line in package.requires or ()]
    return found, absent


def main() -> None:
    extras = project()["optional-dependencies"]
    wanted = [*project()["dependencies"], *(line for extra in ALWAYS for line in extras[extra])]
    pins, absent = closure(wanted)
    if absent:
        sys.exit(
            f"{', '.join(sorted(absent))} not installed here; pip install -e '.[{','.join(ALWAYS)}]' first"
        )
    for extra, lines in (extras | {"the client of mlflow": CLIENTS}).items():
        found, absent = closure(lines)
        pins |= found
        if absent:
            print(f"left out of {extra}: {', '.join(sorted(absent))}, not installed", file=sys.stderr)
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"# What README's figures were made with, on Python {version}. Used by `make PINNED=1` and by CI.")
    print("# Renewed by: make constraints")
    print("\n".join(f"{name}=={pins[name]}" for name in sorted(pins)))


if __name__ == "__main__":
    main()
