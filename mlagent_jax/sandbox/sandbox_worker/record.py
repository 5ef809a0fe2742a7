"""What a worker says of one job: one typed record, written and read here and nowhere else.

The host reads it as it reads anything from where a script ran: types and ranges are checked, names of files too.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import names, protocol

_FILE = "file/"
_MOST = 1 << 62  # of any count


class LeftOut(enum.StrEnum):
    """Why something that a script left in its workspace was not taken out."""

    NAME = "name"  # see `names.fault`; with all that lies below it, if it is a folder
    SPECIAL = "special"  # a link, pipe, socket or device
    OUTPUT = "output"  # stands where the job's output belongs and is no file
    LARGE = "large"  # more bytes than are kept
    MANY = "many"  # more files and folders than are kept


@dataclass(frozen=True)
class Record:
    """What was measured of one job. Nothing in it rests on what a script printed or raised.

    ran: whether the script's first line was reached.
    fault: if not, and the reason is ours: one sentence.
    killed_for: what the supervisor ended the script for: "time", "memory", "processes", "disk", or "".
    exit_code, signal: how the script ended; exactly one of them if it ran.
    dropped_bytes: of the output, beyond what was kept.
    cpu_seconds: of all its processes together; script_cpu_seconds: of the script and children that it waited for.
    refused_bytes: the largest request for memory that went beyond the limit and was refused; 0 for none.
    refused_processes: how many processes and threads were refused.
    kernel_oom_kills: by the kernel while the script ran, in its control group or, without one, on its host.
    own_oom_kills: of those, the ones that were certainly the job's own.
    disk_full: whether no byte or no inode was left in the end.
    too_much_output: the files left are more than the workspace may hold.
    left_out: how many things were not taken out, by their reason.
    """

    ran: bool
    fault: str = ""
    killed_for: str = ""
    exit_code: int | None = None
    signal: int | None = None
    dropped_bytes: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    script_cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    refused_bytes: int = 0
    refused_processes: int = 0
    kernel_oom_kills: int = 0
    own_oom_kills: int = 0
    disk_full: bool = False
    too_much_output: bool = False
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)


def send(
    channel: protocol.Channel,
    record: Record,
    head: bytes = b"",
    tail: bytes = b"",
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a record, the head and tail of the output, and the files. Raises OSError, TimeoutError."""
    blobs = {_FILE + name: content for name, content in (files or {}).items()}
    protocol.send(channel, dataclasses.asdict(record), {"head": head, "tail": tail, **blobs})


def decode(
    body: Mapping[str, Any], blobs: Mapping[str, bytes]
) -> tuple[Record, bytes, bytes, dict[str, bytes]]:
    """The record, head and tail of the output, and the files, of a message. Raises ProtocolError for any other.

    A file whose name this side cannot use, because the worker's Python knows of other letters, is left out as the
    worker would have done.
    """
    record = _checked(body)
    if not {"head", "tail"} <= blobs.keys():
        raise protocol.ProtocolError("the output is missing")
    files: dict[str, bytes] = {}
    left_out = dict(record.left_out)
    for key, content in blobs.items():
        if key in ("head", "tail"):
            continue
        name = key.removeprefix(_FILE)
        if name == key:
            raise protocol.ProtocolError(f"{key[:100]!r} is no part of an answer")
        if names.fault(name):
            left_out[LeftOut.NAME] = left_out.get(LeftOut.NAME, 0) + 1
        else:
            files[name] = content
    if clash := names.collision(files):
        raise protocol.ProtocolError(f"the file {clash!r} lies below another file")
    return dataclasses.replace(record, left_out=left_out), blobs["head"], blobs["tail"], files


def _checked(body: Mapping[str, Any]) -> Record:
    expected = {one.name for one in dataclasses.fields(Record)}
    if body.keys() != expected:
        raise protocol.ProtocolError(
            f"not a record: {sorted(body.keys() ^ expected)[:4]} are unknown or missing"
        )
    left_out = body["left_out"]
    if not isinstance(left_out, dict) or not left_out.keys() <= {reason.value for reason in LeftOut}:
        raise protocol.ProtocolError("left_out is not a count by reason")
    if body["killed_for"] not in ("", "time", "memory", "processes", "disk"):
        raise protocol.ProtocolError(f"killed_for may not be {body['killed_for']!r}")
    for name in ("ran", "disk_full", "too_much_output"):
        _check(name, body[name], bool)
    _check("fault", body["fault"], str)
    for name in ("dropped_bytes", "refused_bytes", "refused_processes", "kernel_oom_kills", "own_oom_kills"):
        _check(name, body[name], int, _MOST)
    for name in ("wall_seconds", "cpu_seconds", "script_cpu_seconds", "peak_memory_mb"):
        _check(name, body[name], (int, float), _MOST)
    for reason, count in left_out.items():
        _check(reason, count, int, _MOST)
    ways = [name for name in ("exit_code", "signal") if body[name] is not None]
    if len(ways) != bool(body["ran"]):
        raise protocol.ProtocolError("a script that ran ends in one way, and another in none")
    for name in ways:
        _check(name, body[name], int, 255)
    return Record(**{**body, "left_out": {LeftOut(reason): count for reason, count in left_out.items()}})


def _check(name: str, value: Any, kind: type | tuple[type, ...], most: int | None = None) -> None:
    sound = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if sound and most is not None:
        sound = math.isfinite(value) and 0 <= value <= most
    if not sound:
        raise protocol.ProtocolError(f"{name} may not be {str(value)[:100]!r}")
