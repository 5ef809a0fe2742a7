"""Measures what all processes of a job use together, which per-process limits cannot bound."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from . import namespaces, workspace

# The counters of a container's own control group (v2, then v1), then the host's since it started.
_OOM_COUNTERS = (
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
    "/proc/vmstat",
)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class ResourceMonitor:
    """Watches a job's processes through /proc, from their supervisor.

    Attributes:
        isolated: the job has this pid namespace, and a workspace of limited size, to itself.
        peak_bytes: the most memory that the processes were seen to use together.
        peak_address_space: the largest address space seen in any one process, in bytes.
        peak_tasks: the most tasks (processes and threads) seen at once.
        admits_processes: every new task has to pass `admit_process`, so the job need not be killed for their number.
    """

    def __init__(
        self,
        memory_bytes: int,
        cpu_seconds: float,
        processes: int,
        isolated: bool,
        excluded: Collection[int] = frozenset({1}),
    ) -> None:
        """`excluded`: process ids of the sandbox itself."""
        self.memory_bytes = memory_bytes
        self.cpu_seconds = cpu_seconds
        self.processes = processes
        self.isolated = isolated
        self._excluded = excluded
        self.peak_bytes = 0
        self.peak_address_space = 0
        self.peak_tasks = 0
        self.admits_processes = False
        self._task_bound = 1  # upper bound of tasks now: the script, and those admitted since the last count

    def exceeded_limit(self, folder: str, folder_bytes: int) -> str:
        """Which limit the job exceeds now: "memory", "processes", "time", "disk", or "" for none."""
        pids = self.descendants()
        states = list(map(_tasks_and_cpu_seconds, pids))
        self.peak_tasks = max(self.peak_tasks, sum(tasks for tasks, _ in states))
        sizes = [_memory_sizes(pid) for pid in pids]
        self.peak_address_space = max([self.peak_address_space, *(size for size, _ in sizes)])
        # Resident sizes count a shared page once per process. Only where they exceed the limit, measure exactly.
        used = sum(resident for _, resident in sizes)
        if used > self.memory_bytes:
            used = sum(map(_proportional_bytes, pids))
        self.peak_bytes = max(self.peak_bytes, used)
        if used > self.memory_bytes:
            return "memory"
        # With admission, a few more may exist for a moment: an admitted task is not visible yet at a recount.
        if self.peak_tasks > self.processes and not self.admits_processes:
            return "processes"
        if any(seconds >= self.cpu_seconds for _, seconds in states):
            return "time"
        # In a sandbox the workspace is a tmpfs with a size limit of its own.
        if not self.isolated and workspace.used_bytes(folder) > folder_bytes:
            return "disk"
        return ""

    def admit_process(self) -> bool:
        """Whether one more task may start. If so, it counts from now on."""
        if self._task_bound >= self.processes:  # some may have ended since
            pids = self.descendants()
            # Every process has at least one thread, so with this many processes there is no need to count threads.
            enough = len(pids) >= self.processes
            self._task_bound = len(pids) if enough else sum(_tasks_and_cpu_seconds(pid)[0] for pid in pids)
        if self._task_bound >= self.processes:
            return False
        self._task_bound += 1
        return True

    def descendants(self) -> list[int]:
        """All processes of the job that are alive or zombies, without those of the sandbox."""
        if self.isolated:  # the whole pid namespace is the job's
            names = os.listdir("/proc")  # noqa: PTH208
            return [int(name) for name in names if name.isdigit() and int(name) not in self._excluded]
        found: list[int] = []
        unvisited = [os.getpid()]
        while unvisited:
            pid = unvisited.pop()
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    unvisited += map(int, (task / "children").read_text().split())
            found.append(pid)
        return found[1:]


def count_oom_kills() -> int:
    """How many processes the kernel's OOM killer has killed: in this container, or else on this host."""
    for path in _OOM_COUNTERS:
        with contextlib.suppress(OSError):
            for line in Path(path).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def _tasks_and_cpu_seconds(pid: int) -> tuple[int, float]:
    """The number of threads of a process, its main thread included, and the processor time it has used."""
    # Skip the command's name, which may contain spaces and parentheses; see proc_pid_stat(5).
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[17]), (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
    return 0, 0.0


def _memory_sizes(pid: int) -> tuple[int, int]:
    """The address space and the resident set of a process, in bytes."""
    with contextlib.suppress(OSError):
        size, resident = map(int, Path(f"/proc/{pid}/statm").read_text().split()[:2])
        return size * namespaces.PAGE_BYTES, resident * namespaces.PAGE_BYTES
    return 0, 0


def _proportional_bytes(pid: int) -> int:
    """The proportional set size (PSS) of a process: shared pages are divided among the processes that share them."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0
