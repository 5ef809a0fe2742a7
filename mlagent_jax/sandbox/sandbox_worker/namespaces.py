"""Linux namespaces, mounts and privileges through ctypes: what Python's `os` lacks before 3.12.

Sources: unshare(2), clone(2), mount(2), capabilities(7), user_namespaces(7), prctl(2).
"""

from __future__ import annotations

import base64
import ctypes
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

# PyDLL keeps the interpreter lock during calls: no other thread may run between a fork and its hooks.
_libc = ctypes.PyDLL(None, use_errno=True)

CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SIGCHLD = 17
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
_MNT_DETACH = 2
_PROC_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC
# What interpreters and libraries read. `mounts`, `net`, `self` and `thread-self` link to a process's own folder.
_VISIBLE_PROC_FILES = frozenset(("cpuinfo", "filesystems", "meminfo", "stat", "sys", "uptime", "version"))

_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError with the target in its message."""
    arguments = [text.encode() or None for text in (source, target, kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), options.encode() or None), f"mount {target}")


def unmount(target: str) -> None:
    """Detaches a whole mounted tree (a lazy unmount). Raises OSError."""
    _check(_libc.umount2(target.encode(), _MNT_DETACH), f"umount {target}")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def fork_into_namespaces() -> int:
    """Forks a child as process 1 of a new pid namespace, with new mount, ipc, uts and network namespaces.

    Like os.fork, this returns 0 in the child. One clone(2) instead of unshare(2) and a fork avoids copying the page
    tables of a large process twice. Raises OSError.
    """
    return _fork(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET)


def fork_sibling() -> int:
    """Does what os.fork does, but the new process becomes a child of this one's parent. Raises OSError."""
    return _fork(CLONE_PARENT)


def _fork(flags: int) -> int:
    number = _SYS_CLONE[platform.machine()]
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _libc.syscall(ctypes.c_long(number), ctypes.c_ulong(flags | _SIGCHLD), None, None, None, None)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    return _check(pid, "clone")


def forbid_user_namespaces() -> None:
    """Keeps the processes of this user namespace from creating another one and gaining capabilities in it."""
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def hide_from_siblings() -> None:
    """Makes this process not dumpable: others with its user id cannot read its memory, files or environment."""
    _prctl(_PR_SET_DUMPABLE, 0)


def show_to_siblings() -> None:
    """Undoes `hide_from_siblings`, which children inherit, so that a program can read its own /proc/self."""
    _prctl(_PR_SET_DUMPABLE, 1)


def become_subreaper() -> None:
    """Orphaned descendants become children of this process instead of init's."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def drop_privileges(seccomp_program: str) -> None:
    """Drops every capability for good, for this process and all it starts, and installs a seccomp filter.

    Args:
        seccomp_program: base64 of struct sock_filter records, or "" for none.
    """
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        if _prctl(_PR_CAPBSET_READ, capability):  # in a container, all are gone already
            _prctl(_PR_CAPBSET_DROP, capability)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc.syscall(ctypes.c_long(_SYS_CAPSET[platform.machine()]), header, nothing), "capset")
    set_no_new_privileges(seccomp_program)


def set_no_new_privileges(seccomp_program: str) -> None:
    """Sets no_new_privs for this process and all it starts, and installs a seccomp filter if one is given."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if seccomp_program:
        _install_filter(base64.b64decode(seccomp_program))


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _install_filter(program: bytes) -> None:
    fprog = _SockFprog(len(program) // 8, program)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(fprog))


def seccomp(program: bytes, number: int, operation: int, flags: int) -> int:
    """seccomp(2) with a filter program. `number`: of the system call on this machine. Raises OSError."""
    fprog = _SockFprog(len(program) // 8, program)
    arguments = (ctypes.c_long(number), ctypes.c_uint(operation), ctypes.c_uint(flags), ctypes.byref(fprog))
    return _check(_libc.syscall(*arguments), "seccomp")


def program_break() -> int:
    """The end of this process's heap; see brk(2)."""
    _libc.sbrk.restype = ctypes.c_void_p
    return _libc.sbrk(ctypes.c_long(0)) or 0


def _prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)][:4]
    return _check(_libc.prctl(ctypes.c_int(option), *padded), f"prctl {option}")


@dataclass(frozen=True)
class JobPaths:
    """The folders of a job, as the job sees them. `temporary`: for its HOME and TMPDIR."""

    workspace: str
    temporary: str


def mount_job_view(data: str, megabytes: int, files: int) -> JobPaths:
    """Mounts what the job sees, in the mount namespace of the calling process.

    One tmpfs holds the workspace, /tmp and /dev/shm, so that one limit holds for all three together.

    Args:
        data: folder below /sandbox/data to show as `data/`, or "" for none.
        megabytes, files: the limits of that tmpfs.
    """
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    # A Python that is installed below /tmp would be hidden by the job's own /tmp.
    pythons = {
        path for prefix in (sys.base_prefix, sys.prefix) for path in (prefix, os.path.realpath(prefix))
    }
    hidden = {path: os.open(path, os.O_PATH) for path in pythons if path.startswith("/tmp/")}
    inodes = files + 10 + sum(len(Path(path).parts) for path in hidden)
    mount("tmpfs", "/job", "tmpfs", MS_NOSUID | MS_NODEV, f"size={megabytes}m,nr_inodes={inodes},mode=0755")
    for name, target in (("workspace", "/workspace"), ("tmp", "/tmp"), ("shm", "/dev/shm")):
        Path("/job", name).mkdir()
        mount(f"/job/{name}", target, flags=MS_BIND)
    for path, descriptor in sorted(hidden.items()):  # outer ones first
        Path(path).mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, flags=MS_BIND | MS_REC)
        os.close(descriptor)
    if data:
        _mount_data(f"/sandbox/data/{data}")
    for private in ("/job", "/sandbox/data", f"/sandbox/{__package__}"):
        unmount(private)
    mount("proc", "/proc", "proc", _PROC_FLAGS)
    mount("/proc/sys", "/proc/sys", flags=MS_BIND)
    mount("", "/proc/sys", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | _PROC_FLAGS)
    mask_proc("/job")
    return JobPaths("/workspace", "/tmp")


def _mount_data(source: str) -> None:
    """Shows a folder as the job's data.

    It is an overlay, whose inodes belong to this job: no other job sees a lock on one, and the mount table does not
    reveal the path on the host. Where a user may not mount one (before Linux 5.11), it is a bind mount.
    """
    for folder in ("/job/data", "/job/nothing", "/workspace/data"):
        Path(folder).mkdir()
    mount(source, "/job/data", flags=MS_BIND | MS_REC)
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV
    try:
        mount("overlay", "/workspace/data", "overlay", flags, "lowerdir=/job/data:/job/nothing")
    except OSError:
        mount("/job/data", "/workspace/data", flags=MS_BIND | MS_REC)


def mask_proc(empty_folder: str) -> None:
    """Leaves visible in /proc what programs need. The rest describes the host and others on it, or sets kernel state.

    Args:
        empty_folder: one on a read-only file system.
    """
    for entry in sorted(os.scandir("/proc"), key=lambda entry: entry.name):
        if entry.name.isdigit() or entry.name in _VISIBLE_PROC_FILES or entry.is_symlink():
            continue
        mount(empty_folder if entry.is_dir(follow_symlinks=False) else "/dev/null", entry.path, flags=MS_BIND)
    mount(empty_folder, "/proc/sys/fs", flags=MS_BIND)  # counts the whole host's files
