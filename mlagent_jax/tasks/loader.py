"""Loads a task with its prepared data, for the environment."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mlagent_jax.grading.labels import read_truth
from mlagent_jax.grading.metrics import METRICS, Prediction
from mlagent_jax.tasks.preparation import find_prepared
from mlagent_jax.tasks.splitting import MAX_CLASSES
from mlagent_jax.tasks.task import Task
from mlagent_jax.tasks.task_file import TaskError, read_task_file


def load_task(name_or_path: str | Path, tasks_dir: Path, data_root: Path, micro: bool = False) -> Task:
    """Loads a task, given by the name of a folder in `tasks_dir` or by the path (with a "/") of any folder.

    micro: load its small version, of at most 100 training and 100 test rows.

    Raises:
        TaskError: the folder is not valid, or its data are not prepared.
        PreparationError: the prepared data are damaged.
        LabelsError: the labels cannot be graded against.
    """
    task_file = read_task_file(name_or_path, tasks_dir)
    prepared = find_prepared(task_file, data_root, micro)
    if prepared is None:
        raise TaskError(
            f"the data of task {task_file.name} are not prepared in {data_root}; run"
            f" `python -m experiments.tasks prepare {name_or_path} --data_root={data_root}{' --micro' * micro}`"
        )
    predicts_classes = METRICS[task_file.metric].prediction is Prediction.CLASS
    if predicts_classes and not prepared.classes:
        raise TaskError(
            f"task {task_file.name} has more than {MAX_CLASSES} classes, too many for the metric"
            f" {task_file.metric}"
        )
    fields = {field.name: getattr(task_file, field.name) for field in dataclasses.fields(task_file)}
    del fields["folder"]
    task = Task(
        **fields,
        data_dir=prepared.public_dir,
        labels_path=prepared.labels_path,
        data_digest=prepared.digest,
        classes=prepared.classes if predicts_classes else (),
    )
    read_truth(task)  # finds unusable labels now, not after an hour of work
    return task
