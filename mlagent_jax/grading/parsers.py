"""Reads submissions in processes of low privilege: a file that breaks its reader breaks nothing else.

The processes are started when the first submission comes, stay warm, and end with this one. Under bubblewrap they
have no network, no file but the interpreter's and this package's, and no privilege; where bubblewrap does not
work, their privileges, system calls and resources are limited all the same. None has ever held a label. What they
answer is taken as bytes of a known number and looked at again (`check_predictions`).
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
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from absl import logging

from mlagent_jax.errors import UserError
from mlagent_jax.grading.labels import Truth
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.grading.parser_process import NUMBERS, REFUSED, SEPARATOR, TEXTS, Form
from mlagent_jax.grading.spec import GradingSpec
from mlagent_jax.grading.submissions import (
    MOST_CHARS,
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
_STARTING = threading.Lock()
_ATTEMPTS = 3
_CPU_SECONDS = 60
_WALL_SECONDS = 180  # of a busy host's
_MOST_REASON_BYTES = 4096
_MOST_REASON_CHARS = 400


class ParserUnavailableError(UserError):
    """No process that reads submissions can be had: this host's fault, never the agent's."""


def parse_apart(spec: GradingSpec, truth: Truth, submission: bytes | None) -> np.ndarray:
    """As `submissions.parse_submission`, in another process. Thread-safe.

    Raises RefusedSubmission, also if reading it crashed or took too long; ParserUnavailableError.
    """
    content = check_size(spec, truth, submission)
    broken = RefusedSubmission(f"{spec.submission} could not be read: it is not what such a file should be.")
    facts, answer = _ask(spec, truth, content)
    if not facts.get("sound"):
        raise broken
    kind, said = answer[:1], answer[1:]
    if kind == REFUSED:
        raise RefusedSubmission(_printable(said))
    is_text = METRICS[spec.metric].prediction.is_text
    predicted = (_texts if is_text else _numbers)(said, truth.values.shape)
    if predicted is None or kind != (TEXTS if is_text else NUMBERS):
        raise broken
    check_predictions(spec, truth, predicted)
    return predicted


def _ask(spec: GradingSpec, truth: Truth, submission: bytes) -> tuple[dict[str, Any], bytes]:
    """What came of reading it, and the answer. Raises ParserUnavailableError."""
    values = truth.values.size
    request = {
        "cpu_seconds": _CPU_SECONDS,
        "wall_seconds": _WALL_SECONDS,
        "memory_bytes": (512 << 20) + 16 * len(submission) + 512 * (values + len(truth.values)),
        "answer_bytes": _MOST_REASON_BYTES + values * (4 * MOST_CHARS + 1),
    }
    blobs = {"form": _form(spec, _Identity(truth)), "submission": submission}
    error = ""
    for _ in range(_ATTEMPTS):
        try:
            with _pool().borrow() as parser:
                facts, answer = parser.run(request, blobs, _WALL_SECONDS, request["answer_bytes"])
                return facts, answer["answer"]
        except (WorkerError, OSError, KeyError) as failure:
            error = str(failure) if isinstance(failure, WorkerError) else repr(failure)
            logging.warning("a process that reads submissions failed, another is tried: %s", error)
    raise ParserUnavailableError(
        f"No process that reads submissions stays alive here ({error}): see what ends processes on this host, "
        "such as a lack of memory."
    )


def _numbers(said: bytes, shape: tuple[int, ...]) -> np.ndarray | None:
    """Numbers of this shape, or None if it is not that."""
    return np.frombuffer(said, "<f8").reshape(shape) if len(said) == 8 * math.prod(shape) else None


def _texts(said: bytes, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        cells = said.decode().split(SEPARATOR)
    except UnicodeDecodeError:
        return None
    if len(cells) != math.prod(shape) or max(map(len, cells)) > MOST_CHARS:
        return None
    return np.array(cells).reshape(shape)


def _printable(reason: bytes) -> str:
    text = reason[:_MOST_REASON_BYTES].decode("utf-8", "replace")[:_MOST_REASON_CHARS]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class _Identity:
    """A truth as a key: by identity, as `read_truth` gives the same one each time."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def __hash__(self) -> int:
        return id(self.truth)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.truth is self.truth


@functools.lru_cache(maxsize=64)
def _form(spec: GradingSpec, identity: _Identity) -> bytes:
    """What a parser has to know, without labels and without what no parser needs."""
    truth = identity.truth
    bare = replace(GradingSpec.of(spec), labels_path=Path())
    return pickle.dumps(Form(bare, tuple(truth.row_of), truth.values.shape, truth.row_shape))


def _pool() -> WorkerPool:
    with _STARTING:  # threads that come first, come together
        return _started_pool()


@functools.cache
def _started_pool() -> WorkerPool:
    reason = why_not_bubblewrap(_PACKAGE)
    if reason:
        logging.warning("Submissions are read in processes with limits, and not isolated: %s", reason)
    pool = WorkerPool(max(2, (os.cpu_count() or 1) // 8), _start_limited if reason else _start_confined)
    atexit.register(pool.close)
    # A fork of this process must not speak over the same sockets.
    os.register_at_fork(after_in_child=_started_pool.cache_clear)
    return pool


def _start_confined(channel: socket.socket, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [confined.python(), "-c", _BOOT, "/sandbox", seccomp.build_filter()]
    visible = {str(_PACKAGE): f"/sandbox/{_PACKAGE.name}"}
    return confined.start(command, channel, errors, visible, as_pid_1=True)


def _start_limited(channel: socket.socket, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _BOOT, str(_PACKAGE.parent), seccomp.build_filter()]
    return start_process(command, channel, errors)
