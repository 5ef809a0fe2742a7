"""A content-addressed store of workspaces, so that any stored state can be restored exactly.

    ROOT/blobs/ab/abcd...        one file's bytes, zlib-compressed, named by the SHA-256 of the bytes
    ROOT/workspaces/ab/abcd...   {"path": "blob id", ...} as sorted JSON, named by the SHA-256 of that JSON

Equal files are stored once, equal workspaces have equal ids on every machine; see `BlobStore`. A workspace is named
only after all its blobs lie there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from mlagent_jax.blobs import GRACE_SECONDS, BlobStore
from mlagent_jax.errors import UserError


class SnapshotError(UserError):
    """A workspace cannot be restored; the message names the missing or damaged file and the remedy."""


class SnapshotStore:
    def __init__(self, root: Path) -> None:
        self.blobs = BlobStore(root / "blobs")
        self.workspaces = BlobStore(root / "workspaces")

    def put(self, files: Mapping[str, bytes]) -> str:
        """Stores a workspace (relative path -> content), mends damaged files of it, and returns its id."""
        blobs = {path: self.blobs.put(content) for path, content in files.items()}
        return self.workspaces.put(json.dumps(blobs, sort_keys=True).encode())

    def get(self, snapshot: str) -> dict[str, bytes]:
        """The workspace as it was put. Raises SnapshotError if it, or a blob of it, is missing or damaged."""
        blobs = json.loads(_get(self.workspaces, snapshot))
        return {path: _get(self.blobs, blob) for path, blob in blobs.items()}

    def collect_garbage(
        self, referenced: Collection[str], other_blobs: Collection[str], grace_seconds: float = GRACE_SECONDS
    ) -> tuple[int, int]:
        """Removes workspaces that are not `referenced`, and blobs that then nobody refers to.

        Args:
            referenced: ids of workspaces; others among them do no harm.
            other_blobs: ids of blobs that something beside workspaces refers to.
            grace_seconds: what was put since is kept: its writer may be about to refer to it.

        Returns:
            How many files went, and how many bytes.
        """
        workspaces, size = self.workspaces.remove_all_but(referenced, grace_seconds)
        needed = set(other_blobs)
        for snapshot in self.workspaces.identities():
            content = self.workspaces.get(snapshot)
            if content is not None:
                needed.update(json.loads(content).values())
        blobs, more = self.blobs.remove_all_but(needed, grace_seconds)
        return workspaces + blobs, size + more


def _get(store: BlobStore, identity: str) -> bytes:
    content = store.get(identity)
    if content is None:
        path = store.path(identity)
        fault = "is damaged" if path.exists() else "is missing"
        raise SnapshotError(
            f"snapshot file {path} {fault}: put it back from a copy of the run, or collect the "
            "trajectories anew in another work directory"
        )
    return content
