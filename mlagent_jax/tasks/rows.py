"""What a script sees of each row of a task, in one form whatever the layout: a table, arrays, a file for each row."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.tasks.task import Task

MOST_CELLS = 4096  # of an array's row that are columns of their own; of larger ones, as many evenly spread
LONG_TEXT = 30  # characters on average: words and signs count, not the exact text


class NotApplicableError(Exception):
    """A task has nothing of the kind that a check looks at. Says what, as the end of "because ..."."""


def as_text(task: Task) -> bool:
    """Whether predictions are words: a class, or a ranking of them."""
    return METRICS[task.metric].prediction.is_text


def read_part(task: Task, part: str) -> pd.DataFrame:
    """The table of "train" or "test". Raises NotApplicableError."""
    path = task.data_dir / f"{part}.csv"
    if not path.is_file():
        raise NotApplicableError(f"there is no {path.name} in data/")
    return pd.read_csv(path, low_memory=False, keep_default_na=False, na_values=[""])  # "NA" may be a word


def identities(task: Task, name: str = "test.csv") -> list[str]:
    """Ids in the order of a table, as they are written there. Raises NotApplicableError."""
    path, column = task.data_dir / name, task.id_column
    if not path.is_file() or column not in pd.read_csv(path, nrows=0):
        raise NotApplicableError(f"there is no {name} with a column {column} in data/")
    return pd.read_csv(path, usecols=[column], dtype=str, keep_default_na=False)[column].tolist()


def places(task: Task, asked: Collection[str]) -> list[int]:
    """Where the rows with these ids stand in test.csv. Raises NotApplicableError."""
    place_of = {identity: place for place, identity in enumerate(identities(task))}
    missing = [identity for identity in asked if identity not in place_of]
    if missing:
        raise NotApplicableError(
            f"test.csv lacks the {task.id_column} {missing[0]!r}, which is among the labels"
        )
    return [place_of[identity] for identity in asked]


def label_column(task: Task, rows: pd.DataFrame) -> str | None:
    """The column of `rows` that names the class where target columns are one for each class."""
    if len(task.target_columns) < 2 or set(task.target_columns) & set(rows.columns):
        return None
    classes = set(task.target_columns)
    return next((name for name in rows.columns if len(rows) and classes.issuperset(rows[name])), None)


def train_targets(task: Task) -> np.ndarray:
    """Targets [n, t] of the training rows, classes as text. Raises NotApplicableError."""
    rows, names = read_part(task, "train"), list(task.target_columns)
    if (classes := label_column(task, rows)) is not None:
        return pd.get_dummies(rows[classes], dtype=float).reindex(columns=names, fill_value=0.0).to_numpy()
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise NotApplicableError(f"train.csv has no column for {missing[0]}")
    if not as_text(task):
        return rows[names].to_numpy(float)
    texts = pd.read_csv(task.data_dir / "train.csv", usecols=names, dtype=str, keep_default_na=False)
    return texts[names].to_numpy(dtype=str)


def arrays(task: Task, part: str) -> list[tuple[str, np.ndarray]]:
    """Arrays of the part [n, ...], and those of all rows of every table whose ids number their rows."""
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
        ids = [identity for path in tables for identity in identities(task, path.name)]
        if sorted(ids, key=lambda identity: identity.zfill(12)) == [
            str(number) for number in range(len(ids))
        ]:
            rows = [int(identity) for identity in identities(task, f"{part}.csv")]
            loaded = ((path.stem, np.load(path, mmap_mode="r")) for path in shared)
            found += [(name, array[rows]) for name, array in loaded if len(array) == len(ids)]
    return found


def row_files(task: Task, part: str) -> list[Path]:
    """The file of each row, which a folder, or all but a suffix, of its path names; [] if rows have none."""
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


def columns(task: Task, part: str, rows: np.ndarray | None = None) -> pd.DataFrame:
    """All that is known of each row, or of those at `rows`: table, arrays cell by cell, facts about its file."""
    table = read_part(task, part).drop(columns=list(task.target_columns), errors="ignore")
    picked = np.arange(len(table)) if rows is None else rows
    table = table.iloc[picked].reset_index(drop=True)
    if task.id_column in table and not pd.api.types.is_numeric_dtype(table[task.id_column]):
        table["id without digits"] = table[task.id_column].str.replace(r"\d+", "", regex=True)
    cells = [
        pd.DataFrame(np.asarray(array[picked]).reshape(len(picked), -1)[:, _spread(array)]).add_prefix(
            f"{name} "
        )
        for name, array in arrays(task, part)
    ]
    files = row_files(task, part)
    facts = [pd.DataFrame([_facts(files[row]) for row in picked])] if files else []
    return pd.concat([table, *cells, *facts], axis=1)


def _spread(array: np.ndarray) -> np.ndarray:
    cells = array[0].size
    return np.unique(np.linspace(0, cells - 1, min(cells, MOST_CELLS)).astype(int))


def _facts(path: Path) -> dict[str, float | str]:
    """Of a file, not of what it shows."""
    status = path.stat()
    facts: dict[str, float | str] = {
        "file's bytes": status.st_size,
        "file's age": status.st_mtime_ns,
        "file's name without digits": "".join(sign for sign in path.name if not sign.isdigit()),
    }
    if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
        with Image.open(path) as image:
            facts |= {"image's width": image.width, "image's height": image.height}
    return facts


def row_keys(task: Task, part: str, names: Sequence[str]) -> np.ndarray:
    """A hash of the features of each row: columns `names`, arrays and file. Raises NotApplicableError."""
    table = read_part(task, part)[list(names)]
    for name in table.columns:
        if pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].astype(float)
            continue
        text = table[name].fillna("").astype(str)
        if text.str.len().mean() > LONG_TEXT:
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
