"""A seccomp filter that denies the parts of the kernel that namespaces do not isolate.

Denied:
- creating or entering namespaces, mounting, tracing, key rings, bpf, performance events, io_uring;
- limits and priorities of other processes (a supervisor has its program's user id);
- what outlives its program (System V semaphores);
- memory that no limit counts (memfd, System V shared memory, message queues, asynchronous I/O, huge pages, larger
  buffers of sockets and pipes);
- sockets other than Unix ones, whose counters and closed ports a later job could read;
- what jobs could observe of each other on the data that they share: locks, leases, and notifications of who reads what.

What is bounded rather than denied is in `sandbox_worker.seccomp_agent`. `clone3` fails with "no such call", so that
the C library falls back to `clone`, whose flags a filter can check.

The same rules come in two forms: a filter program, which a worker installs itself, and a profile for a container
engine.

Sources: seccomp(2), linux/filter.h, the system call tables of x86-64 and of the generic interface (aarch64);
for the profile, the OCI runtime specification, "Seccomp".
"""

from __future__ import annotations

import base64
import errno
import itertools
import json
import platform
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

# Classic BPF over struct seccomp_data {int nr; u32 arch; u64 instruction_pointer; u64 args[6];}
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_LOW_HALF = 0xFFFFFFFF

# name: (x86-64, aarch64).
_DENIED: dict[str, tuple[int, int]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "ioprio_set": (251, 30),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "semget": (64, 190),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
    "vmsplice": (278, 75),
}
# Fail as in a kernel without them, so that libraries fall back.
_ABSENT: dict[str, tuple[int, int]] = {
    "cachestat": (451, 451),  # shows what others have read
    "clone3": (435, 435),
    "inotify_init": (253, -1),  # shows what others do with shared data
    "inotify_init1": (294, 26),
    "io_setup": (206, 0),  # counts against a limit of the whole host
    "landlock_create_ruleset": (444, 444),
    "listmount": (458, 458),  # shows paths of the host
    "mincore": (27, 232),  # shows what others have read
    "statmount": (457, 457),
}


@dataclass(frozen=True)
class _Condition:
    """A condition on the low 32 bits of one argument of a call.

    operator: "equal", "not equal", or "any bit of".
    """

    index: int
    operator: str
    value: int


@dataclass(frozen=True)
class _Rule:
    """A call, by its numbers on x86-64 and aarch64 (-1 for none), that fails where all conditions hold."""

    name: str
    numbers: tuple[int, int]
    error: int
    conditions: tuple[_Condition, ...] = ()


def _rules_for_values(
    name: str, numbers: tuple[int, int], error: int, index: int, values: Iterable[int], *more: _Condition
) -> tuple[_Rule, ...]:
    return tuple(_Rule(name, numbers, error, (*more, _Condition(index, "equal", value))) for value in values)


_OTHER_PROCESS = (_Condition(0, "not equal", 0),)
_NOT_AF_UNIX = (_Condition(0, "not equal", 1),)
_CLONE_NEW_FLAGS = 0x7E020000  # cgroup, uts, ipc, user, pid, net and mount
_MAP_HUGETLB = 0x40000
_RWF_NOWAIT = 0x8
_F_GETLK, _F_OFD_GETLK, _F_SETLEASE, _F_NOTIFY, _F_SETPIPE_SZ = 5, 36, 1024, 1026, 1031
# No process owns such a lock, so one could stay hidden in a queued message.
_F_OFD_SETLK, _F_OFD_SETLKW = 37, 38
_SOL_SOCKET, _SO_BUFFER_SIZES = 1, (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE

_RULES: tuple[_Rule, ...] = (
    *(_Rule(name, numbers, errno.EPERM) for name, numbers in _DENIED.items()),
    *(_Rule(name, numbers, errno.ENOSYS) for name, numbers in _ABSENT.items()),
    _Rule("prlimit64", (302, 261), errno.EPERM, _OTHER_PROCESS),
    _Rule("sched_setaffinity", (203, 122), errno.EPERM, _OTHER_PROCESS),
    _Rule("sched_setattr", (314, 274), errno.EPERM, _OTHER_PROCESS),
    _Rule("sched_setparam", (142, 118), errno.EPERM, _OTHER_PROCESS),
    _Rule("sched_setscheduler", (144, 119), errno.EPERM, _OTHER_PROCESS),
    _Rule("clone", (56, 220), errno.EPERM, (_Condition(0, "any bit of", _CLONE_NEW_FLAGS),)),
    _Rule("socket", (41, 198), errno.EAFNOSUPPORT, _NOT_AF_UNIX),
    _Rule("socketpair", (53, 199), errno.EAFNOSUPPORT, _NOT_AF_UNIX),
    *_rules_for_values(
        "setsockopt", (54, 208), errno.EPERM, 2, _SO_BUFFER_SIZES, _Condition(1, "equal", _SOL_SOCKET)
    ),
    # All jobs see locks and leases on the data that they share, and notifications of who reads it. Libraries fall back
    # where the file system has no `flock` (HDF5, filelock) or no open file description locks.
    _Rule("flock", (73, 32), errno.ENOSYS),
    *_rules_for_values("fcntl", (72, 25), errno.EINVAL, 1, (_F_OFD_SETLK, _F_OFD_SETLKW)),
    *_rules_for_values(
        "fcntl",
        (72, 25),
        errno.EPERM,
        1,
        (_F_GETLK, _F_OFD_GETLK, _F_SETLEASE, _F_NOTIFY, _F_SETPIPE_SZ),
    ),
    # A read that does not wait shows whether others have read the same data.
    _Rule("preadv2", (327, 286), errno.EOPNOTSUPP, (_Condition(5, "any bit of", _RWF_NOWAIT),)),
    # Huge pages come from a pool of the host that no limit counts.
    _Rule("mmap", (9, 222), errno.ENOMEM, (_Condition(3, "any bit of", _MAP_HUGETLB),)),
)


def build_filter(machine: str | None = None) -> str:
    """The filter program for `machine` (default: this host) in base64, or "" for an unknown machine."""
    machine = machine or platform.machine()
    if machine not in _AUDIT_ARCHITECTURE:
        return ""
    column = list(_AUDIT_ARCHITECTURE).index(machine)
    program = [
        _statement(_LOAD, _ARCHITECTURE),
        _jump(_JUMP_EQUAL, _AUDIT_ARCHITECTURE[machine], 1, 0),
        _statement(_RETURN, _KILL_PROCESS),
        _statement(_LOAD, _NUMBER),
        # x86-64 has a second table (x32) of the same calls under other numbers.
        _jump(_JUMP_GREATER_EQUAL, _X32_BIT, 0, 1),
        _statement(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for rule in _RULES:
        if rule.numbers[column] >= 0:
            program += _compile_rule(rule, rule.numbers[column])
    program.append(_statement(_RETURN, _ALLOW))
    return base64.b64encode(b"".join(program)).decode()


def _compile_rule(rule: _Rule, number: int) -> list[bytes]:
    """The instructions of a rule. The call's number is loaded before them and, where the rule does not apply, after."""
    body = [_statement(_RETURN, _ERRNO | rule.error)]
    if not rule.conditions:
        return [_jump(_JUMP_EQUAL, number, 0, len(body)), *body]
    body.append(_statement(_LOAD, _NUMBER))
    for condition in reversed(rule.conditions):
        skip = len(body) - 1  # to the last instruction, which loads the number again
        code = _JUMP_ANY_BIT if condition.operator == "any bit of" else _JUMP_EQUAL
        targets = (skip, 0) if condition.operator == "not equal" else (0, skip)
        load = _statement(_LOAD, _FIRST_ARGUMENT + 8 * condition.index)
        body = [load, _jump(code, condition.value, *targets), *body]
    return [_jump(_JUMP_EQUAL, number, 0, len(body)), *body]


def build_profile(machine: str | None = None) -> str:
    """The same rules as a JSON profile for a container engine, or "" for an unknown machine."""
    machine = machine or platform.machine()
    if machine not in _AUDIT_ARCHITECTURE:
        return ""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [f"SCMP_ARCH_{machine.upper()}"],
        "syscalls": [entry for rule in _RULES for entry in _profile_entries(rule)],
    }
    return json.dumps(profile)


def _profile_entries(rule: _Rule) -> Iterator[dict[str, Any]]:
    """A rule in the form of a profile, which needs one entry for each bit of "any bit of"."""
    choices = [
        [_profile_condition(condition.index, condition.operator, value) for value in _values(condition)]
        for condition in rule.conditions
    ]
    for conditions in itertools.product(*choices):
        yield {
            "names": [rule.name],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": rule.error,
            "args": list(conditions),
        }


def _values(condition: _Condition) -> list[int]:
    if condition.operator != "any bit of":
        return [condition.value]
    return [1 << bit for bit in range(32) if condition.value >> bit & 1]


def _profile_condition(index: int, operator: str, value: int) -> dict[str, Any]:
    if operator == "not equal":
        return {"index": index, "value": value, "valueTwo": 0, "op": "SCMP_CMP_NE"}
    mask = _LOW_HALF if operator == "equal" else value
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _statement(code: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, 0, 0, value)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
