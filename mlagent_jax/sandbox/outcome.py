"""From what a worker measured to a `Result`: a pure step, outside the sandbox."""

from __future__ import annotations

import re
import signal
import unicodedata
from collections.abc import Mapping
from typing import Any

from mlagent_jax.sandbox.interface import Limits, Result, Status

_KILLED_FOR = {
    "time": Status.TIMEOUT,
    "memory": Status.OOM,
    "processes": Status.PIDS,
    "disk": Status.DISK,
}
# The last line of an uncaught exception that says that a limit was met.
_EXCEPTIONS = (
    (re.compile(r"([\w.]+\.)?_?(Array)?MemoryError\b"), Status.OOM),
    (re.compile(r"OSError: \[Errno (28|122)\]|OSError: \[Errno 27\] File too large"), Status.DISK),
    (re.compile(r"BlockingIOError: \[Errno 11\]|RuntimeError: can't start new thread"), Status.PIDS),
)
# Escape sequences of a terminal: CSI, then OSC and other strings, then two-character ones (ECMA-48).
_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"
    "|\x1b[ -/]*[0-~]"
)


def to_result(facts: Mapping[str, Any], blobs: Mapping[str, bytes], limits: Limits) -> Result:
    """Makes a `Result` of a worker's answer. Raises KeyError, TypeError when it is not one."""
    if not facts["ran"]:  # its files did not even fit
        return Result(Status.DISK)
    output, dropped = render_output(
        blobs["head"], blobs["tail"], facts["dropped_bytes"], limits.output_kb << 10
    )
    return Result(
        status=decide_status(facts, output, limits),
        exit_code=facts["exit_code"],
        signal=facts["signal"],
        output=output,
        dropped_bytes=dropped,
        wall_seconds=facts["wall_seconds"],
        cpu_seconds=facts["cpu_seconds"],
        peak_memory_mb=facts["peak_memory_mb"],
        oom_kills=facts["own_oom_kills"],
        files={name.removeprefix("file/"): blob for name, blob in blobs.items() if name.startswith("file/")},
    )


def decide_status(facts: Mapping[str, Any], output: str, limits: Limits) -> Status:
    """Decides how an execution ended, from who ended it and why.

    What the supervisor and the kernel saw comes first. Limits that show inside the program only as a failed
    call (an allocation, a fork, a write) are known by the uncaught exception that they ended in: a program
    can print such a line on purpose, and gains a corner case's neutral reward by it, not a good one.
    """
    if facts["killed_for"]:
        return _KILLED_FOR[facts["killed_for"]]
    failed = facts["exit_code"] != 0
    number = facts["signal"]
    if number in (signal.SIGXCPU, signal.SIGKILL) and facts["cpu_seconds"] >= limits.cpu_seconds - 1:
        return Status.TIMEOUT
    if number == signal.SIGKILL and facts["kernel_oom_kills"] > 0:
        return Status.OOM
    if number == signal.SIGXFSZ:
        return Status.DISK
    if facts["exit_code"] == 1:
        lines = output.rstrip("\n").split("\n")
        for pattern, status in _EXCEPTIONS:
            # Where processes have run out, there are many, and they print into each other's last lines.
            where = lines if status is Status.PIDS else lines[-1:]
            if any(map(pattern.match, where)):
                return status
    if failed and facts["disk_full"]:
        return Status.DISK
    if failed and facts["most_processes"] >= limits.processes:
        return Status.PIDS
    if facts.get("too_much_output"):
        return Status.OUTPUT_LIMIT
    return Status.FAILED if failed else Status.OK


def render_output(head: bytes, tail: bytes, dropped: int, limit: int) -> tuple[str, int]:
    """Joins what was kept of an output into clean text of at most `limit` bytes.

    Returns the text and how many bytes of the output it leaves out.

    The text is safe to show in a terminal: no escape sequences, control or formatting characters, bytes that
    are not UTF-8 as \\xNN.
    """
    if dropped == 0:
        text = clean_text((head + tail).decode("utf-8", "backslashreplace"))
        if len(text.encode()) <= limit:
            return text, 0
        first = last = text
    else:
        first = clean_text(head.decode("utf-8", "backslashreplace"))
        last = clean_text(tail.decode("utf-8", "backslashreplace"))
    half = (limit - 64) // 2  # escapes may have made the text longer than the bytes were; room for the note
    kept_first = first.encode()[:half].decode("utf-8", "ignore")
    kept_last = last.encode()[-half:].decode("utf-8", "ignore")
    if dropped == 0:
        left_out = len(text.encode()) - len(kept_first.encode()) - len(kept_last.encode())
    else:
        left_out = dropped + (len(first) - len(kept_first)) + (len(last) - len(kept_last))
    return f"{kept_first}\n[... {left_out} bytes left out ...]\n{kept_last}", left_out


def clean_text(text: str) -> str:
    """Removes escape sequences and every control or formatting character but newline and tab.

    A lone carriage return becomes a new line, as do the line and paragraph separators.
    """
    text = re.sub("\r\n?|\u2028|\u2029|\x85", "\n", _ESCAPES.sub("", text))
    return "".join(
        letter for letter in text if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf")
    )
