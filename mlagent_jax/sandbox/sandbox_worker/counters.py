"""Resets what a job could read about earlier jobs from the counters of its container.

Some kernel counters never go back, and every program moves them: process ids, inode numbers, and directory offsets in
file systems in memory. After each job they are advanced to a fixed distance from their value before it, whatever the
job did. A job that moved one further than that, or left a trace that cannot be erased, has used up its container, and
the container ends.

Sources: pid_namespaces(7), getdents(2); mm/shmem.c and fs/libfs.c ("simple_offset") of Linux 6.18.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import struct
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# How far each counter advances per job. Scripts that need more are rare, and cost a new container.
_PIDS_PER_JOB: Final = 64
_FILES_PER_JOB: Final = 64
OOM_COUNTERS = ("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events")
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602

_libc = ctypes.CDLL(None, use_errno=True)


class ContainerUsedUpError(Exception):
    """The container must not serve another job. The message says why."""


class _Dirent(ctypes.Structure):
    """struct dirent. `offset` is the directory offset of the next entry."""

    _fields_ = (
        ("inode", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("size", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


_libc.opendir.restype = ctypes.c_void_p
_libc.readdir.restype = ctypes.POINTER(_Dirent)
_libc.readdir.argtypes = _libc.closedir.argtypes = (ctypes.c_void_p,)


@dataclass(frozen=True)
class _FolderState:
    """The last inode number and directory offset that were assigned. `free`: free blocks and free inodes."""

    inode: int
    offset: int
    free: tuple[int, int]


class Counters:
    """The counters of a container. Create and use it only while no job runs and the container's folders are empty."""

    def __init__(self, folders: Sequence[str]) -> None:
        """`folders`: the writable folders, each a file system in memory. Raises OSError."""
        self._folders = [_FolderCounters(path) for path in folders]
        self._with_settable_times = [*folders, *_writable_devices()]
        self._oom_events = _read_oom_events()
        self._last_pid = take_next_pid()

    def reset_times(self) -> None:
        """Sets every file time that a program can change to the current time. Call before each job. Raises OSError."""
        for path in self._with_settable_times:
            os.utime(path)

    def normalize(self) -> None:
        """Advances every counter to the value it has after any job. Raises ContainerUsedUpError, OSError."""
        if _read_oom_events() != self._oom_events:
            raise ContainerUsedUpError("the kernel has counted an out-of-memory event")
        self._normalize_pids()
        for folder in self._folders:
            folder.normalize()

    def _normalize_pids(self) -> None:
        self._last_pid += _PIDS_PER_JOB
        missing = self._last_pid - take_next_pid()
        if not 0 <= missing <= _PIDS_PER_JOB:
            raise ContainerUsedUpError(
                f"the job started more than {_PIDS_PER_JOB} processes and threads in all"
            )
        consume_pids(missing)


class _FolderCounters:
    """The counters of one folder's file system."""

    def __init__(self, path: str) -> None:
        self._path = path
        first, self._before = self._probe(), self._probe()
        # Before Linux 5.9 inodes were numbered host-wide, and before 6.6 directory offsets were not counted at all.
        self._inodes_count = self._before.inode - first.inode == 1 and _is_linux((5, 9))
        self._offsets_count = self._before.offset - first.offset == 1

    def normalize(self) -> None:
        """Raises ContainerUsedUpError, OSError."""
        _reset_flags(self._path)
        now = self._probe()
        if now.free != self._before.free:
            raise ContainerUsedUpError(f"{self._path} has less free space than before the job")
        missing = [
            _FILES_PER_JOB - (now.inode - self._before.inode),
            _FILES_PER_JOB - (now.offset - self._before.offset),
        ]
        if not self._inodes_count:
            missing[0] = 0
        if not self._offsets_count:
            missing[1] = missing[0]
        inodes, offsets = missing
        if not (0 <= inodes <= _FILES_PER_JOB and 0 <= offsets <= _FILES_PER_JOB) or inodes > offsets == 0:
            raise ContainerUsedUpError(f"the job made more than {_FILES_PER_JOB} files in {self._path}")
        self._consume(inodes, offsets)
        self._before = _FolderState(now.inode + inodes, now.offset + offsets, now.free)

    def _probe(self) -> _FolderState:
        status = os.statvfs(self._path)
        with tempfile.NamedTemporaryFile(dir=self._path) as probe:
            inode = os.fstat(probe.fileno()).st_ino
            offset = _directory_offset(self._path, os.fsencode(Path(probe.name).name))
        return _FolderState(inode, offset, (status.f_bfree, status.f_ffree))

    def _consume(self, inodes: int, offsets: int) -> None:
        """Uses up this many inode numbers, and this many offsets of the folder itself."""
        name, other = f"{self._path}/file", f"{self._path}/link"
        if inodes > offsets:  # leave one offset, and create the surplus inodes inside a subfolder
            Path(name).mkdir()
            for _ in range(inodes - offsets):
                _create_and_remove(f"{name}/file")
            Path(name).rmdir()
            inodes = offsets = offsets - 1
        for _ in range(inodes - 1):
            _create_and_remove(name)
        if offsets == 0:
            return
        # A further hard link to a file takes an offset but no inode.
        if inodes == 0:
            raise ContainerUsedUpError(f"the job made nearly {_FILES_PER_JOB} files below {self._path}")
        _create_and_remove(name, links=[other] * (offsets - inodes))


def _create_and_remove(path: str, links: Sequence[str] = ()) -> None:
    """Creates and removes a file, and in between creates and removes each of `links` to it."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    for link in links:
        os.link(path, link)
        Path(link).unlink()
    Path(path).unlink()


def consume_pids(count: int) -> None:
    """Uses up this many process ids, with children that fail to execute any program."""
    for _ in range(count):
        with contextlib.suppress(FileNotFoundError):
            os.posix_spawn("", ["nothing"], {})


def take_next_pid() -> int:
    """The next process id. A thread takes it, and so uses it up."""
    ids: list[int] = []
    thread = threading.Thread(target=lambda: ids.append(threading.get_native_id()))
    thread.start()
    thread.join()
    return ids[0]


def _directory_offset(path: str, name: bytes) -> int:
    """The offset of the entry `name` in the directory `path`, as any program can read it. Raises OSError."""
    stream = _libc.opendir(os.fsencode(path))
    if not stream:
        raise OSError(ctypes.get_errno(), "cannot list", path)
    try:
        offset = 0
        while entry := _libc.readdir(stream):
            if entry.contents.name == name:
                return offset
            offset = entry.contents.offset
    finally:
        _libc.closedir(stream)
    raise FileNotFoundError(name)


def _reset_flags(path: str) -> None:
    """Clears the inode flags "no dump" and "no access times", which an owner can set on a folder. Raises OSError."""
    if Path(path).stat().st_uid != os.geteuid():
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        [flags] = struct.unpack("l", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8)))
        if flags:
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("l", 0))
    except OSError as error:
        if error.errno != 25:  # ENOTTY: this kernel's tmpfs has no inode flags
            raise
    finally:
        os.close(descriptor)


def _read_oom_events() -> list[str]:
    """The out-of-memory counters of the container's control group, as any program can read them."""
    return [Path(path).read_text() for path in OOM_COUNTERS if Path(path).exists()]


def _writable_devices() -> list[str]:
    """Devices whose times a program may set to the current time although it does not own them."""
    found = []
    for folder, _, names in os.walk("/dev"):
        if os.path.ismount(folder) and folder != "/dev":
            continue
        found += [path for name in names if os.access(path := f"{folder}/{name}", os.W_OK)]
    return [path for path in found if not Path(path).is_symlink()]


def _is_linux(version: tuple[int, int]) -> bool:
    """Whether the kernel is at least of this version."""
    major, minor = platform.release().split(".")[:2]
    return (int(major), int(minor)) >= version
