"""What a program of this container could read of an earlier one, found by trying: what its engine had to hide.

An engine hides what `containers.policy` names. Another kernel, runtime or version of control groups may show more.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from . import namespaces
from .counters import OOM_COUNTERS, take_pids, take_thread_id

# Of process 1, and the same for as long as it lives: what it is, and what it was started with.
_CONSTANT: Final = {
    "arch_status",  # empty, or of vector units that process 1 does not use
    "autogroup",
    "children",  # the zygote, and what looks
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
_OF_PROCESS = ("/proc/1", "/proc/1/task/1")
_OF_THE_CONTAINER = ("/sys/fs/cgroup", "/sys/devices/virtual/net")


def find_exposed() -> list[str]:
    """What shows what an earlier job did, as a child of this process sees it; this one must be hidden from siblings.

    Raises OSError.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, "\n".join(_look()).encode()[: 1 << 12])
        except OSError as error:
            os.write(writer, f"{error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read().decode()
    os.waitpid(pid, 0)
    return found.splitlines()


def _look() -> Iterator[str]:
    namespaces.show_to_siblings()
    for folder in _OF_PROCESS:
        for path in sorted(Path(folder).iterdir()):
            if path.name not in _CONSTANT and _shows_something(path):
                yield str(path)
    for root in _OF_THE_CONTAINER:
        for folder, _, names in os.walk(root):
            for path in (Path(folder, name) for name in names):
                if str(path) not in OOM_COUNTERS and _shows_something(path):
                    yield str(path)
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.socket(family, socket.SOCK_DGRAM).close()
        except OSError:
            continue
        yield "the network's counters"
        break
    before = take_thread_id()
    take_pids(1)
    if take_thread_id() != before + 2:
        yield "process ids that are not given in order"


def _shows_something(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return bool(file.read(1))
    except OSError:
        return False
