"""Makes a task folder from a user's table: the table itself, a description, and a starter that runs.

Cells stay the text that they are in the file. Everything that is left out or changed is reported, and the written
files are read again and compared.
"""

from __future__ import annotations

import difflib
import re
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from mlagent_jax.grading.labels import LabelsError, read_truth
from mlagent_jax.grading.metrics import METRICS, Metric, Prediction, Targets
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.table_bytes import to_csv
from mlagent_jax.tasks.task import Task
from mlagent_jax.tasks.user_table.column_kinds import classify
from mlagent_jax.tasks.user_table.description import prepare_script, task_description, task_toml
from mlagent_jax.tasks.user_table.round_trip import check_round_trip
from mlagent_jax.tasks.user_table.starter import VALIDATION_SHARE, starter_script
from mlagent_jax.tasks.user_table.target import BINARY, check_counts, checked_target, is_classification
from mlagent_jax.tasks.user_table.text_table import (
    NewTaskError,
    other_delimiter,
    read_text_table,
    unused_name,
)

__all__ = ["TABLE_METRICS", "NewTask", "NewTaskError", "write_new_task"]

MIN_ROWS = 60
TABLE_METRICS = [
    name
    for name, metric in METRICS.items()
    if metric.targets is not Targets.ARRAY and not name.startswith(("mean_column", "mc", "map"))
]
"""The metrics for one target column, which a table can have."""


@dataclass(frozen=True)
class NewTask:
    """A new task as the user asked for it.

    folder: of the task. table: the CSV file.
    positive: for metrics of 0 and 1, the target's value that counts as 1, or "".
    missing: texts that mark a missing value, in every column.
    """

    folder: Path
    table: Path
    target: str
    metric: str
    positive: str = ""
    encoding: str = "utf-8-sig"
    delimiter: str = ","
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Table:
    """The table as it will be written.

    rows: distinct, all cells text. numbers: the columns whose cells are numbers or empty. identity: the id column.
    """

    rows: pd.DataFrame
    numbers: Collection[str]
    target: str
    identity: str

    @property
    def train_rows(self) -> int:
        return len(self.rows) * 3 // 5


def write_new_task(request: NewTask) -> list[str]:
    """Writes the task folder, all or nothing. Returns notes for the user. Raises NewTaskError."""
    _check_request(request)
    metric = METRICS[request.metric]
    table, notes = _task_table(request, metric)
    try:
        request.folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=request.folder.absolute().parent, prefix=".new-task-"))
        try:
            _write_files(temporary, request, table, metric, stratify=False)
            notes.append(_check_prepared(temporary, request, table, metric))
            temporary.chmod(0o755)
            temporary.rename(request.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise NewTaskError(f"cannot write {request.folder}: {error}; choose another folder") from error
    return notes


def _check_request(request: NewTask) -> None:
    for flag, value in (("csv", request.table.name), ("target", request.target), ("metric", request.metric)):
        if not value:
            raise NewTaskError(f"new needs --{flag}; see `python -m experiments.tasks --help`")
    if request.metric not in TABLE_METRICS:
        raise NewTaskError(
            f"--metric is {request.metric!r}; for a table it must be one of {', '.join(TABLE_METRICS)}"
        )
    if request.folder.exists():
        raise NewTaskError(f"{request.folder} already exists; choose another folder, or remove it")
    if not re.fullmatch(r"\w[\w.-]*", request.folder.name):
        raise NewTaskError(
            f"{request.folder.name!r} cannot be a task's name: use letters, digits, '_', '-' and '.'"
        )


def _task_table(request: NewTask, metric: Metric) -> tuple[_Table, list[str]]:
    """The table as the task will have it, and notes on what was changed."""
    rows, notes = read_text_table(request.table, request.encoding, request.delimiter)
    for word in request.missing:
        cells = int((rows == word).sum().sum())
        rows = rows.mask(rows == word, "")
        notes.append(f"emptied {cells} cells {word!r}, as --missing says")
    rows, more = _drop_row_ids(rows, request.target)
    notes += more
    _check_columns(rows, request)
    target, more = checked_target(rows[request.target], request.target, metric, request.positive)
    notes += more
    columns, numbers = {}, []
    for name in rows.columns:
        if name == request.target:
            columns[name] = target
            continue
        column = classify(name, rows[name])
        notes += column.notes
        if (column.cells == "").all():
            notes.append(f"left out the column {name!r}, which has no values")
            continue
        columns[name] = column.cells
        numbers += [name] if column.is_number else []
    if len(columns) < 2:
        raise NewTaskError(f"{request.table} has only the target; there is nothing to predict it from")
    rows, more = _distinct_rows(pd.DataFrame(columns), numbers, request.target)
    notes += more
    if len(rows) < MIN_ROWS:
        raise NewTaskError(
            f"{request.table} has only {len(rows)} distinct rows; at least {MIN_ROWS} are needed to train and test"
        )
    check_counts(rows[request.target], request.target, metric)
    taken = {*rows.columns} - {request.target}
    name = unused_name(_safe_name(request.target), taken | {"split"})
    if name != request.target:
        notes.append(f"the target {request.target!r} is called {name!r} in the task")
        rows = rows.rename(columns={request.target: name})
    if metric.prediction is not Prediction.CLASS:
        numbers.append(name)
    identity = "id" if "id" not in rows.columns else unused_name("row_id", {*rows.columns, "split"})
    return _Table(rows.reset_index(drop=True), numbers, name, identity), notes


def _check_columns(rows: pd.DataFrame, request: NewTask) -> None:
    """The target must be a column, and every row must have a value for it. Raises NewTaskError."""
    path, names = request.table, list(rows.columns)
    if request.target not in names:
        near = difflib.get_close_matches(request.target, names, n=1)
        better = other_delimiter(names, request.delimiter)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        if better and any(request.target in re.split(r"[;,\t|]", name) for name in names):
            hint = f"; set its delimiter, for example with --delimiter={better}"
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        raise NewTaskError(f"{path} has no column {request.target!r}; its columns are {shown}{hint}")
    empty = rows[request.target] == ""
    if empty.any():
        row = int(np.flatnonzero(empty)[0])
        raise NewTaskError(
            f"{int(empty.sum())} of {len(rows)} rows of {path} have no {request.target!r}, the first in row {row + 1}"
            f" after the header (line {rows.index[row]}); fill them in or remove those rows"
        )


def _drop_row_ids(rows: pd.DataFrame, target: str) -> tuple[pd.DataFrame, list[str]]:
    """Drops the columns that only identify rows. Returns the other columns, and notes for the user."""
    notes = []
    for name in [name for name in rows.columns if name.strip().lower() == "id" and name != target]:
        if rows[name].is_unique:
            rows = rows.drop(columns=name)
            notes.append(
                f"left out the column {name!r}: a task gives its rows its own ids, which carry no information"
            )
    first = rows.columns[0] if len(rows.columns) else ""
    # "Unnamed: 0" is what pandas calls an index without a name that it has read and written again.
    if first in ("column_1", "Unnamed: 0") and first != target and rows[first].is_unique:
        rows = rows.drop(columns=first)
        notes.append("left out the first column, which has no name and a different value in each row")
    elif first == "column_1":
        notes.append("the first column has no name and is called 'column_1'")
    return rows, notes


def _distinct_rows(rows: pd.DataFrame, numbers: list[str], target: str) -> tuple[pd.DataFrame, list[str]]:
    """The first of all rows with the same features, so that no test row is in the training data; and notes."""
    keys = rows.drop(columns=target)
    keys[numbers] = keys[numbers].apply(pd.to_numeric)
    again = keys.duplicated()
    if not again.any():
        return rows, []
    first_target = rows[target].groupby(pd.util.hash_pandas_object(keys, index=False)).transform("first")
    different = int((rows[target] != first_target).sum())
    contradictions = f", {different} of them with a different {target!r}" if different else ""
    return rows[~again], [
        f"left out {int(again.sum())} of {len(rows)} rows, which have the features of an earlier row{contradictions};"
        f" {int((~again).sum())} are left"
    ]


def _safe_name(name: str) -> str:
    """A column name that needs no quoting in TOML or in a header, and is none of the task's own column names."""
    safe = re.sub(r"[^\w.-]+", "_", name).strip("_") or "target"
    return f"{safe}_" if safe in ("split", "id") else safe


def _write_files(folder: Path, request: NewTask, table: _Table, metric: Metric, stratify: bool) -> None:
    rows, numbers, target, identity = table.rows, table.numbers, table.target, table.identity
    name = request.folder.name
    files: dict[str, str | bytes] = {
        "raw/rows.csv": to_csv(rows),
        "prepare.py": prepare_script(request.table.name, table.train_rows),
        "train.py": starter_script(rows, numbers, target, metric, identity, stratify),
        "task.toml": task_toml(name, rows, target, metric, identity),
        "description.md": task_description(rows, numbers, target, metric, identity, name),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def _check_prepared(folder: Path, request: NewTask, table: _Table, metric: Metric) -> str:
    """Prepares the task and reads it back, and checks that the metric is defined on both splits.

    Rewrites the starter to stratify its validation rows by class where that is possible. Returns a note on the
    numbers of rows. Raises NewTaskError.
    """
    with tempfile.TemporaryDirectory(prefix=".new-task-data-") as root:
        try:
            prepare_task(folder, folder.parent, Path(root))
            task = load_task(folder, folder.parent, Path(root))
        except LabelsError as error:
            raise NewTaskError(
                f"{request.table} has too few rows with some value of {request.target!r}: after splitting,"
                f" {re.sub(r' at [^ ]+', '', str(error))}; add rows, or choose another metric"
            ) from error
        check_round_trip(task, table.rows, table.numbers)
        if is_classification(metric):
            _write_files(folder, request, table, metric, stratify=_can_stratify(task, request, metric))
        truth = read_truth(task)
    counts = f"{truth.public.sum():,} public and {truth.private.sum():,} private test rows"
    return f"{table.train_rows:,} training rows, {counts}"


def _can_stratify(task: Task, request: NewTask, metric: Metric) -> bool:
    """Whether the starter's validation rows can have every class. Raises NewTaskError if its model can't be fitted."""
    target = task.target_columns[0]
    y = pd.read_csv(task.data_dir / "train.csv", dtype=str, keep_default_na=False)[target]
    if y.value_counts().min() >= 2 and y.nunique() > 1 and y.nunique() <= int(len(y) * VALIDATION_SHARE):
        return True
    fitted = train_test_split(y, test_size=VALIDATION_SHARE, random_state=0)[0]
    if metric.truth in BINARY or fitted.nunique() < 2:
        raise NewTaskError(
            f"{request.table} has too few rows with some value of {request.target!r}: too few of the {len(y)} training"
            " rows have it; add rows, or choose another metric"
        )
    return False
