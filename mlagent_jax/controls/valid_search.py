"""A search of a task's pipelines that passes over those that are known to fail."""

from __future__ import annotations

import functools
from pathlib import Path

from mlagent_jax.controls.pipeline_search import open_search
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.pipelines.pipeline import Pipeline
from mlagent_jax.pipelines.rendering import render
from mlagent_jax.pipelines.validity import validation_errors
from mlagent_jax.tasks.task import Task

_ASKED = 50  # pipelines asked for, at most, for each script: most that fail are known to fail beforehand


class ValidSearch:
    """A search that is told each script's score before it is asked for the next one.

    name: of `pipeline_search.SEARCHES`. starter: the task's, whose facts and columns all pipelines have.

    Attributes:
        given: scripts that it gave. skipped: pipelines that are known to fail and were not given.
    """

    def __init__(self, name: str, task: Task, starter: Pipeline, seed: int) -> None:
        columns = starter.columns if isinstance(starter.columns, tuple) else ()
        self._search = open_search(name, starter.facts, columns, seed)
        self._sign = 1.0 if METRICS[task.metric].higher_is_better else -1.0
        self._has_gaps = _gaps_in(task.data_dir)
        self.given = 0
        self.skipped = 0

    def next(self) -> str:
        """The next script that may run; "" if none is found."""
        self.given += 1
        for _ in range(_ASKED):
            pipeline = self._search.ask()
            if not validation_errors(pipeline, self._has_gaps):
                return render(pipeline)
            self._search.tell(None)
            self.skipped += 1
        return ""

    def tell(self, score: float | None) -> None:
        """The public score of the script that `next` returned last; None if it has none."""
        self._search.tell(None if score is None else self._sign * score)


@functools.lru_cache(maxsize=64)
def _gaps_in(data_dir: Path) -> bool:
    """Whether a table of a task has empty cells, which some estimators refuse."""
    import pandas as pd

    paths = (data_dir / f"{part}.csv" for part in ("train", "test"))
    tables = (pd.read_csv(path, low_memory=False) for path in paths if path.is_file())
    return any(bool(table.isna().any(axis=None)) for table in tables)
