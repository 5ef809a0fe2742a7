"""The walls of a container: everything that its program is denied, in one place.

Sources: docker-run(1), "Runtime constraints on resources" and "Security configuration"; the defaults of Docker
20.10 leave io_uring, AF_ALG and half the memory as swap open, so nothing here rests on a default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import docker

from mlagent_jax.sandbox import seccomp
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.interface import Limits
from mlagent_jax.sandbox.pool import ENVIRONMENT

# For the worker, process 1, with what it has imported.
_WORKER_MB = 384
# Beside the program's: process 1, the zygote, and one more that `docker exec` may need.
_WORKER_PROCESSES = 3
# The kernel counts processes of one user together, over all containers: here only against a runaway.
_MOST_PROCESSES_OF_USER = 16384
# Debian's and systemd's policies leave these user ids to nobody; one for each container, in turn.
_FIRST_USER, _USERS = 60_100, 4_000
_WRITABLE = ("/workspace", "/tmp")
# What Docker hides, and what else tells of the host and of others on it, or takes of what they share.
MASKED_FROM_ALL = (
    *("/sys/firmware", "/sys/devices/virtual/powercap", "/dev/pts/ptmx", "/proc/sys/fs"),
    *(
        f"/proc/{name}"
        for name in (
            *(
                "acpi",
                "asound",
                "buddyinfo",
                "cgroups",
                "cmdline",
                "config.gz",
                "consoles",
                "diskstats",
                "driver",
            ),
            *(
                "interrupts",
                "iomem",
                "ioports",
                "kallsyms",
                "kcore",
                "key-users",
                "keys",
                "latency_stats",
                "loadavg",
            ),
            *(
                "locks",
                "pagetypeinfo",
                "partitions",
                "pressure",
                "sched_debug",
                "scsi",
                "slabinfo",
                "softirqs",
            ),
            *("swaps", "timer_list", "timer_stats", "vmallocinfo", "vmstat", "zoneinfo"),
        )
    ),
)
# What shows what earlier jobs of a container did: the use of processor and memory by those that process 1 has buried,
# the counters of the control group but for that of its kills, the devices and the kernel. `sandbox_worker.exposure`
# looks whether it is enough.
_OF_PROCESS = (
    *(
        "ksm_merging_pages",
        "ksm_stat",
        "latency",
        "oom_score",
        "sched",
        "schedstat",
        "stat",
        "statm",
        "status",
    ),
    "wchan",
)
_OF_SYSTEM = ("block", "bus", "class", "dev", "devices", "hypervisor", "kernel", "module", "power")
_OF_GROUP_1 = (
    *("blkio", "cpu", "cpu,cpuacct", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "misc", "net_cls"),
    *("net_cls,net_prio", "net_prio", "perf_event", "pids", "rdma", "systemd", "unified"),
)
_OF_MEMORY_1 = (
    *("cgroup.clone_children", "cgroup.event_control", "cgroup.procs", "notify_on_release", "tasks"),
    *(
        f"memory.{kind}{name}"
        for kind in ("", "memsw.", "kmem.", "kmem.tcp.")
        for name in ("failcnt", "limit_in_bytes", "max_usage_in_bytes", "usage_in_bytes")
    ),
    *("memory.force_empty", "memory.kmem.slabinfo", "memory.move_charge_at_immigrate", "memory.numa_stat"),
    *("memory.pressure_level", "memory.shown_ram_in_bytes", "memory.soft_limit_in_bytes", "memory.stat"),
    *("memory.swappiness", "memory.use_hierarchy"),
)
_OF_GROUP_2 = (
    *(
        f"cgroup.{name}"
        for name in ("controllers", "events", "freeze", "kill", "max.depth", "max.descendants")
    ),
    *(f"cgroup.{name}" for name in ("pressure", "procs", "stat", "subtree_control", "threads", "type")),
    *(f"cpu.{name}" for name in ("idle", "max", "max.burst", "pressure", "stat", "stat.local", "uclamp.max")),
    *("cpu.uclamp.min", "cpu.weight", "cpu.weight.nice"),
    *(f"cpuset.{name}" for name in ("cpus", "cpus.effective", "cpus.exclusive", "cpus.exclusive.effective")),
    *(f"cpuset.{name}" for name in ("cpus.partition", "mems", "mems.effective")),
    *(
        f"io.{name}"
        for name in ("bfq.weight", "latency", "low", "max", "pressure", "prio.class", "stat", "weight")
    ),
    *(f"memory.{name}" for name in ("current", "events.local", "high", "low", "max", "min", "numa_stat")),
    *(f"memory.{name}" for name in ("oom.group", "peak", "pressure", "reclaim", "stat", "swap.current")),
    *(f"memory.{name}" for name in ("swap.events", "swap.high", "swap.max", "swap.peak", "zswap.current")),
    *("memory.zswap.max", "memory.zswap.writeback", "misc.current", "misc.events", "misc.max"),
    *(f"pids.{name}" for name in ("current", "events", "events.local", "max", "peak")),
    *(
        f"hugetlb.{size}.{name}"
        for size in ("2MB", "1GB")
        for name in ("current", "events", "events.local", "max")
    ),
    *(
        f"hugetlb.{size}.{name}"
        for size in ("2MB", "1GB")
        for name in ("numa_stat", "rsvd.current", "rsvd.max")
    ),
    *(f"rdma.{name}" for name in ("current", "max")),
)
MASKED = (
    *MASKED_FROM_ALL,
    *(f"{folder}/{name}" for folder in ("/proc/1", "/proc/1/task/1") for name in _OF_PROCESS),
    *(f"/sys/{name}" for name in _OF_SYSTEM),
    *(f"/sys/fs/cgroup/{name}" for name in (*_OF_GROUP_1, *_OF_GROUP_2)),
    *(f"/sys/fs/cgroup/memory/{name}" for name in _OF_MEMORY_1),
)


@dataclass(frozen=True)
class Shape:
    """What of a job its container is made for.

    data: folder on the engine's host that is shown as `data/`, or "".
    gpu: identifier of the GPU it has, or "".
    """

    memory_mb: int
    processes: int
    open_files: int
    workspace_mb: int
    workspace_files: int
    threads: int
    data: str
    gpu: str

    @classmethod
    def of(cls, limits: Limits, data: str, gpu: str) -> Shape:
        return cls(
            limits.memory_mb,
            limits.processes,
            limits.open_files,
            limits.workspace_mb,
            limits.workspace_files,
            limits.threads,
            data,
            gpu,
        )

    @property
    def container_mb(self) -> int:
        """Memory that the container may use: the program's, its files' and the worker's."""
        return self.memory_mb + 3 * self.workspace_mb + _WORKER_MB


def container_arguments(
    settings: DockerSettings, shape: Shape, number: int, command: list[str], labels: dict[str, str]
) -> dict[str, Any]:
    """What `APIClient.create_container` is called with, but for the name.

    Args:
        number: of the container, which decides its user id.
        command: the worker.
    """
    user = _FIRST_USER + number % _USERS
    return {
        "image": settings.image,
        "entrypoint": command,
        "hostname": "sandbox",
        "user": f"{user}:{user}",
        "working_dir": "/workspace",
        "environment": {**ENVIRONMENT, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        "labels": labels,
        "stdin_open": True,  # once: the engine closes it when the host is gone, and the worker ends
        "network_disabled": True,
        "host_config": _host_config(settings, shape, user),
    }


def _host_config(settings: DockerSettings, shape: Shape, user: int) -> dict[str, Any]:
    megabytes = f"{shape.workspace_mb}m"
    tmpfs = f"rw,exec,nosuid,nodev,size={megabytes},nr_inodes={shape.workspace_files + 8}"
    ulimit = docker.types.Ulimit
    mounts = []
    if shape.data:
        # As a mount and not as a "bind", whose missing source the engine would make.
        mounts.append(
            docker.types.Mount(
                "/workspace/data", shape.data, type="bind", read_only=True, propagation="rprivate"
            )
        )
    devices = []
    if shape.gpu:
        devices.append(docker.types.DeviceRequest(device_ids=[shape.gpu], capabilities=[["gpu"]]))
    host_config = docker.types.HostConfig(
        version="1.41",
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges", f"seccomp={seccomp.build_profile()}"],
        read_only=True,
        tmpfs=dict.fromkeys(_WRITABLE, f"{tmpfs},mode=0700,uid={user},gid={user}"),
        shm_size=megabytes,
        ipc_mode="private",
        mem_limit=f"{shape.container_mb}m",
        memswap_limit=f"{shape.container_mb}m",  # memory and swap together: no swap
        pids_limit=shape.processes + _WORKER_PROCESSES,
        nano_cpus=shape.threads * 1_000_000_000,
        ulimits=[
            ulimit(name="core", soft=0, hard=0),
            ulimit(name="nofile", soft=max(shape.open_files, 256), hard=max(shape.open_files, 256)),
            ulimit(name="nproc", soft=_MOST_PROCESSES_OF_USER, hard=_MOST_PROCESSES_OF_USER),
            ulimit(name="msgqueue", soft=0, hard=0),
        ],
        oom_score_adj=500,
        mounts=mounts,
        device_requests=devices or None,
        log_config=docker.types.LogConfig(type="none"),
        auto_remove=True,
        runtime=settings.runtime or None,
        cgroupns="private",
    )
    # The driver of a GPU is talked to through /sys.
    host_config["MaskedPaths"] = list(MASKED_FROM_ALL if shape.gpu else MASKED)
    return host_config
