"""What a worker reports about one job: one typed record, encoded and decoded only here.

The host distrusts it like everything that comes from where a script ran: it checks types, ranges and file names.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from . import names, protocol

_FILE = "file/"
_MAX_COUNT = 1 << 62


class LeftOut(enum.StrEnum):
    """Why something that a script left in its workspace was not collected."""

    NAME = "name"  # see `names.why_invalid`; a folder is left out with everything below it
    SPECIAL = "special"  # a link, pipe, socket or device
    OUTPUT = "output"  # has the name of the job's output and is not a file
    LARGE = "large"  # beyond the limit on bytes kept
    MANY = "many"  # beyond the limit on files and folders kept


@dataclass(frozen=True)
class Measurements:
    """The measurements of one job. None of them depends on what a script printed or raised.

    ran: whether the script's first line was reached.
    fault: if not, and the sandbox is at fault, the reason in one sentence.
    killed_for: why the supervisor killed the script: "time", "memory", "processes", "disk", or "" if it did not.
    exit_code, signal: how the script ended; exactly one of them if it ran.
    dropped_bytes: how much of the output was not kept.
    cpu_seconds: of all processes together; script_cpu_seconds: of the script and the children that it waited for.
    refused_bytes: the largest memory request that was refused because it exceeded the limit; 0 for none.
    refused_processes: how many processes and threads were refused.
    kernel_oom_kills: by the kernel while the script ran, in its control group or, without one, on its host.
    own_oom_kills: how many of those were certainly the job's own.
    disk_full: whether no byte or no inode was free at the end.
    too_much_output: the files left behind exceed what the workspace may hold.
    left_out: how many things were not collected, by reason.
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


class Report(NamedTuple):
    """A record with the head and tail of the output, and the files that were collected."""

    record: Measurements
    head: bytes
    tail: bytes
    files: dict[str, bytes]


def send(
    channel: protocol.Channel,
    record: Measurements,
    head: bytes = b"",
    tail: bytes = b"",
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a record, the head and tail of the output, and the files. Raises OSError, TimeoutError."""
    blobs = {_FILE + name: content for name, content in (files or {}).items()}
    protocol.send(channel, dataclasses.asdict(record), {"head": head, "tail": tail, **blobs})


def decode(body: Mapping[str, Any], blobs: Mapping[str, bytes]) -> Report:
    """The report in a message. Raises ProtocolError for any other message.

    The worker's Python may have a newer Unicode table. A file whose name this side cannot use is left out and
    counted, as the worker would have done.
    """
    record = _validate(body)
    if not {"head", "tail"} <= blobs.keys():
        raise protocol.ProtocolError("the output is missing")
    files: dict[str, bytes] = {}
    left_out = dict(record.left_out)
    for key, content in blobs.items():
        if key in ("head", "tail"):
            continue
        name = key.removeprefix(_FILE)
        if name == key:
            raise protocol.ProtocolError(f"{key[:100]!r} is not part of a report")
        if names.why_invalid(name):
            left_out[LeftOut.NAME] = left_out.get(LeftOut.NAME, 0) + 1
        else:
            files[name] = content
    if collision := names.collision(files):
        raise protocol.ProtocolError(f"the file {collision!r} lies below another file")
    return Report(dataclasses.replace(record, left_out=left_out), blobs["head"], blobs["tail"], files)


def _validate(body: Mapping[str, Any]) -> Measurements:
    expected = {one.name for one in dataclasses.fields(Measurements)}
    if body.keys() != expected:
        raise protocol.ProtocolError(
            f"not a record: {sorted(body.keys() ^ expected)[:4]} are unknown or missing"
        )
    left_out = body["left_out"]
    if not isinstance(left_out, dict) or not left_out.keys() <= {reason.value for reason in LeftOut}:
        raise protocol.ProtocolError("left_out does not map known reasons to counts")
    if body["killed_for"] not in ("", "time", "memory", "processes", "disk"):
        raise protocol.ProtocolError(f"killed_for may not be {body['killed_for']!r}")
    for name in ("ran", "disk_full", "too_much_output"):
        _check(name, body[name], bool)
    _check("fault", body["fault"], str)
    for name in ("dropped_bytes", "refused_bytes", "refused_processes", "kernel_oom_kills", "own_oom_kills"):
        _check(name, body[name], int, _MAX_COUNT)
    for name in ("wall_seconds", "cpu_seconds", "script_cpu_seconds", "peak_memory_mb"):
        _check(name, body[name], (int, float), _MAX_COUNT)
    for reason, count in left_out.items():
        _check(reason, count, int, _MAX_COUNT)
    endings = [name for name in ("exit_code", "signal") if body[name] is not None]
    if len(endings) != bool(body["ran"]):
        raise protocol.ProtocolError(
            "a script that ran has either an exit_code or a signal, one that did not run has neither"
        )
    for name in endings:
        _check(name, body[name], int, 255)
    return Measurements(
        **{**body, "left_out": {LeftOut(reason): count for reason, count in left_out.items()}}
    )


def _check(name: str, value: Any, kind: type | tuple[type, ...], maximum: int | None = None) -> None:
    valid = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if valid and maximum is not None:
        valid = math.isfinite(value) and 0 <= value <= maximum
    if not valid:
        raise protocol.ProtocolError(f"{name} may not be {str(value)[:100]!r}")
