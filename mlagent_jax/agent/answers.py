"""Reads what chat models answer as a careful person would: thoughts, fences, lists in any of their forms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

ADVICE = "[advice]"
MOST_ENDS = 16  # of one fence: a model that repeats itself writes them by the thousand
_ADVICE = re.compile(r"\*{0,3}\[advice\]\*{0,3}:?", re.IGNORECASE)

_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THOUGHT_CLOSED = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"\A.*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
_THOUGHT_START = re.compile(r"<(?:think|thinking|thought|reasoning)>.*\Z", re.DOTALL | re.IGNORECASE)
_OPENING = re.compile(r"^(?P<before>.*?)(?P<marks>`{3,}|~{3,})[ \t]*(?P<tag>[^`\n]*)$")
_LIST_MARK = re.compile(r"^\s*(?:[-*+>]|\d+[.)])?\s*$")
# Marks of an item: "- " and the like; 1.  1)  (1)  1:  **1.**  #1.  Idea 1:  and a)  (a)  a.
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
    """A block of code. ends: the lines that may close it, the first being the likeliest; none if it was cut off."""

    tag: str
    start: int
    indent: int
    ends: tuple[int, ...]


def excerpt(text: str, most: int = 160) -> str:
    """On one line, and no longer than that."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def without_thinking(text: str) -> str:
    """Without what a reasoning model thought aloud, closed or not; the opening tag may be the template's."""
    if _THOUGHT_CLOSED.search(text):  # else each opening tag would be looked for an end in vain
        text = _THOUGHT.sub("", text)
    return _THOUGHT_START.sub("", _THOUGHT_END.sub("", text)).strip()


def fences(text: str) -> list[Fence]:
    """All fences that open, of backticks or tildes, in lists and indented too."""
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
        ends = tuple(islice(closed, MOST_ENDS))
        indent = len(match["before"]) if _LIST_MARK.match(match["before"]) else 0
        found.append(Fence(tag, number, indent, ends))
        free = ends[0] + 1 if ends else len(lines)
    return found


def code(text: str, fence: Fence, end: int) -> str:
    """The lines of a fence up to one of its ends, without the fence's own indentation."""
    lines = text.split("\n")[fence.start + 1 : end]
    own = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    cut = min(fence.indent, own)
    return "".join(f"{line[cut:] if line.strip() else ''}\n".replace("\r\n", "\n") for line in lines)


def list_items(answer: str) -> list[str]:
    """The items of the list after the last marker, or of the whole answer; each idea once, on one line."""
    text = without_thinking(answer)
    _, *after = _ADVICE.split(text)
    for part in [*reversed(after), text]:
        if items := distinct(
            [_plain(item) for item in _json_items(part) or _marked_items(_without_code(part))]
        ):
            return items
    lines = [line.strip() for line in _without_code(after[-1]).splitlines()] if after else []
    ideas = distinct([_plain(line) for line in lines])
    return ideas if len(ideas) > 1 else []  # one line may be an excuse


def distinct(ideas: list[str], known: tuple[str, ...] = ()) -> list[str]:
    """Without those that differ from an earlier one, or from one that is known, in letter case and signs alone."""
    seen, found = {_key(idea) for idea in known}, []
    for idea in ideas:
        if _key(idea) and not idea.endswith(":") and _key(idea) not in seen:
            seen.add(_key(idea))
            found.append(idea)
    return found


def _key(idea: str) -> str:
    return re.sub(r"\W+", " ", idea.casefold()).strip()


def _marked_items(text: str) -> Iterator[str]:
    """Items of a list by any marks; of an item with items below it, the whole sentence counts, not a heading.

    Deeper items are details of the sentence that they stand below, and ideas of their own below a heading.
    """
    entries: list[tuple[int, str]] = []
    open_item = False
    for line in text.splitlines():
        match = _ITEM.match(line)
        if match:
            entries.append((len(match["indent"].replace("\t", "    ")), match["text"]))
        elif open_item and line[:1].isspace() and line.strip():  # it goes on in the next line
            entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}")
        open_item = bool(match) or (open_item and line[:1].isspace() and bool(line.strip()))
    above: list[tuple[int, bool]] = []  # depth of each item that is open, and whether it is an idea
    for index, (depth, item) in enumerate(entries):
        while above and above[-1][0] >= depth:
            above.pop()
        deeper = index + 1 < len(entries) and entries[index + 1][0] > depth
        titled = item.startswith("**") and item.endswith("**")
        heading = deeper and (titled or _plain(item).endswith(":") or len(item.split()) <= 2)
        if not heading and not any(is_idea for _, is_idea in above):
            yield item
        above.append((depth, not heading))


def _json_items(text: str) -> list[str]:
    """Of a JSON list of strings or of objects with one, bare, in a fence or below a name."""
    blocks = [code(text, fence, fence.ends[0]) for fence in fences(text) if fence.ends]
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
        if fence.tag in ("", "text", "markdown", "md"):  # a list in a fence is a list
            continue
        lines[fence.start : end + 1] = [""] * (end + 1 - fence.start)
    return "\n".join(lines)


def _plain(item: str) -> str:
    """On one line, without emphasis and quotes around it."""
    text = _EMPHASIS.sub(r"\2", " ".join(item.split())).replace("**", "").strip(" *_")
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
