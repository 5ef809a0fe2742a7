"""A content-addressed store of bytes, which threads, processes and kinds of records may share.

    ROOT/ab/abcd...   zlib-compressed, named by the SHA-256 of the content

Equal contents are stored once. A file appears whole or not at all and never changes afterwards, so no locks are
needed, and kill -9 leaves nothing to repair: whoever refers to a blob does so after it lies there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from mlagent_jax.files import write_atomically

_LEVEL = 6
# One that was put so lately may be about to be referred to by whoever put it.
GRACE_SECONDS = 3600.0


class BlobStore:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, content: bytes) -> str:
        """Stores bytes, mends what is damaged there, and returns their id."""
        identity = hashlib.sha256(content).hexdigest()
        path = self.path(identity)
        if self.get(identity) is None:
            # Waiting for the disk would cost more than many a script; hashes tell what a power cut took.
            write_atomically(path, zlib.compress(content, _LEVEL), sync=False)
        else:
            with contextlib.suppress(OSError):  # another's file, say
                os.utime(path)
        return identity

    def get(self, identity: str) -> bytes | None:
        """The content, or None where it is missing or not what its name says."""
        try:
            content = zlib.decompress(self.path(identity).read_bytes())
        except (FileNotFoundError, zlib.error):
            return None
        return content if hashlib.sha256(content).hexdigest() == identity else None

    def path(self, identity: str) -> Path:
        return self._root / identity[:2] / identity

    def identities(self) -> Iterator[str]:
        """All that lie here."""
        for folder in self._root.glob("??"):
            for path in folder.iterdir():
                if len(path.name) == 64:
                    yield path.name

    def remove_all_but(self, kept: Collection[str], grace_seconds: float = GRACE_SECONDS) -> tuple[int, int]:
        """Removes what is not in `kept` and was not put lately. Returns how many files and bytes went."""
        count = size = 0
        for identity in list(self.identities()):
            if identity in kept:
                continue
            path = self.path(identity)
            with contextlib.suppress(FileNotFoundError):  # removed by another meanwhile
                status = path.stat()
                if time.time() - status.st_mtime >= grace_seconds:
                    path.unlink()
                    count, size = count + 1, size + status.st_size
        return count, size
