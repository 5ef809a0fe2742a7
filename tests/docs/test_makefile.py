"""`make quickstart`, with the latest versions or with those of constraints.txt; the other targets; what CI installs."""

from __future__ import annotations

import os
import re
import shlex
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


IN_CI = (ROOT / ".ci" / "extras.sh").read_text()
# Extras that CI does not install: kaggle needs an account, and mlflow's client with what its store needs is enough.
NOT_IN_CI = ("paper", "mlflow")
# cuDNN is installed without them, since nothing runs.
NOT_FETCHED = ("nvidia-cublas-cu12",)


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


@pytest.mark.parametrize("value", ["", "0", "no", "false"])
def test_what_says_no_does_not_pin(tmp_path, value):
    assert planned(tmp_path, "test", f"PINNED={value}") == planned(tmp_path, "test")


def test_all_tests_run_in_as_many_processes_as_the_fast_ones(tmp_path):
    for target in ("test", "test-all"):
        assert " -m pytest -n 7 " in planned(tmp_path, target, "JOBS=7")


def test_live_installs_what_local_models_need_and_names_the_run(tmp_path):
    lines = planned(tmp_path, "live", "RUN=runs/mine", "PINNED=1").splitlines()
    assert [line for line in lines if line.endswith('install --constraint constraints.txt -e ".[local]"')]
    assert lines[-1].endswith("-m experiments.live --run=runs/mine --workdir=runs/live")


def test_cleaning_leaves_runs_alone(tmp_path):
    removed = planned(tmp_path, "clean").split()
    assert removed[:2] == ["rm", "-rf"] and ".mypy_cache" in removed
    ignored = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    assert set(removed[3:]) <= ignored - {"runs"}
    assert planned(tmp_path, "clean-runs").split() == ["rm", "-rf", "runs"]


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
    """All dependencies, and those of every extra that CI installs."""
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"]]
    lines += [line for extra, needed in extras.items() if extra not in NOT_IN_CI for line in needed]
    requirements = {str(Requirement(line)): Requirement(line) for line in [*lines, *installed_by_ci()]}
    return [each for each in requirements.values() if each.name != PROJECT["name"]]


def installed_by_ci() -> list[str]:
    return [
        word
        for line in re.findall(r"^pip install (.*)$", IN_CI, re.M)
        for word in shlex.split(line)
        if word[0] not in "-$"
    ]


def test_ci_installs_every_extra():
    extras, named = PROJECT["optional-dependencies"], {Requirement(each).name for each in installed_by_ci()}
    named |= {Requirement(line).name for line in [*PROJECT["dependencies"], *extras["test"]]} | {
        PROJECT["name"]
    }
    for extra, lines in extras.items():
        missing = {Requirement(line).name for line in lines} - named
        assert (extra in NOT_IN_CI) == bool(missing), f".ci/extras.sh and extra {extra}: {missing}"
    assert all(
        " -c constraints.txt" in line
        for line in re.findall(r".*extras\.sh.*", (ROOT / ".ci/run").read_text())
    )


def test_containers_have_the_versions_of_constraints():
    """Scripts find the same packages in every sandbox."""
    lines = (ROOT / "launch/docker/requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pinned == {name: PINS.get(name) for name in pinned}
    assert {"pandas", "scikit-learn", "pillow"} <= pinned.keys()


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_every_dependency_is_pinned_to_a_version_that_it_allows(requirement):
    assert canonicalize_name(requirement.name) in PINS, RENEW
    assert Version(PINS[canonicalize_name(requirement.name)]) in requirement.specifier, RENEW


def test_what_dependencies_need_is_pinned_too():
    """Of those installed here in the pinned version; other versions may need something else."""
    waiting = [(canonicalize_name(each.name), frozenset(each.extras)) for each in wanted()]
    seen, compared = set(), 0
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # not on this system, or not for this Python
            continue
        if package.version.partition("+")[0] != PINS[name]:
            continue
        compared += 1
        for needed in map(Requirement, package.requires or ()):
            marker, needed_name = needed.marker, canonicalize_name(needed.name)
            asked = marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""})
            if asked and needed_name not in NOT_FETCHED:
                assert needed_name in PINS, f"{name} needs {needed.name}; {RENEW}"
                waiting.append((needed_name, frozenset(needed.extras)))
    if not compared:
        pytest.skip("no package is installed here in its pinned version")
