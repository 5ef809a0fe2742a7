"""Keeps the head and tail of a program's output, and replaces this host's folders with names that all hosts share."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Final

from . import namespaces

PYTHON: Final = "/python"  # stands for the folder of Python and its packages, wherever the host has it


def path_replacements(paths: namespaces.JobPaths) -> dict[bytes, bytes]:
    """Maps folders to what is shown instead. Tracebacks and warnings name them, and they differ between hosts.

    An agent has no use for the host's paths, and a seed should give the same text wherever a run's folder is.
    """
    shown = {paths.workspace: "/workspace", paths.temporary: "/tmp"}
    shown |= {
        prefix: PYTHON for prefix in (sys.prefix, sys.base_prefix) if not f"{prefix}/".startswith("/usr/")
    }
    shown |= {os.path.realpath(folder): name for folder, name in shown.items()}
    return {os.fsencode(folder): os.fsencode(name) for folder, name in shown.items() if folder != name}


class OutputBuffer:
    """The head and tail of a stream of any length, together at most `limit` bytes.

    Args:
        limit: in bytes.
        replacements: from paths to what is shown instead.

    Attributes:
        head, tail: what is kept.
        total: the length of the whole stream, after replacement, in bytes.
    """

    def __init__(self, limit: int, replacements: Mapping[bytes, bytes]) -> None:
        self.head = b""
        self.tail = bytearray()
        self.total = 0
        self._limit = limit
        self._replacements = replacements
        longest_first = sorted(replacements, key=len, reverse=True)
        self._paths = re.compile(b"|".join(map(re.escape, longest_first)) or b"(?!)")
        self._pending = b""  # may be the beginning of a path

    def add(self, chunk: bytes) -> None:
        data = self._pending + chunk
        safe = len(data) - self._partial_path_bytes(data)
        for path in self._paths.finditer(data):
            if path.start() < safe < path.end():
                safe = path.start()
        self._pending = data[safe:]
        self._append(data[:safe])

    def finish(self) -> None:
        """Call at the end of the stream."""
        self._append(self._pending)
        self._pending = b""

    def _partial_path_bytes(self, data: bytes) -> int:
        """How many bytes at the end of `data` could become a path with the next chunk."""
        return max(
            (
                size
                for path in self._replacements
                for size in range(1, len(path))
                if data.endswith(path[:size])
            ),
            default=0,
        )

    def _append(self, data: bytes) -> None:
        data = self._paths.sub(lambda path: self._replacements[path.group()], data)
        self.total += len(data)
        room = self._limit // 2 - len(self.head)
        self.head += data[:room]
        self.tail += data[room:]
        excess = len(self.tail) - (self._limit - self._limit // 2)
        if excess > 0:
            del self.tail[:excess]
