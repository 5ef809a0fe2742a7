"""A container's standard streams as one channel, over the connection that "attach" leaves open.

The engine sends what the container writes in frames: stream (1 byte; 1 is output, 2 is errors), 3 bytes of
nothing, size (4 bytes, big-endian), content. What is sent to the container goes as it is.

Source: the Docker Engine API, "Attach to a container", "Stream format".
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from typing import Any

_ERRORS = 2
_MOST_ERRORS = 4096
_CHUNK_BYTES = 1 << 16


class AttachedChannel:
    """See `sandbox_worker.protocol.Channel`. `errors`: the last bytes written to standard error."""

    def __init__(self, connection: Any) -> None:
        """`connection`: what `APIClient.attach_socket` returned."""
        self._connection = connection  # its end would be the socket's
        self._socket: socket.socket = getattr(connection, "_sock", connection)
        self._read = bytearray()  # of output, and not yet taken
        self._pending = bytearray()  # of a frame's header
        self._left = 0  # of the frame that comes in
        self._stream = 0
        self.errors = bytearray()

    def settimeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def sendall(self, content: bytes) -> None:
        self._socket.sendall(content)

    def fileno(self) -> int:
        return self._socket.fileno()

    def recv(self, count: int) -> bytes:
        """At most `count` bytes of the container's output; b"" at its end. Raises OSError, TimeoutError."""
        while not self._read:
            chunk = self._socket.recv(max(count, _CHUNK_BYTES))
            if not chunk:
                return b""
            self._sort(memoryview(chunk))
        taken = bytes(self._read[:count])
        del self._read[:count]
        return taken

    def has_input(self, seconds: float) -> bool:
        """Waits until something has come, or the end; False if neither did in time. Raises OSError, ValueError."""
        return bool(self._read) or bool(select.select([self._socket], [], [], seconds)[0])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._connection.close()
            self._socket.close()

    def _sort(self, chunk: memoryview) -> None:
        """Takes frames apart."""
        while chunk:
            if self._left == 0:
                missing = 8 - len(self._pending)
                self._pending += chunk[:missing]
                chunk = chunk[missing:]
                if len(self._pending) == 8:
                    self._stream, self._left = struct.unpack(">BxxxL", self._pending)
                    self._pending.clear()
                continue
            part, chunk = chunk[: self._left], chunk[self._left :]
            self._left -= len(part)
            if self._stream == _ERRORS:
                self.errors += part
                del self.errors[:-_MOST_ERRORS]
            else:
                self._read += part
