"""The process of a container that scripts are forked from: it has imported what they import, and read nothing else.

Process 1 of a container supervises one job after the other, and has their files and output in its memory. A script
forked from it could read there what an earlier one left. The zygote has never read a byte of any job: its forks
read what they are to run. They become children of process 1, which nobody can signal. The zygote can be, since
scripts have its user id, but not unnoticed: see `is_untouched`.

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

_FORK, _KILL, _COUNT = b"f", b"k", b"c"
_ANSWER = struct.Struct("<d")
_ANSWER_SECONDS = 5.0  # to a command: more means that it was stopped or killed
_MOST_REQUEST_BYTES, _MOST_DESCRIPTORS = 1 << 18, 8
# How often it has gone to sleep for one job: once for each command, more if a signal stops it, and then as often as
# is missing.
_SLEEPS_PER_JOB: Final = 8


class ZygoteError(Exception):
    """It does not answer: a program has stopped or killed it."""


class Zygote:
    """The zygote as seen from process 1, which forks it. `pid`: its own, in this pid namespace."""

    def __init__(self, load: Callable[[], float]) -> None:
        """Returns without waiting. `load`: imports modules; its result comes back from `await_ready`."""
        # Pipes: who sleeps at one end of a socket is woken when its own words are read at the other.
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        # Whole messages, each with a descriptor. This end of the second is held to see that none is left over.
        self._requests, self._their_requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lost = False
        self._sleeps = self._resident = 0
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _serve(commands, answers, self._their_requests, load)
            finally:
                os._exit(1)
        os.close(commands)
        os.close(answers)

    def await_ready(self, seconds: float) -> float:
        """What `load` returned, in so many seconds at most. Raises ZygoteError."""
        loaded = self._answer(seconds)
        self._sleeps = int(self._command(_COUNT))
        self._resident = self._count_resident()
        return loaded

    def fork(self, descriptors: Mapping[str, int], arguments: Mapping[str, Any]) -> int:
        """The pid of a child of this process that calls `script.run` with `descriptors` and `arguments`.

        Raises ZygoteError, OSError.
        """
        request = pickle.dumps(([*descriptors], dict(arguments)))
        socket.send_fds(self._requests, [request], [*descriptors.values()])
        return int(self._command(_FORK))

    def kill_all(self) -> None:
        """Ends every process but this one and the zygote, at one moment: none can have a child meanwhile."""
        if not self._lost:
            with contextlib.suppress(ZygoteError):
                self._command(_KILL)
                return
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)

    def is_untouched(self) -> bool:
        """Whether no program has signalled it or left it anything since this was asked last.

        What others can read of it under /proc counts how often it went to sleep: the same for every job. A program
        that takes the container's last memory has the kernel drop pages of it.
        """
        self._sleeps += _SLEEPS_PER_JOB
        try:
            while (slept := self._command(_COUNT)) < self._sleeps:
                pass
            resident, self._resident = self._resident, self._count_resident()
        except (ZygoteError, OSError):
            return False
        return self._resident >= resident and slept == self._sleeps and not self._has_request()

    def lose(self) -> None:
        """Says that it was seen to be dead."""
        self._lost = True

    def _command(self, command: bytes) -> float:
        try:
            os.write(self._commands, command)
        except OSError as error:
            self._lost = True
            raise ZygoteError("the zygote is gone") from error
        return self._answer(_ANSWER_SECONDS)

    def _answer(self, seconds: float) -> float:
        if select.select([self._answers], [], [], seconds)[0]:
            answer = os.read(self._answers, _ANSWER.size)
            if len(answer) == _ANSWER.size:
                return float(_ANSWER.unpack(answer)[0])
        self._lost = True
        raise ZygoteError("the zygote does not answer")

    def _count_resident(self) -> int:
        """Its pages in memory. Raises OSError."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])

    def _has_request(self) -> bool:
        """Whether a request is left, for want of a script that took it. It is taken away then."""
        try:
            return bool(self._their_requests.recv(1, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False


def _serve(commands: int, answers: int, requests: socket.socket, load: Callable[[], float]) -> NoReturn:
    """The life of the zygote."""
    kept = {0, 1, 2, commands, answers, requests.fileno()}
    for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208
        if descriptor not in kept:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(descriptor)
    os.write(answers, _ANSWER.pack(load()))
    # Signals that are ignored do not even wake it.
    handlers = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    }
    while command := os.read(commands, 1):
        answer = 0
        if command == _FORK:
            answer = namespaces.fork_sibling()
            if answer == 0:
                _run_script(requests, handlers)
        elif command == _KILL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # all but process 1 and the caller
        elif command == _COUNT:
            answer = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        os.write(answers, _ANSWER.pack(answer))
    os._exit(0)


def _run_script(requests: socket.socket, handlers: dict[signal.Signals, Any]) -> NoReturn:
    try:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        request, descriptors, _, _ = socket.recv_fds(requests, _MOST_REQUEST_BYTES, _MOST_DESCRIPTORS)
        names, arguments = pickle.loads(request)
        script.run(**dict(zip(names, descriptors, strict=True)), **arguments)
    finally:
        os._exit(70)
