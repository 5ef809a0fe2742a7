"""Reads a task folder: `task.toml` with its fields checked one by one, and the files beside it."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlagent_jax.environment.metrics import METRICS
from mlagent_jax.errors import UserError
from mlagent_jax.sandbox.interface import Limits

BRIEF_CHARACTERS = 240
FILES = ("task.toml", "description.md", "train.py", "prepare.py")


class TaskError(UserError):
    """A task that is not there, or whose folder is not as it should be."""


@dataclass(frozen=True)
class TaskFile:
    """A task folder as it is written, before its data are prepared. Fields as in `Task`."""

    folder: Path
    name: str
    title: str
    brief: str
    description: str
    kind: str
    split: str
    metric: str
    id_column: str
    target_columns: tuple[str, ...]
    m_best: float
    m_best_source: str
    starter: str
    limits: Limits
    show_public_score: bool


def list_tasks(tasks_dir: Path) -> list[str]:
    """Names of the task folders in `tasks_dir`, sorted."""
    return sorted(path.parent.name for path in tasks_dir.glob("*/task.toml"))


def find_task(name_or_path: str | Path, tasks_dir: Path) -> Path:
    """The folder of a task: by name in `tasks_dir`, or any folder by its path. Raises TaskError."""
    text = str(name_or_path)
    folder = Path(text).expanduser() if "/" in text or isinstance(name_or_path, Path) else tasks_dir / text
    if not folder.is_dir():
        known = ", ".join(list_tasks(tasks_dir)) or "none"
        raise TaskError(
            f"there is no task {text!r}; tasks in {tasks_dir}: {known} (a folder elsewhere is named"
            " by its path, with a '/')"
        )
    return folder.resolve()


def read_task_file(name_or_path: str | Path, tasks_dir: Path) -> TaskFile:
    """The task's folder, read and checked. Raises TaskError, which names the file and the field."""
    folder = find_task(name_or_path, tasks_dir)
    texts = {name: _read_text(folder / name) for name in FILES}
    path = folder / "task.toml"
    try:
        fields = tomllib.loads(texts["task.toml"])
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{path} is not valid TOML: {error}") from error
    _check_fields(fields, path)
    task = TaskFile(
        folder=folder,
        name=folder.name,
        description=texts["description.md"].strip(),
        starter=texts["train.py"],
        **{
            **fields,
            "m_best": float(fields["m_best"]),
            "target_columns": tuple(fields["target_columns"]),
            "limits": _limits(fields["limits"], path),
        },
    )
    _check_values(task, path)
    return task


_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "title": ((str,), "a string"),
    "brief": ((str,), "a string"),
    "kind": ((str,), "a string"),
    "split": ((str,), "a string"),
    "metric": ((str,), "a string"),
    "id_column": ((str,), "a string"),
    "target_columns": ((list,), "a list of strings"),
    "m_best": ((int, float), "a number"),
    "m_best_source": ((str,), "a string"),
    "show_public_score": ((bool,), "true or false"),
    "limits": ((dict,), "a table"),
}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TaskError(
            f"the task folder {path.parent} lacks {path.name}; it needs {', '.join(FILES)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"cannot read {path}: {error}") from error


def _check_fields(fields: dict[str, Any], path: Path) -> None:
    unknown = sorted(fields.keys() - _TYPES.keys())
    if unknown:
        raise TaskError(f"{path} has an unknown field {unknown[0]!r}; fields are {', '.join(_TYPES)}")
    for name, (types, expected) in _TYPES.items():
        if name not in fields:
            raise TaskError(f"{path} lacks the field {name!r}, {expected}")
        _check_type(fields[name], types, expected, name, path)
    if not all(isinstance(column, str) for column in fields["target_columns"]):
        raise TaskError(
            f"{path}: 'target_columns' is {fields['target_columns']!r}, expected a list of strings"
        )


def _check_type(value: Any, types: tuple[type, ...], expected: str, name: str, path: Path) -> None:
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise TaskError(f"{path}: {name!r} is {value!r}, expected {expected}")


def _limits(table: dict[str, Any], path: Path) -> Limits:
    """Limits not named keep their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(Limits)}
    for name, value in table.items():
        if name not in defaults:
            raise TaskError(f"{path} has an unknown limit {name!r}; limits are {', '.join(defaults)}")
        whole = isinstance(defaults[name], int)
        expected = "a whole number above 0" if whole else "a number above 0"
        _check_type(value, (int,) if whole else (int, float), expected, f"limits.{name}", path)
        if not (value > 0 and math.isfinite(value)):
            raise TaskError(f"{path}: 'limits.{name}' is {value!r}, expected {expected}")
    return Limits(**table)


def _check_values(task: TaskFile, path: Path) -> None:
    for name in ("title", "brief", "kind", "id_column", "m_best_source"):
        value = getattr(task, name)
        if not value.strip() or "\n" in value:
            raise TaskError(f"{path}: {name!r} is {value!r}, expected one line of text")
    if len(task.brief) > BRIEF_CHARACTERS:
        raise TaskError(
            f"{path}: 'brief' has {len(task.brief)} characters, at most {BRIEF_CHARACTERS} are shown"
        )
    if task.split not in ("held_in", "held_out"):
        raise TaskError(f"{path}: 'split' is {task.split!r}, expected held_in or held_out")
    if task.metric not in METRICS:
        raise TaskError(f"{path}: 'metric' is {task.metric!r}, expected one of {', '.join(METRICS)}")
    metric = METRICS[task.metric]
    targets = task.target_columns
    if not targets or len({task.id_column, "split", *targets}) != len(targets) + 2:
        raise TaskError(
            f"{path}: 'target_columns' is {list(targets)!r}, expected distinct names other than the id"
            " column and 'split'"
        )
    if metric.single_target and len(targets) != 1:
        raise TaskError(f"{path}: 'target_columns' names {len(targets)} columns, but {task.metric} takes one")
    low, high = sorted((metric.best, metric.worst))
    if not low <= task.m_best <= high or not math.isfinite(task.m_best):
        raise TaskError(f"{path}: 'm_best' is {task.m_best}, expected a {task.metric} from {low} to {high}")
    if not task.description:
        raise TaskError(f"{path.parent / 'description.md'} is empty; say there what the task is")
    try:
        compile(task.starter, "train.py", "exec")
    except (SyntaxError, ValueError) as error:
        raise TaskError(f"{path.parent / 'train.py'} is not valid Python: {error}") from error
