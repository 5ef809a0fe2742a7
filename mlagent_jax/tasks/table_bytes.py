"""Data frames as CSV that every reader takes apart alike, with each cell as it was."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def to_csv(frame: pd.DataFrame) -> bytes:
    """UTF-8, lines ending in a newline, without the index.

    A carriage return in a cell is a row's end to many readers unless it stands in quotes, where CSV writers that end
    lines in newlines don't put it: a table that has one has all of its text in quotes.
    """
    texts = frame.select_dtypes(exclude=["number", "bool"])
    returns = any("\r" in str(name) for name in frame.columns) or any(
        texts.iloc[:, place].astype(str).str.contains("\r", regex=False).any()
        for place in range(len(texts.columns))
    )
    if returns:
        return frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).encode()
    return frame.to_csv(index=False, lineterminator="\n").encode()
