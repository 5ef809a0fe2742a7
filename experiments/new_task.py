"""Makes a task folder of a user's table: the table itself, a description, and a starter that runs."""

from __future__ import annotations

import codecs
import difflib
import json
import math
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.new_starter import starter
from mlagent_jax.environment.labels import LabelsError
from mlagent_jax.environment.metrics import METRICS, Metric, Prediction, Targets, TrueValues
from mlagent_jax.environment.preparation import prepare_task
from mlagent_jax.environment.splitting import MOST_CLASSES
from mlagent_jax.environment.task_loader import load_task
from mlagent_jax.errors import UserError

LEAST_ROWS = 60
LEAST_OF_CLASS = 5
KINDS = {True: "tabular classification", False: "tabular regression"}
OFFERED = [
    name
    for name, metric in METRICS.items()
    if metric.targets is not Targets.ARRAY and not name.startswith(("mean_column", "mc", "map"))
]


class NewTaskError(UserError):
    """No task can be made of this table as it is."""


@dataclass(frozen=True)
class NewTask:
    """What was asked for. positive: for metrics of 0 and 1, the target's value that counts as 1, or ""."""

    folder: Path
    table: Path
    target: str
    metric: str
    positive: str = ""
    encoding: str = "utf-8-sig"
    delimiter: str = ","


def write_new_task(wanted: NewTask) -> list[str]:
    """Writes the folder, whole or not at all. Returns what the user should know. Raises NewTaskError."""
    _check_request(wanted)
    rows, notes = _read_table(wanted)
    metric = METRICS[wanted.metric]
    rows[wanted.target] = _checked_target(rows[wanted.target], wanted, metric)
    rows = rows.rename(columns={wanted.target: _plain(wanted.target)})
    target = _plain(wanted.target)
    files = {
        "raw/rows.csv": rows.to_csv(index=False),
        "prepare.py": _PREPARE.format(table=json.dumps(wanted.table.name), train_rows=len(rows) * 3 // 5),
        "train.py": starter(rows.drop(columns=target), target, metric),
        "task.toml": _toml(wanted, rows, target, metric),
        "description.md": _description(wanted, rows, target, metric),
    }
    try:
        wanted.folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=wanted.folder.absolute().parent, prefix=".new-task-"))
        try:
            for name, text in files.items():
                (temporary / name).parent.mkdir(exist_ok=True)
                (temporary / name).write_text(text, encoding="utf-8")
            _check_split(temporary, wanted)
            temporary.chmod(0o755)
            temporary.rename(wanted.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise NewTaskError(f"cannot write {wanted.folder}: {error}; choose another folder") from error
    return notes


def _check_split(folder: Path, wanted: NewTask) -> None:
    """Both halves of the test rows must have what the metric needs, such as both classes."""
    with tempfile.TemporaryDirectory(prefix=".new-task-data-") as root:
        try:
            prepare_task(folder, folder.parent, Path(root))
            load_task(folder, folder.parent, Path(root))
        except LabelsError as error:
            raise NewTaskError(
                f"{wanted.table} has too few rows of some value of {wanted.target!r}: once they are split,"
                f" {re.sub(r' at [^ ]+', '', str(error))}; add rows, or choose another metric"
            ) from error


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


def _read_table(wanted: NewTask) -> tuple[pd.DataFrame, list[str]]:
    """The table and what was changed in it."""
    path = wanted.table
    try:
        rows = pd.read_csv(path, encoding=wanted.encoding, sep=wanted.delimiter, low_memory=False)
        twice = _twice(path, wanted)
    except UnicodeError as error:
        is_16 = path.read_bytes()[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        hint = "it begins as UTF-16 does" if is_16 else "name its encoding"
        raise NewTaskError(
            f"{path} is not {wanted.encoding.removesuffix('-sig')}: {error}; {hint}, such as"
            f" --encoding={'utf-16' if is_16 else 'latin-1'}"
        ) from error
    except LookupError as error:
        raise NewTaskError(f"--encoding is {wanted.encoding!r}, which Python does not know") from error
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise NewTaskError(f"cannot read {path} as a table: {str(error).strip()}") from error
    if twice:
        raise NewTaskError(f"{path} has two columns {twice!r}; rename or remove one")
    rows, notes = _without_numbering(rows, wanted.target)
    if wanted.target not in rows.columns:
        near = difflib.get_close_matches(wanted.target, map(str, rows.columns), n=1)
        hint = f"; is {near[0]!r} meant?" if near else ""
        if len(rows.columns) == 1:
            hint = "; it has one column only, so give its --delimiter, such as --delimiter=';'"
        shown = ", ".join(map(str, rows.columns[:12])) + (", ..." if len(rows.columns) > 12 else "")
        raise NewTaskError(f"{path} has no column {wanted.target!r}; its columns are {shown}{hint}")
    if len(rows.columns) < 2:
        raise NewTaskError(f"{path} has the target only; there is nothing to predict it from")
    missing = rows.index[rows[wanted.target].isna()]
    if len(missing):
        raise NewTaskError(
            f"{len(missing)} of {len(rows)} rows of {path} have no {wanted.target!r}, the first in row"
            f" {missing[0] + 1} after the header; fill them in or remove those rows"
        )
    infinite = rows.drop(columns=wanted.target).select_dtypes("number").isin([math.inf, -math.inf]).sum()
    for column, cells in infinite[infinite > 0].items():
        rows[column] = rows[column].replace([math.inf, -math.inf], math.nan)
        notes.append(f"emptied {cells} infinite cells of the column {column!r}: models take none")
    for column in rows.columns:
        words = rows[column].dropna()
        if column == wanted.target or pd.api.types.is_numeric_dtype(words) or not len(words):
            continue
        numbers = pd.to_numeric(words, errors="coerce").notna()
        if 0 < (~numbers).sum() < 0.05 * len(words):
            odd = words[~numbers].iloc[0]
            notes.append(
                f"the column {column!r} is taken as text: it holds numbers, and also {str(odd)[:40]!r}"
            )
    if len(rows.drop(columns=wanted.target).drop_duplicates()) < LEAST_ROWS:
        raise NewTaskError(
            f"{path} has fewer than {LEAST_ROWS} distinct rows, too few to train and to test on"
        )
    return rows, notes


def _twice(path: Path, wanted: NewTask) -> str:
    """A column name that the header has twice, or ""; pandas would call the second one NAME.1."""
    header = pd.read_csv(
        path, encoding=wanted.encoding, sep=wanted.delimiter, header=None, nrows=1, dtype=str
    )
    names = header.iloc[0].dropna()
    return next((str(name) for name in names[names.duplicated()]), "")


def _without_numbering(rows: pd.DataFrame, target: str) -> tuple[pd.DataFrame, list[str]]:
    """Without the columns that number rows, and what is to be said of them."""
    notes = []
    if "id" in rows.columns and target != "id":
        rows = rows.drop(columns="id")
        notes.append("left out the column 'id': a task gives its rows ids of its own, which say nothing")
    nameless = "Unnamed: 0"  # as pandas calls it
    if nameless in rows.columns and target != nameless and rows[nameless].is_unique:
        rows = rows.drop(columns=nameless)
        notes.append("left out the first column, which has no name and a number for each row")
    return rows, notes


def _checked_target(values: pd.Series, wanted: NewTask, metric: Metric) -> pd.Series:
    """The target as the metric wants it."""
    name = f"the target {wanted.target!r}"
    if values.nunique() < 2:
        raise NewTaskError(f"{name} is {values.iloc[0]!r} in every row; there is nothing to learn")
    if metric.prediction is Prediction.CLASS:
        return _checked_classes(values, name, metric)
    if metric.truth in (TrueValues.BINARY, TrueValues.BOTH_CLASSES):
        return _checked_binary(values, name, wanted, metric)
    numbers = pd.to_numeric(values, errors="coerce")
    if not numbers.map(math.isfinite).all():
        where = numbers.index[~numbers.map(math.isfinite)][0]
        raise NewTaskError(
            f"{name} is {values[where]!r} in row {where + 1} after the header, but {metric.name} needs numbers;"
            " mend that value, or choose a metric of classes such as accuracy"
        )
    if metric.truth is TrueValues.NON_NEGATIVE and numbers.min() < 0:
        raise NewTaskError(f"{name} goes down to {numbers.min()}, but {metric.name} needs at least 0")
    if metric.truth is TrueValues.WHOLE_VARIED and (numbers % 1 != 0).any():
        raise NewTaskError(f"{name} has fractions, but {metric.name} needs whole numbers")
    return numbers


def _checked_classes(values: pd.Series, name: str, metric: Metric) -> pd.Series:
    counts = values.astype(str).str.strip().value_counts()
    if len(counts) > min(MOST_CLASSES, len(values) // LEAST_OF_CLASS):
        raise NewTaskError(
            f"{name} has {len(counts)} different values in {len(values)} rows, too many classes for"
            f" {metric.name}; choose a metric of numbers such as rmse, or join classes"
        )
    if counts.iloc[-1] < LEAST_OF_CLASS:
        raise NewTaskError(
            f"{name} is {counts.index[-1]!r} in {counts.iloc[-1]} rows only; a class needs {LEAST_OF_CLASS} to"
            " be split: join it with another, or remove it"
        )
    return values.astype(str).str.strip() if not pd.api.types.is_numeric_dtype(values) else values


def _checked_binary(values: pd.Series, name: str, wanted: NewTask, metric: Metric) -> pd.Series:
    texts = values.astype(str).str.strip()
    kinds = sorted(texts.unique())
    if len(kinds) != 2:
        raise NewTaskError(f"{name} has {len(kinds)} different values, but {metric.name} needs two")
    if wanted.positive and wanted.positive not in kinds:
        raise NewTaskError(f"--positive is {wanted.positive!r}, but {name} is {kinds[0]!r} or {kinds[1]!r}")
    if not wanted.positive and kinds not in (["0", "1"], ["0.0", "1.0"], ["False", "True"]):
        raise NewTaskError(
            f"{name} is {kinds[0]!r} or {kinds[1]!r}, but {metric.name} needs 0 and 1; say which is 1 by"
            f" --positive={kinds[1]}"
        )
    if min(texts.value_counts()) < LEAST_OF_CLASS * 2:
        raise NewTaskError(f"{name} has a class of fewer than {LEAST_OF_CLASS * 2} rows, too few to split")
    return (texts == (wanted.positive or kinds[1])).astype(int)


def _plain(name: str) -> str:
    """A column name that can stand in a TOML string and a header; "split" is the labels' own."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip("_") or "target"
    return f"{plain}_" if plain in ("split", "id") else plain


def _toml(wanted: NewTask, rows: pd.DataFrame, target: str, metric: Metric) -> str:
    kind = KINDS[metric.prediction is Prediction.CLASS or metric.truth in _BINARY]
    columns = len(rows.columns) - 1
    brief = f"{kind.capitalize()}: predict {target} from {columns} columns. Metric {metric.name}, {metric.direction}."
    return _TOML.format(
        title=json.dumps(wanted.folder.name.replace("_", " ").capitalize(), ensure_ascii=False),
        brief=json.dumps(f"{brief[:200]} train.py: a linear model.", ensure_ascii=False),
        kind=kind,
        metric=metric.name,
        target=json.dumps(target, ensure_ascii=False),
        m_best=metric.best,
    )


_BINARY = (TrueValues.BINARY, TrueValues.BOTH_CLASSES)


def _description(wanted: NewTask, rows: pd.DataFrame, target: str, metric: Metric) -> str:
    train = len(rows) * 3 // 5
    columns = "\n".join(
        f"- `{column}`: {'numbers' if pd.api.types.is_numeric_dtype(rows[column]) else 'text'}"
        for column in rows.columns
        if column != target
    )
    return _DESCRIPTION.format(
        title=wanted.folder.name.replace("_", " ").capitalize(),
        target=target,
        train=f"{train:,}",
        columns=columns,
        expected=metric.prediction.value,
        metric=metric.name,
        direction=metric.direction,
        treatment=metric.treatment,
    )


_PREPARE = '''"""The rows of a table, as they were when this task was made of it."""

import io

import pandas as pd

from mlagent_jax.environment.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    rows = pd.read_csv(io.BytesIO(files.from_task("rows.csv")), low_memory=False)
    return LabelledRows(
        # Drop here what would give the answer away, and what is not known when a prediction is asked for.
        rows=rows,
        train_rows={train_rows},
        source={table},
        licence="the owner's",
    )
'''

_TOML = """\
title = {title}
brief = {brief}
kind = "{kind}"
split = "held_out"
metric = "{metric}"
id_column = "id"
target_columns = [{target}]
m_best = {m_best}
m_best_source = "the metric's best; put here a score that would be good work, since gains are measured by it"
show_public_score = true

[limits]
wall_seconds = 60
cpu_seconds = 60
memory_mb = 4096
"""

_DESCRIPTION = """\
# {title}

Predict `{target}` of each row from the other columns.

- `data/train.csv`: about {train} rows with `id`, the columns below, and `{target}`.
- `data/test.csv`: the other rows, without `{target}`.

Write `submission.csv` with the columns `id` and `{target}`, one row for each row of `data/test.csv`; each prediction
is {expected}.

It is scored by `{metric}`, {direction} ({treatment}).

The columns:

{columns}
"""
