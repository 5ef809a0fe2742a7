"""How a container is isolated and limited: everything that its program is denied, in one place.

Nothing here relies on a default of the engine: those of Docker 20.10 allow io_uring, AF_ALG, and swap of half the
memory.

Sources: docker-run(1), "Runtime constraints on resources" and "Security configuration"; the OCI runtime specification,
"maskedPaths".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import docker

from mlagent_jax.sandbox import seccomp
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.interface import Limits
from mlagent_jax.sandbox.pool import ENVIRONMENT

# For the worker (process 1) and what it has imported.
_WORKER_MB = 384
# Beside the program's: process 1, the zygote, and one for `docker exec`.
_WORKER_PROCESSES = 3
# RLIMIT_NPROC counts one user's processes in all containers together. It is only a safety net here.
_MAX_USER_PROCESSES = 16384
# User ids that Debian and systemd assign to nobody. Containers take them in turn.
_FIRST_UID, _UID_COUNT = 60_100, 4_000
_WRITABLE = ("/workspace", "/tmp")
# What Docker masks, and what else describes the host and others on it, or consumes what they share.
BASE_MASKED_PATHS = (
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
# What shows what earlier jobs of a container did: the resource usage of children that process 1 has reaped, the
# counters of the control group except for its OOM kills, devices and kernel state. `sandbox_worker.exposure` tests
# whether this is enough.
_PROCESS_FILES = (
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
_SYS_FOLDERS = ("block", "bus", "class", "dev", "devices", "hypervisor", "kernel", "module", "power")
_CGROUP_V1_FOLDERS = (
    *("blkio", "cpu", "cpu,cpuacct", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "misc", "net_cls"),
    *("net_cls,net_prio", "net_prio", "perf_event", "pids", "rdma", "systemd", "unified"),
)
_CGROUP_V1_MEMORY_FILES = (
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
_CGROUP_V2_FILES = (
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
MASKED_PATHS = (
    *BASE_MASKED_PATHS,
    *(f"{folder}/{name}" for folder in ("/proc/1", "/proc/1/task/1") for name in _PROCESS_FILES),
    *(f"/sys/{name}" for name in _SYS_FOLDERS),
    *(f"/sys/fs/cgroup/{name}" for name in (*_CGROUP_V1_FOLDERS, *_CGROUP_V2_FILES)),
    *(f"/sys/fs/cgroup/memory/{name}" for name in _CGROUP_V1_MEMORY_FILES),
)


@dataclass(frozen=True)
class ContainerSpec:
    """The properties of a job that its container depends on.

    data: folder on the engine's host that is shown as `data/`, or "".
    gpu: identifier of the GPU that it gets, or "".
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
    def from_limits(cls, limits: Limits, data: str, gpu: str) -> ContainerSpec:
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
        """Memory that the container may use: for the program, its files and the worker."""
        return self.memory_mb + 3 * self.workspace_mb + _WORKER_MB


def create_arguments(
    settings: DockerSettings, spec: ContainerSpec, number: int, command: list[str], labels: dict[str, str]
) -> dict[str, Any]:
    """The arguments of `APIClient.create_container`, without the name.

    Args:
        number: of the container; it decides its user id.
        command: starts the worker.
    """
    user = _FIRST_UID + number % _UID_COUNT
    return {
        "image": settings.image,
        "entrypoint": command,
        "hostname": "sandbox",
        "user": f"{user}:{user}",
        "working_dir": "/workspace",
        "environment": {**ENVIRONMENT, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        "labels": labels,
        "stdin_open": True,  # the engine closes it when the host is gone, and then the worker ends
        "network_disabled": True,
        "host_config": _host_config(settings, spec, user),
    }


def _host_config(settings: DockerSettings, spec: ContainerSpec, user: int) -> dict[str, Any]:
    megabytes = f"{spec.workspace_mb}m"
    tmpfs = f"rw,exec,nosuid,nodev,size={megabytes},nr_inodes={spec.workspace_files + 8}"
    ulimit = docker.types.Ulimit
    mounts = []
    if spec.data:
        # A mount, not a "bind": for that, the engine would create a missing source.
        mounts.append(
            docker.types.Mount(
                "/workspace/data", spec.data, type="bind", read_only=True, propagation="rprivate"
            )
        )
    devices = []
    if spec.gpu:
        devices.append(docker.types.DeviceRequest(device_ids=[spec.gpu], capabilities=[["gpu"]]))
    host_config = docker.types.HostConfig(
        version="1.41",
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges", f"seccomp={seccomp.build_profile()}"],
        read_only=True,
        tmpfs=dict.fromkeys(_WRITABLE, f"{tmpfs},mode=0700,uid={user},gid={user}"),
        shm_size=megabytes,
        ipc_mode="private",
        mem_limit=f"{spec.container_mb}m",
        memswap_limit=f"{spec.container_mb}m",  # memory and swap together: no swap
        pids_limit=spec.processes + _WORKER_PROCESSES,
        nano_cpus=spec.threads * 1_000_000_000,
        ulimits=[
            ulimit(name="core", soft=0, hard=0),
            ulimit(name="nofile", soft=max(spec.open_files, 256), hard=max(spec.open_files, 256)),
            ulimit(name="nproc", soft=_MAX_USER_PROCESSES, hard=_MAX_USER_PROCESSES),
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
    # A GPU's driver is accessed through /sys.
    host_config["MaskedPaths"] = list(BASE_MASKED_PATHS if spec.gpu else MASKED_PATHS)
    return host_config
