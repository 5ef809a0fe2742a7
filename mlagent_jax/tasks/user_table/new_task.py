"""Makes a task folder of a user's table: the table itself, a description, and a starter that runs.

Cells stay the text that they are in the file. What is left out or changed is said, and what has been written is read
again and compared.
"""

from __future__ import annotations

import difflib
import re
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

from mlagent_jax.grading.labels import LabelsError, read_truth
from mlagent_jax.grading.metrics import METRICS, Metric, Prediction, Targets
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.table_bytes import to_csv
from mlagent_jax.tasks.task import Task
from mlagent_jax.tasks.user_table.column_kinds import classify
from mlagent_jax.tasks.user_table.description import description, prepare_script, toml
from mlagent_jax.tasks.user_table.round_trip import check_round_trip
from mlagent_jax.tasks.user_table.starter import VALIDATION, starter
from mlagent_jax.tasks.user_table.target import BINARY, check_counts, checked_target, is_classification
from mlagent_jax.tasks.user_table.text_table import NewTaskError, other_delimiter, read_text_table

__all__ = ["OFFERED", "NewTask", "NewTaskError", "write_new_task"]

LEAST_ROWS = 60
OFFERED = [
    name
    for name, metric in METRICS.items()
    if metric.targets is not Targets.ARRAY and not name.startswith(("mean_column", "mc", "map"))
]


@dataclass(frozen=True)
class NewTask:
    """What was asked for. positive: for metrics of 0 and 1, the target's value that counts as 1, or "".

    missing: cells that say that a value is missing, in every column.
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
    """rows: distinct, text, as they are to be written. numbers: columns whose cells are numbers or empty."""

    rows: pd.DataFrame
    numbers: Collection[str]
    target: str
    identity: str

    @property
    def train_rows(self) -> int:
        return len(self.rows) * 3 // 5


def write_new_task(wanted: NewTask) -> list[str]:
    """Writes the folder, whole or not at all. Returns what the user should know. Raises NewTaskError."""
    _check_request(wanted)
    metric = METRICS[wanted.metric]
    table, notes = _table(wanted, metric)
    try:
        wanted.folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=wanted.folder.absolute().parent, prefix=".new-task-"))
        try:
            _write(temporary, wanted, table, metric, stratify=False)
            notes.append(_check_split(temporary, wanted, table, metric))
            temporary.chmod(0o755)
            temporary.rename(wanted.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise NewTaskError(f"cannot write {wanted.folder}: {error}; choose another folder") from error
    return notes


def _check_request(wanted: NewTask) -> None:
    for flag, value in (("csv", wanted.table.name), ("target", wanted.target), ("metric", wanted.metric)):
        if not value:
            raise NewTaskError(f"new needs --{flag}; see `python -m experiments.tasks --help`")
    if wanted.metric not in OFFERED:
        raise NewTaskError(f"--metric is {wanted.metric!r}; for a table it is one of {', '.join(OFFERED)}")
    if wanted.folder.exists():
        raise NewTaskError(f"{wanted.folder} is there already; choose another folder, or remove it")
    if not re.fullmatch(r"\w[\w.-]*", wanted.folder.name):
        raise NewTaskError(
            f"{wanted.folder.name!r} cannot be a task's name: use letters, digits, '_', '-' and '.'"
        )


def _table(wanted: NewTask, metric: Metric) -> tuple[_Table, list[str]]:
    """The table as the task will have it, and what was changed for that."""
    rows, notes = read_text_table(wanted.table, wanted.encoding, wanted.delimiter)
    for word in wanted.missing:
        cells = int((rows == word).sum().sum())
        rows = rows.mask(rows == word, "")
        notes.append(f"emptied {cells} cells {word!r}, as --missing says")
    rows, said = _without_numbering(rows, wanted.target)
    notes += said
    _check_columns(rows, wanted)
    target, said = checked_target(rows[wanted.target], wanted.target, metric, wanted.positive)
    notes += said
    columns, numbers = {}, []
    for name in rows.columns:
        if name == wanted.target:
            columns[name] = target
            continue
        column = classify(name, rows[name])
        notes += column.notes
        if (column.cells == "").all():
            notes.append(f"left out the column {name!r}, which has no value")
            continue
        columns[name] = column.cells
        numbers += [name] if column.is_number else []
    if len(columns) < 2:
        raise NewTaskError(f"{wanted.table} has the target only; there is nothing to predict it from")
    rows, said = _distinct(pd.DataFrame(columns), numbers, wanted.target)
    notes += said
    if len(rows) < LEAST_ROWS:
        raise NewTaskError(
            f"{wanted.table} has fewer than {LEAST_ROWS} distinct rows, {len(rows)}: too few to train and to test on"
        )
    check_counts(rows[wanted.target], wanted.target, metric)
    taken = {*rows.columns} - {wanted.target}
    plain = _unused(_plain(wanted.target), taken | {"split"})
    if plain != wanted.target:
        notes.append(f"the target {wanted.target!r} is called {plain!r} in the task")
        rows = rows.rename(columns={wanted.target: plain})
    if metric.prediction is not Prediction.CLASS:
        numbers.append(plain)
    identity = "id" if "id" not in rows.columns else _unused("row_id", {*rows.columns, "split"})
    return _Table(rows.reset_index(drop=True), numbers, plain, identity), notes


def _check_columns(rows: pd.DataFrame, wanted: NewTask) -> None:
    """The target must be there, and filled in in every row."""
    path, names = wanted.table, list(rows.columns)
    if wanted.target not in names:
        near = difflib.get_close_matches(wanted.target, names, n=1)
        better = other_delimiter(names, wanted.delimiter)
        hint = f"; is {near[0]!r} meant?" if near else ""
        if better and any(wanted.target in re.split(r"[;,\t|]", name) for name in names):
            hint = f"; give its --delimiter, such as --delimiter={better}"
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        raise NewTaskError(f"{path} has no column {wanted.target!r}; its columns are {shown}{hint}")
    empty = rows[wanted.target] == ""
    if empty.any():
        row = int(empty.to_numpy().argmax())
        raise NewTaskError(
            f"{int(empty.sum())} of {len(rows)} rows of {path} have no {wanted.target!r}, the first in row {row + 1}"
            f" after the header (line {rows.index[row]}); fill them in or remove those rows"
        )


def _without_numbering(rows: pd.DataFrame, target: str) -> tuple[pd.DataFrame, list[str]]:
    """Without the columns that only tell rows apart, and what is to be said of them."""
    notes = []
    for name in [name for name in rows.columns if name.strip().lower() == "id" and name != target]:
        if rows[name].is_unique:
            rows = rows.drop(columns=name)
            notes.append(
                f"left out the column {name!r}: a task gives its rows ids of its own, which say nothing"
            )
    first = rows.columns[0] if len(rows.columns) else ""
    # "Unnamed: 0": as pandas writes a numbering that it has read and had no name for.
    if first in ("column_1", "Unnamed: 0") and first != target and rows[first].is_unique:
        rows = rows.drop(columns=first)
        notes.append("left out the first column, which has no name and another value in each row")
    elif first == "column_1":
        notes.append("the first column has no name and is called 'column_1'")
    return rows, notes


def _distinct(rows: pd.DataFrame, numbers: list[str], target: str) -> tuple[pd.DataFrame, list[str]]:
    """The first of all rows that have the same features: no test row may stand in the training data."""
    keys = rows.drop(columns=target)
    keys[numbers] = keys[numbers].apply(pd.to_numeric)
    again = keys.duplicated()
    if not again.any():
        return rows, []
    said_first = rows[target].groupby(pd.util.hash_pandas_object(keys, index=False)).transform("first")
    others = int((rows[target] != said_first).sum())
    contrary = f", {others} of them with another {target!r}" if others else ""
    return rows[~again], [
        f"left out {int(again.sum())} of {len(rows)} rows: what they predict from is that of an earlier row{contrary};"
        f" {int((~again).sum())} are left"
    ]


def _plain(name: str) -> str:
    """A column name that can stand in a TOML string and a header; "split" is the labels' own."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip("_") or "target"
    return f"{plain}_" if plain in ("split", "id") else plain


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _write(folder: Path, wanted: NewTask, table: _Table, metric: Metric, stratify: bool) -> None:
    train = starter(table.rows, table.numbers, table.target, metric, table.identity, stratify)
    about = description(table.rows, table.numbers, table.target, metric, table.identity, wanted.folder.name)
    files: dict[str, str | bytes] = {
        "raw/rows.csv": to_csv(table.rows),
        "prepare.py": prepare_script(wanted.table.name, table.train_rows),
        "train.py": train,
        "task.toml": toml(wanted.folder.name, table.rows, table.target, metric, table.identity),
        "description.md": about,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def _check_split(folder: Path, wanted: NewTask, table: _Table, metric: Metric) -> str:
    """Prepares the task and reads it again; both halves of the test rows must have what the metric needs.

    Returns how many rows there are of each kind.
    """
    with tempfile.TemporaryDirectory(prefix=".new-task-data-") as root:
        try:
            prepare_task(folder, folder.parent, Path(root))
            task = load_task(folder, folder.parent, Path(root))
        except LabelsError as error:
            raise NewTaskError(
                f"{wanted.table} has too few rows of some value of {wanted.target!r}: once they are split,"
                f" {re.sub(r' at [^ ]+', '', str(error))}; add rows, or choose another metric"
            ) from error
        check_round_trip(task, table.rows, table.numbers)
        if is_classification(metric):
            _write(folder, wanted, table, metric, stratify=_can_stratify(task, wanted, metric))
        truth = read_truth(task)
    counts = f"{truth.public.sum():,} public and {truth.private.sum():,} private test rows"
    return f"{table.train_rows:,} training rows, {counts}"


def _can_stratify(task: Task, wanted: NewTask, metric: Metric) -> bool:
    """Whether the starter's validation rows can have every class. Raises NewTaskError if it could not be fitted."""
    target = task.target_columns[0]
    y = pd.read_csv(task.data_dir / "train.csv", dtype=str, keep_default_na=False)[target]
    if y.value_counts().min() >= 2 and y.nunique() > 1 and y.nunique() <= int(len(y) * VALIDATION):
        return True
    fitted = train_test_split(y, test_size=VALIDATION, random_state=0)[0]
    if metric.truth in BINARY or fitted.nunique() < 2:
        raise NewTaskError(
            f"{wanted.table} has too few rows of some value of {wanted.target!r}: too few of the {len(y)} training"
            " rows have it; add rows, or choose another metric"
        )
    return False
