#!/usr/bin/env python3
"""Prints the versions of everything that this environment has of the project's requirements, as constraints for pip.

    .venv/bin/python .ci/constraints.py > constraints.txt

Extras that are not installed here are left out, and named on standard error.
"""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = ("test",)  # extras that have to be there


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def closure(lines: list[str]) -> dict[str, str]:
    """Versions here of all packages that these requirements need. Raises PackageNotFoundError for an absent one."""
    found: dict[str, str] = {}
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
        package = metadata.distribution(name)
        if name != project()["name"]:  # an extra may name others
            found[name] = package.version.partition("+")[0]  # torch's "+cpu" is not on PyPI
        waiting += [(Requirement(line), key[1]) for line in package.requires or ()]
    return found


def main() -> None:
    pins = closure(project()["dependencies"])
    for extra, lines in project()["optional-dependencies"].items():
        try:
            pins |= closure(lines)
        except metadata.PackageNotFoundError as error:
            if extra in ALWAYS:
                sys.exit(f"extra {extra} is not installed here: {error}; pip install -e '.[{extra}]' first")
            print(f"left out: {extra}, since {error.name} is not installed", file=sys.stderr)
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"# What README's figures were made with, on Python {version}. Used by `make PINNED=1` and by CI.")
    print("# Renewed by: .venv/bin/python .ci/constraints.py > constraints.txt")
    print("\n".join(f"{name}=={pins[name]}" for name in sorted(pins)))


if __name__ == "__main__":
    main()
