"""The seccomp filter that stops system calls until the supervisor has decided; see `seccomp_agent`.

It looks only at numbers in registers, which nobody can change after the call has stopped.

Sources: seccomp(2), linux/seccomp.h, linux/filter.h, mmap(2), fcntl(2).
"""

from __future__ import annotations

import struct

# Classic BPF over struct seccomp_data {int nr; u32 arch; u64 instruction_pointer; u64 args[6];}, little-endian.
# Names as in linux/filter.h: A is the accumulator, X the index register, K a constant.
_LOAD, _JEQ_K, _JGT_K, _JGE_K, _JSET_K, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_COPY_A_TO_X, _JGT_X, _JGE_X, _SUB_X = 0x07, 0x2D, 0x3D, 0x1C
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_NUMBER, _ARGUMENTS = 0, 16

SYSTEM_CALLS: dict[str, dict[str, int]] = {
    "x86_64": {
        "seccomp": 317,
        "mmap": 9,
        "brk": 12,
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
        "brk": 214,
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
MIN_BYTES = 1 << 20  # of a request for memory that stops
_PROT_NONE, _MAP_STACK = 0, 0x20000
_F_SETLK, _F_SETLKW = 6, 7


def build_filter(machine: str, rlimit_as: int | None, isolated: bool, program_break: int) -> bytes:
    """The filter program: struct sock_filter records.

    Args:
        machine: as `platform.machine` has it.
        rlimit_as: the limit of address space in bytes, or None for none: then no request for memory stops.
        isolated: whether calls that make sockets, locks, epoll sets and pipes stop too.
        program_break: the end of this process's heap.
    """
    calls = SYSTEM_CALLS[machine]
    blocks: list[bytes] = []

    def rule(name: str, *conditions: bytes) -> None:
        if name not in calls:
            return
        body = b"".join(conditions) + _instruction(_RETURN, _NOTIFY)
        # A condition that holds falls through. One that does not jumps past the block.
        block = _instruction(_LOAD, _NUMBER) + _instruction(_JEQ_K, calls[name], 0, len(body) // 8) + body
        blocks.append(block)

    if rlimit_as is not None:
        # Pages without access are not memory yet, and libraries reserve a lot of them. But thread stacks start that
        # way too, and a reservation beyond the limit always fails.
        is_memory = (
            _instruction(_LOAD, _ARGUMENTS + 8 * 2),
            _instruction(_JEQ_K, _PROT_NONE, 0, 2),
            _instruction(_LOAD, _ARGUMENTS + 8 * 3),
            _instruction(_JSET_K, _MAP_STACK, 0, 6),
        )
        rule("mmap", *is_memory, *_exceeds(1, MIN_BYTES - 1))
        rule("mmap", *_exceeds(1, rlimit_as))
        # A heap that grows in small steps calls this often, so only what always fails stops. The C library then tries
        # mmap, but not every program uses the C library.
        rule("brk", *_exceeds(0, program_break + rlimit_as))
        rule("mremap", *_grows(1, 2))
        rule("exit_group", _instruction(_LOAD, _ARGUMENTS), _instruction(_JEQ_K, 0, 1, 0))
    for name in ("fork", "vfork", "clone", "clone3"):
        rule(name)
    if isolated:
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
        for command in (_F_SETLK, _F_SETLKW):
            rule("fcntl", _instruction(_LOAD, _ARGUMENTS + 8), _instruction(_JEQ_K, command, 0, 1))
    return b"".join(blocks) + _instruction(_RETURN, _ALLOW)


def _exceeds(argument: int, bound: int) -> tuple[bytes, ...]:
    """Holds where a 64-bit argument is larger than `bound`. For the last condition of a block."""
    low = _ARGUMENTS + 8 * argument
    return (
        _instruction(_LOAD, low + 4),
        _instruction(_JGT_K, bound >> 32, 3, 0),
        _instruction(_JEQ_K, bound >> 32, 0, 3),
        _instruction(_LOAD, low),
        _instruction(_JGT_K, bound & 0xFFFFFFFF, 0, 1),
    )


def _grows(before: int, after: int) -> tuple[bytes, ...]:
    """Holds where the 64-bit argument `after` exceeds `before` by at least `MIN_BYTES`.

    Only differences of the low halves are computed. Growth across a multiple of 4 GiB always holds. For the last
    condition of a block.
    """
    low_before, low_after = _ARGUMENTS + 8 * before, _ARGUMENTS + 8 * after
    return (
        _instruction(_LOAD, low_before + 4),
        _instruction(_COPY_A_TO_X, 0),
        _instruction(_LOAD, low_after + 4),
        _instruction(_JGT_X, 0, 7, 0),
        _instruction(_JGE_X, 0, 0, 7),
        _instruction(_LOAD, low_before),
        _instruction(_COPY_A_TO_X, 0),
        _instruction(_LOAD, low_after),
        _instruction(_JGE_X, 0, 0, 3),
        _instruction(_SUB_X, 0),
        _instruction(_JGE_K, MIN_BYTES, 0, 1),
    )


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter."""
    return struct.pack("<HBBI", code, if_true, if_false, value)
