"""Tables and arrays as file contents: CSV that every reader splits into the same cells, and .npy."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def to_csv(frame: pd.DataFrame) -> bytes:
    r"""The table as UTF-8 CSV with lines ending in \n, without the index.

    Many readers take a carriage return in a cell for the end of a row unless the cell is quoted, and pandas does not
    quote it when lines end in \n. So if any cell or column name has one, all text is quoted.
    """
    texts = frame.select_dtypes(exclude=["number", "bool"])
    returns = any("\r" in str(name) for name in frame.columns) or any(
        texts.iloc[:, column].astype(str).str.contains("\r", regex=False).any()
        for column in range(len(texts.columns))
    )
    if returns:
        return frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).encode()
    return frame.to_csv(index=False, lineterminator="\n").encode()


def to_npy(array: np.ndarray) -> bytes:
    """The array as `numpy.save` writes it. Raises ValueError for an array of Python objects."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
