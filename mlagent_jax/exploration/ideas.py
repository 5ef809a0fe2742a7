"""Writers of candidate ideas: one line each, on one of three axes or on all."""

from __future__ import annotations

import random
from typing import Protocol

from mlagent_jax.agent.edits import catalogue
from mlagent_jax.errors import UserError
from mlagent_jax.tasks.task import Task

AXES = catalogue.AXES


class IdeaError(UserError):
    """There are no ideas for a task, or too few."""


class IdeaWriter(Protocol):
    @property
    def name(self) -> str: ...

    def write(self, task: Task, axis: str | None, count: int) -> list[str]:
        """At most `count` one-line ideas, on an axis of `AXES` or on all. Raises IdeaError if there are none."""
        ...

    def forget(self, task: str) -> None:
        """Called once a task's ideas are stored: the writer may drop what it kept to resume an interrupted run."""
        ...


class ScriptedIdeaWriter:
    """Ideas from the scripted coder's catalogue, whether good, bad or faulty, shuffled by the seed."""

    name = "scripted"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def write(self, task: Task, axis: str | None, count: int) -> list[str]:
        """Tasks of the same kind get the same ideas. Raises IdeaError for a kind without ideas."""
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
        """This writer keeps nothing."""
