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


def test_what_a_task_says_of_its_rows_is_what_its_starter_and_preparation_do() -> None:
    """The table of tasks, the brief, and the starter that reads so many rows."""
    page = (ROOT / "tasks/README.md").read_text()
    rows = re.findall(r"^\| (\w+) \| held-(?:in|out) \|.*\| ([\d,]+) / [\d,]+ \|", page, re.M)
    assert len(rows) == 19
    for task, train_rows in rows:
        prepared = re.search(r"train_rows=([\d_]+)", (ROOT / f"tasks/{task}/prepare.py").read_text())
        assert prepared and int(prepared[1]) == int(train_rows.replace(",", "")), task
    for folder in (path.parent for path in (ROOT / "tasks").glob("*/task.toml")):
        brief = re.search(r"([\d,]+) rows", (folder / "task.toml").read_text())
        head = re.search(r"\.head\((\d+)\)", (folder / "train.py").read_text())
        assert (brief is None) == (head is None), folder.name
        assert brief is None or int(brief[1].replace(",", "")) == int(head[1]), folder.name
