"""A content-addressed store of workspaces, so that any stored state can be restored exactly.

    ROOT/blobs/ab/abcd...        one file's bytes, zlib-compressed, named by the SHA-256 of the bytes
    ROOT/workspaces/ab/abcd...   {"path": "blob id", ...} as sorted JSON, named by the SHA-256 of that JSON

Equal files are stored once, equal workspaces have equal ids on every machine. A file appears whole or not at
all and never changes afterwards, so threads and processes may share a store without locks, and kill -9 leaves
nothing
to repair: a workspace is named only after all its blobs lie there.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically

_LEVEL = 6


class SnapshotError(UserError):
    """A workspace cannot be restored; the message names the missing or damaged file and the remedy."""


class SnapshotStore:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, files: Mapping[str, bytes]) -> str:
        """Stores a workspace (relative path -> content), mends damaged files of it, and returns its id."""
        blobs = {path: self._put_object("blobs", content) for path, content in files.items()}
        return self._put_object("workspaces", json.dumps(blobs, sort_keys=True).encode())

    def get(self, snapshot: str) -> dict[str, bytes]:
        """The workspace as it was put. Raises SnapshotError if it, or a blob of it, is missing or damaged."""
        blobs = json.loads(self._get_object("workspaces", snapshot))
        return {path: self._get_object("blobs", blob) for path, blob in blobs.items()}

    def _put_object(self, kind: str, content: bytes) -> str:
        identity = hashlib.sha256(content).hexdigest()
        path = self._path(kind, identity)
        if _read(path, identity) is None:
            # Waiting for the disk would cost more than many a script; hashes tell what a power cut took.
            write_atomically(path, zlib.compress(content, _LEVEL), sync=False)
        return identity

    def _get_object(self, kind: str, identity: str) -> bytes:
        path = self._path(kind, identity)
        content = _read(path, identity)
        if content is None:
            fault = "is damaged" if path.exists() else "is missing"
            raise SnapshotError(
                f"snapshot file {path} {fault}: put it back from a copy of the run, or collect the "
                "trajectories anew in another work directory"
            )
        return content

    def _path(self, kind: str, identity: str) -> Path:
        return self._root / kind / identity[:2] / identity


def _read(path: Path, identity: str) -> bytes | None:
    """The content, or None where it is missing or not what its name says."""
    try:
        content = zlib.decompress(path.read_bytes())
    except (FileNotFoundError, zlib.error):
        return None
    return content if hashlib.sha256(content).hexdigest() == identity else None
