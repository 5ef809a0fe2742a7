"""What `pandas.read_csv` makes of a cell when it is told nothing: missing, a boolean or a number instead of its text.

From the documentation of `na_values`, `true_values` and of dtype inference in pandas 3; older ones know the same words
but for "None" (from 2.0 on).
"""

from __future__ import annotations

import math

MISSING = frozenset({
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
BOOLEANS = frozenset(["True", "TRUE", "true", "False", "FALSE", "false"])


def as_number(cell: str) -> float | None:
    """The number that the cell may be taken for, infinite ones too, or None."""
    try:
        number = float(cell) if "_" not in cell else math.nan
    except ValueError:
        return None
    return None if math.isnan(number) else number


def is_reread(cell: str) -> bool:
    """Whether pandas may give something else than the text of this cell, which is not empty."""
    return cell in MISSING or cell in BOOLEANS or as_number(cell) is not None
