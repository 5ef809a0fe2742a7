"""Reads a user's CSV file as text, with every cell unchanged. Errors name the line that is wrong."""

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
    """No task can be made from this table as it is."""


def read_text_table(path: Path, encoding: str, delimiter: str) -> tuple[pd.DataFrame, list[str]]:
    """All cells as text, and notes for the user. Raises NewTaskError.

    The index is the line of the file in which each row begins. Column names are distinct and not empty.
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
    # A quoted one, as of a file that was exported twice. Readers would drop it.
    if header[0].startswith("\ufeff"):
        header[0] = header[0].lstrip("\ufeff")
        notes.append(f"left out the byte order mark before the name of the first column, {header[0]!r}")
    _check_header(path, header, text, delimiter)
    if not rows:
        raise NewTaskError(f"cannot read {path} as a table: it has a header and no rows")
    notes += _check_widths(path, header, rows, lines, delimiter)
    frame = pd.DataFrame(rows, columns=range(len(header)), index=lines, dtype=object)
    keep: list[int] = []
    names: list[str] = []
    for number, name in enumerate(header):
        if name.strip() == "" and (frame[number] == "").all():
            notes.append(f"left out column {number + 1}, which has neither a name nor any values")
            continue
        keep.append(number)
        names.append(name if name.strip() else unused_name(f"column_{number + 1}", {*header, *names}))
        if names[-1] != name and number:  # the first may be an index, which is handled later
            notes.append(f"column {number + 1} has no name and is called {names[-1]!r}")
    frame = frame[keep]
    frame.columns = pd.Index(names)
    return frame, notes


def unused_name(name: str, taken: set[str]) -> str:
    """The name, with underscores appended until it is not in `taken`."""
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
        hint = "it starts like UTF-16; give that encoding" if is_16 else "give its encoding"
        line = data[: error.start].count(b"\n") + 1 if isinstance(error, UnicodeDecodeError) else 1
        raise NewTaskError(
            f"{path} is not {encoding.removesuffix('-sig')}: {error} (line {line}); {hint}, for example with"
            f" --encoding={'utf-16' if is_16 else 'latin-1'}"
        ) from error
    except LookupError as error:
        raise NewTaskError(f"--encoding is {encoding!r}, which Python does not know") from error
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        hint = "; if it is UTF-16, use --encoding=utf-16" if text.count("\0") > len(text) // 4 else ""
        raise NewTaskError(f"{path} has a NUL byte in line {line}, which text never has; remove it{hint}")
    return text


def _check_line_ends(path: Path, text: str, delimiter: str) -> None:
    """Raises NewTaskError for a lone carriage return if other lines end differently: is it the end of a line?"""
    if "\r" not in text:
        return
    outside = re.sub(_QUOTED.pattern.replace("{delimiter}", re.escape(delimiter)), r"\1", text)
    ends = Counter(_LINE_END.findall(outside))
    if ends["\r"] and ends["\n"] + ends["\r\n"]:
        at = re.search(r"\r(?!\n)", outside)
        line = len(re.findall("\n", outside[: at.start()])) + 1 if at else 1
        raise NewTaskError(
            f"{path} has a carriage return outside quotes near line {line}, while other lines end differently; quote"
            " that cell, or give all lines the same ending"
        )


def _rows(path: Path, text: str, delimiter: str) -> tuple[list[list[str]], list[int], int]:
    """The rows, the lines in which they begin, and the number of empty lines before the last row."""
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
                f"{path} is not well-formed CSV: the row that begins in line {begin} has unbalanced quotes ({error}); a"
                " quote inside quotes has to be doubled"
            ) from error
    return rows, lines, empty


@contextmanager
def any_length() -> Iterator[None]:
    """Lifts the csv module's limit of 131,072 characters per cell."""
    old = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(old)


def _check_header(path: Path, header: list[str], text: str, delimiter: str) -> None:
    if header[0].lstrip().startswith("#") and len(header) == 1:
        raise NewTaskError(
            f"{path} begins with the comment {header[0][:40]!r}; remove everything above the header"
        )
    if len(header) == 1 and (better := other_delimiter(header, delimiter)):
        raise NewTaskError(
            f"{path} has only one column; set its delimiter, for example with --delimiter={better}"
        )
    twice = [name for name, count in Counter(header).items() if count > 1 and name.strip()]
    if twice:
        raise NewTaskError(f"{path} has two columns named {twice[0]!r}; rename or remove one")


def other_delimiter(header: list[str], delimiter: str) -> str:
    """Another character that seems to separate the names of the header, as --delimiter takes it, or ""."""
    counts = {other: delimiter.join(header).count(other) for other in DELIMITERS if other != delimiter}
    best = max(counts, key=lambda other: counts[other])
    return ("'\\t'" if best == "\t" else DELIMITERS[best]) if counts[best] else ""


def _check_widths(
    path: Path, header: list[str], rows: list[list[str]], lines: list[int], delimiter: str
) -> list[str]:
    """Checks that each row has one cell per column, and removes a delimiter that ends all rows. Returns notes.

    Raises NewTaskError.
    """
    width = len(header)
    odd = next((number for number, row in enumerate(rows) if len(row) != width), None)
    if odd is None:
        return []
    if all(len(row) == width + 1 for row in rows):
        if not any(row[-1] for row in rows):
            for row in rows:
                row.pop()
            return [
                f"left out the {DELIMITERS.get(delimiter, repr(delimiter))} that ends every row except the header"
            ]
        raise NewTaskError(
            f"{path} names {width} columns, but each row has {width + 1} cells; if the first cell is the name of the"
            " row, name that column too; otherwise name the column that has no name"
        )
    row = rows[odd]
    hint = ""
    if any(cell[:1] == " " and cell[1:2] == '"' for cell in row):
        hint = "; a quote must directly follow the delimiter, without a space"
    elif row[0].lstrip().startswith("#"):
        hint = "; remove comments"
    elif better := other_delimiter(header, delimiter):
        hint = f"; if it has another delimiter, set it, for example with --delimiter={better}"
    elif len(row) > width:
        hint = "; quote the cells that contain a delimiter"
    raise NewTaskError(
        f"cannot read {path} as a table: line {lines[odd]} has {len(row)} cells, the header {width}{hint}"
    )
