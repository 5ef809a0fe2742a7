"""The accelerators that can be planned for: their numbers, with sources."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One accelerator.

    flops: dense bf16 peak, FLOP/s. memory: bytes that a program can use. memory_bandwidth: of the HBM, bytes/s.
    link_bandwidth: bytes/s that one chip receives from its neighbours in a ring collective, both directions of the
        ring together. network_bandwidth: bytes/s that a chip receives from other hosts; 0 where the links span hosts.
    description: XLA's name of the device. compute_capability: of NVIDIA's chips, 0 for TPUs. cores: streaming
        multiprocessors. core_memory: bytes of shared memory of one of them.
    """

    flops: float
    memory: int
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float
    source: str
    description: str = ""
    compute_capability: int = 0
    cores: int = 0
    core_memory: int = 0


_TPU = (
    "How to Scale Your Model (jax-ml.github.io/scaling-book), chapter 2: bf16 FLOP/s, HBM bandwidth, twice the one-way "
    "bandwidth of one ICI link; memory: what libtpu's compiler says is available"
)
_NVIDIA = (
    "NVIDIA's data sheet: dense bf16, NVLink one way, one 400 Gb/s (A100: 200 Gb/s) network port a GPU; memory and its "
    "bandwidth: XLA's target_config/specs"
)

CHIPS = {
    "v5e": Chip(1.97e14, int(15.75 * GIB), 8.1e11, 9e10, 0.0, _TPU),
    "v5p": Chip(4.59e14, int(95.73 * GIB), 2.8e12, 1.8e11, 0.0, _TPU),
    "v6e": Chip(9.20e14, int(31.24 * GIB), 1.6e12, 1.8e11, 0.0, _TPU),
    "a100": Chip(
        3.12e14, 85_100_068_864, 2.03904e12, 3e11, 2.5e10, _NVIDIA, "NVIDIA A100-SXM4-80GB", 8, 108, 167_936
    ),
    "h100": Chip(
        9.89e14, 84_942_979_072, 3.35232e12, 4.5e11, 5e10, _NVIDIA, "NVIDIA H100 80GB HBM3", 9, 132, 233_472
    ),
    "h200": Chip(
        9.89e14, 151_397_597_184, 4.8e12, 4.5e11, 5e10, _NVIDIA, "NVIDIA H200 141GB HBM3e", 9, 132, 233_472
    ),
}


def gpu_target_config(chip: Chip) -> str:
    """XLA's GpuTargetConfig as a text proto, with which it compiles for a GPU that is not present."""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {chip.core_memory}
  shared_memory_per_block_optin: {chip.core_memory - 1024}
  threads_per_core_limit: 2048
  core_count: {chip.cores}
  fpus_per_core: {128 if chip.compute_capability >= 9 else 64}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {int(chip.memory_bandwidth)}
  l2_cache_size: {52_428_800 if chip.compute_capability >= 9 else 41_943_040}
  clock_rate_ghz: {1.98 if chip.compute_capability >= 9 else 1.41}
  device_memory_size: {chip.memory}
  cuda_compute_capability {{ major: {chip.compute_capability} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 8 patch: 0 }}
device_description_str: "{chip.description}"
"""
