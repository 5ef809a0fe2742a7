"""The held-out labels of a task, which the harness keeps outside every sandbox."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mlagent_jax.errors import UserError
from mlagent_jax.grading.metrics import METRICS, Metric, TrueValues
from mlagent_jax.grading.spec import GradingSpec

SPLITS = ("public", "private", "unscored")


class LabelsError(UserError):
    """The held-out labels cannot be used. The task or the data root is at fault, never the agent."""


@dataclass(frozen=True)
class Truth:
    """The held-out labels of n test rows, in the order of the test data.

    row_of: id -> row.
    values: float, or str where predictions are text. t is the number of target columns, or of values in one row of the
        target array.
    row_shape: the shape of one row of the target array; (t,) for target columns.
    public, private: the rows of each split. A row may be in neither: it must be predicted, but is not scored.
    """

    row_of: dict[str, int]
    values: Shaped[np.ndarray, "n t"]
    row_shape: tuple[int, ...]
    public: Bool[np.ndarray, " n"]
    private: Bool[np.ndarray, " n"]


def read_truth(spec: GradingSpec) -> Truth:
    """The held-out labels of a task, cached by the digest of its data. Raises LabelsError."""
    return _read_truth(
        spec.labels_path,
        spec.data_digest,
        spec.id_column,
        spec.target_columns,
        spec.target_array,
        spec.metrics,
    )


def array_path(labels_path: Path) -> Path:
    """The file with the labels of a target array, next to the table of ids and splits."""
    return labels_path.with_suffix(".npy")


@functools.lru_cache(maxsize=64)
def _read_truth(
    path: Path,
    digest: str,
    id_column: str,
    targets: tuple[str, ...],
    target_array: str,
    metric_names: tuple[str, ...],
) -> Truth:
    metrics = [METRICS[name] for name in metric_names]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if target_array:
            array = np.load(array_path(path), allow_pickle=False)
            values, row_shape = array.reshape(len(array), -1).astype(float), array.shape[1:]
        else:
            as_text = metrics[0].prediction.is_text
            cells = [[row[t] if as_text else _number(row[t]) for t in targets] for row in rows]
            values, row_shape = np.array(cells, dtype=str if as_text else float), (len(targets),)
        truth = Truth(
            row_of={row[id_column]: i for i, row in enumerate(rows)},
            values=values,
            row_shape=row_shape,
            public=np.array([row["split"] == "public" for row in rows], dtype=bool),
            private=np.array([row["split"] == "private" for row in rows], dtype=bool),
        )
        unknown = {row["split"] for row in rows} - set(SPLITS)
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise LabelsError(f"cannot read the labels at {path}: {type(error).__name__}: {error}") from error
    if unknown:
        raise LabelsError(
            f"the labels at {path} have the split {min(unknown)!r}; the splits are {', '.join(SPLITS)}"
        )
    if not len(truth.row_of) == len(rows) == len(values):
        raise LabelsError(f"the labels at {path} repeat an id, or their number differs from that of the ids")
    for name, part in (("public", values[truth.public]), ("private", values[truth.private])):
        if len(part) == 0:
            raise LabelsError(f"the labels at {path} have no {name} row")
        for metric in metrics:
            _check_split(path, name, part, metric)
    return truth


def _number(text: str) -> float:
    """A number; booleans, as pandas writes them, count as 0 and 1."""
    return _BOOLEANS[text] if text in _BOOLEANS else float(text)


_BOOLEANS = {"True": 1.0, "False": 0.0}


def _check_split(path: Path, name: str, values: Shaped[np.ndarray, "n t"], metric: Metric) -> None:
    """Raises LabelsError unless the metric is defined on the labels of one split."""
    if metric.prediction.is_text:
        return
    if not np.isfinite(values).all():
        raise LabelsError(f"the labels at {path} have a target that is not a finite number")
    if problem := _why_undefined(values, metric.truth):
        raise LabelsError(f"the {name} labels at {path} {problem}, so {metric.name} is not defined on them")


def _why_undefined(values: Float[np.ndarray, "n t"], rule: TrueValues) -> str:
    """What is wrong with these labels, as the end of "the labels ...", or ""."""
    match rule:
        case TrueValues.NON_NEGATIVE if values.min() < 0:
            return "have a target below 0"
        case TrueValues.BINARY | TrueValues.BOTH_CLASSES if not np.isin(values, (0.0, 1.0)).all():
            return "have targets other than 0 and 1"
        case TrueValues.BOTH_CLASSES if (values.min(axis=0) == values.max(axis=0)).any():
            return "are all of one class"
        case TrueValues.GREY if values.min() < 0 or values.max() > 255:
            return "have a value outside 0 to 255"
        case TrueValues.WHOLE_VARIED if (values != np.round(values)).any():
            return "have a target that is not a whole number"
        case TrueValues.VARIED | TrueValues.WHOLE_VARIED if values.min() == values.max():
            return "are all the same"
    return ""
