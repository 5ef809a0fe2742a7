"""What a job could count in its container, and so tell the next one: made equal after every job.

Some counters never go back, and each program moves them on: of process ids, and of inodes and folder positions in
file systems that live in memory. After a job they are moved on to a fixed distance from where they stood before it,
whatever it did. A job that moved one further than that, or left a trace that cannot be wiped, has used its container
up: it ends.

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

# By how much each counter moves for one job. Scripts that use more are rare, and cost a new container.
_PROCESSES: Final = 64
_ENTRIES: Final = 64
OOM_COUNTERS = ("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events")
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS

_libc = ctypes.CDLL(None, use_errno=True)


class UsedUpError(Exception):
    """The container must not serve another job; says why."""


class _Entry(ctypes.Structure):
    """struct dirent: `position` is that of the entry after it."""

    _fields_ = (
        ("inode", ctypes.c_uint64),
        ("position", ctypes.c_int64),
        ("size", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


_libc.opendir.restype = ctypes.c_void_p
_libc.readdir.restype = ctypes.POINTER(_Entry)
_libc.readdir.argtypes = _libc.closedir.argtypes = (ctypes.c_void_p,)


@dataclass(frozen=True)
class _Place:
    """The last inode and folder position that were given, and the free blocks and inodes."""

    inode: int
    position: int
    free: tuple[int, int]


class Counters:
    """The counters of a container. Made, and asked, only while no job runs and its folders are empty."""

    def __init__(self, folders: Sequence[str]) -> None:
        """`folders`: those that a program can write to; each is a file system in memory. Raises OSError."""
        self._folders = [_Folder(path) for path in folders]
        self._touchable = [*folders, *_writable_devices()]
        self._events = _read_events()
        self._last_pid = take_thread_id()

    def touch(self) -> None:
        """Gives the time of now to all whose times a program can change: called before each job. Raises OSError."""
        for path in self._touchable:
            os.utime(path)

    def settle(self) -> None:
        """Moves every counter to where it stands after any job. Raises UsedUpError, OSError."""
        if _read_events() != self._events:
            raise UsedUpError("the kernel has counted a want of memory")
        self._settle_processes()
        for folder in self._folders:
            folder.settle()

    def _settle_processes(self) -> None:
        self._last_pid += _PROCESSES
        missing = self._last_pid - take_thread_id()
        if not 0 <= missing <= _PROCESSES:
            raise UsedUpError(
                f"the job had more than {_PROCESSES} processes and threads, one after the other"
            )
        take_pids(missing)


class _Folder:
    """The counters of one folder's file system."""

    def __init__(self, path: str) -> None:
        self._path = path
        first, self._before = self._look(), self._look()
        # Before 5.9 inodes were counted for the whole host, and before 6.6 positions were not counted at all.
        self._inodes_count = self._before.inode - first.inode == 1 and _is_linux((5, 9))
        self._positions_count = self._before.position - first.position == 1

    def settle(self) -> None:
        """Raises UsedUpError, OSError."""
        _reset_flags(self._path)
        now = self._look()
        if now.free != self._before.free:
            raise UsedUpError(f"{self._path} is not as empty as it was")
        missing = [
            _ENTRIES - (now.inode - self._before.inode),
            _ENTRIES - (now.position - self._before.position),
        ]
        if not self._inodes_count:
            missing[0] = 0
        if not self._positions_count:
            missing[1] = missing[0]
        inodes, positions = missing
        if not (0 <= inodes <= _ENTRIES and 0 <= positions <= _ENTRIES) or inodes > positions == 0:
            raise UsedUpError(f"the job made more than {_ENTRIES} files in {self._path}")
        self._advance(inodes, positions)
        self._before = _Place(now.inode + inodes, now.position + positions, now.free)

    def _look(self) -> _Place:
        status = os.statvfs(self._path)
        with tempfile.NamedTemporaryFile(dir=self._path) as probe:
            inode = os.fstat(probe.fileno()).st_ino
            position = _position(self._path, os.fsencode(Path(probe.name).name))
        return _Place(inode, position, (status.f_bfree, status.f_ffree))

    def _advance(self, inodes: int, positions: int) -> None:
        """Gives away so many inodes, and so many positions in the folder itself."""
        name, other = f"{self._path}/file", f"{self._path}/link"
        if inodes > positions:  # all but one of the positions, and a folder in which there are others
            Path(name).mkdir()
            for _ in range(inodes - positions):
                _make(f"{name}/file")
            Path(name).rmdir()
            inodes = positions = positions - 1
        for _ in range(inodes - 1):
            _make(name)
        if positions == 0:
            return
        # A name more for a file is a position without an inode.
        if inodes == 0:
            raise UsedUpError(f"the job made nearly {_ENTRIES} files below {self._path}")
        _make(name, links=[other] * (positions - inodes))


def _make(path: str, links: Sequence[str] = ()) -> None:
    """Makes and removes a file, and in between other names of it, one after the other."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    for link in links:
        os.link(path, link)
        Path(link).unlink()
    Path(path).unlink()


def take_pids(count: int) -> None:
    """Uses up so many process ids: children that find no program to become."""
    for _ in range(count):
        with contextlib.suppress(FileNotFoundError):
            os.posix_spawn("", ["nothing"], {})


def take_thread_id() -> int:
    """The next process id, which a thread uses up."""
    ids: list[int] = []
    thread = threading.Thread(target=lambda: ids.append(threading.get_native_id()))
    thread.start()
    thread.join()
    return ids[0]


def _position(path: str, name: bytes) -> int:
    """Where a listing of `path` has the entry `name`, as a program can see it. Raises OSError."""
    stream = _libc.opendir(os.fsencode(path))
    if not stream:
        raise OSError(ctypes.get_errno(), "cannot list", path)
    try:
        position = 0
        while entry := _libc.readdir(stream):
            if entry.contents.name == name:
                return position
            position = entry.contents.position
    finally:
        _libc.closedir(stream)
    raise FileNotFoundError(name)


def _reset_flags(path: str) -> None:
    """Takes back "no dump" and "no access times", which an owner can set on a folder. Raises OSError."""
    if Path(path).stat().st_uid != os.geteuid():
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        [flags] = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8)))
        if flags:
            fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", 0))
    except OSError as error:
        if error.errno != 25:  # this kernel's file systems in memory have none
            raise
    finally:
        os.close(descriptor)


def _read_events() -> list[str]:
    """What the container's control group has counted, as a program can read it."""
    return [Path(path).read_text() for path in OOM_COUNTERS if Path(path).exists()]


def _writable_devices() -> list[str]:
    """Devices whose times a program may set to now, though they are not its own."""
    found = []
    for folder, _, names in os.walk("/dev"):
        if os.path.ismount(folder) and folder != "/dev":
            continue
        found += [path for name in names if os.access(path := f"{folder}/{name}", os.W_OK)]
    return [path for path in found if not Path(path).is_symlink()]


def _is_linux(version: tuple[int, int]) -> bool:
    major, minor = platform.release().split(".")[:2]
    return (int(major), int(minor)) >= version
