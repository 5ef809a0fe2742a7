"""Operations with their numbers: what a control can do with a pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mlagent_jax.errors import UserError
from mlagent_jax.pipelines.metrics import problem_type
from mlagent_jax.pipelines.operation import Operation, Values
from mlagent_jax.pipelines.pipeline import Pipeline, PipelineError
from mlagent_jax.pipelines.reading import read

NUMBERS = ("all", "first")


@dataclass(frozen=True)
class Candidate:
    """instruction: how it is asked for, in the first wording that trajectories may hold; a name without duplicates."""

    operation: Operation
    values: Values
    instruction: str

    def apply(self, pipeline: Pipeline) -> Pipeline:
        """The changed pipeline; the same one if the operation does not apply."""
        if not self.operation.supports(pipeline.facts.kind, problem_type(pipeline.facts.metric)):
            return pipeline
        try:
            return self.operation(pipeline, self.values)
        except PipelineError:
            return pipeline


def candidates_of(operations: Iterable[Operation], numbers: str = "all") -> list[Candidate]:
    """Each operation in one wording, with each combination of the numbers that it proposes, or only the "first"."""
    found = []
    for operation in operations:
        grid = list(operation.param_grid())
        for values in grid if numbers == "all" else grid[:1]:
            found.append(Candidate(operation, values, operation.say(values)))
    return found


def starter_pipeline(task: str, starter: str, needed_by: str) -> Pipeline:
    """task: its name. needed_by: the agent's. Raises UserError if the starter is no pipeline's."""
    try:
        return read(starter)
    except PipelineError as error:
        raise UserError(
            f"the agent {needed_by!r} works on pipelines, but the starter of task {task} is none: {error}; leave one "
            "of the two out"
        ) from error
