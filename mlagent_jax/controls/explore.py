"""Searches for the best public score that pipelines reach on a task; executions are cached across runs."""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.controls.executions import execute
from mlagent_jax.controls.valid_search import ValidSearch
from mlagent_jax.errors import UserError
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.pipelines.pipeline import PipelineError
from mlagent_jax.pipelines.reading import read
from mlagent_jax.sandbox.interface import Sandbox
from mlagent_jax.tasks.task import Task


@dataclass(frozen=True)
class SearchResult:
    """starter, best: public scores; if nothing was better, `best` and `script` are the starter's.

    executions: scripts that were run; fewer than asked for if the search finds no more that may run. failed: those of
        them that gave no score. skipped: pipelines that are known to fail and were not run.
    """

    starter: float
    best: float
    script: str
    executions: int
    failed: int
    skipped: int


def explore(task: Task, sandbox: Sandbox, search: str, executions: int, seed: int = 0) -> SearchResult:
    """Runs `executions` pipelines of the task's facts that a search asks for.

    The same arguments run the same scripts, so with a sandbox that remembers results an interrupted exploration goes
    on where it stopped. Raises UserError if the starter is no pipeline or gives no score.
    """
    try:
        begun = read(task.starter)
    except PipelineError as error:
        raise UserError(f"task {task.name} cannot be explored: {error}") from error
    starter = execute(task, sandbox, task.starter).score
    if starter is None:
        raise UserError(f"task {task.name} cannot be explored: its starter gives no score")
    is_better = METRICS[task.metric].is_better
    asked = ValidSearch(search, task, begun, seed)
    best, script, run, failed = starter, task.starter, 0, 0
    while run < executions and (text := asked.next()):
        score = execute(task, sandbox, text).score
        run += 1
        failed += score is None
        asked.tell(score)
        if score is not None and is_better(score, best):
            best, script = score, text
    return SearchResult(starter, best, script, run, failed, asked.skipped)
