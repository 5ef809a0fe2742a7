"""Files of JSON lines: one object a line, appended by a single writer.

One rule for all of them: a line counts once its newline is there. A kill or a power cut can leave a last line without
one; readers leave it out, and the next append removes it first. Any other damage is reported, never repaired.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically

Record = dict[str, Any]

_REMEDY = "delete that line, or restore a copy of the file; nothing was changed"
_BLOCK = 1 << 16  # bytes read at a time when searching backwards

_log = logging.getLogger(__name__)


class JsonlError(UserError):
    """A file of JSON lines cannot be read or written; the message names the file, the line and the remedy."""


def read_jsonl(path: Path, missing_ok: bool = False) -> Iterator[Record]:
    """The records of a file in order, one at a time, without a torn last line.

    missing_ok: a file that does not exist has no records.
    Raises JsonlError if the file cannot be read, or a line is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    _log.warning("%s: line %d is torn and left out", path, number)
                    return
                yield _parse(path, number, line)
    except FileNotFoundError as error:
        if not missing_ok:
            raise JsonlError(f"cannot read {path}: {error.strerror}") from error
    except OSError as error:
        raise JsonlError(f"cannot read {path}: {error.strerror}") from error


def append_jsonl(path: Path, records: Iterable[Mapping[str, Any]], sync: bool = False) -> None:
    """Appends records as lines, after the last whole one; if that fails, the whole lines stay as they were.

    sync: return only once the lines are on disk, so that they outlive a crash of the machine.
    Raises JsonlError if the file cannot be written, and ValueError, before anything is written, for NaN and infinities.
    """
    data = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()
    try:
        with path.open("a+b", buffering=0) as file:
            descriptor = file.fileno()
            size = _drop_torn_line(path, descriptor)
            try:
                written = 0
                while written < len(data):
                    written += os.write(descriptor, data[written:])
                if sync:
                    os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
    except OSError as error:
        raise JsonlError(
            f"cannot write {path}: {error.strerror}; fix that and start again: the lines before are kept"
        ) from error


def drop_after(path: Path, step: int) -> None:
    """Rewrites a file without the records whose `step` is after `step`, and without a torn last line.

    Does nothing if there is no file. Raises JsonlError for a record without a step.
    """
    if not path.exists():
        return
    kept = []
    for number, record in enumerate(read_jsonl(path), 1):
        if not isinstance(record.get("step"), int):
            raise JsonlError(f"{path}, line {number} has no whole number as step; {_REMEDY}")
        if record["step"] <= step:
            kept.append(json.dumps(record) + "\n")
    write_atomically(path, "".join(kept))


def _parse(path: Path, number: int, line: bytes) -> Record:
    try:
        record = json.loads(line.decode())
    except ValueError as error:
        raise JsonlError(f"{path}, line {number} is not valid JSON ({error}); {_REMEDY}") from error
    if not isinstance(record, dict):
        raise JsonlError(
            f"{path}, line {number} holds a JSON {type(record).__name__} instead of an object; {_REMEDY}"
        )
    return record


def _drop_torn_line(path: Path, file: int) -> int:
    """Truncates the file after its last newline; returns its size then, in bytes."""
    size, end = os.fstat(file).st_size, _end_of_last_line(file)
    if end < size:
        os.ftruncate(file, end)
        _log.warning("%s: dropped %d bytes of a torn last line", path, size - end)
    return end


def _end_of_last_line(file: int) -> int:
    """The offset after the last newline, searched from the end; 0 if there is none."""
    position = os.fstat(file).st_size
    if position and os.pread(file, 1, position - 1) == b"\n":
        return position
    while position > 0:
        start = max(position - _BLOCK, 0)
        newline = os.pread(file, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0
