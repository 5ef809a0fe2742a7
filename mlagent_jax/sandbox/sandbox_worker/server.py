"""The worker's entry point: imports what scripts import, then has every job that arrives supervised."""

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

from . import counters, namespaces, protocol, supervisor
from .confinement import Confinement
from .container_state import ContainerState
from .zygote import Zygote


def main(argv: list[str] | None = None) -> NoReturn:
    """Serves jobs on file descriptor 0 until the other side closes it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--isolated", action="store_true", help="give every job namespaces of its own")
    parser.add_argument("--container", action="store_true", help="serve jobs as process 1 of a container")
    parser.add_argument("--seconds", type=int, default=0, help="the longest that a container may live")
    parser.add_argument("--scratch", help="where jobs without isolation get their temporary folders")
    parser.add_argument("--preload", nargs="*", default=[], help="modules to import before the first job")
    options = parser.parse_args(argv)
    if options.container:
        _serve_container(options)
    channel = socket.socket(fileno=os.dup(0))  # away from where a stray print could reach it
    channel.setblocking(True)
    _redirect_standard_streams()
    if options.isolated:
        namespaces.forbid_user_namespaces()
    _preload(channel, options.preload)
    healthy = True
    while healthy and _wait_for_message(channel):
        pid = namespaces.fork_into_namespaces() if options.isolated else os.fork()
        if pid == 0:
            _serve_one(channel, options)
        _, status = os.waitpid(pid, 0)
        # Otherwise, what the supervisor left on the channel cannot be trusted: the host starts a new worker.
        healthy = status == 0
    if options.scratch:
        with contextlib.suppress(OSError):  # other workers' jobs may still be there
            os.rmdir(options.scratch)  # noqa: PTH106
    os._exit(0 if healthy else 1)  # tearing down all imported modules would only cost time


def _serve_container(options: argparse.Namespace) -> NoReturn:
    """Serves jobs one after another, supervised by this very process: no program can signal process 1.

    Scripts are forked from another process, the zygote, because this one has read what earlier jobs contained. The
    container ends with its host, whose end closes the channel, or at the latest when its own time is up.
    """
    namespaces.hide_from_siblings()
    os.environ.pop("HOSTNAME", None)  # set by the engine
    channel = protocol.PipeChannel(os.dup(0), os.dup(1))
    _redirect_standard_streams()
    zygote = Zygote(lambda: _import(options.preload))
    _exit_after(options.seconds)
    container = ContainerState(zygote)
    seconds = zygote.await_ready(options.seconds)
    protocol.send(channel, {"ready": True, "import_seconds": seconds, "exposed": container.exposed}, {})
    while True:
        try:
            supervisor.serve(channel, Confinement.CONTAINER, container=container)
        except EOFError:
            os._exit(0)
        except counters.ContainerUsedUpError as reason:
            print(f"used up: {reason}", file=sys.stderr)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)


def _exit_after(seconds: int) -> None:
    """Ends this process in time, whatever it is doing then. The same signal from a program has no effect."""
    deadline = time.monotonic() + seconds

    def end(*_: object) -> None:
        if time.monotonic() >= deadline:
            os._exit(0)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds + 0.01, 1.0)


def _redirect_standard_streams() -> None:
    """No input, and output goes to standard error."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)


def _preload(channel: protocol.Channel, names: list[str]) -> None:
    """Imports modules and reports when that is done."""
    protocol.send(channel, {"ready": True, "import_seconds": _import(names)}, {})


def _import(names: list[str]) -> float:
    """Imports modules. Returns how many seconds it took."""
    begun = time.perf_counter()
    for name in names:
        # A missing module only concerns the script that imports it.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    # Objects made so far are never garbage. Keep the collector from touching, and so copying, their pages.
    gc.collect()
    gc.freeze()
    return time.perf_counter() - begun


def _wait_for_message(channel: socket.socket) -> bool:
    """Blocks until a job arrives; False when the host is gone. The job's own process will read it."""
    select.select([channel], [], [])
    return bool(channel.recv(1, socket.MSG_PEEK))


def _serve_one(channel: socket.socket, options: argparse.Namespace) -> NoReturn:
    """Runs in the supervisor of one job. Exit code 0 means that a complete report was written."""
    try:
        if options.isolated:
            supervisor.serve(channel, Confinement.NAMESPACES)
        else:
            supervisor.serve(channel, Confinement.NONE, options.scratch)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
