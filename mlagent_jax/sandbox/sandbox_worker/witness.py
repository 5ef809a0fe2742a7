"""Sees, from outside of a program, what it is refused: memory, processes, and objects of the kernel.

A limit of the kernel's shows inside a program as a failed call, and what a program says of its failures is no
evidence. So these calls, all of them rare, stop in the kernel until the program's supervisor has decided:

- a request for 1 MiB of memory or more. The C library asks in pieces of that size at least before it gives up, so
  whatever is refused by the limit of address space is refused here, and measured;
- a new process or thread: the supervisor counts those there are;
- what no other limit bounds: sockets, whose buffers are the kernel's memory; locks on files; sets of descriptors
  to wait for.

Only numbers in registers are looked at, which nobody can change meanwhile. Where the kernel cannot do this (before
Linux 5.5; gVisor), the supervisor only looks at intervals, and a refusal between two looks goes unseen.

Sources: seccomp_unotify(2), linux/seccomp.h, linux/filter.h, mmap(2), fcntl(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import select
import struct
from collections.abc import Callable
from pathlib import Path

from . import namespaces

# Classic BPF over struct seccomp_data {int nr; u32 arch; u64 instruction_pointer; u64 args[6];}, little-endian.
_LOAD, _EQUAL, _GREATER, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_NUMBER, _ARGUMENTS = 0, 16
_SET_MODE_FILTER, _NEW_LISTENER, _CONTINUE = 1, 8, 1
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
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
    },
}
_LEAST_BYTES = 1 << 20
_PROT_NONE, _MAP_FIXED, _MAP_STACK = 0, 0x10, 0x20000
_SET_LOCK = (6, 7, 37, 38)  # F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW
# With the default buffers of 208 kB, all sockets of a job together hold some 50 MB at most.
_SOCKETS = 128
_LOCK_CALLS = 10_000
_EPOLL_SETS = 1_000
_AT_ONCE = 32


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

    def __init__(self, listener: int, addresses: int | None, grant_process: Callable[[], bool]) -> None:
        self.listener = listener
        self.refused_bytes = 0
        self.refused_processes = 0
        self._addresses = addresses
        self._grant_process = grant_process
        self._left = {"locks": _LOCK_CALLS, "epoll": _EPOLL_SETS}
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
        kind, number = ("locks", errno.ENOLCK) if name == "fcntl" else ("epoll", errno.EMFILE)
        self._left[kind] -= 1
        return number if self._left[kind] < 0 else 0

    def _refuse_memory(self, name: str, pid: int, arguments: list[int]) -> int:
        wanted = arguments[1]
        if name == "mremap":
            wanted = arguments[2] - arguments[1]
        elif arguments[3] & _MAP_FIXED:  # takes the place of what is there
            return 0
        if self._addresses is None or _address_space(pid) + wanted <= self._addresses:
            return 0
        self.refused_bytes = max(self.refused_bytes, wanted)
        return errno.ENOMEM


def _address_space(pid: int) -> int:
    """Bytes, as the kernel compares them with the limit; 0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[0]) * namespaces.PAGE_BYTES
    except OSError:
        return 0


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
        rule("mremap", *_large(2, 1))
    for name in ("fork", "vfork", "clone", "clone3"):
        rule(name)
    if alone:
        for name in ("socket", "socketpair", "epoll_create", "epoll_create1"):
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


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
