"""What is kept of a program's output: its head and tail, with this host's folders under names that all hosts share."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Final

from . import namespaces

PYTHON: Final = "/python"  # stands for the folder of Python and its packages, wherever the host has it


def shown_paths(places: namespaces.Places) -> dict[bytes, bytes]:
    """Folder -> what is shown instead: tracebacks and warnings name them, and they differ from host to host.

    An agent has no use for the host's paths, and the same seed should be shown the same text in every folder.
    """
    shown = {places.workspace: "/workspace", places.temporary: "/tmp"}
    shown |= {
        prefix: PYTHON for prefix in (sys.prefix, sys.base_prefix) if not f"{prefix}/".startswith("/usr/")
    }
    shown |= {os.path.realpath(folder): name for folder, name in shown.items()}
    return {os.fsencode(folder): os.fsencode(name) for folder, name in shown.items() if folder != name}


class Output:
    """Head and tail of a stream of any length, at most `limit` bytes together.

    Args:
        limit: in bytes.
        shown: paths to replace, with what stands for each.
    """

    def __init__(self, limit: int, shown: Mapping[bytes, bytes]) -> None:
        self.head = b""
        self.tail = bytearray()
        self.total = 0
        self._limit = limit
        self._shown = shown
        longest_first = sorted(shown, key=len, reverse=True)
        self._paths = re.compile(b"|".join(map(re.escape, longest_first)) or b"(?!)")
        self._held = b""  # may be the beginning of a path

    def add(self, chunk: bytes) -> None:
        data = self._held + chunk
        safe = len(data) - self._begun_path(data)
        for path in self._paths.finditer(data):
            if path.start() < safe < path.end():
                safe = path.start()
        self._held = data[safe:]
        self._keep(data[:safe])

    def finish(self) -> None:
        """Call once nothing more can come."""
        self._keep(self._held)
        self._held = b""

    def _begun_path(self, data: bytes) -> int:
        """How many bytes at the end of `data` may grow into a path with the next chunk."""
        return max(
            (size for path in self._shown for size in range(1, len(path)) if data.endswith(path[:size])),
            default=0,
        )

    def _keep(self, data: bytes) -> None:
        data = self._paths.sub(lambda path: self._shown[path.group()], data)
        self.total += len(data)
        room = self._limit // 2 - len(self.head)
        self.head += data[:room]
        self.tail += data[room:]
        excess = len(self.tail) - (self._limit - self._limit // 2)
        if excess > 0:
            del self.tail[:excess]
