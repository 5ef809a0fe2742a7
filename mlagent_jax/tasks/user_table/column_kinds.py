"""Which columns of a table of text hold numbers. In doubt a column is text: then nothing of it can be lost."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from mlagent_jax.grading.dtype_inference import MISSING, is_reread

NUMBER = re.compile(r" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *")
WITH_COMMA = re.compile(
    r" *[+-]?[0-9]{1,3}(?:[.,' ]?[0-9]{3})*,[0-9]+ *|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?"
)
# What only looks like a number: 007, +49, 1e5 (which no program writes for 100000).
_CODE = re.compile(r" *(?:\+.*|-?0[0-9].*|[0-9]+[eE][0-9]+) *")
_INFINITE = re.compile(r" *[+-]?inf(?:inity)? *", re.IGNORECASE)
MOST_EXACT = 2**53  # the last whole number up to which a float is every one
TOO_LARGE = 1e100  # its square is not finite in all models


@dataclass(frozen=True)
class Column:
    """cells: as they are to be written. is_number: then each is a number or empty. notes: what was changed."""

    cells: pd.Series
    is_number: bool
    notes: tuple[str, ...] = ()


def classify(name: str, cells: pd.Series) -> Column:
    """cells: text. A column of numbers is one whose every cell is, but for one word for what is missing."""
    kinds = {cell: _kind(cell) for cell in cells.unique()}
    found, words = set(kinds.values()), [cell for cell, kind in kinds.items() if kind == "word"]
    one_word_for_missing = len(words) == 1 and words[0] in MISSING and "empty" not in found
    if "number" not in found or "code" in found or (words and not one_word_for_missing):
        return Column(cells, False, tuple(_why_text(name, cells, kinds)))
    notes = []
    if words:
        count = int((cells == words[0]).sum())
        notes.append(
            f"emptied {count} cells {words[0]!r} of the column {name!r}, which otherwise holds numbers"
        )
    infinite = cells.map(kinds) == "infinite"
    if infinite.any():
        notes.append(f"emptied {int(infinite.sum())} infinite cells of the column {name!r}: models take none")
    return Column(cells.mask(infinite | cells.isin(words), ""), True, tuple(notes))


def needs_telling(cells: pd.Series) -> bool:
    """Whether pandas may read something else than the text of these cells, unless it is told that they are text."""
    return any(cell and is_reread(cell) for cell in cells.unique())


def _kind(cell: str) -> str:
    if cell == "":
        return "empty"
    if _INFINITE.fullmatch(cell):
        return "infinite"
    if not NUMBER.fullmatch(cell):
        return "word"
    if _CODE.fullmatch(cell) or (cell.strip(" ").lstrip("-").isdigit() and abs(int(cell)) > MOST_EXACT):
        return "code"
    return "infinite" if abs(float(cell)) > TOO_LARGE else "number"


def _why_text(name: str, cells: pd.Series, kinds: dict[str, str]) -> list[str]:
    """What is to be said of a column that looks like numbers and is text all the same."""
    taken = f"the column {name!r} is taken as text: "
    filled = cells[cells != ""]
    words = filled[filled.map(kinds) == "word"]
    codes = filled[filled.map(kinds) == "code"]
    if len(codes) and not len(words):
        return [f"{taken}{codes.iloc[0][:40]!r} would change if it were a number"]
    if (
        len(words)
        and filled.map(lambda cell: bool(WITH_COMMA.fullmatch(cell) or NUMBER.fullmatch(cell))).all()
    ):
        return [f"{taken}if {words.iloc[0]!r} is a number, write it with a point and without other signs"]
    if 0 < len(words) < 0.05 * len(filled):
        return [f"{taken}it holds numbers, and also {words.iloc[0][:40]!r}"]
    return []
