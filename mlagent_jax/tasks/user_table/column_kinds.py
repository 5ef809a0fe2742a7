"""Decides which columns of a text table hold numbers. In doubt a column stays text, so that nothing is lost."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from mlagent_jax.grading.dtype_inference import NA_VALUES, may_be_inferred

NUMBER = re.compile(r" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *")
WITH_COMMA = re.compile(
    r" *[+-]?[0-9]{1,3}(?:[.,' ]?[0-9]{3})*,[0-9]+ *|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?"
)
# Codes that only look like numbers: 007, +49, 1e5 (which no program writes for 100000).
_CODE = re.compile(r" *(?:\+.*|-?0[0-9].*|[0-9]+[eE][0-9]+) *")
_INFINITE = re.compile(r" *[+-]?inf(?:inity)? *", re.IGNORECASE)
MAX_EXACT_INTEGER = 2**53  # a float represents every whole number up to this one
MAX_NUMBER = 1e100  # the square of a larger one is not finite in every model


@dataclass(frozen=True)
class Column:
    """A column as the task will have it.

    cells: text. is_number: whether every cell is a number or empty. notes: what was changed, for the user.
    """

    cells: pd.Series
    is_number: bool
    notes: tuple[str, ...] = ()


def classify(name: str, cells: pd.Series) -> Column:
    """Decides what a column of text holds.

    It holds numbers if every cell is a number, apart from at most one word that stands for missing values.
    """
    kinds = {cell: _kind(cell) for cell in cells.unique()}
    found, words = set(kinds.values()), [cell for cell, kind in kinds.items() if kind == "word"]
    has_missing_word = len(words) == 1 and words[0] in NA_VALUES and "empty" not in found
    if "number" not in found or "code" in found or (words and not has_missing_word):
        return Column(cells, False, tuple(_why_text(name, cells, kinds)))
    notes = []
    if words:
        count = int((cells == words[0]).sum())
        notes.append(
            f"emptied {count} cells {words[0]!r} in the column {name!r}, which otherwise holds numbers"
        )
    infinite = cells.map(kinds) == "infinite"
    if infinite.any():
        notes.append(
            f"emptied {int(infinite.sum())} infinite cells in the column {name!r}: models do not accept them"
        )
    return Column(cells.mask(infinite | cells.isin(words), ""), True, tuple(notes))


def needs_str_dtype(cells: pd.Series) -> bool:
    """Whether pandas may change the text of these cells unless the column's dtype is str."""
    return any(cell and may_be_inferred(cell) for cell in cells.unique())


def _kind(cell: str) -> str:
    if cell == "":
        return "empty"
    if _INFINITE.fullmatch(cell):
        return "infinite"
    if not NUMBER.fullmatch(cell):
        return "word"
    if _CODE.fullmatch(cell) or (
        cell.strip(" ").lstrip("-").isdigit() and abs(int(cell)) > MAX_EXACT_INTEGER
    ):
        return "code"
    return "infinite" if abs(float(cell)) > MAX_NUMBER else "number"


def _why_text(name: str, cells: pd.Series, kinds: dict[str, str]) -> list[str]:
    """Why a column that looks numeric is treated as text, for the user; empty for ordinary text."""
    prefix = f"the column {name!r} is treated as text: "
    filled = cells[cells != ""]
    words = filled[filled.map(kinds) == "word"]
    codes = filled[filled.map(kinds) == "code"]
    if len(codes) and not len(words):
        return [f"{prefix}{codes.iloc[0][:40]!r} would change if it were read as a number"]
    if (
        len(words)
        and filled.map(lambda cell: bool(WITH_COMMA.fullmatch(cell) or NUMBER.fullmatch(cell))).all()
    ):
        return [
            f"{prefix}if {words.iloc[0]!r} is a number, write it with a decimal point and no thousands separators"
        ]
    if 0 < len(words) < 0.05 * len(filled):
        return [f"{prefix}it holds numbers, but also {words.iloc[0][:40]!r}"]
    return []
