"""What runs in the process that reads submissions: it reads each in a fork of itself, so that none meets another.

It never had a label, and sees the interpreter and this package; see `parsers`, which starts it. A fork has limits
of its own, and one way to speak: bytes through a pipe, of which no more are taken than an answer can have.
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
from mlagent_jax.grading.numeric_csv import LEAST_BYTES
from mlagent_jax.grading.spec import GradingSpec
from mlagent_jax.grading.submissions import RefusedSubmission, parse_submission
from mlagent_jax.sandbox.sandbox_worker import namespaces, protocol

_MAX_REQUEST_BYTES = 1 << 31
_OPEN_FILES = 32
_PIPE_BYTES = 1 << 20  # the most that any user may ask for
# The first byte of an answer: what follows is a reason, float64 [n, t], or texts [n, t] with NULs between them.
REFUSED, NUMBERS, TEXTS = b"r", b"n", b"t"
SEPARATOR = "\0"


@dataclass(frozen=True)
class Form:
    """What a submission must look like: nothing of what it should say.

    shape: of the predictions [n, t]. row_shape: see `Truth`.
    """

    spec: GradingSpec
    ids: tuple[str, ...]
    shape: tuple[int, int]
    row_shape: tuple[int, ...]

    @property
    def truth(self) -> Truth:
        """As `parse_submission` wants it, with nothing in it that could be found out."""
        n = len(self.ids)
        return Truth(
            row_of={identity: row for row, identity in enumerate(self.ids)},
            values=np.broadcast_to(0.0, self.shape),
            row_shape=self.row_shape,
            public=np.zeros(n, dtype=bool),
            private=np.zeros(n, dtype=bool),
        )


def main(seccomp: str) -> NoReturn:
    """Serves requests on file descriptor 0, until the other side closes it."""
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    if sys.platform == "linux":
        namespaces.hide_from_siblings()
        namespaces.filter_calls(seccomp)
    gc.collect()
    gc.freeze()
    protocol.send(channel, {"ready": True}, {})
    while True:
        try:
            request, blobs = protocol.receive(channel, _MAX_REQUEST_BYTES)
        except EOFError:
            os._exit(0)
        if len(blobs["submission"]) >= LEAST_BYTES:
            importlib.import_module("pandas")  # here, once: a fork would have to each time
        facts, answer = _read_in_fork(request, _read_form(blobs["form"]), blobs["submission"], channel)
        protocol.send(channel, facts, {"answer": answer})


@functools.lru_cache(maxsize=16)
def _read_form(content: bytes) -> tuple[GradingSpec, Truth]:
    form: Form = pickle.loads(content)  # the trainer's: only answers come from those who may lie
    return form.spec, form.truth


def _read_in_fork(
    request: dict[str, int], form: tuple[GradingSpec, Truth], submission: bytes, channel: socket.socket
) -> tuple[dict[str, object], bytes]:
    """Whether the fork came to a good end in time, and what it said."""
    reader, writer = os.pipe()
    if sys.platform == "linux":
        with contextlib.suppress(PermissionError):  # of a user with many pipes; they are of use as they are
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    pid = os.fork()
    if pid == 0:
        # Nothing of this process's may run in the fork, whatever happens.
        try:
            channel.close()
            os.close(reader)
            os.setsid()
            _limit(request["cpu_seconds"], request["memory_bytes"])
            _say(writer, _answer(*form, submission))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    answer = _listen(reader, request["answer_bytes"], time.monotonic() + request["wall_seconds"])
    os.close(reader)
    ended = _bury(pid, kill=answer is None)
    return {"sound": answer is not None and ended == 0}, answer or b""


def _answer(spec: GradingSpec, truth: Truth, submission: bytes) -> bytes:
    try:
        predicted = parse_submission(spec, truth, submission)
    except RefusedSubmission as refused:
        return REFUSED + str(refused).encode("utf-8", "backslashreplace")
    if predicted.dtype.kind == "U":
        return TEXTS + SEPARATOR.join(predicted.ravel().tolist()).encode()
    return NUMBERS + predicted.astype("<f8").tobytes()


def _say(writer: int, answer: bytes) -> None:
    left = memoryview(answer)
    while left:
        left = left[os.write(writer, left) :]


def _listen(reader: int, most: int, deadline: float) -> bytes | None:
    """Everything until the end of the pipe; None if it is too much or does not end in time."""
    answer = bytearray()
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while len(answer) <= most:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(1000 * left):
            return None
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            return bytes(answer)
        answer += chunk
    return None


def _bury(pid: int, kill: bool) -> int:
    """Ends the fork and whatever it may have started; its exit code, or the negative number of a signal."""
    if kill:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.getpid() == 1:  # all others in here are its descendants
        try:
            os.kill(-1, signal.SIGKILL)
            while True:
                os.waitpid(-1, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
    return os.waitstatus_to_exitcode(status)


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
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
