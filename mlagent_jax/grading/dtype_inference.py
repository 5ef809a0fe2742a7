"""Which cells `pandas.read_csv` changes by default: those that it reads as missing, as a boolean or as a number.

The lists follow pandas 3's documentation of `na_values`, `true_values` and type inference. Earlier versions use the
same words, except that "None" was added in 2.0.
"""

from __future__ import annotations

import math

NA_VALUES = frozenset({
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
BOOLEANS = frozenset(["True", "TRUE", "true", "False", "FALSE", "false"])


def as_number(cell: str) -> float | None:
    """The number, finite or infinite, that pandas may read from this cell; None if there is none."""
    try:
        number = float(cell) if "_" not in cell else math.nan
    except ValueError:
        return None
    return None if math.isnan(number) else number


def may_be_inferred(cell: str) -> bool:
    """Whether pandas may read anything other than the text of this cell, which must not be empty."""
    return cell in NA_VALUES or cell in BOOLEANS or as_number(cell) is not None
