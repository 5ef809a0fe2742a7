"""Prepares the data of a task under a data root: fetches and splits them, and writes them with a manifest, atomically.

A task's `prepare.py` only fetches rows and drops what would give the labels away; `splitting` does the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically
from mlagent_jax.grading.labels import array_path
from mlagent_jax.packages import PackageReader
from mlagent_jax.tasks.labelled import LabelledRows, PreparationError, SplitFiles
from mlagent_jax.tasks.splitting import SEED, SplitData, check_split, split_rows
from mlagent_jax.tasks.task_file import TaskFile, read_task_file

__all__ = ["LabelledRows", "PreparationError", "RawFiles", "SplitFiles", "find_prepared", "prepare_task"]

FORMAT = 2  # increase it when the prepared data change
FILE_TIME = 315_532_800  # of every public file: 1 January 1980, the earliest date that a .zip file can store
MAX_HASHED_BYTES = (
    256 * 2**20
)  # of public files; of larger data only the sizes are checked when they are used again


class RawFiles(PackageReader):
    """What `prepare(files)` may read: pinned package files, and files in the task's own folder `raw/`."""

    def __init__(self, cache_dir: Path, task_folder: Path) -> None:
        super().__init__(cache_dir)
        self.folder = task_folder / "raw"

    def from_task(self, member: str) -> bytes:
        """A file in the task's folder `raw/`. Raises PreparationError."""
        path = self.folder / member
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PreparationError(f"cannot read the task's raw file {path}: {error}") from error
        self.sources.append({"file": f"raw/{member}", "sha256": hashlib.sha256(data).hexdigest()})
        return data


@dataclass(frozen=True)
class PreparedData:
    """Where the prepared data of a task are stored.

    classes: every value of the targets, as text. counts: numbers of rows by split. digest: of all files.
    """

    public_dir: Path
    labels_path: Path
    classes: tuple[str, ...]
    counts: dict[str, int]
    digest: str


def prepare_task(
    name_or_path: str | Path,
    tasks_dir: Path,
    data_root: Path,
    cache_dir: Path | None = None,
    micro: bool = False,
) -> Path:
    """Prepares the data of a task, unless they are already prepared and unchanged. Returns the public folder.

    Several processes may call this at once, and it may be interrupted: the complete public folder appears last.

    Args:
        name_or_path: as in `find_task`.
        cache_dir: where packages are kept; `data_root` if None.
        micro: prepare a small version of the task, which is stored next to the full one.

    Raises:
        TaskError, PackageError, PreparationError.
    """
    task = read_task_file(name_or_path, tasks_dir)
    prepared = find_prepared(task, data_root, micro)
    if prepared is not None:
        return prepared.public_dir
    files = RawFiles(cache_dir or data_root, task.folder)
    labelled = _run_prepare(task, files)
    if isinstance(labelled, LabelledRows):
        data = split_rows(task, labelled, micro)
    elif micro:
        raise PreparationError(
            f"task {task.name} has no micro version, since its source has already split its data; use the full task"
        )
    else:
        data = check_split(task, labelled)
    provenance = {
        "task": task.name,
        "source": labelled.source,
        "licence": labelled.licence,
        "read": files.sources,
        "seed": SEED,
        "format": FORMAT,
        "rows": data.counts,
        "classes": data.classes,
    }
    try:
        _write_data(data_key(task, micro), data_root, data, provenance)
    except OSError as error:
        raise PreparationError(
            f"cannot write the data of task {task.name} under {data_root}: {error}; choose another data root or free"
            " some space"
        ) from error
    prepared = find_prepared(task, data_root, micro)
    if prepared is None:
        raise PreparationError(
            f"the data of task {task.name} disappeared from {data_root} during preparation"
        )
    return prepared.public_dir


def find_prepared(task: TaskFile, data_root: Path, micro: bool = False) -> PreparedData | None:
    """The prepared data of a task, or None. Raises PreparationError if they have changed since they were written."""
    key = data_key(task, micro)
    public_dir, labels_path = data_root / "public" / key, data_root / "labels" / f"{key}.csv"
    manifest_path = data_root / "manifests" / f"{key}.json"
    try:
        if not public_dir.is_dir():
            return None
        text = manifest_path.read_bytes()
        manifest = json.loads(text)
        changed = _changed_files(public_dir, manifest)
        changed += [labels_path.name] if manifest["labels_sha256"] != _labels_digest(labels_path) else []
        classes, counts = tuple(manifest["classes"]), dict(manifest["rows"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreparationError(
            f"the prepared data of task {task.name} at {public_dir} are damaged ({error}); remove that folder to"
            " prepare them again"
        ) from error
    if changed:
        raise PreparationError(
            f"the prepared data of task {task.name} at {public_dir} have changed"
            f" ({', '.join(sorted(changed)[:8])}); remove that folder to prepare them again"
        )
    return PreparedData(public_dir, labels_path, classes, counts, _digest([text]))


def _changed_files(public_dir: Path, manifest: dict[str, Any]) -> list[str]:
    """The names of files that differ from the manifest, by hash, or by size if there is too much to hash."""
    paths = {str(path.relative_to(public_dir)): path for path in public_dir.rglob("*") if path.is_file()}
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    expected: dict[str, object] = manifest["files"]
    found: dict[str, object] = dict(sizes)
    if sum(sizes.values()) > MAX_HASHED_BYTES:
        expected = manifest["bytes"]
    else:
        found = {name: _file_digest(path) for name, path in paths.items()}
    return [name for name in {**expected, **found} if expected.get(name) != found.get(name)]


def data_key(task: TaskFile, micro: bool = False) -> str:
    """NAME-RECIPE, where RECIPE is a hash of everything that the prepared data depend on."""
    raw = sorted(path for path in (task.folder / "raw").rglob("*") if path.is_file())
    shape = [FORMAT, SEED, task.id_column, task.target_columns]
    shape += [task.target_array] if task.target_array else []
    recipe = _digest(
        [
            json.dumps(shape).encode(),
            (task.folder / "prepare.py").read_bytes(),
            *(
                part
                for path in raw
                for part in (str(path.relative_to(task.folder)).encode(), path.read_bytes())
            ),
        ]
    )
    return f"{task.name}-micro-{recipe[:12]}" if micro else f"{task.name}-{recipe[:12]}"


def _run_prepare(task: TaskFile, files: RawFiles) -> LabelledRows | SplitFiles:
    path = task.folder / "prepare.py"
    try:
        labelled = runpy.run_path(str(path))["prepare"](files)
    except UserError:
        raise
    except Exception as error:  # the task author's code may raise anything
        raise PreparationError(f"{path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(labelled, LabelledRows | SplitFiles):
        raise PreparationError(
            f"{path}: prepare(files) returned {type(labelled).__name__}, expected LabelledRows or SplitFiles"
        )
    return labelled


def _write_data(key: str, data_root: Path, data: SplitData, provenance: dict[str, Any]) -> None:
    """Writes labels and manifest first, and the public folder last, by renaming it: if it exists, all files do."""
    public_dir, labels_path = data_root / "public" / key, data_root / "labels" / f"{key}.csv"
    public_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=data_root, prefix=f".{key}."))
    try:
        for name, content in data.public.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, path)
            else:
                write_atomically(path, content)
        for path in temporary.rglob("*"):
            os.utime(path, (FILE_TIME, FILE_TIME))  # so that the times leak nothing about the labels
        for folder in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
            folder.chmod(0o755)  # the sandbox may run as another user
        write_atomically(labels_path, data.labels)
        if data.label_array is not None:
            write_atomically(array_path(labels_path), data.label_array)
        written = sorted(path for path in temporary.rglob("*") if path.is_file())
        manifest = {
            **provenance,
            "labels_sha256": _labels_digest(labels_path),
            "files": {str(path.relative_to(temporary)): _file_digest(path) for path in written},
            "bytes": {str(path.relative_to(temporary)): path.stat().st_size for path in written},
        }
        write_atomically(data_root / "manifests" / f"{key}.json", json.dumps(manifest, indent=2))
        temporary.rename(public_dir)
    except OSError:
        if not public_dir.is_dir():  # otherwise another process was first, with the same content
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _labels_digest(labels_path: Path) -> str:
    array = array_path(labels_path)
    return _digest([labels_path.read_bytes(), *([array.read_bytes()] if array.exists() else [])])


def _file_digest(path: Path) -> str:
    """The same as `_digest([content])`, without holding the content in memory."""
    digest = hashlib.sha256(path.stat().st_size.to_bytes(8, "big"))
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _digest(parts: Iterable[bytes]) -> str:
    """sha256 over length-prefixed parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
