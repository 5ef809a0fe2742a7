"""The filter program, interpreted here for both machines that it is made for."""

from __future__ import annotations

import base64
import errno
import struct

import pytest

from mlagent_jax.sandbox.seccomp import build_filter

ALLOWED, REFUSED = "allowed", errno.EPERM
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def interpret(
    machine: str, number: int, first_argument: int = 0, architecture: int | None = None
) -> int | str:
    """What the kernel would make of a call: "allowed", "killed" or an error number. Classic BPF."""
    program = [struct.unpack("<HBBI", raw) for raw in _records(build_filter(machine))]
    words = [
        number,
        architecture or ARCHITECTURES[machine],
        0,
        0,
        first_argument & 0xFFFFFFFF,
        first_argument >> 32,
    ]
    accumulator = position = 0
    while True:
        code, if_true, if_false, value = program[position]
        position += 1
        if code == 0x20:
            accumulator = words[value // 4]
        elif code == 0x06:
            return {0x7FFF0000: "allowed", 0x80000000: "killed"}.get(value, value & 0xFFFF)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[
                code
            ]
            position += if_true if holds else if_false


def _records(program: str) -> list[bytes]:
    raw = base64.b64decode(program)
    return [raw[start : start + 8] for start in range(0, len(raw), 8)]


# Numbers from the kernel's own headers: asm/unistd_64.h and asm-generic/unistd.h.
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
def test_looks_at_arguments(machine: str, clone: int, socket: int, socketpair: int) -> None:
    assert interpret(machine, clone, 0x01200011) == ALLOWED  # fork
    assert interpret(machine, clone, 0x003D0F00) == ALLOWED  # a thread
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert interpret(machine, clone, flag | 17) == REFUSED
    assert interpret(machine, 435) == errno.ENOSYS  # clone3
    for call in (socket, socketpair):
        assert [interpret(machine, call, family) for family in (1, 2, 10)] == [ALLOWED] * 3
        assert {interpret(machine, call, family) for family in (0, 3, 16, 17, 38, 40)} == {errno.EAFNOSUPPORT}


def test_kills_calls_of_another_architecture() -> None:
    assert interpret("x86_64", 26, architecture=0x40000003) == "killed"  # ptrace, 32 bits


def test_there_is_none_for_an_unknown_machine() -> None:
    assert build_filter("riscv64") == ""
