"""Compares a prepared table with the one that it was made of, cell by cell, as programs will read it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from mlagent_jax.tasks.task import Task
from mlagent_jax.tasks.user_table.text_table import NewTaskError, any_length


def check_round_trip(task: Task, rows: pd.DataFrame, numbers: Collection[str]) -> None:
    """rows: the text that was to be written. numbers: columns that pandas must read as numbers.

    Python's csv and pandas must both find just these cells in train.csv, test.csv and the labels.
    Raises NewTaskError.
    """
    (target,) = task.target_columns
    parts = {name: _by_csv(task.data_dir / f"{name}.csv") for name in ("train", "test")}
    labels = _by_csv(task.labels_path)[[task.id_column, target]]
    for name, part in parts.items():
        _compare_pandas(task, name, part, numbers)
    test = parts["test"].merge(labels, on=task.id_column, how="left", validate="one_to_one")
    found = pd.concat([parts["train"], test], ignore_index=True)
    written = Counter(rows.itertuples(index=False, name=None))
    read = Counter(found[list(rows.columns)].itertuples(index=False, name=None))
    if written != read or found[task.id_column].duplicated().any():
        lost = next(iter(written - read), ())
        raise NewTaskError(f"the table is not read as it was written, beginning with the row {lost!r:.200}")


def _by_csv(path: Path) -> pd.DataFrame:
    with any_length():
        header, *cells = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True)
    return pd.DataFrame(cells, columns=header, dtype=object)


def _compare_pandas(task: Task, name: str, cells: pd.DataFrame, numbers: Collection[str]) -> None:
    path = task.data_dir / f"{name}.csv"
    as_text = pd.read_csv(path, dtype=str, keep_default_na=False)
    untold = pd.read_csv(path, low_memory=False)
    same = list(as_text.columns) == list(untold.columns) == list(cells.columns) and len(untold) == len(cells)
    if not same or not (as_text.to_numpy(dtype=object) == cells.to_numpy(dtype=object)).all():
        raise NewTaskError(
            f"pandas reads {name}.csv in another way than it was written; look at its column names"
        )
    for column in cells.columns.intersection(list(numbers)):
        meant = cells[column].mask(cells[column] == "").astype(float)
        if not pd.api.types.is_numeric_dtype(untold[column]) or not untold[column].astype(float).equals(
            meant
        ):
            raise NewTaskError(
                f"pandas does not read the numbers of the column {column!r} as they stand there"
            )
