"""What `pandas.read_csv` must be told so that it reads every cell of a task's tables as the text that it is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from mlagent_jax.grading.dtype_inference import NA_VALUES
from mlagent_jax.tasks.user_table.column_kinds import needs_str_dtype


@dataclass(frozen=True)
class PandasOptions:
    """text_columns: columns that need the dtype str. has_na_words: whether words such as NA are values."""

    text_columns: tuple[str, ...]
    has_na_words: bool


def pandas_options(rows: pd.DataFrame, numbers: Collection[str]) -> PandasOptions:
    """The options that this table needs. rows: text. numbers: the columns whose cells are numbers."""
    text_columns = tuple(name for name in rows.columns if name not in numbers and needs_str_dtype(rows[name]))
    return PandasOptions(text_columns, any(not NA_VALUES.isdisjoint(rows[name]) for name in text_columns))
