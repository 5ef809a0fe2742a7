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
# Beside the program's: process 1, and one more that `docker exec` may need.
_WORKER_PROCESSES = 2
# The kernel counts processes of one user together, over all containers: here only against a runaway.
_MOST_PROCESSES_OF_USER = 16384
# Debian's and systemd's policies leave these user ids to nobody; one for each container, in turn.
_FIRST_USER, _USERS = 60_100, 4_000
_WRITABLE = ("/workspace", "/tmp")
# What Docker hides, and what else tells of the host and of others on it, or takes of what they share.
_MASKED = (
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
    config = docker.types.HostConfig(
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
    config["MaskedPaths"] = list(_MASKED)
    return config
