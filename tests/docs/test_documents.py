"""What the pages say is there is there: links, files, and the commands and flags that they show."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from documents import ROOT, anchors, inline, pages, recipes

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))  # for programs

from programs import read_command_lines

PAGES = pages()
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
# The files that a recipe makes in a copy of the repository.
OF_RECIPES = {
    Path(block.path)
    for blocks in recipes(ROOT / "CONTRIBUTING.md").values()
    for block in blocks
    if block.path and block.language != "diff"
}


def exists(name: str, page: Path) -> bool:
    """From the repository's root, from the page's folder, or as a part of a recipe."""
    made = any(Path(name) == path or Path(name) in path.parents for path in OF_RECIPES)
    return made or (ROOT / name).exists() or (page.parent / name).exists()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for token in inline(page):
        target = str(token.attrGet("href") or token.attrGet("src") or "")
        if not target or re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_relative_to(ROOT) and file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), (
                f"{page.name} links to {target}, which has {sorted(anchors(file))}"
            )


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"(?:experiments|launch|tasks|tests|mlagent_jax)/[\w./]*\w", page.read_text()))
    code = [token.content for token in inline(page) if token.type == "code_inline"]
    named |= {text for text in code if re.fullmatch(r"[\w.]+/[\w./]*\.(?:py|md|toml|sh|json|svg)", text)}
    gone = sorted(name for name in named if not name.startswith("runs/") and not exists(name, page))
    assert not gone, f"{page.relative_to(ROOT)} names {', '.join(gone)}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_table_is_one_table(page: Path) -> None:
    """An empty line ends a table: what follows it would be shown as text with bars."""
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|") and not lines[number - 1].startswith("|"):
            assert re.fullmatch(r"\|(?: *:?-+:? *\|)+", lines[number + 1]), f"{page.name}, line {number + 1}"


def shown_commands() -> list[list[str]]:
    """Every command of ours in the pages and in what programs say of themselves, without its words."""
    files = [*PAGES, *sorted((ROOT / "experiments").rglob("*.py"))]
    found = []
    for file in files:
        text = file.read_text().replace("\\\n", " ")
        for match in re.finditer(r"(?<!\")python -m (experiments\.[\w.]+)((?: +[^\s`#|]+)*)", text):
            module, rest = match.groups()
            if (ROOT / (module.replace(".", "/") + ".py")).exists():
                found.append([str(file.relative_to(ROOT)), module, *_flags_of(rest)])
        for match in re.finditer(r"--config\.[a-z][\w.]*=[^\s`)]+", text):
            found.append([str(file.relative_to(ROOT)), "experiments.run", match.group().rstrip(".,;:")])
    return found


def _flags_of(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return [
        word.rstrip(".,;:")
        for word in words
        if word.startswith("--") and word != "--help" and "FIELD" not in word
    ]


def _of_a_recipe(words: list[str]) -> bool:
    """Flags that name what only a recipe adds; the recipe's own test runs them."""
    return any(
        word in {"--config.reward.form=tanh"} or "rerun" in word or "diabetes" in word for word in words
    )


def test_every_command_that_is_shown_has_flags_that_exist() -> None:
    shown = [command for command in shown_commands() if len(command) > 2 and not _of_a_recipe(command)]
    assert len(shown) > 40 and {command[0] for command in shown} >= {
        "experiments/README.md",
        "launch/README.md",
    }
    asked = [[module, *words] for _, module, *words in shown]
    wrong = [
        (command, end.output[-300:])
        for command, end in zip(shown, read_command_lines(asked), strict=True)
        if end.code or end.output.strip()
    ]
    assert not wrong


def test_every_module_that_is_shown_as_a_command_exists() -> None:
    for page in PAGES:
        for module in re.findall(r"python -m (experiments[\w.]*\w)", page.read_text()):
            assert (ROOT / (module.replace(".", "/") + ".py")).exists(), (
                f"{page.name} shows python -m {module}"
            )


def in_first_cells(page: Path) -> set[str]:
    """What the first cells of a page's tables name as code."""
    cells = re.findall(r"^\| ([^|]*) \|", page.read_text(), re.M)
    return {name.rstrip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_part_of_experiments_is_described() -> None:
    parts = {
        path.name
        for path in (ROOT / "experiments").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert parts - {"__init__.py"} <= in_first_cells(ROOT / "experiments/README.md")


def test_every_folder_of_tests_that_no_package_is_named_after_is_described() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("*.py"))}
    packages = {path.parent.name for path in (ROOT / "mlagent_jax").glob("*/__init__.py")}
    named = {name.removeprefix("tests/") for name in in_first_cells(ROOT / "CONTRIBUTING.md")}
    assert folders - packages - {"tests"} <= named


def test_the_table_of_tasks_has_the_rows_that_preparation_makes() -> None:
    page = (ROOT / "tasks/README.md").read_text()
    rows = re.findall(r"^\| (\w+) \| held-(?:in|out) \|.*\| ([\d,]+) / [\d,]+ \|", page, re.M)
    assert len(rows) == 19
    for task, train_rows in rows:
        prepared = re.search(r"train_rows=([\d_]+)", (ROOT / f"tasks/{task}/prepare.py").read_text())
        assert prepared and int(prepared[1]) == int(train_rows.replace(",", "")), task
