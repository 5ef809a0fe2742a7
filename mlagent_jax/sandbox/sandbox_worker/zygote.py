"""The process of a container that scripts are forked from: it has imported what they import, and read nothing else.

Process 1 of a container supervises one job after another, and has their files and output in its memory. A script
forked from it could read there what an earlier one left. The zygote has never read a byte of any job; its forks read
what they are to run. They become children of process 1, which no program can signal. Scripts have the zygote's user
id and so can signal it, but not unnoticed: see `is_undisturbed`.

Source: clone(2), "CLONE_PARENT".
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from . import namespaces, script

_FORK, _KILL, _COUNT_SLEEPS = b"f", b"k", b"c"
_RESPONSE = struct.Struct("<d")
_RESPONSE_SECONDS = 5.0  # if a command takes longer, the zygote was stopped or killed
_MAX_REQUEST_BYTES, _MAX_DESCRIPTORS = 1 << 18, 8
# The number of times that it sleeps per job: once for each command, more often if a signal stopped it. It is then
# made to sleep until it has slept this often.
_SLEEPS_PER_JOB: Final = 8


class ZygoteError(Exception):
    """The zygote does not respond: a program has stopped or killed it."""


class Zygote:
    """The zygote as seen from process 1, which forks it. `pid`: its process id in this pid namespace."""

    def __init__(self, load: Callable[[], float]) -> None:
        """Returns without waiting. `load`: imports modules; `await_ready` returns its result."""
        # Pipes, because a process that sleeps on a socket also wakes when its own messages are read at the other end.
        commands, self._commands = os.pipe()
        self._responses, responses = os.pipe()
        # Whole messages, each with descriptors. This process also keeps the other end, to see whether any is left.
        self._requests, self._peer_requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._is_dead = False
        self._sleeps = self._resident = 0
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _serve(commands, responses, self._peer_requests, load)
            finally:
                os._exit(1)
        os.close(commands)
        os.close(responses)

    def await_ready(self, seconds: float) -> float:
        """What `load` returned. Waits at most this many seconds. Raises ZygoteError."""
        loaded = self._read_response(seconds)
        self._sleeps = int(self._command(_COUNT_SLEEPS))
        self._resident = self._resident_pages()
        return loaded

    def fork(self, descriptors: Mapping[str, int], arguments: Mapping[str, Any]) -> int:
        """The pid of a new child of this process that calls `script.run` with `descriptors` and `arguments`.

        Raises ZygoteError, OSError.
        """
        request = pickle.dumps(([*descriptors], dict(arguments)))
        socket.send_fds(self._requests, [request], [*descriptors.values()])
        return int(self._command(_FORK))

    def kill_all(self) -> None:
        """Kills every process but this one and the zygote, all at once, so that none can fork meanwhile."""
        if not self._is_dead:
            with contextlib.suppress(ZygoteError):
                self._command(_KILL)
                return
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)

    def is_undisturbed(self) -> bool:
        """Whether no program has signalled it, or left it anything, since the last call.

        /proc shows others how often it went to sleep, so this brings the count to the same number after every job. A
        program that uses up the container's memory makes the kernel drop pages of the zygote; that counts too.
        """
        self._sleeps += _SLEEPS_PER_JOB
        try:
            while (slept := self._command(_COUNT_SLEEPS)) < self._sleeps:
                pass
            resident, self._resident = self._resident, self._resident_pages()
        except (ZygoteError, OSError):
            return False
        return self._resident >= resident and slept == self._sleeps and not self._discard_request()

    def mark_dead(self) -> None:
        """Call when its exit was seen."""
        self._is_dead = True

    def _command(self, command: bytes) -> float:
        try:
            os.write(self._commands, command)
        except OSError as error:
            self._is_dead = True
            raise ZygoteError("the zygote is gone") from error
        return self._read_response(_RESPONSE_SECONDS)

    def _read_response(self, seconds: float) -> float:
        if select.select([self._responses], [], [], seconds)[0]:
            response = os.read(self._responses, _RESPONSE.size)
            if len(response) == _RESPONSE.size:
                return float(_RESPONSE.unpack(response)[0])
        self._is_dead = True
        raise ZygoteError("the zygote does not respond")

    def _resident_pages(self) -> int:
        """Raises OSError."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])

    def _discard_request(self) -> bool:
        """Removes a request that no script took. Returns whether there was one."""
        try:
            return bool(self._peer_requests.recv(1, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False


def _serve(commands: int, responses: int, requests: socket.socket, load: Callable[[], float]) -> NoReturn:
    """The zygote's main loop."""
    kept = {0, 1, 2, commands, responses, requests.fileno()}
    for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208
        if descriptor not in kept:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                os.close(descriptor)
    os.write(responses, _RESPONSE.pack(load()))
    # Ignored signals do not even wake it.
    handlers = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    }
    while command := os.read(commands, 1):
        response = 0
        if command == _FORK:
            response = namespaces.fork_sibling()
            if response == 0:
                _run_script(requests, handlers)
        elif command == _KILL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # all but process 1 and the caller
        elif command == _COUNT_SLEEPS:
            response = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        os.write(responses, _RESPONSE.pack(response))
    os._exit(0)


def _run_script(requests: socket.socket, handlers: dict[signal.Signals, Any]) -> NoReturn:
    try:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        request, descriptors, _, _ = socket.recv_fds(requests, _MAX_REQUEST_BYTES, _MAX_DESCRIPTORS)
        names, arguments = pickle.loads(request)
        script.run(**dict(zip(names, descriptors, strict=True)), **arguments)
    finally:
        os._exit(70)
