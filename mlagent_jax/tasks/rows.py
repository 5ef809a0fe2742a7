"""What scripts can see of each row of a task, in one form for every layout: tables, arrays, and one file per row."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int, UInt
from PIL import Image

from mlagent_jax.grading.metrics import Values
from mlagent_jax.tasks.task import Task

MAX_CELLS = 4096  # of an array's row that become features; larger rows are sampled evenly
LONG_TEXT_CHARS = 30  # texts that are longer on average are compared without punctuation and links


class NotApplicableError(Exception):
    """A task does not have what a check looks at. The message completes "not applicable because ..."."""


def read_part(task: Task, part: str) -> pd.DataFrame:
    """The table of one part, "train" or "test". Raises NotApplicableError."""
    path = task.data_dir / f"{part}.csv"
    if not path.is_file():
        raise NotApplicableError(f"there is no {path.name} in data/")
    return pd.read_csv(path, low_memory=False, keep_default_na=False, na_values=[""])  # "NA" may be a value


def read_ids(task: Task, name: str = "test.csv") -> list[str]:
    """The ids of a table as text, in its order. Raises NotApplicableError."""
    path, column = task.data_dir / name, task.id_column
    if not path.is_file() or column not in pd.read_csv(path, nrows=0):
        raise NotApplicableError(f"there is no {name} with a column {column} in data/")
    return pd.read_csv(path, usecols=[column], dtype=str, keep_default_na=False)[column].tolist()


def positions(task: Task, ids: Collection[str]) -> list[int]:
    """The positions in test.csv of the rows with these ids. Raises NotApplicableError."""
    position_of = {identity: position for position, identity in enumerate(read_ids(task))}
    missing = [identity for identity in ids if identity not in position_of]
    if missing:
        raise NotApplicableError(
            f"test.csv lacks the {task.id_column} {missing[0]!r}, which is among the labels"
        )
    return [position_of[identity] for identity in ids]


def label_column(task: Task, rows: pd.DataFrame) -> str | None:
    """The column of `rows` that names the class, for tasks whose target columns are one per class."""
    if len(task.target_columns) < 2 or set(task.target_columns) & set(rows.columns):
        return None
    classes = set(task.target_columns)
    return next((name for name in rows.columns if len(rows) and classes.issuperset(rows[name])), None)


def train_targets(task: Task) -> Values:
    """The targets of the training rows, with classes as text. Raises NotApplicableError."""
    rows, names = read_part(task, "train"), list(task.target_columns)
    if (classes := label_column(task, rows)) is not None:
        return pd.get_dummies(rows[classes], dtype=float).reindex(columns=names, fill_value=0.0).to_numpy()
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise NotApplicableError(f"train.csv has no column for {missing[0]}")
    if not task.predicts_text:
        return rows[names].to_numpy(float)
    texts = pd.read_csv(task.data_dir / "train.csv", usecols=names, dtype=str, keep_default_na=False)
    return texts[names].to_numpy(dtype=str)


def arrays(task: Task, part: str) -> list[tuple[str, np.ndarray]]:
    """The arrays [n, ...] of a part by name.

    An array of all rows, such as features.npy, counts if the ids of all tables number its rows.
    """
    found = [
        (path.stem.removeprefix(f"{part}_"), np.load(path, mmap_mode="r"))
        for path in sorted(task.data_dir.glob(f"{part}_*.npy"))
        if path.stem != f"{part}_{task.target_array}"
    ]
    shared = [
        path for path in sorted(task.data_dir.glob("*.npy")) if not path.stem.startswith(("train_", "test_"))
    ]
    if shared:
        tables = [
            path for path in task.data_dir.glob("*.csv") if task.id_column in pd.read_csv(path, nrows=0)
        ]
        ids = [identity for path in tables for identity in read_ids(task, path.name)]
        if sorted(ids, key=lambda identity: identity.zfill(12)) == [
            str(number) for number in range(len(ids))
        ]:
            rows = [int(identity) for identity in read_ids(task, f"{part}.csv")]
            loaded = ((path.stem, np.load(path, mmap_mode="r")) for path in shared)
            found += [(name, array[rows]) for name, array in loaded if len(array) == len(ids)]
    return found


def row_files(task: Task, part: str) -> list[Path]:
    """The file of each row, found by its name, its name without suffix, or its folder; [] if rows have no files."""
    folder = task.data_dir / part
    below = folder if folder.is_dir() else task.data_dir
    files = [path for path in sorted(below.rglob("*")) if path.is_file() and path.parent != task.data_dir]
    named: dict[str, Path] = {}
    for path in files:
        for name in (path.name, path.stem, path.parent.name):
            named.setdefault(name, path)
    rows = read_part(task, part) if files else pd.DataFrame()
    for column in sorted(rows.columns, key=lambda name: name != task.id_column):
        names = rows[column].astype(str)
        if names.is_unique and names.isin(named.keys()).all():
            return [named[name] for name in names]
    return []


def row_features(task: Task, part: str, rows: Int[np.ndarray, " m"] | None = None) -> pd.DataFrame:
    """All features of the rows at the positions `rows`, or of every row: table, array cells, and file metadata."""
    table = read_part(task, part).drop(columns=list(task.target_columns), errors="ignore")
    picked = np.arange(len(table)) if rows is None else rows
    table = table.iloc[picked].reset_index(drop=True)
    if task.id_column in table and not pd.api.types.is_numeric_dtype(table[task.id_column]):
        table["id without digits"] = table[task.id_column].str.replace(r"\d+", "", regex=True)
    cells = [
        pd.DataFrame(np.asarray(array[picked]).reshape(len(picked), -1)[:, _sampled_cells(array)]).add_prefix(
            f"{name} "
        )
        for name, array in arrays(task, part)
    ]
    files = row_files(task, part)
    metadata = [pd.DataFrame([_metadata(files[row]) for row in picked])] if files else []
    return pd.concat([table, *cells, *metadata], axis=1)


def _sampled_cells(array: np.ndarray) -> Int[np.ndarray, " c"]:
    cells = array[0].size
    return np.unique(np.linspace(0, cells - 1, min(cells, MAX_CELLS)).astype(int))


def _metadata(path: Path) -> dict[str, float | str]:
    """Everything about a file but its content."""
    status = path.stat()
    metadata: dict[str, float | str] = {
        "file's bytes": status.st_size,
        "file's age": status.st_mtime_ns,
        "file's name without digits": "".join(
            character for character in path.name if not character.isdigit()
        ),
    }
    if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
        with Image.open(path) as image:
            metadata |= {"image's width": image.width, "image's height": image.height}
    return metadata


def row_keys(task: Task, part: str, names: Sequence[str]) -> UInt[np.ndarray, " n"]:
    """A hash of the features of each row: the columns `names`, arrays and its file. Raises NotApplicableError."""
    table = read_part(task, part)[list(names)]
    for name in table.columns:
        if pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].astype(float)
            continue
        text = table[name].fillna("").astype(str)
        if text.str.len().mean() > LONG_TEXT_CHARS:
            text = text.str.lower().replace({r"https?://\S+": "", r"[^a-z0-9]+": " "}, regex=True).str.strip()
        table[name] = text
    for name, array in arrays(task, part):
        table[f"array {name}"] = [_digest(row.tobytes()) for row in array]
    if files := row_files(task, part):
        table["file"] = [_digest(path.read_bytes()) for path in files]
    if not len(table.columns):
        raise NotApplicableError(
            "train.csv and test.csv share no column, and their rows have no arrays or files"
        )
    return pd.util.hash_pandas_object(table, index=False).to_numpy()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
