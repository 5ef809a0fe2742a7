"""The process that parses submissions. It forks for each one, so that no submission can affect another.

The process never holds a label, and sees only the interpreter, its packages and this package; see `parsers`, which
starts it. Each fork has its own resource limits and answers through a pipe, from which no more bytes are read than a
valid answer can have.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import importlib
import os
import pickle
import resource
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from mlagent_jax.grading.labels import Truth
from mlagent_jax.grading.numeric_csv import MIN_BYTES
from mlagent_jax.grading.spec import GradingSpec
from mlagent_jax.grading.submissions import RefusedSubmission, parse_submission
from mlagent_jax.sandbox.sandbox_worker import namespaces, protocol

_MAX_REQUEST_BYTES = 1 << 31
_OPEN_FILES = 32
_PIPE_BYTES = 1 << 20  # the default limit of an unprivileged user
# The first byte of an answer. What follows is a reason, float64 [n, t], or texts [n, t] separated by NULs.
REFUSED, NUMBERS, TEXTS = b"r", b"n", b"t"
SEPARATOR = "\0"


@dataclass(frozen=True)
class SubmissionFormat:
    """What a submission must look like, without anything that its predictions should be.

    shape: (n, t) of the predictions. row_shape: see `Truth`.
    """

    spec: GradingSpec
    ids: tuple[str, ...]
    shape: tuple[int, int]
    row_shape: tuple[int, ...]

    @property
    def truth(self) -> Truth:
        """A `Truth` for `parse_submission` that holds no labels and no splits."""
        n = len(self.ids)
        return Truth(
            row_of={identity: row for row, identity in enumerate(self.ids)},
            values=np.broadcast_to(0.0, self.shape),
            row_shape=self.row_shape,
            public=np.zeros(n, dtype=bool),
            private=np.zeros(n, dtype=bool),
        )


def main(seccomp: str) -> NoReturn:
    """Serves requests on file descriptor 0 until the other side closes it.

    seccomp: the filter that `sandbox.seccomp.build_filter` made, as text.
    """
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    if sys.platform == "linux":
        namespaces.hide_from_siblings()
        namespaces.set_no_new_privileges(seccomp)
    gc.collect()
    gc.freeze()
    protocol.send(channel, {"ready": True}, {})
    while True:
        try:
            request, blobs = protocol.receive(channel, _MAX_REQUEST_BYTES)
        except EOFError:
            os._exit(0)
        if len(blobs["submission"]) >= MIN_BYTES:
            importlib.import_module("pandas")  # once, here; otherwise every fork would import it again
        status, answer = _parse_in_fork(request, _load_format(blobs["format"]), blobs["submission"], channel)
        protocol.send(channel, status, {"answer": answer})


@functools.lru_cache(maxsize=16)
def _load_format(content: bytes) -> tuple[GradingSpec, Truth]:
    form: SubmissionFormat = pickle.loads(content)  # safe: the trainer wrote it, not an agent
    return form.spec, form.truth


def _parse_in_fork(
    request: dict[str, int], form: tuple[GradingSpec, Truth], submission: bytes, channel: socket.socket
) -> tuple[dict[str, object], bytes]:
    """Whether the fork ended well and in time, and its answer."""
    reader, writer = os.pipe()
    if sys.platform == "linux":
        # The kernel refuses a user who has many pipes; one of the default size works too.
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    pid = os.fork()
    if pid == 0:
        # The fork must never return into the code of this process, whatever happens.
        try:
            channel.close()
            os.close(reader)
            os.setsid()
            _set_limits(request["cpu_seconds"], request["memory_bytes"])
            _write_all(writer, _parse(*form, submission))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    answer = _read_to_end(reader, request["answer_bytes"], time.monotonic() + request["wall_seconds"])
    os.close(reader)
    exit_code = _reap(pid, kill=answer is None)
    return {"ok": answer is not None and exit_code == 0}, answer or b""


def _parse(spec: GradingSpec, truth: Truth, submission: bytes) -> bytes:
    """The answer: predictions, or why the submission is refused."""
    try:
        predicted = parse_submission(spec, truth, submission)
    except RefusedSubmission as refused:
        return REFUSED + str(refused).encode("utf-8", "backslashreplace")
    if predicted.dtype.kind == "U":
        return TEXTS + SEPARATOR.join(predicted.ravel().tolist()).encode()
    return NUMBERS + predicted.astype("<f8").tobytes()


def _write_all(writer: int, answer: bytes) -> None:
    left = memoryview(answer)
    while left:
        left = left[os.write(writer, left) :]


def _read_to_end(reader: int, max_bytes: int, deadline: float) -> bytes | None:
    """Everything up to the end of the pipe; None if that is too much or takes longer than `deadline`."""
    answer = bytearray()
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while len(answer) <= max_bytes:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(1000 * left):
            return None
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            return bytes(answer)
        answer += chunk
    return None


def _reap(pid: int, kill: bool) -> int:
    """Ends the fork and everything it started. Returns its exit code, or the negative number of a signal."""
    if kill:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.getpid() == 1:  # in a PID namespace of our own, all other processes are descendants of the fork
        try:
            os.kill(-1, signal.SIGKILL)
            while True:
                os.waitpid(-1, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
    return os.waitstatus_to_exitcode(status)


def _set_limits(cpu_seconds: int, memory_bytes: int) -> None:
    """Limits this process. memory_bytes: address space beyond what is mapped now."""
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (value, value))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        addresses = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
