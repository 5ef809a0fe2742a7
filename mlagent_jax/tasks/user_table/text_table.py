"""Reads a user's CSV file as text, cell by cell as it stands there; what does not fit is named by its line."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from mlagent_jax.errors import UserError

DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_ARCHIVES = {b"PK\x03\x04": "a zip archive or a spreadsheet", b"\x1f\x8b": "compressed", b"PAR1": "Parquet"}
_QUOTED = re.compile(r'(^|[\r\n{delimiter}])"(?:[^"]|"")*"')
_LINE_END = re.compile(r"\r\n|\r|\n")


class NewTaskError(UserError):
    """No task can be made of this table as it is."""


def read_text_table(path: Path, encoding: str, delimiter: str) -> tuple[pd.DataFrame, list[str]]:
    """All cells as text, the index being the line in which a row begins; and what the user should know.

    Column names are distinct and not empty. Raises NewTaskError.
    """
    delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise NewTaskError(f"--delimiter is {delimiter!r}, expected one character, such as ';' or '\\t'")
    text = _text(path, encoding)
    _check_line_ends(path, text, delimiter)
    rows, lines, empty = _rows(path, text, delimiter)
    notes = [f"skipped {empty} empty lines"] if empty else []
    if not rows:
        raise NewTaskError(f"cannot read {path} as a table: it is empty")
    header, rows, lines = rows[0], rows[1:], lines[1:]
    _check_header(path, header, text, delimiter)
    if not rows:
        raise NewTaskError(f"cannot read {path} as a table: it has a header and no rows")
    notes += _even(path, header, rows, lines, delimiter)
    frame = pd.DataFrame(rows, columns=range(len(header)), index=lines, dtype=object)
    keep: list[int] = []
    names: list[str] = []
    for number, name in enumerate(header):
        if name.strip() == "" and (frame[number] == "").all():
            notes.append(f"left out column {number + 1}, which has neither a name nor a value")
            continue
        keep.append(number)
        names.append(name if name.strip() else _unused(f"column_{number + 1}", {*header, *names}))
        if names[-1] != name and number:  # the first may be a numbering, which is looked at later
            notes.append(f"column {number + 1} has no name and is called {names[-1]!r}")
    frame = frame[keep]
    frame.columns = pd.Index(names)
    return frame, notes


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _text(path: Path, encoding: str) -> str:
    try:
        with (_OPENERS.get(path.suffix.lower()) or open)(path, "rb") as file:
            data: bytes = file.read()
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise NewTaskError(f"cannot read {path} as a table: {str(error).strip()}") from error
    for start, kind in _ARCHIVES.items():
        if data.startswith(start):
            raise NewTaskError(f"{path} is {kind}, not text; unpack it or export it as CSV")
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        is_16 = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        hint = "it begins as UTF-16 does" if is_16 else "name its encoding"
        line = data[: error.start].count(b"\n") + 1 if isinstance(error, UnicodeDecodeError) else 1
        raise NewTaskError(
            f"{path} is not {encoding.removesuffix('-sig')}: {error} (line {line}); {hint}, such as"
            f" --encoding={'utf-16' if is_16 else 'latin-1'}"
        ) from error
    except LookupError as error:
        raise NewTaskError(f"--encoding is {encoding!r}, which Python does not know") from error
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        hint = "; if it is UTF-16, say --encoding=utf-16" if text.count("\0") > len(text) // 4 else ""
        raise NewTaskError(f"{path} has a NUL byte in line {line}, which no text has; remove it{hint}")
    return text


def _check_line_ends(path: Path, text: str, delimiter: str) -> None:
    """A carriage return alone may be a line's end or not; if other lines end otherwise, nobody can tell."""
    if "\r" not in text:
        return
    outside = re.sub(_QUOTED.pattern.replace("{delimiter}", re.escape(delimiter)), r"\1", text)
    ends = Counter(_LINE_END.findall(outside))
    if ends["\r"] and ends["\n"] + ends["\r\n"]:
        at = re.search(r"\r(?!\n)", outside)
        line = len(re.findall("\n", outside[: at.start()])) + 1 if at else 1
        raise NewTaskError(
            f"{path} has a carriage return outside of quotes at about line {line}, where other lines end in another"
            " way; put that cell into quotes, or give all lines the same end"
        )


def _rows(path: Path, text: str, delimiter: str) -> tuple[list[list[str]], list[int], int]:
    """Rows with the lines where they begin, and how many lines before the last row are empty."""
    rows, lines, empty, blank = [], [], 0, 0
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begin = 1
    with any_length():
        try:
            for row in reader:
                if not row or (len(row) == 1 and not row[0].strip()):
                    blank += 1
                else:
                    rows.append(row)
                    lines.append(begin)
                    empty, blank = empty + blank, 0
                begin = reader.line_num + 1
        except csv.Error as error:
            raise NewTaskError(
                f"{path} is no well-formed CSV: the row that begins in line {begin} has quotes that do not match"
                f" ({error}); a quote inside of quotes is written twice"
            ) from error
    return rows, lines, empty


@contextmanager
def any_length() -> Iterator[None]:
    """Cells longer than csv's default of 131,072 characters are cells too."""
    old = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(old)


def _check_header(path: Path, header: list[str], text: str, delimiter: str) -> None:
    if header[0].lstrip().startswith("#") and len(header) == 1:
        raise NewTaskError(
            f"{path} begins with the comment {header[0][:40]!r}; remove what stands above the header"
        )
    if len(header) == 1 and (better := other_delimiter(header, delimiter)):
        raise NewTaskError(
            f"{path} has one column only, so give its --delimiter, such as --delimiter={better}"
        )
    twice = [name for name, count in Counter(header).items() if count > 1 and name.strip()]
    if twice:
        raise NewTaskError(f"{path} has two columns {twice[0]!r}; rename or remove one")


def other_delimiter(header: list[str], delimiter: str) -> str:
    """What else seems to part the names of the header, as --delimiter takes it, or ""."""
    counts = {other: delimiter.join(header).count(other) for other in DELIMITERS if other != delimiter}
    best = max(counts, key=lambda other: counts[other])
    return ("'\\t'" if best == "\t" else DELIMITERS[best]) if counts[best] else ""


def _even(
    path: Path, header: list[str], rows: list[list[str]], lines: list[int], delimiter: str
) -> list[str]:
    """Sees to it that each row has a cell for each name; what was done for it."""
    width = len(header)
    odd = next((number for number, row in enumerate(rows) if len(row) != width), None)
    if odd is None:
        return []
    if all(len(row) == width + 1 for row in rows):
        if not any(row[-1] for row in rows):
            for row in rows:
                row.pop()
            return [
                f"left out the {DELIMITERS.get(delimiter, repr(delimiter))} that ends each row but the header"
            ]
        raise NewTaskError(
            f"{path} names {width} columns, but each of its rows has {width + 1} cells; if the first are the names of"
            " the rows, name that column too, else name the column that has no name"
        )
    row = rows[odd]
    hint = ""
    if any(cell[:1] == " " and cell[1:2] == '"' for cell in row):
        hint = "; a quote counts only right after the delimiter, without a space"
    elif row[0].lstrip().startswith("#"):
        hint = "; remove comments"
    elif better := other_delimiter(header, delimiter):
        hint = f"; if it is parted otherwise, give its --delimiter, such as --delimiter={better}"
    elif len(row) > width:
        hint = "; put cells that have a delimiter in them into quotes"
    raise NewTaskError(
        f"cannot read {path} as a table: line {lines[odd]} has {len(row)} cells, the header {width}{hint}"
    )
