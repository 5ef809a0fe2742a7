"""A content-addressed store of bytes, which threads and processes can share.

    ROOT/ab/abcd...   zlib-compressed, named by the SHA-256 of the content

Equal contents are stored once. Files are written atomically and never change, and a blob is stored before anything
refers to it. So no locks are needed, and kill -9 leaves nothing to repair.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from mlagent_jax.files import link_or_copy, write_atomically

_LEVEL = 6
# The writer of a more recent blob may be about to refer to it.
GRACE_SECONDS = 3600.0


class BlobStore:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, content: bytes) -> str:
        """Stores bytes, replacing a damaged file, and returns their id."""
        identity = hashlib.sha256(content).hexdigest()
        path = self.path(identity)
        if self.get(identity) is None:
            # Waiting for the disk would take longer than many scripts; hashes reveal what a power cut destroyed.
            write_atomically(path, zlib.compress(content, _LEVEL), sync=False)
        else:
            with contextlib.suppress(OSError):  # the file may belong to another user
                os.utime(path)
        return identity

    def get(self, identity: str) -> bytes | None:
        """The content, or None if it is missing or does not match its name."""
        try:
            content = zlib.decompress(self.path(identity).read_bytes())
        except (FileNotFoundError, zlib.error):
            return None
        return content if hashlib.sha256(content).hexdigest() == identity else None

    def path(self, identity: str) -> Path:
        return self._root / identity[:2] / identity

    def share_with(self, other: BlobStore, identity: str) -> None:
        """Puts a stored blob into another store too, without copying where both are on one file system."""
        link_or_copy(self.path(identity), other.path(identity))

    def identities(self) -> Iterator[str]:
        """The ids of all stored blobs."""
        for folder in self._root.glob("??"):
            for path in folder.iterdir():
                if len(path.name) == 64:
                    yield path.name

    def remove_all_but(self, kept: Collection[str], grace_seconds: float = GRACE_SECONDS) -> tuple[int, int]:
        """Removes blobs that are not in `kept` and are older than the grace period, in seconds.

        Returns the numbers of removed files and bytes.
        """
        count = size = 0
        for identity in list(self.identities()):
            if identity in kept:
                continue
            path = self.path(identity)
            with contextlib.suppress(FileNotFoundError):  # another process may have removed it
                status = path.stat()
                if time.time() - status.st_mtime >= grace_seconds:
                    path.unlink()
                    count, size = count + 1, size + status.st_size
        return count, size
