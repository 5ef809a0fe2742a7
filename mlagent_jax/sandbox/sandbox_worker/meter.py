"""Adds up what all processes of a job use together, which per-process limits cannot bound."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from . import namespaces, workspace

# Of a container's own control group, in its second and first version; then of the host, since its start.
_OOM_COUNTERS = (
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
    "/proc/vmstat",
)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class ProcessMeter:
    """Looks at a job's processes through /proc, from their supervisor.

    Attributes:
        alone: the job has this pid namespace, and a workspace of limited size, to itself.
        peak_bytes: the most memory that they were seen to use together.
        peak_addresses: the largest address space of one of them that was seen, in bytes.
        most_processes: the most tasks (processes and threads) seen at once.
        grants: whether every new task asks `grant_process`, so that there is no need to end the job for their number.
    """

    def __init__(
        self,
        memory_bytes: int,
        cpu_seconds: float,
        processes: int,
        alone: bool,
        ours: Collection[int] = frozenset({1}),
    ) -> None:
        self.memory_bytes = memory_bytes
        self.cpu_seconds = cpu_seconds
        self.processes = processes
        self.alone = alone
        self._ours = ours
        self.peak_bytes = 0
        self.peak_addresses = 0
        self.most_processes = 0
        self.grants = False
        self._at_most = 1  # tasks now: the script, and all that were granted since they were last counted

    def look(self, folder: str, folder_bytes: int) -> str:
        """Returns "memory", "processes", "time" or "disk" if the job uses more of it than it may, else ""."""
        pids = self.descendants()
        states = list(map(_state, pids))
        self.most_processes = max(self.most_processes, sum(tasks for tasks, _ in states))
        sizes = [_sizes(pid) for pid in pids]
        self.peak_addresses = max([self.peak_addresses, *(addresses for addresses, _ in sizes)])
        # Resident sizes count shared pages once for each process: only if they are too large, look closely.
        used = sum(resident for _, resident in sizes)
        if used > self.memory_bytes:
            used = sum(map(_proportional_bytes, pids))
        self.peak_bytes = max(self.peak_bytes, used)
        if used > self.memory_bytes:
            return "memory"
        # Where each is granted there may be some more for a moment: granted, and not yet to be seen.
        if self.most_processes > self.processes and not self.grants:
            return "processes"
        if any(seconds >= self.cpu_seconds for _, seconds in states):
            return "time"
        # In a sandbox the workspace is a tmpfs that limits itself.
        if not self.alone and workspace.used_bytes(folder) > folder_bytes:
            return "disk"
        return ""

    def grant_process(self) -> bool:
        """Whether there may be one task more, which then counts as there."""
        if self._at_most >= self.processes:  # some may have ended since
            pids = self.descendants()
            # Each has a thread at least: where there are that many, none has to be asked for more.
            enough = len(pids) >= self.processes
            self._at_most = len(pids) if enough else sum(_state(pid)[0] for pid in pids)
        if self._at_most >= self.processes:
            return False
        self._at_most += 1
        return True

    def descendants(self) -> list[int]:
        """All processes of the job that are alive or unburied, without those of the sandbox."""
        if self.alone:  # the whole pid namespace is the job's
            names = os.listdir("/proc")  # noqa: PTH208
            return [int(name) for name in names if name.isdigit() and int(name) not in self._ours]
        found: list[int] = []
        unvisited = [os.getpid()]
        while unvisited:
            pid = unvisited.pop()
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    unvisited += map(int, (task / "children").read_text().split())
            found.append(pid)
        return found[1:]


def oom_kills() -> int:
    """How often the kernel has killed for want of memory: in this container, else on this host."""
    for path in _OOM_COUNTERS:
        with contextlib.suppress(OSError):
            for line in Path(path).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def _state(pid: int) -> tuple[int, float]:
    """Its threads, itself among them, and the seconds of processor time that it has used."""
    # Fields after the command's name, which may itself hold spaces and parentheses; see proc_pid_stat(5).
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[17]), (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
    return 0, 0.0


def _sizes(pid: int) -> tuple[int, int]:
    """Its address space and what of it is in memory, in bytes."""
    with contextlib.suppress(OSError):
        addresses, resident = map(int, Path(f"/proc/{pid}/statm").read_text().split()[:2])
        return addresses * namespaces.PAGE_BYTES, resident * namespaces.PAGE_BYTES
    return 0, 0


def _proportional_bytes(pid: int) -> int:
    """Its memory, with pages that several processes share divided among them."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0
