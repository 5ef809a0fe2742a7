"""`make quickstart`, with the latest versions or with those of constraints.txt."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from importlib import metadata

import pytest
from documents import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

RENEW = "constraints.txt is out of date: make constraints"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
}


def planned(tmp_path, *arguments: str) -> str:
    """What make would do for a new environment."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    # `make test PINNED=1` hands its variables down to every make that a test starts.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "PINNED")
    }
    command = ["make", "-n", f"VENV={tmp_path}/venv", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("target", ["install", "quickstart", "test"])
def test_pinned_installs_what_constraints_say_and_unpinned_does_not(tmp_path, target):
    pinned, unpinned = planned(tmp_path, target, "PINNED=1"), planned(tmp_path, target)
    (installs,) = re.findall(r"pip .* install (.*)", pinned)
    assert installs.startswith("--constraint constraints.txt -e ")
    assert "constraints.txt" not in unpinned
    assert re.findall(r"^.*-m (?:experiments|pytest).*$", pinned, re.M) == re.findall(
        r"^.*-m (?:experiments|pytest).*$", unpinned, re.M
    )


def test_an_unpinned_environment_is_installed_anew_when_it_is_to_be_pinned(tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (tmp_path / "venv" / ".installed").touch()
    assert "install" not in planned(tmp_path, "quickstart").replace(".installed", "")
    assert "--constraint constraints.txt" in planned(tmp_path, "quickstart", "PINNED=1")


def test_constraints_are_exact_versions_and_nothing_else():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(PINS) > 50
    assert [*PINS] == sorted(PINS)


def wanted() -> list[Requirement]:
    return [
        Requirement(line) for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    ]


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_every_dependency_is_pinned_to_a_version_that_it_allows(requirement):
    assert canonicalize_name(requirement.name) in PINS, RENEW
    assert Version(PINS[canonicalize_name(requirement.name)]) in requirement.specifier, RENEW


def test_what_dependencies_need_is_pinned_too():
    """Of those installed here in the pinned version; other versions may need something else."""
    waiting, seen, compared = [canonicalize_name(each.name) for each in wanted()], set(), 0
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # not on this system, or not for this Python
            continue
        if package.version.partition("+")[0] != PINS[name]:
            continue
        compared += 1
        for needed in map(Requirement, package.requires or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in PINS, f"{name} needs {needed.name}; {RENEW}"
                waiting.append(canonicalize_name(needed.name))
    if not compared:
        pytest.skip("no package is installed here in its pinned version")
