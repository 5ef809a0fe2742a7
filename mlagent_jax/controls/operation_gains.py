"""What each single operation brings on each task's starter, and the rules that the suite keeps about it.

An operation that brings much on many tasks would be learnt as one sentence. So none may bring more than `LARGE` of
what can be gained on more than `MANY` of the tasks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlagent_jax.controls.candidates import candidates_of
from mlagent_jax.controls.executions import execute
from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.pipelines.operation import Operation
from mlagent_jax.pipelines.operations import catalogue
from mlagent_jax.pipelines.pipeline import Pipeline, PipelineError
from mlagent_jax.pipelines.reading import read
from mlagent_jax.pipelines.rendering import render
from mlagent_jax.sandbox.interface import Sandbox
from mlagent_jax.tasks.task import Task

LARGE = 0.1  # of the way from the starter to m_best
MANY = 1 / 3  # of the tasks

Scores = tuple[float, float]


@dataclass(frozen=True)
class TaskGains:
    """Public and private scores on one task.

    scripts: digest of the starter and of all scripts that were run, so that a change of any of them shows.
    starter: its scores. operations: by id, the scores with the numbers that are best in public; None if all failed.
    """

    scripts: str
    starter: Scores
    operations: Mapping[str, Scores | None] = field(default_factory=dict)


def changes(starter: Pipeline, numbers: str) -> Iterator[tuple[Operation, Pipeline]]:
    """Each operation that changes the starter, and what it makes of it.

    numbers: "all" that an operation proposes, or the "first" with which it changes anything.
    """
    seen: set[str] = set()
    for candidate in candidates_of(catalogue().values()):
        name = candidate.operation.id
        changed = candidate.apply(starter)
        if changed != starter and not (numbers == "first" and name in seen):
            seen.add(name)
            yield candidate.operation, changed


def digest(script: str, numbers: str) -> str:
    """Of a starter and of all that single operations make of it. Raises PipelineError if it is no pipeline."""
    scripts = [script, *(render(changed) for _, changed in changes(read(script), numbers))]
    return hashlib.sha256("\0".join(scripts).encode()).hexdigest()[:16]


def single_gains(task: Task, sandbox: Sandbox, numbers: str) -> TaskGains:
    """Runs what each operation makes of the starter. Raises UserError if that is no pipeline or gives no score."""
    try:
        pipeline = read(task.starter)
    except PipelineError as error:
        raise UserError(f"task {task.name} has no operations: {error}") from error
    begun = execute(task, sandbox, task.starter)
    if begun.score is None or begun.private is None:
        raise UserError(f"the starter of task {task.name} gives no score; fix its train.py")
    found: dict[str, Scores | None] = {}
    for operation, changed in changes(pipeline, numbers):
        run = execute(task, sandbox, render(changed))
        best = found.setdefault(operation.id, None)
        if run.score is None or run.private is None:
            continue
        if best is None or METRICS[task.metric].is_better(run.score, best[0]):
            found[operation.id] = run.score, run.private
    return TaskGains(digest(task.starter, numbers), (begun.score, begun.private), found)


def shares(gains: TaskGains, m_best: float) -> dict[str, float]:
    """The share of the way from the starter to m_best (public) that each operation brings; 0 for one that failed."""
    start = gains.starter[0]
    return {
        name: 0.0 if scores is None else (scores[0] - start) / (m_best - start)
        for name, scores in gains.operations.items()
    }


def strong(by_task: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """Operations that bring more than `LARGE` on more than `MANY` of the tasks, and on which. by_task: see `shares`."""
    found: dict[str, list[str]] = {}
    for name in catalogue():
        tasks = [task for task, brought in by_task.items() if brought.get(name, 0.0) > LARGE]
        if len(tasks) > MANY * len(by_task):
            found[name] = tasks
    return found


def write_gains(path: Path, numbers: str, gains: Mapping[str, TaskGains]) -> None:
    """Adds the gains of some tasks to a file, in which those of others stay."""
    known = read_gains(path)[1] if path.is_file() and read_gains(path)[0] == numbers else {}
    tasks = {name: asdict(one) for name, one in sorted((known | dict(gains)).items())}
    lines = ",\n".join(f"{json.dumps(name)}: {_dumped(one)}" for name, one in tasks.items())
    command = "python -m experiments.tasks gains --suite=offline"
    write_atomically(
        path,
        f'{{"command": {json.dumps(command)},\n"numbers": {json.dumps(numbers)},\n"tasks": {{\n{lines}\n}}}}\n',
    )


def _dumped(one: dict[str, Any]) -> str:
    """A line for each operation, so that a difference can be read."""
    operations = ",\n  ".join(
        f"{json.dumps(name)}: {json.dumps(_short(scores))}" for name, scores in one["operations"].items()
    )
    head = f'"scripts": {json.dumps(one["scripts"])}, "starter": {json.dumps(_short(one["starter"]))}'
    return f'{{{head}, "operations": {{\n  {operations}}}}}'


def _short(scores: Scores | None) -> list[float] | None:
    return None if scores is None else [float(f"{score:.6g}") for score in scores]


def read_gains(path: Path) -> tuple[str, dict[str, TaskGains]]:
    """Which numbers were tried, and the gains of each task. Raises UserError."""
    try:
        stored = json.loads(path.read_text())
        tasks = {
            name: TaskGains(
                one["scripts"],
                tuple(one["starter"]),
                {key: scores and tuple(scores) for key, scores in one["operations"].items()},
            )
            for name, one in stored["tasks"].items()
        }
        return stored["numbers"], tasks
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no gains ({error}); delete it and run `tasks gains` again") from error
