"""Who writes candidate ideas: one line each, on one of three axes or on any."""

from __future__ import annotations

import random
from typing import Protocol

from mlagent_jax.agent.edits import catalogue
from mlagent_jax.errors import UserError
from mlagent_jax.tasks.task import Task

AXES = catalogue.AXES


class IdeaError(UserError):
    """There are no ideas, or too few, for a task."""


class IdeaWriter(Protocol):
    @property
    def name(self) -> str: ...

    def write(self, task: Task, axis: str | None, count: int) -> list[str]:
        """At most `count` one-line ideas, on an axis of `AXES` or on all. Raises IdeaError if none."""
        ...

    def forget(self, task: str) -> None:
        """Says that what was written for a task is stored, so that nothing has to be kept for a second start."""
        ...


class ScriptedIdeaWriter:
    """Draws on the scripted coder's catalogue, good, bad and faulty ideas alike, shuffled by the seed."""

    name = "scripted"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def write(self, task: Task, axis: str | None, count: int) -> list[str]:
        """Tasks of a kind share their wordings. Raises IdeaError for a kind without ideas."""
        lines = catalogue.ideas(task.kind, axis)
        if not lines:
            kinds = ", ".join(sorted({kind for edit in catalogue.CATALOGUE for kind in edit.kinds}))
            raise IdeaError(
                f"the scripted idea writer has no ideas for task {task.name} of kind {task.kind!r}; "
                f"it knows {kinds}; use an endpoint as idea writer, or change the task's kind"
            )
        random.Random(f"{self._seed}/{task.name}/{axis}").shuffle(lines)
        return lines[:count]

    def forget(self, task: str) -> None:
        """It keeps nothing."""
