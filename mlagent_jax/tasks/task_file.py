"""Reads and checks a task folder: each field of `task.toml`, and the files next to it."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlagent_jax.errors import UserError
from mlagent_jax.fields import build
from mlagent_jax.grading.metrics import METRICS, Targets
from mlagent_jax.sandbox.interface import Limits
from mlagent_jax.tasks.task import Board, Noise

BRIEF_CHARACTERS = 240
FILES = ("task.toml", "description.md", "train.py", "prepare.py")


class TaskError(UserError):
    """A task that does not exist, or whose folder is not valid."""


@dataclass(frozen=True)
class TaskFile:
    """The content of a task folder, before its data are prepared. The fields are those of `Task`."""

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
    also_metrics: tuple[str, ...] = ()
    target_array: str = ""
    prediction_range: tuple[float, float] | None = None
    m_init: float | None = None
    m_init_source: str = ""
    noise: Noise | None = None
    needs_gpu: bool = False
    board: Board | None = None


def list_tasks(tasks_dir: Path) -> list[str]:
    """The names of the task folders in `tasks_dir`, sorted."""
    return sorted(path.parent.name for path in tasks_dir.glob("*/task.toml"))


def find_task(name_or_path: str | Path, tasks_dir: Path) -> Path:
    """The folder of a task, given by its name in `tasks_dir` or a subfolder, or by the path of any folder.

    Raises TaskError.
    """
    text = str(name_or_path)
    if "/" in text or isinstance(name_or_path, Path):
        folder = Path(text).expanduser()
    else:
        below = sorted(path.parent for path in tasks_dir.glob("*/*/task.toml") if path.parent.name == text)
        folder = tasks_dir / text if (tasks_dir / text).is_dir() or not below else below[0]
    if not text or not folder.is_dir():
        known = ", ".join(list_tasks(tasks_dir)) or "none"
        raise TaskError(
            f"there is no task {text!r}; tasks in {tasks_dir}: {known} (name a folder elsewhere by its path,"
            " with a '/')"
        )
    return folder.resolve()


def read_task_file(name_or_path: str | Path, tasks_dir: Path) -> TaskFile:
    """Reads and checks the folder of a task. Raises TaskError, which names the file and the field."""
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
        **{name: _converted(name, value, path) for name, value in fields.items()},
    )
    _check_values(task, path)
    _check_targets(task, path)
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
_OPTIONAL: dict[str, tuple[tuple[type, ...], str]] = {
    "also_metrics": ((list,), "a list of strings"),
    "target_array": ((str,), "a string"),
    "prediction_range": ((list,), "a list of two numbers"),
    "m_init": ((int, float), "a number"),
    "m_init_source": ((str,), "a string"),
    "noise": ((dict,), "a table"),
    "needs_gpu": ((bool,), "true or false"),
    "board": ((dict,), "a table"),
}
_BOARD: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("gold", "silver", "bronze", "median"), ((int, float), "a number")),
    "teams": ((int,), "a whole number"),
    "source": ((str,), "a string"),
}
_NOISE: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("seeds", "rows"), ((int, float), "a number")),
    "source": ((str,), "a string"),
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
    known = _TYPES | _OPTIONAL
    unknown = sorted(fields.keys() - known.keys())
    if unknown:
        raise TaskError(f"{path} has an unknown field {unknown[0]!r}; the fields are {', '.join(known)}")
    for name, (_, expected) in _TYPES.items():
        if name not in fields:
            raise TaskError(f"{path} lacks the field {name!r}, {expected}")
    for name, value in fields.items():
        _check_type(value, *known[name], name, path)
        if name == "prediction_range":
            _check_range(value, name, path)
        elif isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise TaskError(f"{path}: {name!r} is {value!r}, expected a list of strings")


def _check_range(values: list[Any], name: str, path: Path) -> None:
    if not (len(values) == 2 and all(type(v) in (int, float) for v in values) and values[0] < values[1]):
        raise TaskError(f"{path}: {name!r} is {values!r}, expected the smallest and the largest value")


def _converted(name: str, value: Any, path: Path) -> Any:
    """The value of a field, whose type has been checked, as `TaskFile` stores it."""
    match name:
        case "m_best" | "m_init":
            return float(value)
        case "limits":
            return _limits(value, path)
        case "board":
            return Board(**_checked_table(value, _BOARD, name, path))
        case "noise":
            return Noise(**_checked_table(value, _NOISE, name, path))
        case "prediction_range":
            return float(value[0]), float(value[1])
    return tuple(value) if isinstance(value, list) else value


def _check_type(value: Any, types: tuple[type, ...], expected: str, name: str, path: Path) -> None:
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise TaskError(f"{path}: {name!r} is {value!r}, expected {expected}")


def _limits(table: dict[str, Any], path: Path) -> Limits:
    """The limits; those that the table does not name keep their defaults."""
    problems: list[str] = []
    limits = build(Limits, table, "limits", problems)
    if limits is None:
        raise TaskError(f"{path}: {'; '.join(problems)}")
    return limits


def _checked_table(
    table: dict[str, Any], known: dict[str, tuple[tuple[type, ...], str]], field: str, path: Path
) -> dict[str, Any]:
    """The table, which must have exactly the fields of `known`."""
    if table.keys() != known.keys():
        wrong = sorted(table.keys() ^ known.keys())[0]
        raise TaskError(f"{path}: {field!r} must have {', '.join(known)} and nothing else; check {wrong!r}")
    for name, (types, expected) in known.items():
        _check_type(table[name], types, expected, f"{field}.{name}", path)
    return table


def _check_values(task: TaskFile, path: Path) -> None:
    sources = ["m_best_source", *(["m_init_source"] if task.m_init_source else [])]
    for name in ("title", "brief", "kind", "id_column", *sources):
        value = getattr(task, name)
        if not value.strip() or "\n" in value:
            raise TaskError(f"{path}: {name!r} is {value!r}, expected one line of text")
    if len(task.brief) > BRIEF_CHARACTERS:
        raise TaskError(
            f"{path}: 'brief' has {len(task.brief)} characters, at most {BRIEF_CHARACTERS} are shown"
        )
    if task.split not in ("held_in", "held_out"):
        raise TaskError(f"{path}: 'split' is {task.split!r}, expected held_in or held_out")
    for field, name in (("metric", task.metric), *(("also_metrics", also) for also in task.also_metrics)):
        if name not in METRICS:
            raise TaskError(f"{path}: {field!r} is {name!r}, expected one of {', '.join(METRICS)}")
    metric = METRICS[task.metric]
    low, high = sorted((metric.best, metric.worst))
    for field in ("m_best", "m_init"):
        score = getattr(task, field)
        if score is not None and not (low <= score <= high and math.isfinite(score)):
            raise TaskError(f"{path}: {field!r} is {score}, expected a {task.metric} from {low} to {high}")
    if task.m_init_source and task.m_init is None:
        raise TaskError(f"{path} has an 'm_init_source' but no 'm_init'")
    if task.m_init is not None and not metric.is_better(task.m_best, task.m_init):
        raise TaskError(
            f"{path}: 'm_best' is {task.m_best}, expected a better {task.metric} than m_init, {task.m_init}"
        )
    if task.noise is not None and not all(
        math.isfinite(one) and one >= 0 for one in (task.noise.seeds, task.noise.rows)
    ):
        raise TaskError(f"{path}: 'noise' is {task.noise}, expected numbers of at least 0")
    if not task.description:
        raise TaskError(f"{path.parent / 'description.md'} is empty; describe the task there")
    try:
        compile(task.starter, "train.py", "exec")
    except (SyntaxError, ValueError) as error:
        raise TaskError(f"{path.parent / 'train.py'} is not valid Python: {error}") from error


def _check_targets(task: TaskFile, path: Path) -> None:
    """Checks that the targets are either columns or an array, and that every metric of the task accepts them."""
    columns = task.target_columns
    if task.target_array and columns:
        raise TaskError(
            f"{path} has both 'target_columns' and 'target_array'; for an array, set target_columns to []"
        )
    if not task.target_array and (
        not columns or len({task.id_column, "split", *columns}) != len(columns) + 2
    ):
        raise TaskError(
            f"{path}: 'target_columns' is {list(columns)!r}, expected distinct names that are not the id column"
            " or 'split'"
        )
    if task.target_array and not task.target_array.isidentifier():
        raise TaskError(f"{path}: 'target_array' is {task.target_array!r}, expected a Python identifier")
    first = METRICS[task.metric].prediction
    for name in (task.metric, *task.also_metrics):
        metric = METRICS[name]
        if task.target_array and not metric.targets.takes_array:
            raise TaskError(f"{path} has a 'target_array', but {name} takes {metric.targets.value}")
        if columns and metric.targets is Targets.ARRAY:
            raise TaskError(f"{path} has 'target_columns', but {name} takes {metric.targets.value}")
        if len(columns) > 1 and metric.targets is not Targets.COLUMNS:
            raise TaskError(f"{path}: 'target_columns' names {len(columns)} columns, but {name} takes one")
        if metric.prediction is not first and (metric.prediction.is_text or first.is_text):
            raise TaskError(
                f"{path}: {name} needs {metric.prediction.value}, but {task.metric} needs {first.value}; one"
                " submission cannot be both"
            )
