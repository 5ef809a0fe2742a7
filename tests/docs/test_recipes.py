"""Every recipe of CONTRIBUTING.md, applied to a copy of the repository: it has to work as it stands.

The copy has what git tracks, so a file that only this machine has cannot help. It must pass ruff and keep the arrows
between rooms too; mypy would need half a minute for each.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT, Block, recipes
from test_architecture import circles, foreign_imports, slow_imports, wrong_arrows

from experiments.figures.imports import read_sources

PAGE = ROOT / "CONTRIBUTING.md"
RECIPES = recipes(PAGE)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for all recipes, so that Python compiles the project once."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git tree, which says what belongs to the repository")
    folder = tmp_path_factory.mktemp("repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in listed.stdout.split("\0"):
        if (ROOT / name).is_file():  # not one that is deleted and not yet committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def copy(repository: Path) -> Iterator[Path]:
    """The copy as git has it, and again so afterwards: but for bytecode, all that a recipe leaves is removed."""
    before = contents(repository)
    yield repository
    for path, content in contents(repository).items():
        if path not in before:
            path.unlink()
        elif content != before[path]:
            path.write_bytes(before[path])
    assert contents(repository) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_there_is_a_recipe_for_whatever_people_add():
    wanted = ("task", "metric", "reward", "agent", "sandbox backend", "model")
    assert [*RECIPES] == [f"Add a{'n' if noun == 'agent' else ''} {noun}" for noun in wanted]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works_as_it_stands(name: str, copy: Path) -> None:
    files = [block for block in RECIPES[name] if block.path]
    commands = [block.text for block in RECIPES[name] if block.language == "sh"]
    assert files and commands and all(block.path or block.language == "sh" for block in RECIPES[name])
    for block in files:
        apply(block, copy)
    python = [block.path for block in files if block.path.endswith(".py")]
    ruff = [sys.executable, "-m", "ruff"]
    run([*ruff, "check", "--no-cache", *python], copy)
    run([*ruff, "format", "--no-cache", "--check", *python], copy)
    sources = read_sources(copy)
    for check in (wrong_arrows, circles, slow_imports, foreign_imports):
        assert check(sources) == []
    for command in commands:
        run(["bash", "-euo", "pipefail", "-c", command], copy)


def apply(block: Block, copy: Path) -> None:
    """Writes a new file, or changes one: each hunk's old lines must stand in it once."""
    path = copy / block.path
    if block.language != "diff":
        assert not path.exists(), f"{PAGE.name} makes {block.path}, which is there already"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        return
    for hunk in re.split(r"^@@.*\n", block.text, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] or "\n" for line in lines if not line.startswith("+"))
        new = "".join(line[1:] or "\n" for line in lines if not line.startswith("-"))
        text = path.read_text()
        assert text.count(old) == 1, (
            f"{PAGE.name} changes {block.path}, which holds {text.count(old)} times:\n{old}"
        )
        path.write_text(text.replace(old, new))


def run(command: list[str], folder: Path) -> None:
    """In the copy, with its own cache, and with the programs of this environment."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "",
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}{done.stderr[-3000:]}"
