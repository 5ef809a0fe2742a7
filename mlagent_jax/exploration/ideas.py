"""Writers of candidate ideas: one line each, on one of three axes or on all."""

from __future__ import annotations

import random
from typing import Protocol

from mlagent_jax.errors import UserError
from mlagent_jax.pipelines import instructions
from mlagent_jax.pipelines.operations import AXES
from mlagent_jax.pipelines.pipeline import TASK_KINDS, kind_of, problem_type_of
from mlagent_jax.tasks.task import Task

__all__ = ["AXES", "IdeaError", "IdeaWriter", "ScriptedIdeaWriter"]


class IdeaError(UserError):
    """There are no ideas for a task, or too few."""


class IdeaWriter(Protocol):
    @property
    def name(self) -> str: ...

    def write(self, task: Task, axis: str | None, count: int) -> list[str]:
        """At most `count` one-line ideas, on an axis of `AXES` or on all. Raises IdeaError if there are none."""
        ...


class ScriptedIdeaWriter:
    """Ideas from the operations of pipelines, good and bad, shuffled by the seed."""

    name = "scripted"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def write(self, task: Task, axis: str | None, count: int) -> list[str]:
        """Tasks of the same kind get the same ideas. Raises IdeaError for a kind without ideas."""
        kind = kind_of(task.kind)
        if not kind:
            raise IdeaError(
                f"the scripted idea writer has no ideas for task {task.name} of kind {task.kind!r}; it knows kinds "
                f"that begin with {', '.join(TASK_KINDS)}; set config.models.idea_writer to a language model"
            )
        lines = list(instructions.lines(kind, problem_type_of(task.kind), axis))
        random.Random(f"{self._seed}/{task.name}/{axis}").shuffle(lines)
        return lines[:count]
