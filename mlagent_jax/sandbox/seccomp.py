"""A seccomp filter that takes away the parts of the kernel that namespaces do not confine.

Denied: making or entering namespaces, mounting, tracing, key rings, bpf, performance events, io_uring,
memory that no limit counts (memfd, System V shared memory, message queues), semaphores that outlast their program
(System V), limits and priorities of other
processes (a supervisor has its program's user id), and sockets other than Unix and internet ones (the latter
have nowhere to go). `clone3` answers "no such call", so that the C library falls back to `clone`, whose flags
can be looked at.

The same rules come in two forms: a filter program, which a worker installs itself, and a profile for a
container engine.

Sources: seccomp(2), linux/filter.h, the system call tables of x86-64 and of the generic interface (aarch64);
for the profile, the OCI runtime specification, "Seccomp".
"""

from __future__ import annotations

import base64
import errno
import json
import platform
import struct
from typing import Any

# Classic BPF over struct seccomp_data {int nr; u32 arch; u64 instruction_pointer; u64 args[6];}
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEW*: cgroup, uts, ipc, user, pid, net and mount
_AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_ALLOWED_SOCKET_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6

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
}
# Of the calling process only, which these name 0.
_DENIED_TO_OTHERS: dict[str, tuple[int, int]] = {
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
}
_CLONE, _CLONE3, _SOCKET, _SOCKETPAIR = (56, 220), (435, 435), (41, 198), (53, 199)


def build_filter(machine: str | None = None) -> str:
    """Base64 of the filter program for `machine` (default: this host), or "" for one that we do not know."""
    machine = machine or platform.machine()
    if machine not in _AUDIT_ARCHITECTURE:
        return ""
    column = list(_AUDIT_ARCHITECTURE).index(machine)
    denied = sorted(numbers[column] for numbers in _DENIED.values())
    program = [
        _statement(_LOAD, _ARCHITECTURE),
        _jump(_JUMP_EQUAL, _AUDIT_ARCHITECTURE[machine], 1, 0),
        _statement(_RETURN, _KILL_PROCESS),
        _statement(_LOAD, _NUMBER),
        # x86-64 has a second table of the same calls, of which only the numbers differ.
        _jump(_JUMP_GREATER_EQUAL, _X32_BIT, 0, 1),
        _statement(_RETURN, _ERRNO | errno.ENOSYS),
        _jump(_JUMP_EQUAL, _CLONE3[column], 0, 1),
        _statement(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for number in denied:
        program += [_jump(_JUMP_EQUAL, number, 0, 1), _statement(_RETURN, _ERRNO | errno.EPERM)]
    for number in sorted(numbers[column] for numbers in _DENIED_TO_OTHERS.values()):
        program += [
            _jump(_JUMP_EQUAL, number, 0, 4),
            _statement(_LOAD, _FIRST_ARGUMENT),
            _jump(_JUMP_EQUAL, 0, 1, 0),
            _statement(_RETURN, _ERRNO | errno.EPERM),
            _statement(_RETURN, _ALLOW),
        ]
    program += [
        _jump(_JUMP_EQUAL, _CLONE[column], 0, 4),
        _statement(_LOAD, _FIRST_ARGUMENT),
        _jump(_JUMP_ANY_BIT, _NAMESPACE_FLAGS, 0, 1),
        _statement(_RETURN, _ERRNO | errno.EPERM),
        _statement(_RETURN, _ALLOW),
        _jump(_JUMP_EQUAL, _SOCKET[column], 1, 0),
        _jump(_JUMP_EQUAL, _SOCKETPAIR[column], 0, 1 + len(_ALLOWED_SOCKET_FAMILIES) + 1),
        _statement(_LOAD, _FIRST_ARGUMENT),
    ]
    for index, family in enumerate(_ALLOWED_SOCKET_FAMILIES):
        program.append(_jump(_JUMP_EQUAL, family, len(_ALLOWED_SOCKET_FAMILIES) - index, 0))
    program += [
        _statement(_RETURN, _ERRNO | errno.EAFNOSUPPORT),
        _statement(_RETURN, _ALLOW),
    ]
    return base64.b64encode(b"".join(program)).decode()


def build_profile(machine: str | None = None) -> str:
    """The same rules as JSON for a container engine, or "" for a machine that we do not know."""
    machine = machine or platform.machine()
    if machine not in _AUDIT_ARCHITECTURE:
        return ""
    rules = [
        _rule([*_DENIED], errno.EPERM),
        _rule([*_DENIED_TO_OTHERS], errno.EPERM, _argument("SCMP_CMP_NE", 0)),
        _rule(["clone3"], errno.ENOSYS),
    ]
    for bit in range(32):
        if _NAMESPACE_FLAGS >> bit & 1:
            flag = _argument("SCMP_CMP_MASKED_EQ", 1 << bit, 1 << bit)
            rules.append(_rule(["clone"], errno.EPERM, flag))
    families = [
        _argument("SCMP_CMP_EQ", family)
        for family in range(max(_ALLOWED_SOCKET_FAMILIES))
        if family not in _ALLOWED_SOCKET_FAMILIES
    ]
    for argument in (*families, _argument("SCMP_CMP_GT", max(_ALLOWED_SOCKET_FAMILIES))):
        rules.append(_rule(["socket", "socketpair"], errno.EAFNOSUPPORT, argument))
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [f"SCMP_ARCH_{machine.upper()}"],
        "syscalls": rules,
    }
    return json.dumps(profile)


def _rule(names: list[str], number: int, *arguments: dict[str, Any]) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": list(arguments)}


def _argument(comparison: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": 0, "value": value, "valueTwo": second, "op": comparison}


def _statement(code: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, 0, 0, value)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
