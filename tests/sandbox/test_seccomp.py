"""The seccomp filters, run by an interpreter for both supported machines."""

from __future__ import annotations

import base64
import errno
import struct

import pytest

from mlagent_jax.sandbox.sandbox_worker import notify_filter
from mlagent_jax.sandbox.seccomp import build_filter

ALLOWED, REFUSED = "allowed", errno.EPERM
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def interpret(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int | str:
    """The kernel's decision about a call: "allowed", "killed", "asked" or an error number."""
    return run_filter(
        base64.b64decode(build_filter(machine)), machine, number, *arguments, architecture=architecture
    )


def run_filter(
    filter_program: bytes, machine: str, number: int, *arguments: int, architecture: int | None = None
) -> int | str:
    """An interpreter of classic BPF."""
    program = [struct.unpack("<HBBI", raw) for raw in _records(filter_program)]
    words = [
        number,
        architecture or ARCHITECTURES[machine],
        0,
        0,
        *(
            half
            for argument in (*arguments, *[0] * 6)[:6]
            for half in (argument & 0xFFFFFFFF, argument >> 32)
        ),
    ]
    accumulator = index_register = position = 0
    while True:
        code, if_true, if_false, value = program[position]
        position += 1
        if code == 0x20:
            accumulator = words[value // 4]
        elif code == 0x07:
            index_register = accumulator
        elif code == 0x1C:
            accumulator = accumulator - index_register & 0xFFFFFFFF
        elif code == 0x06:
            return {0x7FFF0000: "allowed", 0x80000000: "killed", 0x7FC00000: "asked"}.get(
                value, value & 0xFFFF
            )
        else:
            holds = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
                0x2D: accumulator > index_register,
                0x3D: accumulator >= index_register,
            }[code]
            position += if_true if holds else if_false


def _records(raw: bytes) -> list[bytes]:
    return [raw[start : start + 8] for start in range(0, len(raw), 8)]


# Numbers from the kernel's headers: asm/unistd_64.h and asm-generic/unistd.h.
@pytest.mark.parametrize(
    ("machine", "refused", "allowed"),
    [
        (
            "x86_64",
            {
                "ptrace": 101,
                "mount": 165,
                "unshare": 272,
                "setns": 308,
                "bpf": 321,
                "keyctl": 250,
                "io_uring": 425,
            },
            {"read": 0, "mmap": 9, "fork": 57, "execve": 59, "futex": 202, "openat": 257, "getrandom": 318},
        ),
        (
            "aarch64",
            {
                "ptrace": 117,
                "mount": 40,
                "unshare": 97,
                "setns": 268,
                "bpf": 280,
                "keyctl": 219,
                "io_uring": 425,
            },
            {"read": 63, "mmap": 222, "execve": 221, "futex": 98, "openat": 56, "getrandom": 278},
        ),
    ],
)
def test_refuses_and_allows(machine: str, refused: dict[str, int], allowed: dict[str, int]) -> None:
    assert {name: interpret(machine, number) for name, number in refused.items()} == dict.fromkeys(
        refused, REFUSED
    )
    assert {name: interpret(machine, number) for name, number in allowed.items()} == dict.fromkeys(
        allowed, ALLOWED
    )


@pytest.mark.parametrize(
    ("machine", "clone", "socket", "socketpair"), [("x86_64", 56, 41, 53), ("aarch64", 220, 198, 199)]
)
def test_checks_arguments(machine: str, clone: int, socket: int, socketpair: int) -> None:
    assert interpret(machine, clone, 0x01200011) == ALLOWED  # fork
    assert interpret(machine, clone, 0x003D0F00) == ALLOWED  # a thread
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert interpret(machine, clone, flag | 17) == REFUSED
    assert interpret(machine, 435) == errno.ENOSYS  # clone3
    for call in (socket, socketpair):
        assert interpret(machine, call, 1) == ALLOWED
        assert {interpret(machine, call, family) for family in (0, 2, 3, 10, 16, 17, 38, 40)} == {
            errno.EAFNOSUPPORT
        }


@pytest.mark.parametrize(
    ("machine", "fcntl", "setsockopt", "mmap", "prlimit"),
    [("x86_64", 72, 54, 9, 302), ("aarch64", 25, 208, 222, 261)],
)
def test_checks_later_arguments(machine: str, fcntl: int, setsockopt: int, mmap: int, prlimit: int) -> None:
    assert {interpret(machine, fcntl, 3, command) for command in (5, 36, 1024, 1026, 1031)} == {REFUSED}
    assert {interpret(machine, fcntl, 3, command) for command in (37, 38)} == {errno.EINVAL}
    assert {interpret(machine, fcntl, 3, command) for command in (0, 1, 2, 3, 4, 6, 7, 1030, 1033)} == {
        ALLOWED
    }
    assert interpret(machine, fcntl, 3, 1031 | 7 << 32) == REFUSED  # the kernel ignores the high half too
    assert {interpret(machine, setsockopt, 3, 1, option) for option in (7, 8, 32, 33)} == {REFUSED}
    assert {interpret(machine, setsockopt, 3, level, 7) for level in (0, 2, 6)} == {ALLOWED}
    assert {interpret(machine, setsockopt, 3, 1, option) for option in (2, 4, 9, 20)} == {ALLOWED}
    assert interpret(machine, mmap, 0, 1 << 21, 3, 0x40022) == errno.ENOMEM  # huge pages
    assert interpret(machine, mmap, 0, 1 << 21, 3, 0x22) == ALLOWED
    assert [interpret(machine, prlimit, pid) for pid in (0, 1)] == [ALLOWED, REFUSED]


@pytest.mark.parametrize(
    ("machine", "io_setup", "flock", "inotify", "mincore", "preadv2"),
    [("x86_64", 206, 73, 294, 27, 327), ("aarch64", 0, 32, 26, 232, 286)],
)
def test_some_calls_fail_as_if_they_did_not_exist(
    machine: str, io_setup: int, flock: int, inotify: int, mincore: int, preadv2: int
) -> None:
    calls = (io_setup, flock, inotify, mincore)
    assert [interpret(machine, call) for call in calls] == [errno.ENOSYS] * 4
    flags = (0, 0x1, 0x8, 0x9)
    answers = [interpret(machine, preadv2, 3, 0, 1, 0, 0, flag) for flag in flags]
    assert answers == [ALLOWED, ALLOWED, errno.EOPNOTSUPP, errno.EOPNOTSUPP]


@pytest.mark.parametrize(
    ("machine", "mmap", "brk", "mremap", "clone", "exit_group"),
    [("x86_64", 9, 12, 25, 56, 231), ("aarch64", 222, 214, 216, 220, 94)],
)
def test_asks_the_supervisor(
    machine: str, mmap: int, brk: int, mremap: int, clone: int, exit_group: int
) -> None:
    heap = 0x5555_0000_1000
    program = notify_filter.build_filter(machine, 1 << 30, isolated=True, program_break=heap)

    def ask(number: int, *arguments: int) -> int | str:
        return run_filter(program, machine, number, *arguments)

    sizes = (0, 1, (1 << 20) - 1, 1 << 20, 1 << 32, (1 << 32) + 1, 1 << 46)
    asked = [ALLOWED] * 3 + ["asked"] * 4
    assert [ask(mmap, 0, size, 3, 0x22) for size in sizes] == asked
    assert [ask(mmap, 0, size, 0, 0x22) for size in sizes] == [ALLOWED] * 4 + ["asked"] * 3  # reserved
    reserved = ((1 << 30) - 1, 1 << 30, (1 << 30) + 1, (1 << 32) + 1)
    assert [ask(mmap, 0, size, 0, 0x22) for size in reserved] == [ALLOWED] * 2 + ["asked"] * 2
    ends = (0, heap, heap + (1 << 30), heap + (1 << 30) + 1, heap + (1 << 40))
    assert [ask(brk, end) for end in ends] == [ALLOWED] * 3 + ["asked"] * 2
    assert [ask(mmap, 0, size, 0, 0x20022) for size in sizes] == asked  # a thread's stack
    assert [ask(mremap, 0, 0, size) for size in sizes] == asked
    for before in (1 << 12, (1 << 20) - 1, 1 << 20, (1 << 32) - 4096, 1 << 32, (5 << 32) + 7):
        # Growth by a page, as of a string, is allowed, unless it reaches a multiple of 4 GiB.
        assert ask(mremap, 0, before, before + 4096) == ("asked" if before == (1 << 32) - 4096 else ALLOWED)
        assert ask(mremap, 0, before, before + (1 << 20) - 1) == (
            "asked" if before == (1 << 32) - 4096 else ALLOWED
        )
        assert ask(mremap, 0, before, before + (1 << 20)) == "asked"
        assert ask(mremap, 0, before, before - 1) == ask(mremap, 0, before, before // 2) == ALLOWED
    assert [ask(exit_group, code) for code in (0, 1, 70, 255)] == [ALLOWED, *["asked"] * 3]
    assert ask(clone, 17) == "asked"
    assert ask(39) == ALLOWED
    unlimited = notify_filter.build_filter(machine, None, isolated=False, program_break=heap)
    assert run_filter(unlimited, machine, mmap, 0, 1 << 40, 3, 0x22) == ALLOWED


def test_kills_calls_of_another_architecture() -> None:
    assert interpret("x86_64", 26, architecture=0x40000003) == "killed"  # ptrace, 32 bits


def test_there_is_none_for_an_unknown_machine() -> None:
    assert build_filter("riscv64") == ""
