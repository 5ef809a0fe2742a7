"""All edits: their idea lines by kind and axis, which one an instruction means, and its application."""

from __future__ import annotations

import functools
import re

from mlagent_jax.agent.edits import data, data_image, data_tabular, data_text, learning, model, script
from mlagent_jax.agent.edits.entry import Edit, Values, normalise
from mlagent_jax.agent.edits.script import Problem
from mlagent_jax.agent.edits.tidy import tidy
from mlagent_jax.environment.coder import CoderError

CATALOGUE: tuple[Edit, ...] = (
    *data.EDITS,
    *data_tabular.EDITS,
    *data_image.EDITS,
    *data_text.EDITS,
    *model.EDITS,
    *learning.EDITS,
)

AXES = ("data", "model", "learning")
MAX_PARTS = 3


def ideas(kind: str | None, axis: str | None = None) -> list[str]:
    """Every idea line for a kind of task ("tabular regression", ...), of one axis or, for None, of all."""
    suited = [
        edit for edit in CATALOGUE if (kind is None or kind in edit.kinds) and axis in (None, edit.axis)
    ]
    return list(dict.fromkeys(line for edit in suited for line in edit.lines()))


@functools.cache
def _offered() -> dict[str, tuple[Edit, Values]]:
    """Every idea line, normalised, with what it means: most instructions are one of them."""
    return {normalise(edit.line(values)): (edit, values) for edit in CATALOGUE for values in edit.offers()}


def axis_of(line: str) -> str:
    """The axis of an idea line of the catalogue; "" for any other."""
    found = _offered().get(normalise(line))
    return found[0].axis if found else ""


def recognise(instruction: str, problem: Problem) -> tuple[Edit, Values]:
    """The one edit that a single instruction means, and its numbers.

    An entry's own wording comes first, then keywords; among several, those that suit the kind of task.
    Raises CoderError if it is none or could be several.
    """
    text = normalise(instruction)
    if text in _offered():
        return _offered()[text]
    for edit in CATALOGUE:
        values = edit.exact(text)
        if values is not None:
            return edit, values
    meant = [edit for edit in CATALOGUE if edit.loose(text)]
    meant = [edit for edit in meant if problem.kind in edit.kinds] or meant
    if not meant:
        near = ", ".join(repr(_nearest(text, ideas(problem.kind, axis))) for axis in AXES)
        raise CoderError(f"does not understand {_short(instruction)!r}; it can do things like {near}")
    if len(meant) > 1:
        readings = " or ".join(repr(edit.lines()[0]) for edit in meant[:3])
        raise CoderError(f"{_short(instruction)!r} could mean {readings}; say one of them")
    return meant[0], meant[0].loose_values(text)


@functools.lru_cache(maxsize=4096)  # episodes repeat the same edits
def apply(text: str, instruction: str) -> str:
    """The script edited by an instruction of one to `MAX_PARTS` parts, joined by ";" or "and".

    Raises CoderError, with a sentence for the agent, if a part is not understood or does not fit the script.
    """
    script.parse(text)
    problem = script.problem(text)
    for edit, values in _parts(instruction, problem):
        if not any(kind.startswith(problem.data) for kind in edit.kinds):
            raise CoderError(f"{edit.lines()[0]!r} suits no {problem.kind} script")
        text = tidy(edit.apply(script.parse(text), problem, values))
    return text


def _parts(instruction: str, problem: Problem) -> list[tuple[Edit, Values]]:
    """One edit if the whole reads as one, else one for each part."""
    try:
        return [recognise(instruction, problem)]
    except CoderError:
        parts = [part for part in re.split(r";|\band\b|\bthen\b", instruction) if part.strip(" ,.")]
        if not 1 < len(parts) <= MAX_PARTS:
            raise
    return [recognise(part, problem) for part in parts]


def _nearest(text: str, lines: list[str]) -> str:
    """The line that shares the largest part of its words with the text."""
    words = set(text.split())
    return max(lines, key=lambda line: len(words & set(normalise(line).split())) / len(line.split()))


def _short(instruction: str) -> str:
    return instruction if len(instruction) <= 60 else instruction[:57] + "..."
