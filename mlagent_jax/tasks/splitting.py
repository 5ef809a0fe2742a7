"""Splits labelled rows into training data, test data without labels, and held-out labels.

Every task is split the same way: duplicates are removed, rows are shuffled and renumbered, and a hash decides which
test rows are public and which are private.
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
from jaxtyping import Int

from mlagent_jax.grading.labels import SPLITS
from mlagent_jax.tasks.labelled import LabelledRows, PreparationError, SplitFiles
from mlagent_jax.tasks.table_bytes import to_csv, to_npy
from mlagent_jax.tasks.task_file import TaskFile

if TYPE_CHECKING:
    import pandas as pd

SEED = 0
MAX_CLASSES = 1000
MICRO_TRAIN = 100
MICRO_TEST = 100


@dataclass(frozen=True)
class SplitData:
    """What is written to the data root.

    public: path below the public folder -> its content, or a file to copy. counts: for the manifest.
    """

    public: Mapping[str, bytes | Path]
    labels: bytes
    label_array: bytes | None
    classes: list[str]
    counts: dict[str, int]


def split_rows(task: TaskFile, labelled: LabelledRows, micro: bool = False) -> SplitData:
    """Splits labelled rows. Raises PreparationError.

    micro: keep at most MICRO_TRAIN training and MICRO_TEST test rows of the same split.
    """
    targets, rows = list(task.target_columns), labelled.rows.reset_index(drop=True)
    arrays = {name: np.asarray(array) for name, array in labelled.arrays.items()}
    _check_rows(task, rows, arrays)
    features = {name: array for name, array in arrays.items() if name != task.target_array}
    unique = _distinct_rows(rows.drop(columns=targets), features)
    order = np.array(_shuffled(unique, "rows"))
    dropped = len(labelled.rows) - len(order)
    train_rows, test_rows = labelled.train_rows, len(order) - labelled.train_rows
    if train_rows < 1 or test_rows < 2:
        raise PreparationError(
            f"task {task.name} has {len(order)} distinct rows, too few for train_rows = {train_rows} and two test"
            " rows"
        )
    if micro:
        order = np.concatenate([order[:train_rows][:MICRO_TRAIN], order[train_rows:][:MICRO_TEST]])
        train_rows, test_rows = min(train_rows, MICRO_TRAIN), min(test_rows, MICRO_TEST)
    rows = rows.iloc[order].reset_index(drop=True)
    rows.insert(0, task.id_column, np.arange(len(rows)))
    train, test = rows[:train_rows], rows[train_rows:]
    labels = _assign_splits(test[[task.id_column, *targets]], task.id_column)

    public = {"train.csv": to_csv(train), "test.csv": to_csv(test.drop(columns=targets))}
    for name, array in arrays.items():
        public[f"train_{name}.npy"] = to_npy(array[order[:train_rows]])
        if name in features:
            public[f"test_{name}.npy"] = to_npy(array[order[train_rows:]])
    for name, pairs in labelled.links.items():
        links = _links_by_id(task, name, np.asarray(pairs), order, len(labelled.rows))
        public[f"{name}.csv"] = to_csv(links)
    return SplitData(
        public,
        to_csv(labels),
        to_npy(arrays[task.target_array][order[train_rows:]]) if task.target_array else None,
        _classes(to_csv(rows[targets])) if targets else [],
        {"dropped_as_duplicates": dropped, "train": train_rows, **_counts(labels)},
    )


def check_split(task: TaskFile, files: SplitFiles) -> SplitData:
    """Checks data that their source has split. Raises PreparationError."""
    where = f"{task.folder / 'prepare.py'} returned labels"
    labels = files.labels.reset_index(drop=True)
    missing = [column for column in (task.id_column, *task.target_columns) if column not in labels.columns]
    if missing:
        raise PreparationError(f"{where} without the column {missing[0]!r} that task.toml names")
    if labels[task.id_column].duplicated().any():
        repeated = labels[task.id_column][labels[task.id_column].duplicated()].iloc[0]
        raise PreparationError(f"{where} with the {task.id_column} {str(repeated)!r} more than once")
    if "split" not in labels.columns:
        labels = _assign_splits(labels, task.id_column)
    unknown = sorted(set(labels["split"]) - set(SPLITS))
    if unknown:
        raise PreparationError(f"{where} with the split {unknown[0]!r}; the splits are {', '.join(SPLITS)}")
    if bool(task.target_array) != (files.label_array is not None):
        given = "without a label_array, but" if task.target_array else "with a label_array, but no"
        raise PreparationError(f"{where} {given} target_array is set in task.toml")
    if files.label_array is not None and len(files.label_array) != len(labels):
        raise PreparationError(
            f"{where} ({len(labels)}) and a label_array ({len(files.label_array)}) of different lengths"
        )
    targets = list(task.target_columns)
    scored = labels[labels["split"] != "unscored"]
    if scored[targets].isna().any(axis=None):
        raise PreparationError(f"{where} with missing target values; mark such rows as unscored")
    return SplitData(
        files.public,
        to_csv(labels[[task.id_column, *targets, "split"]]),
        to_npy(files.label_array) if files.label_array is not None else None,
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
        raise PreparationError(
            f"{where} with a column {task.id_column!r}; drop it, since ids are assigned after splitting"
        )
    if rows[list(task.target_columns)].isna().any(axis=None):
        raise PreparationError(f"{where} with missing target values; drop those rows")
    for name, array in arrays.items():
        if len(array) != len(rows):
            raise PreparationError(
                f"{where} ({len(rows)}) and an array {name!r} ({len(array)}) of different lengths"
            )
        if array.dtype == object:
            raise PreparationError(
                f"{where} with an array {name!r} of Python objects; only arrays of numbers can be written"
            )


def _distinct_rows(features: pd.DataFrame, arrays: Mapping[str, np.ndarray]) -> list[int]:
    """The positions of rows whose features occur for the first time, so that no test row is in the training data."""
    keys = features.copy()
    for name, array in arrays.items():
        keys[f"array {name}"] = [hashlib.sha256(row.tobytes()).digest() for row in array]
    return np.flatnonzero(~keys.duplicated()).tolist() if len(keys.columns) else list(range(len(keys)))


def _links_by_id(
    task: TaskFile, name: str, pairs: np.ndarray, order: Int[np.ndarray, " n"], rows: int
) -> pd.DataFrame:
    """Pairs of source positions as sorted pairs of ids, without those of rows that were dropped."""
    import pandas as pd

    if pairs.ndim != 2 or pairs.shape[1] != 2 or (len(pairs) and not 0 <= pairs.min() <= pairs.max() < rows):
        raise PreparationError(
            f"{task.folder / 'prepare.py'} returned links {name!r} that are not pairs of row positions [m, 2]"
        )
    ids = np.full(rows, -1)
    ids[order] = np.arange(len(order))
    kept = np.sort(ids[pairs.astype(int)], axis=1)
    kept = np.unique(kept[kept[:, 0] >= 0], axis=0)
    return pd.DataFrame(kept, columns=[f"{task.id_column}_a", f"{task.id_column}_b"])


def _assign_splits(labels: pd.DataFrame, id_column: str) -> pd.DataFrame:
    """Adds the column "split": half of the rows are public and half private, by a hash of their id."""
    public_ids = set(_shuffled(labels[id_column].tolist(), "public")[: len(labels) // 2])
    return labels.assign(
        split=["public" if identity in public_ids else "private" for identity in labels[id_column]]
    )


def _counts(labels: pd.DataFrame) -> dict[str, int]:
    found = {split: int((labels["split"] == split).sum()) for split in SPLITS}
    return {split: count for split, count in found.items() if count or split != "unscored"}


def _shuffled(items: Iterable[Any], purpose: str) -> list[Any]:
    """The items ordered by a hash, which is the same on every platform and with every version of NumPy."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{SEED} {purpose} {item}".encode()).digest())


def _classes(targets_csv: bytes) -> list[str]:
    """The distinct target values as text, if there are few enough of them to be classes."""
    rows = list(csv.reader(io.StringIO(targets_csv.decode(), newline="")))[1:]
    values = sorted({cell for row in rows for cell in row})
    return values if len(values) <= MAX_CLASSES else []
