"""What grading a submission of 10,000 rows takes, with reading it in a process of low privilege.

    python -m experiments.benchmarks.grading

One column by RMSE, ten classes by macro-F1, and 99 columns of probabilities by log-loss. The first submission of a run
also waits for that process to start; it is not counted. Bar: 0.2 s.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from absl import flags

from experiments.cli.program import run_program
from mlagent_jax.grading.grade import Graded, grade
from mlagent_jax.sandbox.interface import Limits
from mlagent_jax.tasks.task import Task

REPEATS = flags.DEFINE_integer("repeats", 15, "Timed submissions of each kind.", lower_bound=1)
ROWS, BAR = 10_000, 0.2


def main(argv: Sequence[str]) -> None:
    del argv
    medians = []
    with tempfile.TemporaryDirectory() as folder:
        print(f"{ROWS:,} rows, medians of {REPEATS.value}, load average {os.getloadavg()[0]:.1f}")
        for name, task, submission in _cases(Path(folder)):
            grade(task, submission)
            seconds = []
            for _ in range(REPEATS.value):
                begun = time.perf_counter()
                graded = grade(task, submission)
                seconds.append(time.perf_counter() - begun)
                assert isinstance(graded, Graded), graded
            medians.append(statistics.median(seconds))
            print(f"{name:<34}{medians[-1]:.3f} s ({min(seconds):.3f} to {max(seconds):.3f})", flush=True)
    print(f"bar: {BAR} s: {'met' if max(medians) <= BAR else 'MISSED'}")


def _cases(folder: Path) -> Iterator[tuple[str, Task, bytes]]:
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame({"y": rng.normal(size=ROWS)})
    yield "1 column, rmse", *_case(folder, "rmse", numbers, numbers + 0.1)
    classes = tuple(f"class {number}" for number in range(10))
    named = pd.DataFrame({"y": rng.choice(classes, ROWS)})
    yield (
        "10 classes, macro_f1",
        *_case(folder, "macro_f1", named, named[::-1].reset_index(drop=True), classes),
    )
    columns = [f"p{number}" for number in range(99)]
    true = pd.DataFrame(np.eye(99)[rng.integers(0, 99, ROWS)], columns=columns)
    guessed = pd.DataFrame(rng.dirichlet(np.ones(99), ROWS), columns=columns)
    yield "99 columns, log_loss", *_case(folder, "log_loss", true, guessed)


def _case(
    folder: Path, metric: str, true: pd.DataFrame, guessed: pd.DataFrame, classes: tuple[str, ...] = ()
) -> tuple[Task, bytes]:
    ids = [f"{number:05d}" for number in range(ROWS)]
    labels = folder / f"{metric}.csv"
    splits = np.where(np.arange(ROWS) % 2, "public", "private")
    true.assign(split=splits).set_index(pd.Index(ids, name="id")).to_csv(labels)
    task = Task(
        name=metric,
        title="benchmark",
        brief="",
        description="",
        kind="tabular",
        split="held_in",
        metric=metric,
        id_column="id",
        target_columns=tuple(true.columns),
        m_best=0.0,
        m_best_source="none",
        starter="",
        limits=Limits(),
        show_public_score=True,
        data_dir=folder,
        labels_path=labels,
        data_digest=metric,
        classes=classes,
    )
    return task, guessed.set_index(pd.Index(ids, name="id")).to_csv().encode()


if __name__ == "__main__":
    run_program(main)
