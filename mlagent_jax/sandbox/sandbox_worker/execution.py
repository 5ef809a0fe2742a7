"""One run of a script, from its fork to the death of its last descendant: the supervisor's event loop."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

from . import namespaces, protocol, script
from .confinement import Confinement
from .output_buffer import OutputBuffer, path_replacements
from .record import Measurements
from .resource_monitor import ResourceMonitor, count_oom_kills
from .seccomp_agent import SeccompAgent
from .zygote import Zygote

_CHECK_SECONDS = 0.1
_KILL_SECONDS = 5.0  # if killing a job's processes takes longer, the host is in trouble
# Our processes that count against RLIMIT_NPROC: two of bubblewrap, the worker and the supervisor.
_PROCESS_OVERHEAD = 4


class Execution:
    """Runs the script of one job. `output`: what it has printed so far."""

    def __init__(
        self,
        paths: namespaces.JobPaths,
        channel: protocol.Channel,
        job: dict[str, Any],
        confinement: Confinement,
        zygote: Zygote | None,
    ) -> None:
        """`zygote`: what the script is forked from, or None for this process."""
        self.paths = paths
        self.channel = channel
        self.job = job
        self.limits = job["limits"]
        self.confinement = confinement
        self.isolated = confinement is not Confinement.NONE
        self.output = OutputBuffer(self.limits["output_kb"] << 10, path_replacements(paths))
        self.zygote = zygote
        self.monitor = ResourceMonitor(
            self.limits["memory_mb"] << 20,
            self.limits["cpu_seconds"],
            self.limits["processes"],
            self.isolated,
            excluded={1} if zygote is None else {1, zygote.pid},
        )
        self.rlimit_as = self.limits["memory_mb"] << 20 if job["limit_address_space"] else None
        self.agent: SeccompAgent | None = None
        self.wait_status: int | None = None
        self.cpu_seconds = 0.0
        self.script_cpu_seconds = 0.0
        self.peak_kilobytes = 0

    def run(self) -> Measurements:
        """Returns when no process of the job is left. Raises PreparationError if the script was never reached."""
        oom_kills_before = count_oom_kills()
        begun = time.monotonic()
        with _child_exits() as exits, contextlib.ExitStack() as opened:
            self.pid, self.pipe = self._start(opened)
            killed_for = self._watch(exits, begun + self.limits["wall_seconds"])
            wall_seconds = time.monotonic() - begun
            self._kill_all()
        while self._drain():
            pass
        self.output.finish()
        assert self.wait_status is not None
        code = os.waitstatus_to_exitcode(self.wait_status)
        kernel_oom_kills = max(count_oom_kills() - oom_kills_before, 0)
        return Measurements(
            ran=True,
            killed_for=killed_for,
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            dropped_bytes=self.output.total - len(self.output.head) - len(self.output.tail),
            wall_seconds=wall_seconds,
            cpu_seconds=self.cpu_seconds,
            script_cpu_seconds=self.script_cpu_seconds,
            peak_memory_mb=max(self.peak_kilobytes / 1024, self.monitor.peak_bytes / 2**20),
            refused_bytes=self._refused_bytes(),
            refused_processes=self._refused_processes(),
            kernel_oom_kills=kernel_oom_kills,
            # Without a control group there is only the host's counter, which also counts others' processes.
            own_oom_kills=kernel_oom_kills if self.confinement is Confinement.CONTAINER else 0,
            disk_full=self.isolated
            and any(map(_is_full, (self.paths.workspace, self.paths.temporary, "/dev/shm"))),
        )

    def _refused_bytes(self) -> int:
        if self.agent is not None or self.rlimit_as is None:
            return self.agent.refused_bytes if self.agent is not None else 0
        # Without an agent, all that is known is how close to the limit a check has found it.
        free = self.rlimit_as - self.monitor.peak_address_space
        return int(free < self.rlimit_as / 16)

    def _refused_processes(self) -> int:
        if self.agent is not None:
            return self.agent.refused_processes
        return int(self.monitor.peak_tasks >= self.limits["processes"])

    def _start(self, opened: contextlib.ExitStack) -> tuple[int, int]:
        """The script's process id and the pipe of its output. Raises PreparationError."""
        reader, writer = os.pipe()
        # A container's control group limits its processes.
        needs_rlimit = self.confinement is Confinement.NAMESPACES and _nproc_counts_per_namespace()
        restrictions = script.Restrictions(
            # The agent decides, and counts what it refuses. This is a safety net, and wider: the kernel also counts
            # processes that have ended but are not gone yet, and would refuse without a trace.
            rlimit_nproc=2 * self.limits["processes"] + _PROCESS_OVERHEAD if needs_rlimit else None,
            rlimit_as=self.rlimit_as,
            seccomp=self.job["seccomp"],
            isolated=self.isolated,
        )
        arguments: dict[str, Any] = {
            "script": self.job["script"],
            "paths": self.paths,
            "limits": self.limits,
            "restrictions": restrictions,
        }
        ours, theirs = socket.socketpair()
        descriptors = {"output": writer, "control": theirs.fileno()}
        pid = self.zygote.fork(descriptors, arguments) if self.zygote else os.fork()
        if pid == 0:
            # No code of the supervisor may run in the script's process, whatever happens.
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                script.run(output=writer, control=theirs.detach(), **arguments)
            finally:
                os._exit(70)
        os.close(writer)
        theirs.close()
        os.set_blocking(reader, False)
        try:
            with ours:
                listener = script.await_start(ours)
        except script.PreparationError:
            self.pid, self.pipe = pid, reader
            self._kill_all()
            raise
        if listener is not None:
            self.monitor.admits_processes = True
            self.agent = SeccompAgent(
                listener, self.rlimit_as, self.monitor.admit_process, self.monitor.descendants
            )
            opened.callback(self.agent.close)
        return pid, reader

    def _watch(self, exits: int, deadline: float) -> str:
        """Follows the script. Returns why it has to be killed, or "" when it has ended by itself."""
        poll = select.poll()
        poll.register(self.pipe, select.POLLIN)
        poll.register(exits, select.POLLIN)
        poll.register(self.channel.fileno(), select.POLLHUP)
        listener = self.agent.listener if self.agent else -1
        if self.agent:
            poll.register(listener, select.POLLIN)
        next_check = 0.0
        while True:
            now = time.monotonic()
            if now >= deadline:
                return "time"
            if now >= next_check:
                begun = now
                exceeded = self.monitor.exceeded_limit(
                    self.paths.workspace, self.limits["workspace_mb"] << 20
                )
                if exceeded:
                    return exceeded
                # A check takes long where many processes share much memory. The calls that wait for the agent
                # must not wait for checks all the time.
                now = time.monotonic()
                next_check = now + max(_CHECK_SECONDS, 3 * (now - begun))
            for descriptor, event in poll.poll(1000 * max(min(deadline - now, _CHECK_SECONDS), 0)):
                if descriptor == self.pipe and not self._drain():
                    poll.unregister(self.pipe)
                elif self.agent and descriptor == listener:
                    if event & select.POLLIN:
                        self.agent.answer()
                    else:  # every process with this filter is dead
                        poll.unregister(listener)
                elif descriptor == self.channel.fileno() and event & select.POLLHUP:
                    self._kill_all()
                    raise EOFError("the host is gone")
                elif descriptor == exits:
                    os.read(exits, 4096)
            if self._reap():
                return ""

    def _drain(self) -> bool:
        """Reads what is in the pipe now. Returns False once nothing more can come."""
        try:
            chunk = os.read(self.pipe, 1 << 16)
        except BlockingIOError:
            return self.wait_status is None
        self.output.add(chunk)
        return bool(chunk)

    def _reap(self) -> bool:
        """Reaps dead children, including orphans. Returns True once the script itself is dead."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                if self.zygote and pid == self.zygote.pid:
                    self.zygote.mark_dead()
                    continue
                if pid == self.pid:
                    self.wait_status = status
                    self.script_cpu_seconds = usage.ru_utime + usage.ru_stime
                self.cpu_seconds += usage.ru_utime + usage.ru_stime
                self.peak_kilobytes = max(self.peak_kilobytes, usage.ru_maxrss)
        return self.wait_status is not None

    def _kill_all(self) -> None:
        """Returns when no process of the job is left. Raises TimeoutError if some do not die."""
        deadline = time.monotonic() + _KILL_SECONDS
        if self.zygote:
            self.zygote.kill_all()  # once is enough: none can fork meanwhile
        while True:
            if self.isolated and not self.zygote:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
            elif not self.isolated:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
                for pid in self.monitor.descendants():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
            self._reap()
            if not self._has_children():
                return
            if time.monotonic() > deadline:
                raise TimeoutError("processes of the job survived SIGKILL")
            time.sleep(0.001)

    def _has_children(self) -> bool:
        """Whether a process of the job is left, if only as a zombie."""
        if self.zygote:
            return bool(self.monitor.descendants())
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True


def _is_full(path: str) -> bool:
    status = os.statvfs(path)
    return status.f_bavail == 0 or status.f_favail == 0


@contextlib.contextmanager
def _child_exits() -> Iterator[int]:
    """A file descriptor that becomes readable when a child has ended."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(reader)
        os.close(writer)


def _nproc_counts_per_namespace() -> bool:
    """Whether RLIMIT_NPROC counts this user namespace's processes or, before Linux 5.14, all of the user's."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (5, 14)
