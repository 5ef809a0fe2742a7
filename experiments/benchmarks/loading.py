"""Host memory that loading a checkpoint takes beside the parameters themselves.

    python -m experiments.benchmarks.loading

Writes checkpoints of Qwen2.5-0.5B's shapes with random weights to a temporary folder, loads each in a process of
its own onto the CPU, where the parameters lie in host memory too, and takes the high-water mark of that
process's resident memory (files that it mapped are part of it). Bar: at most 20% above the parameters.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from experiments.cli.program import run_program
from mlagent_jax.models.config import Qwen2Config, qwen2_5
from mlagent_jax.models.hf.names import hf_tensors
from mlagent_jax.models.hf.save import write_description
from mlagent_jax.models.hf.shards import TensorSpec, plan_shards, write_index, write_shard

CHECKPOINT = flags.DEFINE_string("checkpoint", "", "A folder to load instead of one with random weights.")
DEVICES = flags.DEFINE_integer("devices", 1, "CPU devices that the parameters are split over.", lower_bound=1)

BAR = 0.20
CASES = (("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "float32"))  # stored as, loaded as

# What the child does. The mark is Linux's VmHWM: getrusage's would count what this parent once held.
_CHILD = """
import json, sys, time
import jax

from mlagent_jax.models.hf import load_hf
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
def memory(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024
mesh = make_mesh(MeshConfig())
jax.block_until_ready(jax.jit(lambda: jax.numpy.zeros(8))())
before, begun = memory("VmRSS"), time.perf_counter()
config, params = load_hf(sys.argv[1], mesh, param_dtype=sys.argv[2])
jax.block_until_ready(params)
size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
print(json.dumps({"before": before, "peak": memory("VmHWM"), "params": size, "seconds": time.perf_counter() - begun}))
"""


def main(argv: Sequence[str]) -> None:
    del argv
    print(f"{DEVICES.value} CPU devices, load average {os.getloadavg()[0]:.1f}")
    print(f"{'stored as':<12}{'loaded as':<12}{'params GB':>10}{'peak GB':>10}{'above':>9}{'seconds':>9}")
    above = []
    for stored, loaded in CASES if not CHECKPOINT.value else [("as it is", dtype) for _, dtype in CASES[:2]]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = CHECKPOINT.value or temporary
            if not CHECKPOINT.value:
                write_random(Path(folder), qwen2_5("0.5b", param_dtype=stored))
            measured = _measure(folder, loaded)
        grown = measured["peak"] - measured["before"]
        above.append(grown / measured["params"] - 1)
        print(
            f"{stored:<12}{loaded:<12}{measured['params'] / 1e9:>10.2f}{grown / 1e9:>10.2f}{above[-1]:>9.1%}"
            f"{measured['seconds']:>9.1f}",
            flush=True,
        )
    print(f"bar: at most {BAR:.0%} above the parameters: {'met' if max(above) <= BAR else 'MISSED'}")


def write_random(folder: Path, config: Qwen2Config) -> None:
    """A checkpoint of the config's shapes, in its param_dtype, one tensor in memory at a time."""
    rng = np.random.default_rng(0)
    specs = [TensorSpec(tensor.name, tensor.shape, config.param_dtype) for tensor in hf_tensors(config)]

    def tensors(specs: Sequence[TensorSpec]) -> Iterator[np.ndarray]:
        for spec in specs:
            yield rng.standard_normal(spec.shape, np.float32).astype(spec.dtype)

    shards = plan_shards(specs, 10**9)
    for name, shard in shards.items():
        write_shard(folder / name, shard, tensors(shard))
    write_index(folder, shards)
    write_description(folder, config, None)


def _measure(folder: str, dtype: str) -> dict[str, float]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(DEVICES.value)}
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, folder, dtype], env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"loading failed after {time.perf_counter() - begun:.0f} s:\n{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    run_program(main)
