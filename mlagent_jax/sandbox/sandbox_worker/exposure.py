"""Finds what a program in this container could read about an earlier job, by trying: what its engine failed to hide.

`containers.policy` lists what an engine is told to hide. Another kernel, runtime or cgroup version may show more.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from . import namespaces
from .counters import OOM_COUNTERS, consume_pids, take_next_pid

# Files of process 1 that stay the same for as long as it lives: its properties and how it was started.
_CONSTANT_FILES: Final = {
    "arch_status",  # empty, or about vector units that process 1 does not use
    "autogroup",
    "children",  # the zygote, and the process that looks
    "cgroup",
    "cmdline",
    "comm",
    "coredump_filter",
    "cpu_resctrl_groups",
    "cpuset",
    "gid_map",
    "limits",
    "loginuid",
    "mountinfo",
    "mounts",
    "oom_adj",
    "oom_score_adj",
    "patch_state",
    "projid_map",
    "seccomp_cache",
    "sessionid",
    "setgroups",
    "timens_offsets",
    "uid_map",
}
_PROCESS_1_FOLDERS = ("/proc/1", "/proc/1/task/1")
_CONTAINER_FOLDERS = ("/sys/fs/cgroup", "/sys/devices/virtual/net")


def find_exposed() -> list[str]:
    """Paths and counters that show what an earlier job did, as a child of this process sees them.

    The calling process must not be dumpable (see `namespaces.hide_from_siblings`). Raises OSError.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, "\n".join(_exposed()).encode()[: 1 << 12])
        except OSError as error:
            os.write(writer, f"{error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read().decode()
    os.waitpid(pid, 0)
    return found.splitlines()


def _exposed() -> Iterator[str]:
    namespaces.show_to_siblings()
    for folder in _PROCESS_1_FOLDERS:
        for path in sorted(Path(folder).iterdir()):
            if path.name not in _CONSTANT_FILES and _has_content(path):
                yield str(path)
    for root in _CONTAINER_FOLDERS:
        for folder, _, names in os.walk(root):
            for path in (Path(folder, name) for name in names):
                if str(path) not in OOM_COUNTERS and _has_content(path):
                    yield str(path)
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.socket(family, socket.SOCK_DGRAM).close()
        except OSError:
            continue
        yield "the network's counters"
        break
    before = take_next_pid()
    consume_pids(1)
    if take_next_pid() != before + 2:
        yield "process ids that are not assigned in order"


def _has_content(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return bool(file.read(1))
    except OSError:
        return False
