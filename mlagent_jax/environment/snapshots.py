"""A content-addressed store of workspaces, from which any stored state can be restored exactly.

    ROOT/blobs/ab/abcd...        one file's bytes, zlib-compressed, named by the SHA-256 of the bytes
    ROOT/workspaces/ab/abcd...   {"path": "blob id", ...} as sorted JSON, named by the SHA-256 of that JSON

Equal files are stored once, and equal workspaces have equal ids on every machine; see `BlobStore`. A workspace is
written only after all of its blobs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
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
        """Stores a workspace (relative path -> content), replaces damaged blobs of it, and returns its id."""
        blobs = {path: self.blobs.put(content) for path, content in files.items()}
        return self.workspaces.put(json.dumps(blobs, sort_keys=True).encode())

    def get(self, snapshot: str) -> dict[str, bytes]:
        """The workspace with this id. Raises SnapshotError if it, or one of its blobs, is missing or damaged."""
        blobs = json.loads(_get(self.workspaces, snapshot))
        return {path: _get(self.blobs, blob) for path, blob in blobs.items()}

    def share_with(self, other: SnapshotStore, snapshots: Iterable[str]) -> None:
        """Puts those of the workspaces with these ids that are here into another store too, without copying if it can.

        Ids of anything else are ignored. Raises SnapshotError if a workspace, or a blob of one, is damaged.
        """
        for snapshot in snapshots:
            if self.workspaces.path(snapshot).exists():
                content = _get(self.workspaces, snapshot)
                for blob in json.loads(content).values():
                    _get(self.blobs, blob)
                    self.blobs.share_with(other.blobs, blob)
                self.workspaces.share_with(other.workspaces, snapshot)

    def collect_garbage(
        self, referenced: Collection[str], other_blobs: Collection[str], grace_seconds: float = GRACE_SECONDS
    ) -> tuple[int, int]:
        """Removes workspaces that are not `referenced`, and blobs that nothing refers to any more.

        Args:
            referenced: ids of workspaces; ids of anything else are ignored.
            other_blobs: ids of blobs that something other than workspaces refers to.
            grace_seconds: keep what was stored more recently, since its writer may be about to refer to it.

        Returns:
            The numbers of removed files and bytes.
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
            f"snapshot file {path} {fault}: restore it from a copy of the run, or collect the trajectories again in "
            "another work directory"
        )
    return content
