"""A seccomp filter that takes away the parts of the kernel that namespaces do not confine.

Denied: making or entering namespaces, mounting, tracing, key rings, bpf, performance events, io_uring, limits and
priorities of other processes (a supervisor has its program's user id); what outlives its program (System V
semaphores); memory that no limit counts (memfd, System V shared memory, message queues, asynchronous I/O, huge pages,
larger buffers of sockets and pipes); sockets other than Unix ones, whose counters and closed ports a next job could
read; and what is seen across jobs on the data that they share: locks, leases, and notes of who reads what. What is
bounded, not denied, is in `sandbox_worker.witness`. `clone3` answers "no such call", so that the C library falls back
to `clone`, whose flags can be looked at.

The same rules come in two forms: a filter program, which a worker installs itself, and a profile for a
container engine.

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
# Answered as by a kernel that does not have them, so that libraries do without.
_ABSENT: dict[str, tuple[int, int]] = {
    "cachestat": (451, 451),  # what others have read
    "clone3": (435, 435),
    "inotify_init": (253, -1),  # what others do with shared data
    "inotify_init1": (294, 26),
    "io_setup": (206, 0),  # takes of a number that the whole host shares
    "landlock_create_ruleset": (444, 444),
    "listmount": (458, 458),  # where things lie on the host
    "mincore": (27, 232),  # what others have read
    "statmount": (457, 457),
}


@dataclass(frozen=True)
class _Argument:
    """A condition on one argument of a call, of which the kernel looks at the low 32 bits.

    test: "is", "is not", or "has a bit of".
    """

    index: int
    test: str
    value: int


@dataclass(frozen=True)
class _Rule:
    """A call, by its numbers on x86-64 and aarch64 (-1 for none), that fails where all of `arguments` hold."""

    name: str
    numbers: tuple[int, int]
    error: int
    arguments: tuple[_Argument, ...] = ()


def _each(
    name: str, numbers: tuple[int, int], error: int, index: int, values: Iterable[int], *more: _Argument
) -> tuple[_Rule, ...]:
    return tuple(_Rule(name, numbers, error, (*more, _Argument(index, "is", value))) for value in values)


_OF_ANOTHER = (_Argument(0, "is not", 0),)  # process than the caller
_NOT_UNIX = (_Argument(0, "is not", 1),)
_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEW*: cgroup, uts, ipc, user, pid, net and mount
_MAP_HUGETLB = 0x40000
_NOT_WAITING = 0x8  # RWF_NOWAIT
_GET_LOCKS, _SET_LEASE, _NOTIFY, _SET_PIPE_SIZE = (5, 36), 1024, 1026, 1031
_SET_OWNERLESS_LOCK = (37, 38)  # F_OFD_SETLK, F_OFD_SETLKW: one could lie hidden in a message
_SOCKET_LEVEL, _BUFFER_SIZES = 1, (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF, and the same by force

_RULES: tuple[_Rule, ...] = (
    *(_Rule(name, numbers, errno.EPERM) for name, numbers in _DENIED.items()),
    *(_Rule(name, numbers, errno.ENOSYS) for name, numbers in _ABSENT.items()),
    _Rule("prlimit64", (302, 261), errno.EPERM, _OF_ANOTHER),
    _Rule("sched_setaffinity", (203, 122), errno.EPERM, _OF_ANOTHER),
    _Rule("sched_setattr", (314, 274), errno.EPERM, _OF_ANOTHER),
    _Rule("sched_setparam", (142, 118), errno.EPERM, _OF_ANOTHER),
    _Rule("sched_setscheduler", (144, 119), errno.EPERM, _OF_ANOTHER),
    _Rule("clone", (56, 220), errno.EPERM, (_Argument(0, "has a bit of", _NAMESPACE_FLAGS),)),
    _Rule("socket", (41, 198), errno.EAFNOSUPPORT, _NOT_UNIX),
    _Rule("socketpair", (53, 199), errno.EAFNOSUPPORT, _NOT_UNIX),
    *_each("setsockopt", (54, 208), errno.EPERM, 2, _BUFFER_SIZES, _Argument(1, "is", _SOCKET_LEVEL)),
    # Locks and leases on data that jobs share are seen by all of them; so is who reads it. Libraries do without
    # `flock` where the file system has none (HDF5, filelock), and without locks that no process owns.
    _Rule("flock", (73, 32), errno.ENOSYS),
    *_each("fcntl", (72, 25), errno.EINVAL, 1, _SET_OWNERLESS_LOCK),
    *_each("fcntl", (72, 25), errno.EPERM, 1, (*_GET_LOCKS, _SET_LEASE, _NOTIFY, _SET_PIPE_SIZE)),
    # Whether it can be read at once tells what others have read.
    _Rule("preadv2", (327, 286), errno.EOPNOTSUPP, (_Argument(5, "has a bit of", _NOT_WAITING),)),
    # Huge pages come of a pool of the host's that no limit counts.
    _Rule("mmap", (9, 222), errno.ENOMEM, (_Argument(3, "has a bit of", _MAP_HUGETLB),)),
)


def build_filter(machine: str | None = None) -> str:
    """Base64 of the filter program for `machine` (default: this host), or "" for one that we do not know."""
    machine = machine or platform.machine()
    if machine not in _AUDIT_ARCHITECTURE:
        return ""
    column = list(_AUDIT_ARCHITECTURE).index(machine)
    program = [
        _statement(_LOAD, _ARCHITECTURE),
        _jump(_JUMP_EQUAL, _AUDIT_ARCHITECTURE[machine], 1, 0),
        _statement(_RETURN, _KILL_PROCESS),
        _statement(_LOAD, _NUMBER),
        # x86-64 has a second table of the same calls, of which only the numbers differ.
        _jump(_JUMP_GREATER_EQUAL, _X32_BIT, 0, 1),
        _statement(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for rule in _RULES:
        if rule.numbers[column] >= 0:
            program += _block(rule, rule.numbers[column])
    program.append(_statement(_RETURN, _ALLOW))
    return base64.b64encode(b"".join(program)).decode()


def _block(rule: _Rule, number: int) -> list[bytes]:
    """A rule's steps: found with the call's number loaded, and left so where it does not apply."""
    end = [_statement(_RETURN, _ERRNO | rule.error)]
    if not rule.arguments:
        return [_jump(_JUMP_EQUAL, number, 0, len(end)), *end]
    end.append(_statement(_LOAD, _NUMBER))
    for argument in reversed(rule.arguments):
        leave = len(end) - 1  # to the last of them, which loads the number again
        kind = _JUMP_ANY_BIT if argument.test == "has a bit of" else _JUMP_EQUAL
        ways = (leave, 0) if argument.test == "is not" else (0, leave)
        load = _statement(_LOAD, _FIRST_ARGUMENT + 8 * argument.index)
        end = [load, _jump(kind, argument.value, *ways), *end]
    return [_jump(_JUMP_EQUAL, number, 0, len(end)), *end]


def build_profile(machine: str | None = None) -> str:
    """The same rules as JSON for a container engine, or "" for a machine that we do not know."""
    machine = machine or platform.machine()
    if machine not in _AUDIT_ARCHITECTURE:
        return ""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [f"SCMP_ARCH_{machine.upper()}"],
        "syscalls": [one for rule in _RULES for one in _in_profile(rule)],
    }
    return json.dumps(profile)


def _in_profile(rule: _Rule) -> Iterator[dict[str, Any]]:
    """A rule as profiles have it, in which a test of several bits is a rule for each."""
    choices = [
        [_condition(argument.index, argument.test, bit) for bit in _bits(argument)]
        for argument in rule.arguments
    ]
    for conditions in itertools.product(*choices):
        yield {
            "names": [rule.name],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": rule.error,
            "args": list(conditions),
        }


def _bits(argument: _Argument) -> list[int]:
    if argument.test != "has a bit of":
        return [argument.value]
    return [1 << bit for bit in range(32) if argument.value >> bit & 1]


def _condition(index: int, test: str, value: int) -> dict[str, Any]:
    if test == "is not":
        return {"index": index, "value": value, "valueTwo": 0, "op": "SCMP_CMP_NE"}
    mask = _LOW_HALF if test == "is" else value
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _statement(code: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, 0, 0, value)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
