"""Compiling the SFT step of a deep model beside that of a shallow one, in one run: depth must not matter.

    python -m experiments.benchmarks.compile_time

Layers are stacked and scanned, so XLA sees one of them whatever their number. Shapes are small, since only the number
of operations costs compile time. Bar: 28 layers within 1.3 times of 4.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from absl import flags

from experiments.cli.program import run_program
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import abstract_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, param_shardings
from mlagent_jax.sft.step import compile_train_step
from mlagent_jax.training.optimisers import OptimiserConfig, make_optimiser
from mlagent_jax.training.state import TrainState, state_shardings

REPEATS = flags.DEFINE_integer("repeats", 5, "Compilations of each; they take turns.", lower_bound=1)
SHALLOW, DEEP, BAR = 4, 28, 1.3
ROWS, LENGTH = 2, 512


def main(argv: Sequence[str]) -> None:
    del argv
    jax.config.update("jax_enable_compilation_cache", False)
    compile_seconds(1)  # what only the first compilation of a process costs
    seconds: dict[int, list[float]] = {SHALLOW: [], DEEP: []}
    for _ in range(REPEATS.value):
        for layers, taken in seconds.items():
            taken.append(compile_seconds(layers))
    shallow, deep = (statistics.median(seconds[layers]) for layers in (SHALLOW, DEEP))
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, load average {os.getloadavg()[0]:.1f}")
    print(f"median of {REPEATS.value}: {SHALLOW} layers {shallow:.2f} s, {DEEP} layers {deep:.2f} s")
    ratio = deep / shallow
    print(f"ratio {ratio:.2f}, bar {BAR}: {'met' if ratio <= BAR else 'MISSED'}")


def compile_seconds(layers: int) -> float:
    """Tracing, lowering and compiling; nothing is kept from one call to the next."""
    jax.clear_caches()
    config = Qwen2Config(1024, 64, 128, layers, 8, 2, remat="full")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params, shardings = abstract_params(config), param_shardings(config, mesh)
    optimiser = make_optimiser(OptimiserConfig(), 100)
    state = jax.eval_shape(lambda p: TrainState(p, optimiser.init(p), jnp.int32(0)), params)
    batch = {
        name: jax.ShapeDtypeStruct((1, ROWS, LENGTH), jnp.int32)
        for name in ("tokens", "targets", "positions", "segment_ids")
    } | {"action": jax.ShapeDtypeStruct((1, ROWS, LENGTH), jnp.bool_)}
    step = compile_train_step(config, optimiser, state_shardings(params, shardings, optimiser, mesh))
    start = time.perf_counter()
    step.lower(state, batch).compile()
    return time.perf_counter() - start


if __name__ == "__main__":
    run_program(main)
