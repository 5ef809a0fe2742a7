"""Turns a worker's measurements into a `Result`: a pure function, outside the sandbox."""

from __future__ import annotations

import re
import signal
import unicodedata
from collections.abc import Mapping
from typing import Any

from mlagent_jax.sandbox.interface import Limits, Result, Status
from mlagent_jax.sandbox.sandbox_worker import record
from mlagent_jax.sandbox.sandbox_worker.record import Measurements

_KILLED_FOR = {
    "time": Status.TIMEOUT,
    "memory": Status.OOM,
    "processes": Status.PIDS,
    "disk": Status.DISK,
}
# Terminal escape sequences: CSI, then OSC and other strings, then two-character ones (ECMA-48).
_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"
    "|\x1b[ -/]*[0-~]"
)


def to_result(body: Mapping[str, Any], blobs: Mapping[str, bytes], limits: Limits) -> Result:
    """The `Result` in a worker's report. Raises ProtocolError if it is not a valid report."""
    measured, head, tail, files = record.decode(body, blobs)
    if measured.fault:
        return Result(Status.SANDBOX_ERROR, error=measured.fault)
    if not measured.ran:  # its files did not fit
        return Result(Status.DISK)
    output, dropped = render_output(head, tail, measured.dropped_bytes, limits.output_kb << 10)
    return Result(
        status=decide_status(measured, limits),
        exit_code=measured.exit_code,
        signal=measured.signal,
        output=output,
        dropped_bytes=dropped,
        wall_seconds=measured.wall_seconds,
        cpu_seconds=measured.cpu_seconds,
        peak_memory_mb=measured.peak_memory_mb,
        oom_kills=measured.own_oom_kills,
        files=files,
        left_out={reason.value: count for reason, count in measured.left_out.items()},
    )


def decide_status(measured: Measurements, limits: Limits) -> Status:
    """Decides how an execution ended, from what the supervisor and the kernel measured.

    Some limits appear inside the program only as a failed call. They count if the refusal was seen from outside and
    the program then failed. What the program printed or raised does not count.
    """
    if measured.killed_for:
        return _KILLED_FOR[measured.killed_for]
    if measured.signal == signal.SIGKILL and measured.script_cpu_seconds >= limits.cpu_seconds:
        return Status.TIMEOUT
    if measured.signal == signal.SIGKILL and measured.kernel_oom_kills:
        return Status.OOM
    failed = measured.exit_code != 0
    if failed and (measured.refused_bytes or measured.own_oom_kills):
        return Status.OOM
    if failed and measured.refused_processes:
        return Status.PIDS
    if failed and measured.disk_full:
        return Status.DISK
    if measured.too_much_output:
        return Status.OUTPUT_LIMIT
    return Status.FAILED if failed else Status.OK


def render_output(head: bytes, tail: bytes, dropped: int, limit: int) -> tuple[str, int]:
    """Joins the kept head and tail of an output into clean text of at most `limit` bytes.

    Returns the text and how many bytes of the output it leaves out.

    The text is safe to show in a terminal: it has no escape sequences, control or formatting characters. Bytes that
    are not UTF-8 appear as \\xNN.
    """
    if dropped == 0:
        text = clean_text((head + tail).decode("utf-8", "backslashreplace"))
        if len(text.encode()) <= limit:
            return text, 0
        first = last = text
    else:
        first = clean_text(head.decode("utf-8", "backslashreplace"))
        last = clean_text(tail.decode("utf-8", "backslashreplace"))
    half = (limit - 64) // 2  # escapes may have made the text longer; 64 bytes are for the note in the middle
    kept_first = first.encode()[:half].decode("utf-8", "ignore")
    kept_last = last.encode()[-half:].decode("utf-8", "ignore")
    if dropped == 0:
        left_out = len(text.encode()) - len(kept_first.encode()) - len(kept_last.encode())
    else:
        left_out = dropped + (len(first) - len(kept_first)) + (len(last) - len(kept_last))
    return f"{kept_first}\n[... {left_out} bytes left out ...]\n{kept_last}", left_out


def clean_text(text: str) -> str:
    """Removes escape sequences and all control and formatting characters but newline and tab.

    A lone carriage return becomes a newline, like the line and paragraph separators.
    """
    text = re.sub("\r\n?|\u2028|\u2029|\x85", "\n", _ESCAPES.sub("", text))
    return "".join(
        letter for letter in text if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf")
    )
