"""Turns a task's labelled rows into visible training data, test data without labels, and held-out labels.

What a task's `prepare.py` does is fetch rows and drop what gives the answer away. The rest is the same for
every task and done here: duplicates removed, rows shuffled, ids that say nothing, splits, atomic writing,
a manifest.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import runpy
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlagent_jax.environment.packages import PackageReader
from mlagent_jax.environment.task_file import TaskFile, read_task_file
from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

SEED = 0
MOST_CLASSES = 1000
FORMAT = 1  # raise it when prepared data would come out differently


class PreparationError(UserError):
    """A task's data could not be prepared, or are not what was prepared."""


@dataclass(frozen=True)
class LabelledRows:
    """What `prepare.py` returns: n labelled rows, in any order.

    rows: features and targets. arrays: name -> [n, ...] in the order of rows, e.g. "images": uint8 [n, h, w].
    train_rows: how many become visible training rows; the others are test rows, half public and half private.
    source, licence: for the manifest.
    """

    rows: pd.DataFrame
    train_rows: int
    source: str
    licence: str
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


class RawFiles(PackageReader):
    """What `prepare(files)` may read: pinned package files, and files of the task's own folder `raw/`."""

    def __init__(self, cache_dir: Path, task_folder: Path) -> None:
        super().__init__(cache_dir)
        self._raw = task_folder / "raw"

    def from_task(self, member: str) -> bytes:
        """A file of the task's `raw/` folder. Raises PreparationError."""
        path = self._raw / member
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PreparationError(f"cannot read the task's raw file {path}: {error}") from error
        self.sources.append({"file": f"raw/{member}", "sha256": hashlib.sha256(data).hexdigest()})
        return data


@dataclass(frozen=True)
class PreparedData:
    """Where a task's prepared data lie. classes: every value of a target, as text. digest: of all files."""

    public_dir: Path
    labels_path: Path
    classes: tuple[str, ...]
    digest: str


def prepare_task(
    name_or_path: str | Path, tasks_dir: Path, data_root: Path, cache_dir: Path | None = None
) -> Path:
    """Prepares a task's data, or finds them prepared already and unchanged. Returns the public folder.

    Safe to call from several processes at once and to interrupt: the public folder appears last, whole.
    Packages are kept in `cache_dir`, or in `data_root` if none is given. Raises TaskError, PackageError,
    PreparationError.
    """
    task = read_task_file(name_or_path, tasks_dir)
    prepared = find_prepared(task, data_root)
    if prepared is not None:
        return prepared.public_dir
    files = RawFiles(cache_dir or data_root, task.folder)
    labelled = _run_prepare(task, files)
    outputs = _split(task, labelled)
    manifest = {
        "task": task.name,
        "source": labelled.source,
        "licence": labelled.licence,
        "read": files.sources,
        "seed": SEED,
        "format": FORMAT,
        "rows": outputs.counts,
        "classes": outputs.classes,
        "labels_sha256": _digest([outputs.labels]),
        "files": {name: _digest([data]) for name, data in sorted(outputs.public.items())},
    }
    try:
        _write(task, data_root, outputs, json.dumps(manifest, indent=2))
    except OSError as error:
        raise PreparationError(
            f"cannot write the data of task {task.name} under {data_root}: {error}; choose another data"
            " root or free space"
        ) from error
    prepared = find_prepared(task, data_root)
    if prepared is None:
        raise PreparationError(
            f"the data of task {task.name} vanished from {data_root} while they were prepared"
        )
    return prepared.public_dir


def find_prepared(task: TaskFile, data_root: Path) -> PreparedData | None:
    """The task's prepared data if they are there. Raises PreparationError if they are not as written."""
    key = data_key(task)
    public_dir, labels_path = data_root / "public" / key, data_root / "labels" / f"{key}.csv"
    manifest_path = data_root / "manifests" / f"{key}.json"
    try:
        if not public_dir.is_dir():
            return None
        text = manifest_path.read_bytes()
        manifest = json.loads(text)
        found = {path.name: _digest([path.read_bytes()]) for path in sorted(public_dir.iterdir())}
        labels = _digest([labels_path.read_bytes()])
        classes = tuple(manifest["classes"])
        changed = [
            name for name in {**manifest["files"], **found} if manifest["files"].get(name) != found.get(name)
        ]
        changed += [labels_path.name] if manifest["labels_sha256"] != labels else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreparationError(
            f"the prepared data of task {task.name} at {public_dir} are damaged ({error}); remove that folder"
            " to have them prepared again"
        ) from error
    if changed:
        raise PreparationError(
            f"the prepared data of task {task.name} at {public_dir} were changed"
            f" ({', '.join(sorted(changed))}); remove that folder to have them prepared again"
        )
    return PreparedData(public_dir, labels_path, classes, _digest([text]))


def data_key(task: TaskFile) -> str:
    """NAME-RECIPE: changes with all that prepared data depend on."""
    raw = sorted(path for path in (task.folder / "raw").rglob("*") if path.is_file())
    columns = json.dumps([FORMAT, SEED, task.id_column, task.target_columns])
    recipe = _digest(
        [
            columns.encode(),
            (task.folder / "prepare.py").read_bytes(),
            *(
                part
                for path in raw
                for part in (str(path.relative_to(task.folder)).encode(), path.read_bytes())
            ),
        ]
    )
    return f"{task.name}-{recipe[:12]}"


def _run_prepare(task: TaskFile, files: RawFiles) -> LabelledRows:
    path = task.folder / "prepare.py"
    try:
        labelled = runpy.run_path(str(path))["prepare"](files)
    except UserError:
        raise
    except Exception as error:  # the task author's code may raise anything
        raise PreparationError(f"{path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(labelled, LabelledRows):
        raise PreparationError(
            f"{path}: prepare(files) returned {type(labelled).__name__}, expected LabelledRows"
        )
    return labelled


@dataclass(frozen=True)
class _Outputs:
    public: dict[str, bytes]
    labels: bytes
    classes: list[str]
    counts: dict[str, int]


def _split(task: TaskFile, labelled: LabelledRows) -> _Outputs:
    targets, rows = list(task.target_columns), labelled.rows.reset_index(drop=True)
    arrays = {name: np.asarray(array) for name, array in labelled.arrays.items()}
    _check_rows(task, rows, arrays)
    unique = _first_of_each(rows.drop(columns=targets), arrays)
    order = np.array(_shuffled(unique, "rows"))
    test_rows = len(order) - labelled.train_rows
    if labelled.train_rows < 1 or test_rows < 2:
        raise PreparationError(
            f"task {task.name} has {len(order)} distinct rows, too few for train_rows ="
            f" {labelled.train_rows} and two test rows"
        )
    rows = rows.iloc[order].reset_index(drop=True)
    rows.insert(0, task.id_column, np.arange(len(rows)))
    train, test = rows[: labelled.train_rows], rows[labelled.train_rows :]
    public_ids = set(_shuffled(test[task.id_column].tolist(), "public")[: test_rows // 2])
    labels = test[[task.id_column, *targets]].copy()
    labels["split"] = [
        "public" if identity in public_ids else "private" for identity in labels[task.id_column]
    ]

    public = {"train.csv": _csv(train), "test.csv": _csv(test.drop(columns=targets))}
    for name, array in arrays.items():
        public[f"train_{name}.npy"] = _npy(array[order[: labelled.train_rows]])
        public[f"test_{name}.npy"] = _npy(array[order[labelled.train_rows :]])
    counts = {
        "dropped_as_duplicates": len(labelled.rows) - len(order),
        "train": len(train),
        "public": len(public_ids),
        "private": test_rows - len(public_ids),
    }
    return _Outputs(public, _csv(labels), _classes(_csv(rows[targets])), counts)


def _check_rows(task: TaskFile, rows: pd.DataFrame, arrays: Mapping[str, np.ndarray]) -> None:
    where = f"{task.folder / 'prepare.py'} returned rows"
    missing = [column for column in task.target_columns if column not in rows.columns]
    if missing:
        raise PreparationError(f"{where} without the target column {missing[0]!r} that task.toml names")
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
        keys[f"array {name}"] = [_digest([row.tobytes()]) for row in array]
    return np.flatnonzero(~keys.duplicated()).tolist() if len(keys.columns) else list(range(len(keys)))


def _shuffled(items: Iterable[Any], purpose: str) -> list[Any]:
    """Ordered by a hash: the same on every platform and for every version of NumPy."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{SEED} {purpose} {item}".encode()).digest())


def _classes(targets_csv: bytes) -> list[str]:
    """Distinct target values as they are written in a CSV, if there are few enough to be classes."""
    rows = list(csv.reader(io.StringIO(targets_csv.decode(), newline="")))[1:]
    values = sorted({cell for row in rows for cell in row})
    return values if len(values) <= MOST_CLASSES else []


def _csv(frame: pd.DataFrame) -> bytes:
    """Carriage returns in text become newlines: CSV writers may leave them unquoted, which breaks the row."""
    return frame.replace(r"\r\n?", "\n", regex=True).to_csv(index=False, lineterminator="\n").encode()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _write(task: TaskFile, data_root: Path, outputs: _Outputs, manifest: str) -> None:
    """Labels and manifest first, the public folder last and by one rename: it is there only if all is."""
    key = data_key(task)
    public_dir = data_root / "public" / key
    public_dir.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(data_root / "labels" / f"{key}.csv", outputs.labels)
    write_atomically(data_root / "manifests" / f"{key}.json", manifest)
    temporary = Path(tempfile.mkdtemp(dir=data_root, prefix=f".{key}."))
    try:
        for name, data in outputs.public.items():
            write_atomically(temporary / name, data)
        temporary.chmod(0o755)  # a sandbox may run as another user
        temporary.rename(public_dir)
    except OSError:
        if not public_dir.is_dir():  # else another process was first, with the same content
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _digest(parts: Iterable[bytes]) -> str:
    """sha256 over length-prefixed parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
