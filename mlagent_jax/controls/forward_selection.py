"""The best constant sequence of operations for some tasks, by greedy forward selection.

As in feature selection: each round tries every candidate after the sequence so far, and keeps the one with the highest
mean gain over the tasks, as long as there is one that helps. A sequence is played without looking: an operation that
does not apply changes nothing, and one whose script fails is undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mlagent_jax.controls.candidates import NUMBERS, Candidate, candidates_of, starter_pipeline
from mlagent_jax.controls.executions import Executions
from mlagent_jax.errors import UserError
from mlagent_jax.fields import check, setting
from mlagent_jax.pipelines.operation import Operation
from mlagent_jax.pipelines.operations import catalogue
from mlagent_jax.pipelines.pipeline import Pipeline
from mlagent_jax.pipelines.rendering import render
from mlagent_jax.rewards import Scale, task_scale
from mlagent_jax.tasks.task import Task


@dataclass(frozen=True)
class ConstantConfig:
    """length: operations of the sequence, at most.

    numbers: of each operation, "all" that it proposes, or only the "first" ones.
    shortlist: how many candidates, the best alone, are tried after the first round; 0 for all.
    """

    length: int = setting(5, at_least=1)
    numbers: str = setting("all", choices=NUMBERS)
    shortlist: int = setting(0, at_least=0)

    def __post_init__(self) -> None:
        check(self, "constant")


@dataclass(frozen=True)
class Trial:
    """One candidate, tried after the sequence so far.

    gains: the public score of each task after it, as a fraction of the way from the starter to m_best; what the
        sequence had before where the candidate does not apply, or its script fails. executions: scripts that it needs.
    """

    instruction: str
    operation: str
    gains: Mapping[str, float]
    executions: int

    @property
    def mean_gain(self) -> float:
        return sum(self.gains.values()) / len(self.gains)


@dataclass(frozen=True)
class Selection:
    """sequence: instructions, () if none helps. rounds: all that was tried; the first one has each candidate alone.

    executions: different scripts that were run, starters included.
    """

    sequence: tuple[str, ...]
    gains: Mapping[str, float]
    rounds: tuple[tuple[Trial, ...], ...]
    executions: int


@dataclass(frozen=True)
class Played:
    """Public and private scores of a task, of its starter and after a sequence."""

    starter: tuple[float, float]
    reached: tuple[float, float]

    def shares(self, m_best: float) -> tuple[float, float]:
        """Public and private gain, each of the way from the starter to m_best in public, as m_best is public."""
        way = m_best - self.starter[0]
        return (self.reached[0] - self.starter[0]) / way, (self.reached[1] - self.starter[1]) / way


@dataclass(frozen=True)
class _Reached:
    """Where a sequence has brought a task."""

    task: Task
    scale: Scale
    pipeline: Pipeline
    score: float
    private: float  # nothing is chosen by it

    @property
    def gain(self) -> float:
        return self.scale.gain(self.scale.m_init, self.score)


def select_sequence(
    tasks: Sequence[Task],
    executions: Executions,
    operations: Iterable[Operation],
    config: ConstantConfig | None = None,
) -> Selection:
    """Ties go to the candidate that comes first.

    Raises UserError if a starter is no pipeline's, a starter gives no score, or the sandbox fails.
    """
    config = config or ConstantConfig()
    candidates = candidates_of(operations, config.numbers)
    reached = _starters(tasks, executions)
    sequence: list[str] = []
    rounds: list[tuple[Trial, ...]] = []
    while candidates and len(sequence) < config.length:
        trials, after = _round(reached, executions, candidates, f" after {len(sequence)}")
        rounds.append(trials)
        best = max(range(len(trials)), key=lambda index: trials[index].mean_gain)
        if trials[best].mean_gain <= sum(each.gain for each in reached) / len(reached):
            break
        sequence.append(trials[best].instruction)
        reached = after[best]
        if len(rounds) == 1 and config.shortlist:
            ranked = sorted(range(len(trials)), key=lambda index: -trials[index].mean_gain)
            candidates = [candidates[index] for index in sorted(ranked[: config.shortlist])]
    gains = {each.task.name: each.gain for each in reached}
    return Selection(tuple(sequence), gains, tuple(rounds), executions.count)


def played(sequence: Sequence[str], tasks: Sequence[Task], executions: Executions) -> dict[str, Played]:
    """What a sequence brings each task. Raises UserError, as `select_sequence` does."""
    by_instruction = {candidate.instruction: candidate for candidate in candidates_of(catalogue().values())}
    begun = _starters(tasks, executions)
    reached = begun
    for instruction in sequence:
        reached = _round(reached, executions, [by_instruction[instruction]], " of the sequence")[1][0]
    return {
        one.task.name: Played((start.score, start.private), (one.score, one.private))
        for start, one in zip(begun, reached, strict=True)
    }


def _starters(tasks: Sequence[Task], executions: Executions) -> list[_Reached]:
    pipelines = [starter_pipeline(task.name, task.starter, "constant") for task in tasks]
    reached = []
    for task, pipeline, begun in zip(
        tasks, pipelines, executions.run([(task, task.starter) for task in tasks]), strict=True
    ):
        if begun.score is None or begun.private is None:
            raise UserError(f"the starter of task {task.name} gives no score; fix its train.py")
        reached.append(_Reached(task, task_scale(task, begun.score), pipeline, begun.score, begun.private))
    return reached


def _round(
    reached: Sequence[_Reached], executions: Executions, candidates: Sequence[Candidate], said: str
) -> tuple[tuple[Trial, ...], list[list[_Reached]]]:
    """Each candidate's trial, and where it brings the tasks."""
    changed = [[candidate.apply(each.pipeline) for each in reached] for candidate in candidates]
    asked = [
        (each.task, render(pipeline))
        for pipelines in changed
        for each, pipeline in zip(reached, pipelines, strict=True)
        if pipeline != each.pipeline
    ]
    with executions.open_bar(f"operations{said}", len(asked)) as bar:
        results = iter(executions.run(asked, bar))
    trials, after = [], []
    for candidate, pipelines in zip(candidates, changed, strict=True):
        brought, needed = [], 0
        for each, pipeline in zip(reached, pipelines, strict=True):
            if pipeline == each.pipeline:
                brought.append(each)
                continue
            run, needed = next(results), needed + 1
            if run.score is None or run.private is None:
                brought.append(each)
            else:
                brought.append(replace(each, pipeline=pipeline, score=run.score, private=run.private))
        gains = {each.task.name: each.gain for each in brought}
        trials.append(Trial(candidate.instruction, candidate.operation.id, gains, needed))
        after.append(brought)
    return tuple(trials), after
