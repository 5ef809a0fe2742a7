"""Sees, from outside of a program, what it is refused: memory, processes, and objects of the kernel.

A limit of the kernel's shows inside a program as a failed call, and what a program says of its failures is no
evidence. So these calls, all of them rare, stop in the kernel until the program's supervisor has decided:

- a request for 1 MiB of memory or more. The C library asks in pieces of that size at least before it gives up, so
  what its callers are refused by the limit of address space is refused here, and measured;
- the end of a process with a code other than 0: smaller requests, which nobody stopped, can only have been refused
  if its address space once came within 1 MiB of the limit, and the kernel keeps that peak;
- a new process or thread: the supervisor counts those there are;
- what no other limit bounds: sockets, whose buffers are the kernel's memory; locks on files; sets of descriptors
  to wait for; pipes, whose number the jobs of one user would see of each other. Only those that are held at one time
  count, but for pipes that have names.

Only numbers in registers are looked at, which nobody can change meanwhile. Where the kernel cannot do this (before
Linux 5.5; gVisor), the supervisor only looks at intervals, and a refusal between two looks goes unseen.

Sources: seccomp_unotify(2), linux/seccomp.h, linux/filter.h, mmap(2), fcntl(2).
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

# Classic BPF over struct seccomp_data {int nr; u32 arch; u64 instruction_pointer; u64 args[6];}, little-endian.
_LOAD, _EQUAL, _GREATER, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
# With the second register: copied to, compared with, taken away.
_TO_OTHER, _GREATER_THAN_OTHER, _AT_LEAST_OTHER, _LESS_OTHER = 0x07, 0x2D, 0x3D, 0x1C
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_NUMBER, _ARGUMENTS = 0, 16
_SET_MODE_FILTER, _NEW_LISTENER, _CONTINUE = 1, 8, 1
_RECEIVE, _SEND, _SET_FLAGS, _WAKE_IN_TURN = 0xC0502100, 0xC0182101, 0x40082104, 1
_NOTIFICATION, _RESPONSE = struct.Struct("<QIIiIQ6Q"), struct.Struct("<QqiI")

_CALLS: dict[str, dict[str, int]] = {
    "x86_64": {
        "seccomp": 317,
        "mmap": 9,
        "mremap": 25,
        "fork": 57,
        "vfork": 58,
        "clone": 56,
        "clone3": 435,
        "socket": 41,
        "socketpair": 53,
        "fcntl": 72,
        "epoll_create": 213,
        "epoll_create1": 291,
        "exit_group": 231,
        "pipe": 22,
        "pipe2": 293,
        "mknod": 133,
        "mknodat": 259,
    },
    "aarch64": {
        "seccomp": 277,
        "mmap": 222,
        "mremap": 216,
        "clone": 220,
        "clone3": 435,
        "socket": 198,
        "socketpair": 199,
        "fcntl": 25,
        "epoll_create1": 20,
        "exit_group": 94,
        "pipe2": 59,
        "mknodat": 33,
    },
}
_LEAST_BYTES = 1 << 20
_PROT_NONE, _MAP_FIXED, _MAP_STACK = 0, 0x10, 0x20000
_SET_LOCK = (6, 7)  # F_SETLK, F_SETLKW
# With the default buffers of 208 kB, all sockets of a job together hold some 50 MB at most.
_SOCKETS = 128
_LOCKS = 10_000
_EPOLL_SETS = 1_000
# The kernel makes all pipes of a user smaller when they could hold 64 MiB together: far from what one job can reach.
_PIPES = 128
_COUNT_SECONDS = 0.05
_AT_ONCE = 32
_MOST_BYTES = 1 << 62  # a request may name any number


def install(addresses: int | None, alone: bool) -> int:
    """Installs the filter for this process and all it starts; the descriptor for `Witness`.

    `namespaces.filter_calls` must have been called. Raises OSError where the kernel cannot do it.

    Args:
        addresses: the limit of address space in bytes, or None for none.
        alone: whether the program has this kernel's view of sockets to itself.
    """
    program = build_filter(platform.machine(), addresses, alone)
    number = _CALLS[platform.machine()]["seccomp"]
    return namespaces.install_filter(program, number, _SET_MODE_FILTER, _NEW_LISTENER)


def is_known_machine() -> bool:
    return platform.machine() in _CALLS


class Witness:
    """Answers the calls that a program's filter stops, and counts what was refused.

    refused_bytes: the largest request for memory beyond the limit.
    refused_processes: how many processes and threads were too many.
    """

    def __init__(
        self,
        listener: int,
        addresses: int | None,
        grant_process: Callable[[], bool],
        descendants: Callable[[], list[int]],
    ) -> None:
        """`descendants`: all processes of the job."""
        self.listener = listener
        with contextlib.suppress(OSError):  # before Linux 6.6 an answer only takes longer
            fcntl.ioctl(listener, _SET_FLAGS, _WAKE_IN_TURN)
        self.refused_bytes = 0
        self.refused_processes = 0
        self._addresses = addresses
        self._grant_process = grant_process
        self._locks = _Allowance(_LOCKS, lambda: sum(map(_locks_of, descendants())))
        self._epoll_sets = _Allowance(_EPOLL_SETS, lambda: sum(map(_epoll_sets_of, descendants())))
        self._pipes = _Allowance(_PIPES, lambda: _count_pipes(descendants()))
        self._named_pipes = _Allowance(_PIPES, lambda: _PIPES)
        self._names = {number: name for name, number in _CALLS[platform.machine()].items()}

    def answer(self) -> None:
        """Decides calls that wait, a few at a time."""
        for _ in range(_AT_ONCE):
            self._answer_one()
            if not select.select([self.listener], [], [], 0)[0]:
                return

    def _answer_one(self) -> None:
        """Decides one call. Its caller may be gone by now."""
        notification = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, notification, True)
            identity, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(notification)
            refusal = self._refusal(self._names[number], pid, arguments)
            flags = 0 if refusal else _CONTINUE
            fcntl.ioctl(self.listener, _SEND, bytearray(_RESPONSE.pack(identity, 0, -refusal, flags)), True)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):
                raise

    def close(self) -> None:
        os.close(self.listener)

    def _refusal(self, name: str, pid: int, arguments: list[int]) -> int:
        """The error that the call is to fail with, or 0."""
        if name in ("mmap", "mremap"):
            return self._refuse_memory(name, pid, arguments)
        if name in ("fork", "vfork", "clone", "clone3"):
            if self._grant_process():
                return 0
            self.refused_processes += 1
            return errno.EAGAIN
        if name in ("socket", "socketpair"):
            return errno.ENFILE if _sockets_in_use() >= _SOCKETS else 0
        if name == "exit_group":
            self._look_at_peak(pid)
            return 0
        if name in ("pipe", "pipe2"):
            return 0 if self._pipes.grant() else errno.EMFILE
        if name in ("mknod", "mknodat"):
            return 0 if self._named_pipes.grant() else errno.ENOSPC
        if name == "fcntl":
            return 0 if self._locks.grant() else errno.ENOLCK
        return 0 if self._epoll_sets.grant() else errno.EMFILE

    def _refuse_memory(self, name: str, pid: int, arguments: list[int]) -> int:
        wanted = arguments[1]
        if name == "mremap":
            wanted = arguments[2] - arguments[1]
        used = _address_space(pid)
        if name == "mmap" and arguments[3] & _MAP_FIXED:  # may take the place of all that is there
            used = 0
        if self._addresses is None or used + wanted <= self._addresses:
            return 0
        self._note(wanted)
        return errno.ENOMEM

    def _look_at_peak(self, pid: int) -> None:
        if self._addresses is None:
            return
        room = max(self._addresses - _peak_address_space(pid), 0)
        if room < _LEAST_BYTES:
            self._note(room + 1)

    def _note(self, refused: int) -> None:
        self.refused_bytes = max(self.refused_bytes, min(refused, _MOST_BYTES))


class _Allowance:
    """So many objects at one time, of a kind whose making is seen and whose end is not."""

    def __init__(self, most: int, count: Callable[[], int]) -> None:
        """`count`: how many there are now. Slow, and may raise OSError where a program hides them."""
        self._most = most
        self._count = count
        self._left = most
        self._next_count = 0.0

    def grant(self) -> bool:
        """Whether there may be one more."""
        if self._left <= 0 and time.monotonic() >= self._next_count:
            with contextlib.suppress(OSError):
                self._left = self._most - self._count()
            if self._left < self._most / 8:  # or a program could have us do little else
                self._next_count = time.monotonic() + _COUNT_SECONDS
        if self._left <= 0:
            return False
        self._left -= 1
        return True


def _address_space(pid: int) -> int:
    """Bytes, as the kernel compares them with the limit; 0 for a process that is gone."""
    try:
        descriptor = os.open(
            f"/proc/{pid}/statm", os.O_RDONLY
        )  # a program waits: Python's own files take far longer
        try:
            return int(os.read(descriptor, 128).split()[0]) * namespaces.PAGE_BYTES
        finally:
            os.close(descriptor)
    except OSError:
        return 0


def _peak_address_space(pid: int) -> int:
    """The most bytes that it ever had since its program began; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith(b"VmPeak:"):
                return int(line.split()[1]) << 10
    return 0


def _locks_of(pid: int) -> int:
    """Record locks on the files that a process has open. Raises PermissionError."""
    found = 0
    for name in _descriptors(pid, "fdinfo"):
        with contextlib.suppress(FileNotFoundError):
            found += Path(f"/proc/{pid}/fdinfo/{name}").read_bytes().count(b"\nlock:")
    return found


def _epoll_sets_of(pid: int) -> int:
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
    """Of a process that may be gone, or dead and not buried: one without memory has none."""
    if _address_space(pid) == 0:
        return []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return os.listdir(f"/proc/{pid}/{folder}")  # noqa: PTH208
    return []


def _sockets_in_use() -> int:
    """Of this network namespace, those that no process holds any more but whose data waits among them."""
    try:
        return int(Path("/proc/net/sockstat").read_bytes().split(b"\n", 1)[0].split()[2])
    except (OSError, ValueError, IndexError):
        return 0


def build_filter(machine: str, addresses: int | None, alone: bool) -> bytes:
    """The filter program: struct sock_filter records."""
    calls = _CALLS[machine]
    blocks: list[bytes] = []

    def rule(name: str, *conditions: bytes) -> None:
        if name not in calls:
            return
        body = b"".join(conditions) + _step(_RETURN, _NOTIFY)
        # Each condition falls through where it holds, and jumps behind its block where it does not.
        block = _step(_LOAD, _NUMBER) + _step(_EQUAL, calls[name], 0, len(body) // 8) + body
        blocks.append(block)

    if addresses is not None:
        # Pages that may not be touched are no memory yet, and libraries reserve a lot of them; but the stacks of
        # threads begin so.
        reserves = (
            _step(_LOAD, _ARGUMENTS + 8 * 2),
            _step(_EQUAL, _PROT_NONE, 0, 2),
            _step(_LOAD, _ARGUMENTS + 8 * 3),
            _step(_ANY_BIT, _MAP_STACK, 0, 5),
        )
        rule("mmap", *reserves, *_large(1, 1))
        rule("mremap", *_grows(1, 2))
        rule("exit_group", _step(_LOAD, _ARGUMENTS), _step(_EQUAL, 0, 1, 0))
    for name in ("fork", "vfork", "clone", "clone3"):
        rule(name)
    if alone:
        for name in (
            "socket",
            "socketpair",
            "epoll_create",
            "epoll_create1",
            "pipe",
            "pipe2",
            "mknod",
            "mknodat",
        ):
            rule(name)
        for command in _SET_LOCK:
            rule("fcntl", _step(_LOAD, _ARGUMENTS + 8), _step(_EQUAL, command, 0, 1))
    return b"".join(blocks) + _step(_RETURN, _ALLOW)


def _large(argument: int, behind: int) -> tuple[bytes, ...]:
    """Leaves the block where a 64-bit argument is below `_LEAST_BYTES`; `behind`: steps of the block after these."""
    low = _ARGUMENTS + 8 * argument
    return (
        _step(_LOAD, low + 4),
        _step(_GREATER, 0, 2, 0),
        _step(_LOAD, low),
        _step(_AT_LEAST, _LEAST_BYTES, 0, behind),
    )


def _grows(before: int, after: int) -> tuple[bytes, ...]:
    """Leaves the block where 64-bit argument `after` is not larger than `before` by `_LEAST_BYTES` or more.

    Where only the low halves differ, that is: at a multiple of 4 GiB, any growth counts.
    """
    low_before, low_after = _ARGUMENTS + 8 * before, _ARGUMENTS + 8 * after
    return (
        _step(_LOAD, low_before + 4),
        _step(_TO_OTHER, 0),
        _step(_LOAD, low_after + 4),
        _step(_GREATER_THAN_OTHER, 0, 7, 0),
        _step(_AT_LEAST_OTHER, 0, 0, 7),
        _step(_LOAD, low_before),
        _step(_TO_OTHER, 0),
        _step(_LOAD, low_after),
        _step(_AT_LEAST_OTHER, 0, 0, 3),
        _step(_LESS_OTHER, 0),
        _step(_AT_LEAST, _LEAST_BYTES, 0, 1),
    )


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
