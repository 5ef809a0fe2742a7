"""Splits labelled rows into visible training data, test data without labels, and held-out labels.

The same for every task: duplicates removed, rows shuffled, ids that say nothing, halves by a hash.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlagent_jax.grading.labels import SPLITS
from mlagent_jax.tasks.labelled import LabelledRows, PreparationError, SplitFiles
from mlagent_jax.tasks.table_bytes import to_csv
from mlagent_jax.tasks.task_file import TaskFile

if TYPE_CHECKING:
    import pandas as pd

SEED = 0
MOST_CLASSES = 1000
MICRO_TRAIN = 100
MICRO_TEST = 100


@dataclass(frozen=True)
class SplitData:
    """What is written. public: path below the public folder -> content or file. counts: for the manifest."""

    public: Mapping[str, bytes | Path]
    labels: bytes
    label_array: bytes | None
    classes: list[str]
    counts: dict[str, int]


def split_rows(task: TaskFile, labelled: LabelledRows, micro: bool = False) -> SplitData:
    """micro: at most 100 training and 100 test rows, of the same rows. Raises PreparationError."""
    targets, rows = list(task.target_columns), labelled.rows.reset_index(drop=True)
    arrays = {name: np.asarray(array) for name, array in labelled.arrays.items()}
    _check_rows(task, rows, arrays)
    features = {name: array for name, array in arrays.items() if name != task.target_array}
    unique = _first_of_each(rows.drop(columns=targets), features)
    order = np.array(_shuffled(unique, "rows"))
    dropped = len(labelled.rows) - len(order)
    train_rows, test_rows = labelled.train_rows, len(order) - labelled.train_rows
    if train_rows < 1 or test_rows < 2:
        raise PreparationError(
            f"task {task.name} has {len(order)} distinct rows, too few for train_rows ="
            f" {train_rows} and two test rows"
        )
    if micro:
        order = np.concatenate([order[:train_rows][:MICRO_TRAIN], order[train_rows:][:MICRO_TEST]])
        train_rows, test_rows = min(train_rows, MICRO_TRAIN), min(test_rows, MICRO_TEST)
    rows = rows.iloc[order].reset_index(drop=True)
    rows.insert(0, task.id_column, np.arange(len(rows)))
    train, test = rows[:train_rows], rows[train_rows:]
    labels = _with_halves(test[[task.id_column, *targets]], task.id_column)

    public = {"train.csv": to_csv(train), "test.csv": to_csv(test.drop(columns=targets))}
    for name, array in arrays.items():
        public[f"train_{name}.npy"] = _npy(array[order[:train_rows]])
        if name in features:
            public[f"test_{name}.npy"] = _npy(array[order[train_rows:]])
    for name, pairs in labelled.links.items():
        public[f"{name}.csv"] = to_csv(_renumbered(task, name, np.asarray(pairs), order, len(labelled.rows)))
    return SplitData(
        public,
        to_csv(labels),
        _npy(arrays[task.target_array][order[train_rows:]]) if task.target_array else None,
        _classes(to_csv(rows[targets])) if targets else [],
        {"dropped_as_duplicates": dropped, "train": train_rows, **_counts(labels)},
    )


def check_split(task: TaskFile, files: SplitFiles) -> SplitData:
    """Data that come split already. Raises PreparationError."""
    where = f"{task.folder / 'prepare.py'} returned labels"
    labels = files.labels.reset_index(drop=True)
    missing = [column for column in (task.id_column, *task.target_columns) if column not in labels.columns]
    if missing:
        raise PreparationError(f"{where} without the column {missing[0]!r} that task.toml names")
    if labels[task.id_column].duplicated().any():
        twin = labels[task.id_column][labels[task.id_column].duplicated()].iloc[0]
        raise PreparationError(f"{where} with the {task.id_column} {str(twin)!r} more than once")
    if "split" not in labels.columns:
        labels = _with_halves(labels, task.id_column)
    unknown = sorted(set(labels["split"]) - set(SPLITS))
    if unknown:
        raise PreparationError(f"{where} with the split {unknown[0]!r}; splits are {', '.join(SPLITS)}")
    if bool(task.target_array) != (files.label_array is not None):
        raise PreparationError(f"{where} with a label_array where task.toml has no target_array, or none")
    if files.label_array is not None and len(files.label_array) != len(labels):
        raise PreparationError(
            f"{where} ({len(labels)}) and a label_array ({len(files.label_array)}) of different lengths"
        )
    targets = list(task.target_columns)
    scored = labels[labels["split"] != "unscored"]
    if scored[targets].isna().any(axis=None):
        raise PreparationError(f"{where} that lack a target value; mark such rows as unscored")
    return SplitData(
        files.public,
        to_csv(labels[[task.id_column, *targets, "split"]]),
        _npy(files.label_array) if files.label_array is not None else None,
        list(files.classes) or (_classes(to_csv(scored[targets])) if targets else []),
        {"train": files.train_rows, **_counts(labels)},
    )


def _check_rows(task: TaskFile, rows: pd.DataFrame, arrays: Mapping[str, np.ndarray]) -> None:
    where = f"{task.folder / 'prepare.py'} returned rows"
    missing = [column for column in task.target_columns if column not in rows.columns]
    if missing:
        raise PreparationError(f"{where} without the target column {missing[0]!r} that task.toml names")
    if task.target_array and task.target_array not in arrays:
        raise PreparationError(f"{where} without the array {task.target_array!r} that task.toml names")
    if task.id_column in rows.columns:
        raise PreparationError(f"{where} with a column {task.id_column!r}; ids are assigned here, so drop it")
    if rows[list(task.target_columns)].isna().any(axis=None):
        raise PreparationError(f"{where} that lack a target value; drop those rows")
    for name, array in arrays.items():
        if len(array) != len(rows):
            raise PreparationError(
                f"{where} ({len(rows)}) and an array {name!r} ({len(array)}) of different lengths"
            )
        if array.dtype == object:
            raise PreparationError(
                f"{where} with an array {name!r} of Python objects; only plain numbers can be written"
            )


def _first_of_each(features: pd.DataFrame, arrays: Mapping[str, np.ndarray]) -> list[int]:
    """Positions of rows whose features occur for the first time: no test row may stand in training data."""
    keys = features.copy()
    for name, array in arrays.items():
        keys[f"array {name}"] = [hashlib.sha256(row.tobytes()).digest() for row in array]
    return np.flatnonzero(~keys.duplicated()).tolist() if len(keys.columns) else list(range(len(keys)))


def _renumbered(task: TaskFile, name: str, pairs: np.ndarray, order: np.ndarray, rows: int) -> pd.DataFrame:
    """Pairs of source positions as sorted pairs of ids; those of rows that were left out are left out."""
    import pandas as pd

    if pairs.ndim != 2 or pairs.shape[1] != 2 or (len(pairs) and not 0 <= pairs.min() <= pairs.max() < rows):
        raise PreparationError(
            f"{task.folder / 'prepare.py'} returned links {name!r} that are not pairs [m, 2] of row positions"
        )
    ids = np.full(rows, -1)
    ids[order] = np.arange(len(order))
    kept = np.sort(ids[pairs.astype(int)], axis=1)
    kept = np.unique(kept[kept[:, 0] >= 0], axis=0)
    return pd.DataFrame(kept, columns=[f"{task.id_column}_a", f"{task.id_column}_b"])


def _with_halves(labels: pd.DataFrame, id_column: str) -> pd.DataFrame:
    """Each row public or private, by a hash of its id."""
    public_ids = set(_shuffled(labels[id_column].tolist(), "public")[: len(labels) // 2])
    return labels.assign(
        split=["public" if identity in public_ids else "private" for identity in labels[id_column]]
    )


def _counts(labels: pd.DataFrame) -> dict[str, int]:
    found = {split: int((labels["split"] == split).sum()) for split in SPLITS}
    return {split: count for split, count in found.items() if count or split != "unscored"}


def _shuffled(items: Iterable[Any], purpose: str) -> list[Any]:
    """Ordered by a hash: the same on every platform and for every version of NumPy."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{SEED} {purpose} {item}".encode()).digest())


def _classes(targets_csv: bytes) -> list[str]:
    """Distinct target values as they are written in a CSV, if there are few enough to be classes."""
    rows = list(csv.reader(io.StringIO(targets_csv.decode(), newline="")))[1:]
    values = sorted({cell for row in rows for cell in row})
    return values if len(values) <= MOST_CLASSES else []


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
