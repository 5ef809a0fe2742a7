"""The machines that can be planned for; none of them needs to be present."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from mlagent_jax.errors import UserError
from mlagent_jax.planner.chips import CHIPS, Chip, gpu_target_config

# The target decides the attention backend, whatever the configuration says.
ATTENTION = {"tpu": "splash", "cuda": "cudnn"}
_PACKAGES = {"tpu": ("libtpu",), "cuda": ("jax_cuda12_plugin", "jax_plugins.xla_cuda12")}


@dataclass(frozen=True)
class Target:
    """Chips of one kind on `hosts` machines. topology: libtpu's name for it, or slices x hosts x GPUs."""

    name: str
    kind: str
    chips: int
    hosts: int
    topology: str

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def platform(self) -> str:
        return "cuda" if self.chip.compute_capability else "tpu"

    @property
    def attention(self) -> str:
        return ATTENTION[self.platform]

    @property
    def chips_per_host(self) -> int:
        return self.chips // self.hosts


TARGETS = {
    target.name: target
    for target in (
        # TPUs are named by chips, not by cores: what is v5p-8 here is "v5p-16" at Google Cloud.
        Target("v5e-16", "v5e", 16, 4, "v5e:4x4"),
        Target("v5e-32", "v5e", 32, 8, "v5e:4x8"),
        Target("v5p-8", "v5p", 8, 2, "v5p:2x2x2"),
        Target("v5p-16", "v5p", 16, 4, "v5p:2x2x4"),
        Target("v6e-8", "v6e", 8, 2, "v6e:2x4"),
        Target("v6e-16", "v6e", 16, 4, "v6e:4x4"),
        Target("h100-1", "h100", 1, 1, "1x1x1"),
        Target("h100-8", "h100", 8, 1, "1x1x8"),
        Target("h100-16", "h100", 16, 2, "1x2x8"),
        Target("a100-8", "a100", 8, 1, "1x1x8"),
        Target("h200-1", "h200", 1, 1, "1x1x1"),
        Target("h200-8", "h200", 8, 1, "1x1x8"),
    )
}


def find_target(name: str) -> Target:
    """Raises UserError for an unknown name, with the list of targets."""
    if name not in TARGETS:
        raise UserError(
            f"--target is {name!r}; there are {', '.join(TARGETS)} (kind of chip, number of chips)"
        )
    return TARGETS[name]


def prepare() -> None:
    """Restricts this process to the CPU, so that compilers do not look for chips. Call it before any use of JAX."""
    os.environ |= {
        "JAX_PLATFORMS": "cpu",  # with "cuda", the plugin would look for a driver and fail
        "CUDA_VISIBLE_DEVICES": "-1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # libtpu's lock is for chips, and none is used
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",  # any type; without one, libtpu asks the metadata server
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    jax.config.update("jax_platforms", "cpu")


def target_devices(target: Target) -> list[Any]:
    """Descriptions of the target's devices, for compiling only. Raises UserError where its compiler is missing."""
    for package in _PACKAGES[target.platform]:
        if not _installed(package):
            raise UserError(f"--target={target.name} needs {package}: pip install -e '.[plan]'")
    options = {}
    if target.platform == "cuda":
        options = {"target_config": gpu_target_config(target.chip), "topology": target.topology}
    topology = topologies.get_topology_desc(target.topology, target.platform, **options)
    devices = list(topology.devices)
    if len(devices) != target.chips:
        raise UserError(f"{target.name} has {len(devices)} devices in {target.topology}, not {target.chips}")
    return devices


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
