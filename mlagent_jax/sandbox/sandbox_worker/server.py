"""The zygote: imports what scripts import, then forks a supervisor for every job that arrives."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import select
import socket
import time
import traceback
from typing import NoReturn

from . import namespaces, protocol, supervisor


def main(argv: list[str] | None = None) -> NoReturn:
    """Serves jobs on file descriptor 0, a Unix socket, until the other side closes it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--isolated", action="store_true", help="give every job namespaces of its own")
    parser.add_argument("--scratch", help="where unisolated jobs get their temporary folders")
    parser.add_argument("--preload", nargs="*", default=[], help="modules to import before the first job")
    options = parser.parse_args(argv)
    channel = _take_channel()
    if options.isolated:
        namespaces.forbid_user_namespaces()
    begun = time.perf_counter()
    _preload(options.preload)
    protocol.send(channel, {"ready": True, "import_seconds": time.perf_counter() - begun}, {})
    sound = True
    while sound and _wait_for_message(channel):
        pid = namespaces.fork_into_namespaces() if options.isolated else os.fork()
        if pid == 0:
            _serve_one(channel, None if options.isolated else options.scratch)
        _, status = os.waitpid(pid, 0)
        # If not, what the supervisor left on the channel cannot be trusted: the host starts a fresh worker.
        sound = status == 0
    if options.scratch:
        with contextlib.suppress(OSError):  # other workers' jobs may still be there
            os.rmdir(options.scratch)  # noqa: PTH106
    os._exit(0 if sound else 1)  # taking down all that was imported would only cost time


def _take_channel() -> socket.socket:
    """Moves the channel off file descriptors 0 and 1, so that no stray print can reach it."""
    channel = socket.socket(fileno=os.dup(0))
    channel.setblocking(True)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return channel


def _preload(names: list[str]) -> None:
    for name in names:
        # A module that is not here is a matter for the script that wants it.
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
