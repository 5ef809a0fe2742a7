"""Where a stage keeps its finished episodes: a file of one trajectory a line, on disk once `append` returns.

After kill -9 or a crash of the machine, the last line may be torn; it is dropped, and its episode run again.
Damage anywhere else is not ours to guess about: it is named, and nothing is written.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from mlagent_jax.agent.trajectory import Trajectory, from_json, to_json
from mlagent_jax.errors import UserError

_log = logging.getLogger(__name__)


class TrajectoryLogError(UserError):
    """A log of trajectories cannot be read or written; the message names file, line and remedy."""


def read_trajectories(path: Path) -> Iterator[Trajectory]:
    """The trajectories of a file in order, one at a time, less a torn last line. Raises TrajectoryLogError.

    An episode that a fault of ours ended may stand before its own repetition, under the same key.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    _log.warning("%s: line %d is torn and left out", path, number)
                    return
                yield _parse(path, number, line)
    except OSError as error:
        raise TrajectoryLogError(f"cannot read {path}: {error.strerror}") from error


class TrajectoryLog:
    """Appends to `path`, as its only writer. Raises TrajectoryLogError if it cannot be opened or read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: set[str] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise TrajectoryLogError(f"cannot write {path}: {error.strerror}") from error
        try:
            self._lock()
            self._keys = {t.key for t in read_trajectories(path) if not t.is_masked}
            self._drop_torn_line()
        except BaseException:
            os.close(self._file)
            raise

    def keys(self) -> frozenset[str]:
        """Of the episodes that need not be run again; those that a fault of ours ended are not among them."""
        return frozenset(self._keys)

    def read(self) -> Iterator[Trajectory]:
        """As `read_trajectories`."""
        return read_trajectories(self._path)

    def append(self, trajectory: Trajectory) -> None:
        """Returns once the line is on disk; if it cannot be written, the file is as it was before."""
        line = (json.dumps(to_json(trajectory), allow_nan=False) + "\n").encode()
        size = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise TrajectoryLogError(
                f"cannot write {self._path}: {error.strerror}; mend that and start again: its lines are kept"
            ) from error
        if not trajectory.is_masked:
            self._keys.add(trajectory.key)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrajectoryLogError(
                f"another process is writing {self._path}; wait for it, or use another work directory"
            ) from None

    def _drop_torn_line(self) -> None:
        with self._path.open("rb") as file:
            content_end = _end_of_last_line(file.fileno())
        torn = os.fstat(self._file).st_size - content_end
        if torn:
            os.ftruncate(self._file, content_end)
            _log.warning("%s: dropped %d bytes of a last line that was torn", self._path, torn)


def _end_of_last_line(file: int) -> int:
    """Offset after the last newline, found from the end."""
    position, block = os.fstat(file).st_size, 1 << 16
    while position > 0:
        start = max(position - block, 0)
        newline = os.pread(file, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _parse(path: Path, number: int, line: bytes) -> Trajectory:
    try:
        return from_json(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrajectoryLogError(
            f"{path}, line {number} is not a trajectory ({type(error).__name__}: {error}): delete it, so "
            "that its episode is run again, or restore a copy of the file; nothing was changed"
        ) from error
