"""The zygote: imports what scripts import, then sees to every job that arrives."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import NoReturn

from . import counters, namespaces, protocol, supervisor, zygote
from .supervisor import Confinement


def main(argv: list[str] | None = None) -> NoReturn:
    """Serves jobs on file descriptor 0 until the other side closes it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--isolated", action="store_true", help="give every job namespaces of its own")
    parser.add_argument("--container", action="store_true", help="serve jobs as process 1 of a container")
    parser.add_argument("--seconds", type=int, default=0, help="how long a container lives at most")
    parser.add_argument("--scratch", help="where unisolated jobs get their temporary folders")
    parser.add_argument("--preload", nargs="*", default=[], help="modules to import before the first job")
    options = parser.parse_args(argv)
    if options.container:
        _serve_container(options)
    channel = socket.socket(fileno=_take_descriptor(0))
    channel.setblocking(True)
    _silence()
    if options.isolated:
        namespaces.forbid_user_namespaces()
    _preload(channel, options.preload)
    sound = True
    while sound and _wait_for_message(channel):
        pid = namespaces.fork_into_namespaces() if options.isolated else os.fork()
        if pid == 0:
            _serve_one(channel, options)
        _, status = os.waitpid(pid, 0)
        # If not, what the supervisor left on the channel cannot be trusted: the host starts a fresh worker.
        sound = status == 0
    if options.scratch:
        with contextlib.suppress(OSError):  # other workers' jobs may still be there
            os.rmdir(options.scratch)  # noqa: PTH106
    os._exit(0 if sound else 1)  # taking down all that was imported would only cost time


def _serve_container(options: argparse.Namespace) -> NoReturn:
    """One job after another, supervised by this very process: no program can signal process 1.

    The scripts are forks of another one, the zygote, since this one has read what earlier jobs brought.
    Ends with its host, whose end closes the channel, and at the latest when its own time is up.
    """
    namespaces.hide_from_siblings()
    os.environ.pop("HOSTNAME", None)  # the engine's addition
    channel = protocol.PipeChannel(_take_descriptor(0), _take_descriptor(1))
    _silence()
    forge = zygote.Zygote(lambda: _import(options.preload))
    _end_after(options.seconds)
    container = supervisor.Container(forge)
    seconds = forge.await_ready(options.seconds)
    protocol.send(channel, {"ready": True, "import_seconds": seconds, "exposed": container.exposed}, {})
    while True:
        try:
            supervisor.serve(channel, Confinement.CONTAINER, container=container)
        except EOFError:
            os._exit(0)
        except counters.UsedUpError as reason:
            print(f"used up: {reason}", file=sys.stderr)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)


def _end_after(seconds: int) -> None:
    """Ends this process in time, whatever it then does. The same signal from a program comes to nothing."""
    deadline = time.monotonic() + seconds

    def end(*_: object) -> None:
        if time.monotonic() >= deadline:
            os._exit(0)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds + 0.01, 1.0)


def _take_descriptor(number: int) -> int:
    """Moves a channel away from where a stray print could reach it."""
    return os.dup(number)


def _silence() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)


def _preload(channel: protocol.Channel, names: list[str]) -> None:
    """Imports, and says when that is done."""
    protocol.send(channel, {"ready": True, "import_seconds": _import(names)}, {})


def _import(names: list[str]) -> float:
    """Returns the seconds that it took."""
    begun = time.perf_counter()
    for name in names:
        # A module that is not here is a matter for the script that wants it.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    # Objects made so far are never garbage: keep the collector from touching (and so copying) their pages.
    gc.collect()
    gc.freeze()
    return time.perf_counter() - begun


def _wait_for_message(channel: socket.socket) -> bool:
    """Blocks until a job arrives; False when the host is gone. Leaves reading it to the job's own process."""
    select.select([channel], [], [])
    return bool(channel.recv(1, socket.MSG_PEEK))


def _serve_one(channel: socket.socket, options: argparse.Namespace) -> NoReturn:
    """The life of a job's supervisor. Exit code 0 says that a whole answer was written."""
    try:
        if options.isolated:
            supervisor.serve(channel, Confinement.NAMESPACES)
        else:
            supervisor.serve(channel, Confinement.NONE, options.scratch)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
