"""Framed messages between the host and a worker: a JSON header and any number of named byte strings.

    message = size of the header (8 bytes, big-endian) | header (ASCII JSON) | every blob in order
    header  = {"body": {...}, "blobs": [[name, size], ...]}

Both sides limit what they read, so that neither can exhaust the other's memory.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

MAX_HEADER_BYTES = 8 << 20
_CHUNK_BYTES = 1 << 20


class ProtocolError(Exception):
    """The other side sent something that is not a message, or too much."""


class Message(NamedTuple):
    body: dict[str, Any]
    blobs: dict[str, bytes]


class Channel(Protocol):
    """What carries messages: a socket, or something with these methods."""

    def sendall(self, content: bytes, /) -> object: ...

    def recv(self, count: int, /) -> bytes: ...

    def fileno(self) -> int: ...


class PipeChannel:
    """Two pipes as one channel: the standard input and output of a container."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer

    def sendall(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[os.write(self._writer, left) :]

    def recv(self, count: int) -> bytes:
        return os.read(self._reader, count)

    def fileno(self) -> int:
        """The descriptor that reports when the other side hangs up."""
        return self._reader


def send(channel: Channel, body: Mapping[str, Any], blobs: Mapping[str, bytes]) -> None:
    """Writes one message. The socket's timeout applies to each blob. Raises OSError, TimeoutError."""
    header = json.dumps({"body": body, "blobs": [[name, len(blob)] for name, blob in blobs.items()]}).encode()
    channel.sendall(struct.pack(">Q", len(header)) + header)
    for blob in blobs.values():
        channel.sendall(blob)


def receive(channel: Channel, max_blob_bytes: int) -> Message:
    """Reads one message. Raises EOFError (the other side is gone), ProtocolError, OSError, TimeoutError."""
    (size,) = struct.unpack(">Q", _read_exactly(channel, 8))
    if size > MAX_HEADER_BYTES:
        raise ProtocolError(f"the header has {size} bytes, of at most {MAX_HEADER_BYTES}")
    try:
        header = json.loads(_read_exactly(channel, size))
        sizes = [(str(name), int(length)) for name, length in header["blobs"]]
        body = dict(header["body"])
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"not a message header: {error}") from error
    total = sum(length for _, length in sizes)
    if total > max_blob_bytes or any(length < 0 for _, length in sizes):
        raise ProtocolError(f"the blobs have {total} bytes, of at most {max_blob_bytes}")
    return Message(body, {name: _read_exactly(channel, length) for name, length in sizes})


def _read_exactly(channel: Channel, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        chunk = channel.recv(min(count - len(content), _CHUNK_BYTES))
        if not chunk:
            raise EOFError(f"the channel closed after {len(content)} of {count} bytes")
        content += chunk
    return bytes(content)
