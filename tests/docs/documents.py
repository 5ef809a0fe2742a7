"""The repository's Markdown pages, as the tests of documentation read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
_BUILT = ("runs", "build", "dist")


def pages() -> list[Path]:
    """Every page but task descriptions, which speak to agents."""
    return [
        path
        for path in sorted(ROOT.rglob("*.md"))
        if not any(part.startswith(".") or part in _BUILT for part in path.relative_to(ROOT).parts)
        and path.name != "description.md"
    ]


def tokens(page: Path) -> list[Token]:
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))


def inline(page: Path) -> Iterator[Token]:
    """Links, images, code and text, wherever they are."""
    for token in tokens(page):
        yield from token.children or ()


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives to a page's headings."""
    found = set()
    for token, following in zip(tokens(page), tokens(page)[1:], strict=False):
        if token.type == "heading_open":
            text = "".join(child.content for child in following.children or ())
            found.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return found


@dataclass(frozen=True)
class Block:
    """A fenced block: a whole file, changes to one, or commands (path "")."""

    language: str
    path: str
    text: str


def recipes(page: Path) -> dict[str, list[Block]]:
    """The blocks of each third-level section below "Recipes". A line with nothing but `PATH`: names a block's file."""
    found: dict[str, list[Block]] = {}
    section = recipe = path = ""
    every = tokens(page)
    for token, following in zip(every, [*every[1:], None], strict=True):
        if token.type == "heading_open" and following:
            section, recipe = (following.content, "") if token.tag == "h2" else (section, following.content)
        elif token.type == "inline":
            named = re.fullmatch(r"`([^`]+)`:", token.content)
            path = named[1] if named else path
        elif token.type == "fence" and section == "Recipes" and recipe:
            language = token.info.strip()
            found.setdefault(recipe, []).append(
                Block(language, "" if language == "sh" else path, token.content)
            )
            path = ""
    return found
