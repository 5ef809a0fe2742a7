"""Searches for the best public score that pipelines reach on a task; executions are cached across runs."""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.controls.executions import execute
from mlagent_jax.errors import UserError
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.pipelines.pipeline import PipelineError
from mlagent_jax.pipelines.reading import read
from mlagent_jax.pipelines.rendering import render
from mlagent_jax.pipelines.search import open_search
from mlagent_jax.pipelines.validity import validation_errors
from mlagent_jax.sandbox.interface import Sandbox
from mlagent_jax.tasks.task import Task

_ASKED = 50  # pipelines asked for, at most, for each execution: most that fail are known to fail beforehand


@dataclass(frozen=True)
class SearchResult:
    """starter, best: public scores; if nothing was better, `best` and `script` are the starter's.

    executions: scripts that were run. failed: those of them that gave no score. skipped: known to fail, not run.
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
    sign = 1.0 if METRICS[task.metric].higher_is_better else -1.0
    has_gaps = gaps_in(task)
    columns = begun.columns if isinstance(begun.columns, tuple) else ()
    asked = open_search(search, begun.facts, columns, seed)
    best, script, run, failed, skipped = starter, task.starter, 0, 0, 0
    while run < executions and run + skipped < _ASKED * executions:
        pipeline = asked.ask()
        if validation_errors(pipeline, has_gaps):
            skipped += 1
            asked.tell(None)
            continue
        text = render(pipeline)
        score = execute(task, sandbox, text).score
        run += 1
        failed += score is None
        asked.tell(None if score is None else sign * score)
        if score is not None and sign * score > sign * best:
            best, script = score, text
    return SearchResult(starter, best, script, run, failed, skipped)


def gaps_in(task: Task) -> bool:
    """Whether a table of the task has empty cells, which some estimators refuse."""
    import pandas as pd

    paths = (task.data_dir / f"{part}.csv" for part in ("train", "test"))
    tables = (pd.read_csv(path, low_memory=False) for path in paths if path.is_file())
    return any(bool(table.isna().any(axis=None)) for table in tables)
