"""Frees what a work directory keeps and nothing refers to: workspaces, and executions beyond their quota."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.workdir import Workdir, WorkdirError
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.sandbox import cache

_ID = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True)
class Freed:
    """executions: forgotten, for the quota. files, bytes: of workspaces and blobs."""

    executions: int
    files: int
    bytes: int


def collect_garbage(workdir: Workdir, quota_mb: float) -> Freed:
    """Every workspace that any of the run's records names stays, and what it holds.

    Raises WorkdirError: no work directory, or a run is at work in it, which may be about to name others.
    """
    if not workdir.snapshots.is_dir():
        raise WorkdirError(f"{workdir.root} is no work directory with snapshots: name the --workdir of a run")
    with workdir.locked():
        executions, needed = cache.collect_garbage(workdir.executions, quota_mb)
        referenced = set(_identities(workdir))
        files, size = SnapshotStore(workdir.snapshots).collect_garbage(referenced, needed, grace_seconds=0)
    return Freed(executions, files, size)


def _identities(workdir: Workdir) -> Iterator[str]:
    """All that may be an id, in every record of the run: too many rather than too few."""
    for path in workdir.root.rglob("*.json*"):
        if path.is_file() and not path.is_relative_to(workdir.snapshots):
            yield from _identities_in(path)


def _identities_in(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for line in file:
            for found in _ID.finditer(line):
                yield found.group().decode()
