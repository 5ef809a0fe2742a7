"""Parses submissions in processes of low privilege, so that a file that breaks its parser breaks nothing else.

The processes start with the first submission, stay warm, and end with this process. Under bubblewrap they have no
network, no privileges, and no files except those of the interpreter and this package. Where bubblewrap does not work,
their privileges, system calls and resources are still limited. None of them ever holds a label. Their answers are
untrusted: they are read as a known number of bytes and checked again by `check_predictions`.
"""

from __future__ import annotations

import atexit
import functools
import math
import os
import pickle
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
from absl import logging

from mlagent_jax.errors import UserError
from mlagent_jax.grading.labels import Truth
from mlagent_jax.grading.metrics import Values
from mlagent_jax.grading.parser_process import NUMBERS, REFUSED, SEPARATOR, TEXTS, SubmissionFormat
from mlagent_jax.grading.spec import GradingSpec
from mlagent_jax.grading.submissions import (
    MAX_TEXT_CHARS,
    RefusedSubmission,
    check_predictions,
    check_size,
)
from mlagent_jax.sandbox import confined, seccomp
from mlagent_jax.sandbox.open import why_not_bubblewrap
from mlagent_jax.sandbox.pool import WorkerError, WorkerPool, start_process

_PACKAGE = Path(__file__).parents[1]
_BOOT = (
    "import sys; sys.path[0] = sys.argv[1]; "
    "from mlagent_jax.grading import parser_process; parser_process.main(sys.argv[2])"
)
_START_LOCK = threading.Lock()
_ATTEMPTS = 3
_CPU_SECONDS = 60
_WALL_SECONDS = 180  # enough on a busy host
_MAX_REASON_BYTES = 4096
_MAX_REASON_CHARS = 400


class ParserUnavailableError(UserError):
    """No process that parses submissions can be started or stays alive: the host is at fault, never the agent."""


def parse_isolated(spec: GradingSpec, truth: Truth, submission: bytes | None) -> Values:
    """Does what `submissions.parse_submission` does, in another process. Thread-safe.

    Raises:
        RefusedSubmission: also if parsing crashed or took too long.
        ParserUnavailableError: no process could parse it.
    """
    content = check_size(spec, truth, submission)
    broken = RefusedSubmission(f"{spec.submission} could not be read: it is not what such a file should be.")
    status, answer = _request(spec, truth, content)
    if not status.get("ok"):
        raise broken
    kind, payload = answer[:1], answer[1:]
    if kind == REFUSED:
        raise RefusedSubmission(_printable(payload))
    predicted = (_decode_texts if spec.predicts_text else _decode_numbers)(payload, truth.values.shape)
    if predicted is None or kind != (TEXTS if spec.predicts_text else NUMBERS):
        raise broken
    check_predictions(spec, truth, predicted)
    return predicted


def _request(spec: GradingSpec, truth: Truth, submission: bytes) -> tuple[dict[str, Any], bytes]:
    """The status and the answer of a parser process. Raises ParserUnavailableError."""
    values = truth.values.size
    request = {
        "cpu_seconds": _CPU_SECONDS,
        "wall_seconds": _WALL_SECONDS,
        "memory_bytes": (512 << 20) + 16 * len(submission) + 512 * (values + len(truth.values)),
        "answer_bytes": _MAX_REASON_BYTES + values * (4 * MAX_TEXT_CHARS + 1),
    }
    blobs = {"format": _pickled_format(spec, _ByIdentity(truth)), "submission": submission}
    error = ""
    for _ in range(_ATTEMPTS):
        try:
            with _pool().borrow() as parser:
                status, answer = parser.run(request, blobs, _WALL_SECONDS, request["answer_bytes"])
                return status, answer["answer"]
        except (WorkerError, OSError, KeyError) as failure:
            error = str(failure) if isinstance(failure, WorkerError) else repr(failure)
            logging.warning("A process that parses submissions failed; trying another: %s", error)
    raise ParserUnavailableError(
        f"No process that parses submissions stays alive on this host ({error}). Find out what ends processes here, "
        "such as a lack of memory."
    )


def _decode_numbers(payload: bytes, shape: tuple[int, ...]) -> Values | None:
    """Numbers of this shape; None if the payload is anything else."""
    return np.frombuffer(payload, "<f8").reshape(shape) if len(payload) == 8 * math.prod(shape) else None


def _decode_texts(payload: bytes, shape: tuple[int, ...]) -> Values | None:
    """Texts of this shape; None if the payload is anything else."""
    try:
        cells = payload.decode().split(SEPARATOR)
    except UnicodeDecodeError:
        return None
    if len(cells) != math.prod(shape) or max(map(len, cells)) > MAX_TEXT_CHARS:
        return None
    return np.array(cells).reshape(shape)


def _printable(reason: bytes) -> str:
    """A reason that an untrusted process gave, short and without control characters."""
    text = reason[:_MAX_REASON_BYTES].decode("utf-8", "replace")[:_MAX_REASON_CHARS]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class _ByIdentity:
    """A `Truth` as a cache key, compared by identity: `read_truth` returns the same object each time."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def __hash__(self) -> int:
        return id(self.truth)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.truth is self.truth


@functools.lru_cache(maxsize=64)
def _pickled_format(spec: GradingSpec, key: _ByIdentity) -> bytes:
    """What a parser needs to know: no labels, and no path to them."""
    truth = key.truth
    return pickle.dumps(
        SubmissionFormat(spec.without_labels(), tuple(truth.row_of), truth.values.shape, truth.row_shape)
    )


def _pool() -> WorkerPool:
    with _START_LOCK:  # several threads may bring the first submissions at the same time
        return _started_pool()


@functools.cache
def _started_pool() -> WorkerPool:
    reason = why_not_bubblewrap(_PACKAGE)
    if reason:
        logging.warning(
            "Submissions are parsed in processes that have limits but are not isolated: %s", reason
        )
    pool = WorkerPool(max(2, (os.cpu_count() or 1) // 8), _start_limited if reason else _start_confined)
    atexit.register(pool.close)
    # A fork of this process must not use the same sockets.
    os.register_at_fork(after_in_child=_started_pool.cache_clear)
    return pool


def _start_confined(channel: socket.socket, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [confined.python(), "-c", _BOOT, "/sandbox", seccomp.build_filter()]
    visible = {str(_PACKAGE): f"/sandbox/{_PACKAGE.name}"}
    return confined.start(command, channel, errors, visible, as_pid_1=True)


def _start_limited(channel: socket.socket, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _BOOT, str(_PACKAGE.parent), seccomp.build_filter()]
    return start_process(command, channel, errors)
