"""Compares prepared tables with the rows that they were made from, cell by cell, as programs will read them."""

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
    """Checks that Python's csv module and pandas read exactly these cells from train.csv, test.csv and the labels.

    rows: the text that was written. numbers: the columns that pandas must read as numbers. Raises NewTaskError.
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
        raise NewTaskError(
            f"the prepared table reads differently from what was written, first in row {lost!r:.200}"
        )


def _by_csv(path: Path) -> pd.DataFrame:
    """The cells as Python's csv module reads them."""
    with any_length():
        header, *cells = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True)
    return pd.DataFrame(cells, columns=header, dtype=object)


def _compare_pandas(task: Task, name: str, cells: pd.DataFrame, numbers: Collection[str]) -> None:
    path = task.data_dir / f"{name}.csv"
    as_text = pd.read_csv(path, dtype=str, keep_default_na=False)
    by_default = pd.read_csv(path, low_memory=False)
    names = list(cells.columns)
    same = list(as_text.columns) == list(by_default.columns) == names and len(by_default) == len(cells)
    if not same or not (as_text.to_numpy(dtype=object) == cells.to_numpy(dtype=object)).all():
        raise NewTaskError(
            f"pandas reads {name}.csv differently from what was written; check its column names"
        )
    for column in cells.columns.intersection(list(numbers)):
        expected = cells[column].mask(cells[column] == "").astype(float)
        found = by_default[column]
        if not pd.api.types.is_numeric_dtype(found) or not found.astype(float).equals(expected):
            raise NewTaskError(
                f"pandas does not read the numbers of the column {column!r} as they are written"
            )
