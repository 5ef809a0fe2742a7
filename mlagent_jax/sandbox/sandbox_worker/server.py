"""The zygote: imports what scripts import, then forks a supervisor for every job that arrives."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import select
import socket
import sys
import time
import traceback
import warnings
from typing import NoReturn

from . import namespaces, protocol, supervisor

# What the scripts of the tasks import, with what those imports load only on first use.
PRELOAD = (
    "numpy",
    "numpy.ma",
    "pandas",
    "scipy.linalg",
    "scipy.optimize",
    "scipy.sparse",
    "scipy.stats",
    "sklearn.cluster",
    "sklearn.compose",
    "sklearn.decomposition",
    "sklearn.discriminant_analysis",
    "sklearn.dummy",
    "sklearn.ensemble",
    "sklearn.feature_extraction.text",
    "sklearn.feature_selection",
    "sklearn.gaussian_process",
    "sklearn.impute",
    "sklearn.kernel_approximation",
    "sklearn.kernel_ridge",
    "sklearn.linear_model",
    "sklearn.manifold",
    "sklearn.metrics",
    "sklearn.model_selection",
    "sklearn.naive_bayes",
    "sklearn.neighbors",
    "sklearn.neural_network",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "sklearn.tree",
)


def main(argv: list[str] | None = None) -> NoReturn:
    """Serves jobs on file descriptor 0, a Unix socket, until the other side closes it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--isolated", action="store_true", help="give every job namespaces of its own")
    parser.add_argument("--scratch", help="where unisolated jobs get their temporary folders")
    options = parser.parse_args(argv)
    channel = _take_channel()
    if options.isolated:
        namespaces.forbid_user_namespaces()
    begun = time.perf_counter()
    _preload()
    protocol.send(channel, {"ready": True, "import_seconds": time.perf_counter() - begun}, {})
    while _wait_for_message(channel):
        pid = namespaces.fork_into_namespaces() if options.isolated else os.fork()
        if pid == 0:
            _serve_one(channel, None if options.isolated else options.scratch)
        _, status = os.waitpid(pid, 0)
        if status != 0:  # what it left on the channel cannot be trusted: the host starts a fresh worker
            print(f"the supervisor of a job ended with wait status {status}", file=sys.stderr, flush=True)
            os._exit(1)
    os._exit(0)  # taking down all that was imported would only cost time


def _take_channel() -> socket.socket:
    """Moves the channel off file descriptors 0 and 1, so that no stray print can reach it."""
    channel = socket.socket(fileno=os.dup(0))
    channel.setblocking(True)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return channel


def _preload() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in PRELOAD:
            # The stack may be older or newer than this list: a script that wants more imports it itself.
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)
    # Objects made so far are never garbage: keep the collector from touching (and so copying) their pages.
    gc.collect()
    gc.freeze()


def _wait_for_message(channel: socket.socket) -> bool:
    """Blocks until a job arrives; False when the host is gone. Leaves reading it to the job's own process."""
    select.select([channel], [], [])
    return bool(channel.recv(1, socket.MSG_PEEK))


def _serve_one(channel: socket.socket, scratch: str | None) -> NoReturn:
    """The life of a job's supervisor. Exit code 0 says that a whole answer was written."""
    try:
        supervisor.serve(channel, scratch)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
