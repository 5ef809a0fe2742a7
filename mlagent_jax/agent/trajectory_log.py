"""The file in which a stage keeps its finished episodes: one trajectory a line, on disk once `append` returns.

The only reader and writer of such files. After kill -9 or a crash of the machine the last line may be torn: it is
dropped, and its episode is run again. Any other damage is reported, and nothing is written.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from mlagent_jax.agent.trajectory import Trajectory, from_json, to_json
from mlagent_jax.jsonl import JsonlError, append_jsonl, read_jsonl


def read_trajectories(path: Path, missing_ok: bool = False) -> Iterator[Trajectory]:
    """The trajectories of a file in order, one at a time, without a torn last line.

    An episode that an infrastructure fault ended may precede its own repetition, under the same key.
    missing_ok: a file that does not exist has no trajectories. Raises JsonlError for a file that cannot be read.
    """
    for number, record in enumerate(read_jsonl(path, missing_ok), 1):
        try:
            trajectory = from_json(record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JsonlError(
                f"{path}, line {number} is not a trajectory ({type(error).__name__}: {error}): delete that line, so "
                "that its episode is run again, or restore a copy of the file; nothing was changed"
            ) from error
        yield trajectory


def latest_trajectories(path: Path, missing_ok: bool = False) -> dict[str, Trajectory]:
    """The trajectories by key. An episode that was run again appears once, with its last result."""
    return {trajectory.key: trajectory for trajectory in read_trajectories(path, missing_ok)}


class TrajectoryLog:
    """Appends to `path`, as its only writer. Raises JsonlError if it cannot be opened or read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise JsonlError(f"cannot write {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._keys = {t.key for t in read_trajectories(path) if not t.is_masked}
        except BlockingIOError:
            self.close()
            raise JsonlError(
                f"another process is writing {path}; wait for it, or use another work directory"
            ) from None
        except BaseException:
            self.close()
            raise

    def keys(self) -> frozenset[str]:
        """The keys of the episodes that need not be run again: all but those that an infrastructure fault ended."""
        return frozenset(self._keys)

    def append(self, trajectory: Trajectory) -> None:
        """Returns once the line is on disk. Raises JsonlError if it cannot be written: the file is then as before."""
        append_jsonl(self._path, [to_json(trajectory)], sync=True)
        if not trajectory.is_masked:
            self._keys.add(trajectory.key)

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
