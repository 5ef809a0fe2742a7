"""Loads a task whose data are prepared: what the environment works on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mlagent_jax.grading.labels import read_truth
from mlagent_jax.grading.metrics import METRICS, Prediction
from mlagent_jax.tasks.preparation import find_prepared
from mlagent_jax.tasks.splitting import MOST_CLASSES
from mlagent_jax.tasks.task import Task
from mlagent_jax.tasks.task_file import TaskError, read_task_file


def load_task(name_or_path: str | Path, tasks_dir: Path, data_root: Path, micro: bool = False) -> Task:
    """The task `name_or_path`: a folder's name in `tasks_dir`, or the path (with a "/") of a folder anywhere.

    micro: its small version, of at most 100 training and 100 test rows.
    Raises TaskError for the folder, PreparationError for damaged data, LabelsError for labels that cannot be
    graded.
    """
    task_file = read_task_file(name_or_path, tasks_dir)
    prepared = find_prepared(task_file, data_root, micro)
    if prepared is None:
        raise TaskError(
            f"the data of task {task_file.name} are not prepared in {data_root}; run"
            f" `python -m experiments.tasks prepare {name_or_path} --data_root={data_root}{' --micro' * micro}`"
        )
    over_classes = METRICS[task_file.metric].prediction is Prediction.CLASS
    if over_classes and not prepared.classes:
        raise TaskError(
            f"task {task_file.name} has more than {MOST_CLASSES} classes, too many to grade by"
            f" {task_file.metric}"
        )
    fields = {field.name: getattr(task_file, field.name) for field in dataclasses.fields(task_file)}
    del fields["folder"]
    task = Task(
        **fields,
        data_dir=prepared.public_dir,
        labels_path=prepared.labels_path,
        data_digest=prepared.digest,
        classes=prepared.classes if over_classes else (),
    )
    read_truth(task)  # labels that cannot be graded are found now, not after an hour of work
    return task
