"""A container's standard streams as one channel, over the connection that "attach" opens.

The engine multiplexes the container's output into frames: stream (1 byte; 1 is stdout, 2 is stderr), 3 unused bytes,
size (4 bytes, big-endian), content. Data sent to the container has no frames.

Source: the Docker Engine API, "Attach to a container", "Stream format".
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from typing import Any

_STDERR = 2
_MAX_STDERR_BYTES = 4096
_CHUNK_BYTES = 1 << 16


class AttachedChannel:
    """See `sandbox_worker.protocol.Channel`. `stderr`: the last bytes of standard error."""

    def __init__(self, connection: Any) -> None:
        """`connection`: what `APIClient.attach_socket` returned."""
        self._connection = connection  # if it were garbage-collected, it would close the socket
        self._socket: socket.socket = getattr(connection, "_sock", connection)
        self._stdout = bytearray()  # received, but not read yet
        self._header = bytearray()  # the part of a frame's header that has arrived
        self._frame_left = 0  # bytes of the current frame that have not arrived
        self._stream = 0
        self.stderr = bytearray()

    def settimeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def sendall(self, content: bytes) -> None:
        self._socket.sendall(content)

    def fileno(self) -> int:
        return self._socket.fileno()

    def recv(self, count: int) -> bytes:
        """At most `count` bytes of the container's stdout; b"" at its end. Raises OSError, TimeoutError."""
        while not self._stdout:
            chunk = self._socket.recv(max(count, _CHUNK_BYTES))
            if not chunk:
                return b""
            self._demultiplex(memoryview(chunk))
        taken = bytes(self._stdout[:count])
        del self._stdout[:count]
        return taken

    def poll(self, seconds: float) -> bool:
        """Whether data, or the end of the stream, arrives within this time. Raises OSError, ValueError."""
        return bool(self._stdout) or bool(select.select([self._socket], [], [], seconds)[0])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._connection.close()
            self._socket.close()

    def _demultiplex(self, chunk: memoryview) -> None:
        while chunk:
            if self._frame_left == 0:
                missing = 8 - len(self._header)
                self._header += chunk[:missing]
                chunk = chunk[missing:]
                if len(self._header) == 8:
                    self._stream, self._frame_left = struct.unpack(">BxxxL", self._header)
                    self._header.clear()
                continue
            part, chunk = chunk[: self._frame_left], chunk[self._frame_left :]
            self._frame_left -= len(part)
            if self._stream == _STDERR:
                self.stderr += part
                del self.stderr[:-_MAX_STDERR_BYTES]
            else:
                self._stdout += part
