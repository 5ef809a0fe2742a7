"""The trusted parent of one script: starts it, drains its output, ends everything, then takes out its files.

In a sandbox it is process 1 of the job's own pid namespace, or of its container: the program cannot signal
it, and nothing that the program started outlives it. Without isolation it is a subreaper, which catches all
but the most determined.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import errno
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import exposure, namespaces, protocol, record, script, workspace
from .counters import Counters, UsedUpError
from .meter import ProcessMeter, oom_kills
from .output import Output, shown_paths
from .witness import Witness
from .zygote import Zygote

_WATCH_SECONDS = 0.1
_KILL_SECONDS = 5.0  # more than this to end a job's processes means a host in trouble
_MAX_JOB_BYTES = 1 << 30
# Ours, beside the script, in the same user namespace: bubblewrap's two, the zygote and the supervisor.
_PROCESS_OVERHEAD = 4
# What is writable in a container, each a tmpfs of limited size.
_CONTAINER = namespaces.Places("/workspace", "/tmp")


class Confinement(enum.Enum):
    """What keeps a job to itself."""

    NAMESPACES = "namespaces"  # its own, in a user namespace where this process has capabilities
    CONTAINER = "container"  # one made by an engine: the walls stand, and there is no capability
    NONE = "none"


class Container:
    """What a container keeps from one job to the next: process 1's side of it.

    Attributes:
        zygote: scripts are its forks.
        exposed: what the engine did not hide of earlier jobs; see `exposure`.
    """

    def __init__(self, zygote: Zygote) -> None:
        """Raises OSError. `zygote`: may still be loading."""
        self.zygote = zygote
        clear_container()  # engines make these folders in ways of their own: the first job's are as any's
        self.exposed = exposure.find_exposed()
        self._counters = Counters([_CONTAINER.workspace, _CONTAINER.temporary, "/dev/shm"])

    def prepare(self) -> None:
        """Call before each job. Raises OSError."""
        self._counters.touch()

    def renew(self) -> None:
        """Makes it what it was before the job. Raises UsedUpError, OSError, RecursionError: it must end then."""
        clear_container()
        if not self.zygote.is_untouched():
            raise UsedUpError("the job disturbed the process that scripts are forked from")
        self._counters.settle()


def serve(
    channel: protocol.Channel,
    confinement: Confinement,
    scratch: str = "",
    container: Container | None = None,
) -> None:
    """Reads one job from `channel`, runs it, answers; or answers that it is there, if asked. Raises OSError.

    Args:
        channel: to the host.
        confinement: what this process is in.
        scratch: without confinement, the folder for temporary ones.
        container: in one, what it keeps.
    """
    # Process 1 is deaf to its namespace but for signals that it handles: Python's handler would be one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job, files = protocol.receive(channel, _MAX_JOB_BYTES)
    if job.get("ping"):
        protocol.send(channel, job, {})
        return
    if confinement is Confinement.NAMESPACES:
        limits = job["limits"]
        namespaces.hide_from_siblings()
        places = namespaces.build_job_view(job["data"], limits["workspace_mb"], limits["workspace_files"])
        _run_in(places, channel, job, files, confinement)
    elif container is not None:
        container.prepare()
        _run_in(_CONTAINER, channel, job, files, confinement, container.zygote)
        # For a next job. If this fails, so does the container, which is replaced.
        container.renew()
    else:
        if sys.platform == "linux":
            namespaces.become_subreaper()
        Path(scratch).mkdir(exist_ok=True)
        folder = tempfile.mkdtemp(dir=scratch)
        try:
            places = namespaces.Places(f"{folder}/workspace", f"{folder}/tmp")
            Path(places.workspace).mkdir()
            Path(places.temporary).mkdir()
            if job["data"]:
                shutil.copytree(job["data"], f"{places.workspace}/data")
            _run_in(places, channel, job, files, confinement)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def clear_container() -> None:
    """Makes a container's writable folders what they were when it started. Raises OSError, RecursionError."""
    for folder in (_CONTAINER.workspace, _CONTAINER.temporary, "/dev/shm", "/dev/mqueue"):
        workspace.clear(folder, "data" if os.path.ismount(f"{folder}/data") else "")


def _run_in(
    places: namespaces.Places,
    channel: protocol.Channel,
    job: dict[str, Any],
    files: dict[str, bytes],
    confinement: Confinement,
    zygote: Zygote | None = None,
) -> None:
    limits = job["limits"]
    try:
        workspace.write_files(places.workspace, files)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        record.send(channel, record.Record(ran=False, disk_full=True))
        return
    execution = _Execution(places, channel, job, confinement, zygote)
    try:
        measured = execution.run()
    except script.PreparationError as error:
        record.send(channel, record.Record(ran=False, fault=str(error)))
        return
    kept = workspace.Kept(
        job["output"],
        # Half of the inodes and a quarter of the bytes: a next script has room, whatever this one left.
        min(limits["kept_files"], limits["workspace_files"] // 2),
        min(limits["kept_mb"], limits["workspace_mb"] / 4),
        files.keys(),
    )
    left: dict[str, bytes] = {}
    try:
        left, left_out = workspace.read_files(
            places.workspace, limits["workspace_files"], limits["workspace_mb"] << 20, kept
        )
        measured = dataclasses.replace(measured, left_out=left_out)
    except workspace.TooMuchOutputError:
        measured = dataclasses.replace(measured, too_much_output=True)
    output = execution.output
    record.send(channel, measured, output.head, bytes(output.tail), left)


def _is_full(path: str) -> bool:
    status = os.statvfs(path)
    return status.f_bavail == 0 or status.f_favail == 0


class _Execution:
    """One run of the script, from fork to the death of its last descendant."""

    def __init__(
        self,
        places: namespaces.Places,
        channel: protocol.Channel,
        job: dict[str, Any],
        confinement: Confinement,
        zygote: Zygote | None,
    ) -> None:
        self.places = places
        self.channel = channel
        self.job = job
        self.limits = job["limits"]
        self.confinement = confinement
        self.alone = confinement is not Confinement.NONE
        self.output = Output(self.limits["output_kb"] << 10, shown_paths(places))
        self.zygote = zygote
        self.meter = ProcessMeter(
            self.limits["memory_mb"] << 20,
            self.limits["cpu_seconds"],
            self.limits["processes"],
            self.alone,
            ours={1} if zygote is None else {1, zygote.pid},
        )
        self.addresses = self.limits["memory_mb"] << 20 if job["limit_address_space"] else None
        self.witness: Witness | None = None
        self.wait_status: int | None = None
        self.cpu_seconds = 0.0
        self.script_cpu_seconds = 0.0
        self.peak_kilobytes = 0

    def run(self) -> record.Record:
        """Returns when nothing of the job is left. Raises PreparationError if the script was never reached."""
        oom_kills_before = oom_kills()
        begun = time.monotonic()
        with _child_exits() as exits, contextlib.ExitStack() as opened:
            self.pid, self.pipe = self._start(opened)
            killed_for = self._watch(exits, begun + self.limits["wall_seconds"])
            wall_seconds = time.monotonic() - begun
            self._kill_everything()
        while self._drain():
            pass
        self.output.finish()
        assert self.wait_status is not None
        code = os.waitstatus_to_exitcode(self.wait_status)
        kernel_oom_kills = max(oom_kills() - oom_kills_before, 0)
        return record.Record(
            ran=True,
            killed_for=killed_for,
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            dropped_bytes=self.output.total - len(self.output.head) - len(self.output.tail),
            wall_seconds=wall_seconds,
            cpu_seconds=self.cpu_seconds,
            script_cpu_seconds=self.script_cpu_seconds,
            peak_memory_mb=max(self.peak_kilobytes / 1024, self.meter.peak_bytes / 2**20),
            refused_bytes=self._refused_bytes(),
            refused_processes=self._refused_processes(),
            kernel_oom_kills=kernel_oom_kills,
            # The host's counter, all that there is without a control group, also counts for others.
            own_oom_kills=kernel_oom_kills if self.confinement is Confinement.CONTAINER else 0,
            disk_full=self.alone
            and any(map(_is_full, (self.places.workspace, self.places.temporary, "/dev/shm"))),
        )

    def _refused_bytes(self) -> int:
        if self.witness is not None or self.addresses is None:
            return self.witness.refused_bytes if self.witness is not None else 0
        # Nobody saw it: all that is known is how close it came at a look.
        free = self.addresses - self.meter.peak_addresses
        return int(free < self.addresses / 16)

    def _refused_processes(self) -> int:
        if self.witness is not None:
            return self.witness.refused_processes
        return int(self.meter.most_processes >= self.limits["processes"])

    def _start(self, opened: contextlib.ExitStack) -> tuple[int, int]:
        """The script's process and the pipe of its output. Raises PreparationError."""
        reader, writer = os.pipe()
        # A container's processes are counted by its control group.
        counted = self.confinement is Confinement.NAMESPACES and _processes_are_counted_by_namespace()
        walls = script.Walls(
            processes=self.limits["processes"] + _PROCESS_OVERHEAD if counted else None,
            addresses=self.addresses,
            seccomp=self.job["seccomp"],
            alone=self.alone,
        )
        arguments: dict[str, Any] = {
            "script": self.job["script"],
            "places": self.places,
            "limits": self.limits,
            "walls": walls,
        }
        ours, its = socket.socketpair()
        descriptors = {"output": writer, "parent": its.fileno()}
        pid = self.zygote.fork(descriptors, arguments) if self.zygote else os.fork()
        if pid == 0:
            # Nothing of the supervisor's may run in the script's process, whatever happens.
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                script.run(output=writer, parent=its.detach(), **arguments)
            finally:
                os._exit(70)
        os.close(writer)
        its.close()
        os.set_blocking(reader, False)
        try:
            with ours:
                listener = script.await_start(ours)
        except script.PreparationError:
            self.pid, self.pipe = pid, reader
            self._kill_everything()
            raise
        if listener is not None:
            self.meter.grants = True
            self.witness = Witness(listener, self.addresses, self.meter.grant_process, self.meter.descendants)
            opened.callback(self.witness.close)
        return pid, reader

    def _watch(self, exits: int, deadline: float) -> str:
        """Follows the script; returns what it has to be killed for, or "" once it ended by itself."""
        poll = select.poll()
        poll.register(self.pipe, select.POLLIN)
        poll.register(exits, select.POLLIN)
        poll.register(self.channel.fileno(), select.POLLHUP)
        listener = self.witness.listener if self.witness else -1
        if self.witness:
            poll.register(listener, select.POLLIN)
        next_look = 0.0
        while True:
            now = time.monotonic()
            if now >= deadline:
                return "time"
            if now >= next_look:
                begun = now
                excess = self.meter.look(self.places.workspace, self.limits["workspace_mb"] << 20)
                if excess:
                    return excess
                # Where many processes share much memory, a look takes long: what they ask for must not wait for it.
                now = time.monotonic()
                next_look = now + max(_WATCH_SECONDS, 3 * (now - begun))
            for descriptor, event in poll.poll(1000 * max(min(deadline - now, _WATCH_SECONDS), 0)):
                if descriptor == self.pipe and not self._drain():
                    poll.unregister(self.pipe)
                elif self.witness and descriptor == listener:
                    if event & select.POLLIN:
                        self.witness.answer()
                    else:  # all whose calls it would have seen are dead
                        poll.unregister(listener)
                elif descriptor == self.channel.fileno() and event & select.POLLHUP:
                    self._kill_everything()
                    raise EOFError("the host is gone")
                elif descriptor == exits:
                    os.read(exits, 4096)
            if self._reap():
                return ""

    def _drain(self) -> bool:
        """Takes what is in the pipe now; False once there is nothing more to come."""
        try:
            chunk = os.read(self.pipe, 1 << 16)
        except BlockingIOError:
            return self.wait_status is None
        self.output.add(chunk)
        return bool(chunk)

    def _reap(self) -> bool:
        """Buries dead children, orphans among them; True once the script itself is dead."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                if self.zygote and pid == self.zygote.pid:
                    self.zygote.lose()
                    continue
                if pid == self.pid:
                    self.wait_status = status
                    self.script_cpu_seconds = usage.ru_utime + usage.ru_stime
                self.cpu_seconds += usage.ru_utime + usage.ru_stime
                self.peak_kilobytes = max(self.peak_kilobytes, usage.ru_maxrss)
        return self.wait_status is not None

    def _kill_everything(self) -> None:
        """Returns when no process of the job is left. Raises TimeoutError if some will not die."""
        give_up = time.monotonic() + _KILL_SECONDS
        if self.zygote:
            self.zygote.kill_all()  # once: nothing is born meanwhile
        while True:
            if self.alone and not self.zygote:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
            elif not self.alone:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
                for pid in self.meter.descendants():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
            self._reap()
            if not self._has_children():
                return
            if time.monotonic() > give_up:
                raise TimeoutError("processes of the job survived SIGKILL")
            time.sleep(0.001)

    def _has_children(self) -> bool:
        """Whether a process of the job is left, if only to be buried."""
        if self.zygote:
            return bool(self.meter.descendants())
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True


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


def _processes_are_counted_by_namespace() -> bool:
    """Whether RLIMIT_NPROC counts this user namespace's processes, or (before Linux 5.14) all of the user's."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (5, 14)
