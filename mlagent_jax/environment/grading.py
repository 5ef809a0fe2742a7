"""Grades a submission outside every sandbox, against labels that were never inside one.

What an agent wrote is untrusted: it is read with a size cap, never evaluated, and no bytes make `grade`
raise.
"""

from __future__ import annotations

import csv
import functools
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlagent_jax.environment.metrics import METRICS, Metric, Prediction
from mlagent_jax.environment.task import Task
from mlagent_jax.errors import UserError

SUBMISSION = "submission.csv"
BYTES_PER_VALUE = 256  # generous for any number, id or class name; bounds a submission's size


@dataclass(frozen=True)
class Graded:
    """Scores of a valid submission: `public` is the reward's, `private` the evaluation's."""

    public: float
    private: float


@dataclass(frozen=True)
class Invalid:
    """Why a submission was not graded: one sentence, written for the agent that made it."""

    reason: str


class LabelsError(UserError):
    """The held-out labels cannot be used; the task's or the data root's fault, never the agent's."""


@dataclass(frozen=True)
class Truth:
    """Held-out labels. row_of: id -> row. values [n, t]: float, or str for classes. public [n]: bool."""

    row_of: dict[str, int]
    values: np.ndarray
    public: np.ndarray


class _Refused(Exception):
    """Carries the reason of an `Invalid`."""


def grade(task: Task, submission: bytes | None) -> Graded | Invalid:
    """Scores the bytes of `submission.csv` (None if there is no such file) on both splits.

    A submission is a UTF-8 CSV with exactly the id column and the target columns, in any order, and one
    row for each id of the test data, in any order. Raises LabelsError only.
    """
    truth = read_truth(task)
    metric = METRICS[task.metric]
    try:
        predicted = _parse(task, metric, truth, submission)
    except _Refused as refused:
        return Invalid(str(refused))
    public = metric.score(truth.values[truth.public], predicted[truth.public])
    private = metric.score(truth.values[~truth.public], predicted[~truth.public])
    if not (math.isfinite(public) and math.isfinite(private)):
        return Invalid(f"{SUBMISSION} has predictions so large that its {metric.name} is not finite.")
    return Graded(public, private)


def read_truth(task: Task) -> Truth:
    """The held-out labels of `task`, read once per content. Raises LabelsError."""
    return _read_truth(task.labels_path, task.data_digest, task.id_column, task.target_columns, task.metric)


@functools.lru_cache(maxsize=64)
def _read_truth(path: Path, digest: str, id_column: str, targets: tuple[str, ...], metric_name: str) -> Truth:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        metric = METRICS[metric_name]
        as_class = metric.prediction is Prediction.CLASS
        cells = [[row[target] if as_class else float(row[target]) for target in targets] for row in rows]
        truth = Truth(
            row_of={row[id_column]: i for i, row in enumerate(rows)},
            values=np.array(cells, dtype=str if as_class else float),
            public=np.array([row["split"] == "public" for row in rows], dtype=bool),
        )
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise LabelsError(f"cannot read the labels at {path}: {type(error).__name__}: {error}") from error
    if len(truth.row_of) != len(rows):
        raise LabelsError(f"the labels at {path} name the same id twice")
    for name, part in (("public", truth.values[truth.public]), ("private", truth.values[~truth.public])):
        _check_part(path, name, part, metric)
    return truth


def _check_part(path: Path, name: str, values: np.ndarray, metric: Metric) -> None:
    """What a metric needs in order to be defined on one split."""
    if len(values) == 0:
        raise LabelsError(f"the labels at {path} have no {name} row")
    if metric.prediction is Prediction.CLASS:
        return
    if not np.isfinite(values).all():
        raise LabelsError(f"the labels at {path} have a target that is not a finite number")
    if metric.prediction is Prediction.NON_NEGATIVE and values.min() < 0:
        raise LabelsError(
            f"the labels at {path} have a target below 0, for which {metric.name} is not defined"
        )
    if metric.binary and not np.isin(values, (0.0, 1.0)).all():
        raise LabelsError(f"the labels at {path} have targets other than 0 and 1, which {metric.name} needs")
    if metric.name == "auc" and len(np.unique(values)) != 2:
        raise LabelsError(f"the {name} labels at {path} are all of one class, for which auc is not defined")


def _parse(task: Task, metric: Metric, truth: Truth, submission: bytes | None) -> np.ndarray:
    """Predictions [n, t] in the order of `truth`."""
    if submission is None:
        raise _Refused(f"The script wrote no {SUBMISSION}.")
    n, columns = len(truth.values), (task.id_column, *task.target_columns)
    cap = BYTES_PER_VALUE * len(columns) * (n + 1)
    if len(submission) > cap:
        raise _Refused(f"{SUBMISSION} has {len(submission):,} bytes; at most {cap:,} are read.")
    try:
        reader = csv.reader(io.StringIO(submission.decode("utf-8-sig"), newline=""), strict=True)
        header = next(reader, [])
        positions = _positions(header, columns)
        predicted = np.empty(
            truth.values.shape, dtype=object if metric.prediction is Prediction.CLASS else float
        )
        seen = np.zeros(n, dtype=bool)
        for number, cells in enumerate(reader, start=1):
            if not cells:
                continue  # a blank line
            if len(cells) != len(columns):
                raise _Refused(
                    f"Row {number} of {SUBMISSION} has {_count(len(cells), 'value')};"
                    f" expected {len(columns)}."
                )
            identity = cells[positions[0]].strip()
            row = truth.row_of.get(identity)
            if row is None:
                raise _Refused(f"{SUBMISSION} has an id that is not in the test data: {_show(identity)}.")
            if seen[row]:
                raise _Refused(f"{SUBMISSION} has the id {_show(identity)} more than once.")
            seen[row] = True
            for t, position in enumerate(positions[1:]):
                predicted[row, t] = _value(task, metric, columns[1 + t], identity, cells[position].strip())
    except UnicodeDecodeError:
        raise _Refused(f"{SUBMISSION} is not UTF-8 text.") from None
    except csv.Error as error:
        raise _Refused(f"{SUBMISSION} is not a well-formed CSV file: {error}.") from None
    if not seen.all():
        missing = next(identity for identity, row in truth.row_of.items() if not seen[row])
        raise _Refused(
            f"{SUBMISSION} lacks {_count(int((~seen).sum()), 'row')} of {n},"
            f" the first for id {_show(missing)}."
        )
    return predicted.astype(str) if metric.prediction is Prediction.CLASS else predicted


def _positions(header: list[str], columns: tuple[str, ...]) -> list[int]:
    """Where each of `columns` stands in the header."""
    names = [name.strip() for name in header]
    if sorted(names) != sorted(columns):
        found = ", ".join(_show(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
        hint = " (write it with index=False)" if names[:1] == [""] and len(names) > 1 else ""
        raise _Refused(
            f"{SUBMISSION} needs the columns {', '.join(columns)}; found {found or 'nothing'}{hint}."
        )
    return [names.index(column) for column in columns]


def _value(task: Task, metric: Metric, column: str, identity: str, text: str) -> float | str:
    where = f"{column} of id {_show(identity)} is {_show(text)}"
    if metric.prediction is Prediction.CLASS:
        name = _class_name(text, task.classes)
        if name is None:
            raise _Refused(f"{where}; expected one of the classes {_list_classes(task.classes)}.")
        return name
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        number = math.nan
    low, high = _BOUNDS[metric.prediction]
    if not (math.isfinite(number) and low <= number <= high):
        raise _Refused(f"{where}; expected {metric.prediction.value}.")
    return number


_BOUNDS = {
    Prediction.NUMBER: (-math.inf, math.inf),
    Prediction.NON_NEGATIVE: (0.0, math.inf),
    Prediction.PROBABILITY: (0.0, 1.0),
}


def _class_name(text: str, classes: tuple[str, ...]) -> str | None:
    """`text` as a class; "3.0" counts as the class "3", since data frames with gaps turn ints to floats."""
    if text in classes:
        return text
    whole = text.removesuffix(".0")
    return whole if whole in classes else None


def _list_classes(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _show(text: str) -> str:
    """An agent's own text, short and with control characters escaped."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
