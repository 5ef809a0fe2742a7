"""Decides, from outside a program, what it is refused: memory, processes, and kernel objects.

A kernel limit appears inside a program as a failed call, and what a program says about its failures is not evidence.
So these calls, all of them rare, stop in the kernel until the program's supervisor has decided:

- a request for 1 MiB of memory or more. The C library asks for pieces of at least this size before it gives up, so
  whatever the limit of address space denies its callers is refused here, and measured. Address space without access
  (PROT_NONE) and the end of the heap (brk) only stop where a request exceeds the whole limit;
- an exit with a code other than 0. Smaller requests do not stop. They can only have failed if the address space once
  came within 1 MiB of the limit, and the kernel keeps its peak;
- a new process or thread: the supervisor counts the ones that exist;
- what no other limit bounds: sockets, whose buffers are kernel memory; record locks; epoll sets; and pipes, whose
  number the jobs of one user could observe of each other. Only those that exist at the same time count, except for
  named pipes.

Where the kernel cannot do this (before Linux 5.5; gVisor), the supervisor only checks periodically, and a refusal
between two checks goes unseen.

Sources: seccomp_unotify(2), linux/seccomp.h. Container runtimes call such a process a seccomp agent (OCI runtime
specification, "listenerPath").
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import select
import struct
import time
from collections.abc import Callable
from pathlib import Path

from . import namespaces
from .notify_filter import MIN_BYTES, SYSTEM_CALLS, build_filter

_SET_MODE_FILTER, _FLAG_NEW_LISTENER, _FLAG_CONTINUE = 1, 8, 1
_NOTIF_RECV, _NOTIF_SEND, _NOTIF_SET_FLAGS, _SYNC_WAKE_UP = 0xC0502100, 0xC0182101, 0x40082104, 1
_NOTIFICATION, _RESPONSE = struct.Struct("<QIIiIQ6Q"), struct.Struct("<QqiI")
_MAP_FIXED = 0x10
# With the default buffers of 208 kB, all sockets of a job together hold about 50 MB at most.
_MAX_SOCKETS = 128
_MAX_LOCKS = 10_000
_MAX_EPOLL_SETS = 1_000
# The kernel shrinks all pipes of a user when they could hold 64 MiB together. One job cannot come near that.
_MAX_PIPES = 128
_RECOUNT_SECONDS = 0.05
_CALLS_AT_ONCE = 32
_MAX_REFUSED_BYTES = 1 << 62  # a request may contain any number


def install(rlimit_as: int | None, isolated: bool) -> int:
    """Installs the filter for this process and all it starts. Returns the descriptor for `SeccompAgent`.

    `namespaces.set_no_new_privileges` must have been called. Raises OSError where the kernel cannot do it.

    Args:
        rlimit_as: the limit of address space in bytes, or None for none.
        isolated: whether the program has a network namespace to itself.
    """
    program = build_filter(platform.machine(), rlimit_as, isolated, namespaces.program_break())
    number = SYSTEM_CALLS[platform.machine()]["seccomp"]
    return namespaces.seccomp(program, number, _SET_MODE_FILTER, _FLAG_NEW_LISTENER)


def is_known_machine() -> bool:
    return platform.machine() in SYSTEM_CALLS


class SeccompAgent:
    """Answers the calls that a program's filter stops, and counts what was refused.

    refused_bytes: the largest request for memory that exceeded the limit.
    refused_processes: how many processes and threads were refused.
    """

    def __init__(
        self,
        listener: int,
        rlimit_as: int | None,
        admit_process: Callable[[], bool],
        descendants: Callable[[], list[int]],
    ) -> None:
        """`descendants`: returns all processes of the job."""
        self.listener = listener
        with contextlib.suppress(OSError):  # before Linux 6.6; an answer then takes a little longer
            fcntl.ioctl(listener, _NOTIF_SET_FLAGS, _SYNC_WAKE_UP)
        self.refused_bytes = 0
        self.refused_processes = 0
        self._rlimit_as = rlimit_as
        self._admit_process = admit_process
        self._locks = _Quota(_MAX_LOCKS, lambda: sum(map(_count_locks, descendants())))
        self._epoll_sets = _Quota(_MAX_EPOLL_SETS, lambda: sum(map(_count_epoll_sets, descendants())))
        self._pipes = _Quota(_MAX_PIPES, lambda: _count_pipes(descendants()))
        self._named_pipes = _Quota(_MAX_PIPES, lambda: _MAX_PIPES)
        self._names = {number: name for name, number in SYSTEM_CALLS[platform.machine()].items()}

    def answer(self) -> None:
        """Decides waiting calls, a limited number at a time."""
        for _ in range(_CALLS_AT_ONCE):
            self._answer_one()
            if not select.select([self.listener], [], [], 0)[0]:
                return

    def _answer_one(self) -> None:
        """Decides one call. Its caller may be dead by now."""
        notification = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self.listener, _NOTIF_RECV, notification, True)
            identity, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(notification)
            refusal = self._refusal(self._names[number], pid, arguments)
            flags = 0 if refusal else _FLAG_CONTINUE
            fcntl.ioctl(
                self.listener, _NOTIF_SEND, bytearray(_RESPONSE.pack(identity, 0, -refusal, flags)), True
            )
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):
                raise

    def close(self) -> None:
        os.close(self.listener)

    def _refusal(self, name: str, pid: int, arguments: list[int]) -> int:
        """The error number that the call should fail with, or 0 to let it continue."""
        if name in ("mmap", "mremap"):
            return self._refuse_memory(name, pid, arguments)
        if name in ("fork", "vfork", "clone", "clone3"):
            if self._admit_process():
                return 0
            self.refused_processes += 1
            return errno.EAGAIN
        if name in ("socket", "socketpair"):
            return errno.ENFILE if _sockets_in_use() >= _MAX_SOCKETS else 0
        if name == "brk":
            self._check_heap(pid, arguments[0])
            return 0  # the kernel refuses it: brk has no error numbers
        if name == "exit_group":
            self._check_peak(pid)
            return 0
        if name in ("pipe", "pipe2"):
            return 0 if self._pipes.acquire() else errno.EMFILE
        if name in ("mknod", "mknodat"):
            return 0 if self._named_pipes.acquire() else errno.ENOSPC
        if name == "fcntl":
            return 0 if self._locks.acquire() else errno.ENOLCK
        return 0 if self._epoll_sets.acquire() else errno.EMFILE

    def _refuse_memory(self, name: str, pid: int, arguments: list[int]) -> int:
        requested = arguments[1]
        if name == "mremap":
            requested = arguments[2] - arguments[1]
        used = _address_space(pid)
        if name == "mmap" and arguments[3] & _MAP_FIXED:  # may replace everything that is mapped
            used = 0
        if self._rlimit_as is None or used + requested <= self._rlimit_as:
            return 0
        self._record_refused(requested)
        return errno.ENOMEM

    def _check_heap(self, pid: int, end: int) -> None:
        """Other programs than the one that installed the filter may have a heap at higher addresses."""
        start = _heap_start(pid)
        if self._rlimit_as is not None and start and end - start > self._rlimit_as:
            self._record_refused(end - start)

    def _check_peak(self, pid: int) -> None:
        if self._rlimit_as is None:
            return
        room = max(self._rlimit_as - _peak_address_space(pid), 0)
        if room < MIN_BYTES:
            self._record_refused(room + 1)

    def _record_refused(self, size: int) -> None:
        self.refused_bytes = max(self.refused_bytes, min(size, _MAX_REFUSED_BYTES))


class _Quota:
    """Limits how many objects of a kind exist at the same time, where creation is seen and release is not."""

    def __init__(self, maximum: int, count: Callable[[], int]) -> None:
        """`count`: returns how many exist now. Slow, and may raise OSError where a program hides them."""
        self._maximum = maximum
        self._count = count
        self._left = maximum
        self._next_count = 0.0

    def acquire(self) -> bool:
        """Whether one more may be created."""
        if self._left <= 0 and time.monotonic() >= self._next_count:
            with contextlib.suppress(OSError):
                self._left = self._maximum - self._count()
            if self._left < self._maximum / 8:  # otherwise a program could keep us busy with counting
                self._next_count = time.monotonic() + _RECOUNT_SECONDS
        if self._left <= 0:
            return False
        self._left -= 1
        return True


def _address_space(pid: int) -> int:
    """The size in bytes, as the kernel compares it with RLIMIT_AS; 0 for a process that is gone."""
    # A program is waiting, and Python's file objects are much slower.
    try:
        descriptor = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
        try:
            return int(os.read(descriptor, 128).split()[0]) * namespaces.PAGE_BYTES
        finally:
            os.close(descriptor)
    except OSError:
        return 0


def _peak_address_space(pid: int) -> int:
    """The largest that it has been since its program began, in bytes; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith(b"VmPeak:"):
                return int(line.split()[1]) << 10
    return 0


def _heap_start(pid: int) -> int:
    """The address where the heap of a process begins; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[44])
    return 0


def _count_locks(pid: int) -> int:
    """Record locks on the files that a process has open. Raises PermissionError."""
    found = 0
    for name in _descriptors(pid, "fdinfo"):
        with contextlib.suppress(FileNotFoundError):
            found += Path(f"/proc/{pid}/fdinfo/{name}").read_bytes().count(b"\nlock:")
    return found


def _count_epoll_sets(pid: int) -> int:
    """Raises PermissionError."""
    return _open_files(pid).count("anon_inode:[eventpoll]")


def _count_pipes(pids: list[int]) -> int:
    """Raises PermissionError."""
    return len({file for pid in pids for file in _open_files(pid) if file.startswith("pipe:")})


def _open_files(pid: int) -> list[str]:
    """What the descriptors of a process refer to. Raises PermissionError."""
    found = []
    for name in _descriptors(pid, "fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(str(Path(f"/proc/{pid}/fd/{name}").readlink()))
    return found


def _descriptors(pid: int, folder: str) -> list[str]:
    """The descriptors of a process, which may be gone or a zombie: without memory, it has none."""
    if _address_space(pid) == 0:
        return []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return os.listdir(f"/proc/{pid}/{folder}")  # noqa: PTH208
    return []


def _sockets_in_use() -> int:
    """The sockets of this network namespace, with those that are closed but whose data is still queued."""
    try:
        return int(Path("/proc/net/sockstat").read_bytes().split(b"\n", 1)[0].split()[2])
    except (OSError, ValueError, IndexError):
        return 0
