"""Makes tasks from a competition's labelled files, with MLE-bench's test split and checks of the raw data.

MLE-bench takes its test rows from a competition's training rows with scikit-learn's `train_test_split` and
`random_state=0`, in the order that this returns. The same is done here, so scores over all test rows are comparable
with MLE-bench's. Which half of the test rows is public and which is private is this project's choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.raw_download import RawDataError
from mlagent_jax.tasks.table_bytes import to_csv

if TYPE_CHECKING:
    import pandas as pd

KAGGLE_TERMS = "the competition's rules on Kaggle: for the competition and for research, not to be passed on"
Rows = TypeVar("Rows")


def read_table(
    path: Path, columns: Sequence[str], rows: int | None = None, encoding: str = "utf-8"
) -> pd.DataFrame:
    """Reads a raw CSV file.

    columns: the columns that it must have. rows: the number of rows that it must have, if known.
    Raises RawDataError.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path, encoding=encoding)
    except (OSError, ValueError) as error:  # ValueError: parser and encoding errors of pandas too
        raise RawDataError(f"cannot read the raw table {path}: {error}") from error
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise RawDataError(
            f"the raw table {path} lacks the column {missing[0]!r}; it has {', '.join(frame.columns[:12])}."
            " Remove its folder to unpack it again"
        )
    check_count(path, len(frame), rows)
    return frame


def check_count(what: Path | str, found: int, expected: int | None, of: str = "rows") -> None:
    """Raises RawDataError if the number of rows or files differs from the known number of the source."""
    if expected is not None and found != expected:
        raise RawDataError(
            f"{what} has {found:,} {of}, expected {expected:,}: an incomplete download, or another version."
            " Remove its folder and its archive to download it again"
        )


def new_test(rows: Rows, share: float) -> tuple[Rows, Rows]:
    """Splits a competition's training rows as MLE-bench does. Returns (train, test)."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(rows, test_size=share, random_state=0)
    return train, test


def one_hot(frame: pd.DataFrame, id_column: str, target: str, classes: Sequence[str]) -> pd.DataFrame:
    """The ids and one column of 0 and 1 per class. Raises RawDataError for a target that is not in `classes`."""
    unknown = sorted(set(frame[target]) - set(classes))
    if unknown:
        raise RawDataError(f"raw data have the {target} {unknown[0]!r}, which the competition does not have")
    columns = {name: (frame[target] == name).astype(int) for name in classes}
    return frame[[id_column]].assign(**columns)


def halves(groups: Sequence[Any]) -> list[str]:
    """The split of each test row. Half of the groups are public and half private, each with all of its rows."""
    ordered = sorted(set(groups), key=lambda group: hashlib.sha256(f"half {group}".encode()).digest())
    public = set(ordered[: len(ordered) // 2])
    return ["public" if group in public else "private" for group in groups]


def competition_files(
    train: pd.DataFrame,
    test: pd.DataFrame,
    labels: pd.DataFrame,
    source: str,
    files: Mapping[str, bytes | Path] | None = None,
    answers_md5: str = "",
    classes: Sequence[str] = (),
) -> SplitFiles:
    """Bundles training rows, test rows without labels, and the labels of the test rows in the same order.

    files: further public files.
    answers_md5: of MLE-bench's file with these labels. The manifest's source notes whether ours are byte-identical.
    """
    if answers_md5:
        answers = labels.to_csv(index=False, lineterminator="\n").encode()
        same = hashlib.md5(answers).hexdigest() == answers_md5
        source += f"; test labels {'are' if same else 'are not'} MLE-bench's to the byte"
    return SplitFiles(
        public={"train.csv": to_csv(train), "test.csv": to_csv(test), **(files or {})},
        labels=labels,
        train_rows=len(train),
        source=source,
        licence=KAGGLE_TERMS,
        classes=classes,
    )
