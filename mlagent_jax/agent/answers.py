"""Parses the answers of chat models leniently: thinking tags, code fences, and lists in all their usual forms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mlagent_jax.llm.backend import Answer

ADVICE = "[advice]"
MAX_FENCE_ENDS = 16  # per fence, since a model that repeats itself writes thousands
_ADVICE = re.compile(r"\*{0,3}\[advice\]\*{0,3}:?", re.IGNORECASE)

_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THOUGHT_CLOSED = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"\A.*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
_THOUGHT_START = re.compile(r"<(?:think|thinking|thought|reasoning)>.*\Z", re.DOTALL | re.IGNORECASE)
_OPENING = re.compile(r"^(?P<before>.*?)(?P<marks>`{3,}|~{3,})[ \t]*(?P<tag>[^`\n]*)$")
_LIST_MARK = re.compile(r"^\s*(?:[-*+>]|\d+[.)])?\s*$")
# Markers of an item: "- " and the like; 1.  1)  (1)  1:  **1.**  #1.  Idea 1:  and a)  (a)  a.
_BULLET = r"[-*+•◦▪‣·–—][ \t]+"
_NUMBER = r"\**(?:Idea|Advice|Suggestion|Step|Tip|Option)?[ \t]*\#?[(（]?\d{1,3}[ \t]*\\?[.):、．）](?!\d)"
_LETTER = r"\(?[a-z][.)](?=[ \t])"
_ITEM = re.compile(
    rf"^(?P<indent>[ \t>]*)(?:\#{{1,6}}[ \t]+)?(?:{_BULLET}(?:\[[ x]\][ \t]+)?(?:{_NUMBER})?|{_NUMBER}|{_LETTER})"
    r"[ \t]*(?P<text>\S.*?)[ \t]*$",
    re.IGNORECASE,
)
_EMPHASIS = re.compile(r"(\*\*|__|`)(?=\S)(.+?)(?<=\S)\1")


@dataclass(frozen=True)
class Fence:
    """A code block. ends: the lines that may close it, the likeliest first; empty if it is never closed."""

    tag: str
    start: int
    indent: int
    ends: tuple[int, ...]


def describe(answer: Answer) -> str:
    """What is wrong with an answer that is of no use, or what it says."""
    return answer.problem or excerpt(answer.text) or "it is empty"


def excerpt(text: str, max_chars: int = 160) -> str:
    """The text on one line, shortened to `max_chars` characters."""
    line = " ".join(text.split())
    return line if len(line) <= max_chars else f"{line[: max_chars - 3]}..."


def without_thinking(text: str) -> str:
    """The text without a reasoning model's thinking, whose tags may lack an end or (if in the template) a start."""
    if _THOUGHT_CLOSED.search(
        text
    ):  # otherwise the search for an end at every opening tag is slow and futile
        text = _THOUGHT.sub("", text)
    return _THOUGHT_START.sub("", _THOUGHT_END.sub("", text)).strip()


def fences(text: str) -> list[Fence]:
    """All code fences, of backticks or tildes, including indented ones and those in lists."""
    lines, found, free = text.split("\n"), [], 0
    for number, line in enumerate(lines):
        match = _OPENING.match(line.rstrip("\r"))
        if number < free or match is None:
            continue
        tag = (match["tag"].strip().strip("{}").lstrip(".").split() or [""])[0].lower()
        if not _LIST_MARK.match(match["before"]) and not tag.startswith("py"):
            continue
        closing = re.compile(rf"^\s*{re.escape(match['marks'][0])}{{{len(match['marks'])},}}\s*$")
        closed = (at for at in range(number + 1, len(lines)) if closing.match(lines[at]))
        ends = tuple(islice(closed, MAX_FENCE_ENDS))
        indent = len(match["before"]) if _LIST_MARK.match(match["before"]) else 0
        found.append(Fence(tag, number, indent, ends))
        free = ends[0] + 1 if ends else len(lines)
    return found


def fence_content(text: str, fence: Fence, end: int) -> str:
    """The lines of a fence up to one of its ends, without the indentation of the fence itself."""
    lines = text.split("\n")[fence.start + 1 : end]
    own = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    cut = min(fence.indent, own)
    return "".join(f"{line[cut:] if line.strip() else ''}\n".replace("\r\n", "\n") for line in lines)


def list_items(answer: str) -> list[str]:
    """The items of the list after the last marker [advice], or of the whole answer, each once and on one line."""
    text = without_thinking(answer)
    _, *after = _ADVICE.split(text)
    for part in [*reversed(after), text]:
        if items := distinct(
            [_plain_text(item) for item in _json_items(part) or _marked_items(_without_code(part))]
        ):
            return items
    lines = [line.strip() for line in _without_code(after[-1]).splitlines()] if after else []
    ideas = distinct([_plain_text(line) for line in lines])
    return ideas if len(ideas) > 1 else []  # a single line may be an excuse


def distinct(ideas: list[str], known: tuple[str, ...] = ()) -> list[str]:
    """The ideas without those that differ from an earlier or known one only in letter case and punctuation."""
    seen, found = {_key(idea) for idea in known}, []
    for idea in ideas:
        if _key(idea) and not idea.endswith(":") and _key(idea) not in seen:
            seen.add(_key(idea))
            found.append(idea)
    return found


def _key(idea: str) -> str:
    return re.sub(r"\W+", " ", idea.casefold()).strip()


def _marked_items(text: str) -> Iterator[str]:
    """The items of a list with any kind of marker.

    Nested items are ideas if their parent is a heading. If the parent is a sentence, that is the idea, and the nested
    items are its details.
    """
    entries: list[tuple[int, str]] = []
    open_item = False
    for line in text.splitlines():
        match = _ITEM.match(line)
        if match:
            entries.append((len(match["indent"].replace("\t", "    ")), match["text"]))
        elif open_item and line[:1].isspace() and line.strip():  # the item continues on this line
            entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}")
        open_item = bool(match) or (open_item and line[:1].isspace() and bool(line.strip()))
    parents: list[tuple[int, bool]] = []  # the depth of each enclosing item, and whether it is an idea
    for index, (depth, item) in enumerate(entries):
        while parents and parents[-1][0] >= depth:
            parents.pop()
        deeper = index + 1 < len(entries) and entries[index + 1][0] > depth
        titled = item.startswith("**") and item.endswith("**")
        heading = deeper and (titled or _plain_text(item).endswith(":") or len(item.split()) <= 2)
        if not heading and not any(is_idea for _, is_idea in parents):
            yield item
        parents.append((depth, not heading))


def _json_items(text: str) -> list[str]:
    """The items of a JSON list of strings or objects, which may be in a fence or in an outer object."""
    blocks = [fence_content(text, fence, fence.ends[0]) for fence in fences(text) if fence.ends]
    start, end = text.find("["), text.rfind("]")
    if 0 <= start < end:
        blocks.append(text[start : end + 1])
    for block in [text, *blocks]:
        try:
            items = _strings(json.loads(block))
        except (ValueError, RecursionError):
            continue
        if items:
            return items
    return []


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = next((inner for inner in value.values() if isinstance(inner, list)), [])
    if not isinstance(value, list):
        return []
    texts = []
    for item in value:
        if isinstance(item, dict):
            named = [item[key] for key in ("idea", "advice", "text", "description") if key in item]
            item = (named or [word for word in item.values() if isinstance(word, str)] or [""])[0]
        if isinstance(item, str):
            texts.append(item)
    return texts


def _without_code(text: str) -> str:
    lines = text.split("\n")
    for fence in fences(text):
        end = fence.ends[0] if fence.ends else len(lines) - 1
        if fence.tag in ("", "text", "markdown", "md"):  # may contain the list itself
            continue
        lines[fence.start : end + 1] = [""] * (end + 1 - fence.start)
    return "\n".join(lines)


def _plain_text(item: str) -> str:
    """The item on one line, without emphasis and surrounding quotes."""
    text = _EMPHASIS.sub(r"\2", " ".join(item.split())).replace("**", "").strip(" *_")
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
