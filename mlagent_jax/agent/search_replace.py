"""Applies search-and-replace blocks, a form of edits that aider made known (aider.chat, "edit formats", diff).

    <<<<<<< SEARCH
    lines of the script
    =======
    the lines that replace them
    >>>>>>> REPLACE

An edit of a few lines takes a fraction of the tokens of the whole script. The messages of UnusableAnswerError are shown
to the coder and to agents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlagent_jax.agent import answers
from mlagent_jax.agent.whole_script import UnusableAnswerError, find_script, why_not_whole

FORM = (
    "<<<<<<< SEARCH\n(lines of the script, exactly as they are)\n=======\n(the lines that replace them)\n"
    ">>>>>>> REPLACE"
)
_SEARCH = re.compile(r"\s*<{5,}\s*SEARCH\s*")
_DIVIDER = re.compile(r"\s*={5,}\s*")
_REPLACE = re.compile(r"\s*>{5,}\s*REPLACE\s*")


@dataclass(frozen=True)
class Block:
    search: tuple[str, ...]
    replacement: tuple[str, ...]


def apply_blocks(answer: str, script: str) -> str:
    """The script after all blocks of an answer, in their order; or the whole script that it holds instead of any.

    Searched lines are found if they are whole lines that are in one place only, whatever spaces end them; failing that,
    whatever their common indentation, which the replacement then gets. Raises UnusableAnswerError if a block fits no
    place or several, or what comes out is no whole script.
    """
    text = answers.without_thinking(answer)
    blocks = find_blocks(text)
    if not blocks:
        return find_script(answer, script)
    lines = script.split("\n")
    for number, block in enumerate(blocks, 1):
        lines = _replaced(lines, block, f"block {number}" if len(blocks) > 1 else "its block")
    edited = "\n".join(lines)
    fault = why_not_whole(edited, script)
    if fault:
        raise UnusableAnswerError(f"after its blocks {fault.replace('it is', 'the script is', 1)}")
    return edited


def find_blocks(text: str) -> list[Block]:
    """Raises UnusableAnswerError for a block without its other two marks."""
    found: list[Block] = []
    parts: list[list[str]] = []
    for line in text.split("\n"):
        if _SEARCH.fullmatch(line):
            if parts:
                raise UnusableAnswerError("a block has no >>>>>>> REPLACE")
            parts = [[]]
        elif parts and len(parts) == 1 and _DIVIDER.fullmatch(line):
            parts.append([])
        elif len(parts) == 2 and _REPLACE.fullmatch(line):
            search, replacement = parts
            found.append(Block(tuple(search), tuple(replacement)))
            parts = []
        elif parts:
            parts[-1].append(line)
    if parts:
        raise UnusableAnswerError("its last block has no >>>>>>> REPLACE")
    return found


def _replaced(lines: Sequence[str], block: Block, name: str) -> list[str]:
    search = [line.rstrip() for line in block.search]
    if not any(search):
        raise UnusableAnswerError(f"{name} searches for nothing: begin it with a line of the script")
    places = _places([line.rstrip() for line in lines], search)
    indent = ""
    if not places:
        places = _places([line.strip() for line in lines], [line.strip() for line in search])
        if places:
            indent = _indent(lines[places[0]])
    if not places:
        raise UnusableAnswerError(
            f"{name} searches for lines that the script does not have ({answers.excerpt(chr(10).join(search), 80)})"
        )
    if len(places) > 1:
        raise UnusableAnswerError(
            f"{name} searches for lines that are in {len(places)} places; include the lines before them"
        )
    (start,) = places
    replacement = list(block.replacement)
    if indent:
        own = _indent(search[0])
        replacement = [f"{indent}{line.removeprefix(own)}" if line.strip() else line for line in replacement]
    return [*lines[:start], *replacement, *lines[start + len(search) :]]


def _places(lines: Sequence[str], search: Sequence[str]) -> list[int]:
    count = len(search)
    return [
        start for start in range(len(lines) - count + 1) if list(lines[start : start + count]) == list(search)
    ]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
