"""Decoding at Qwen2.5-7B's shapes on one GPU, against the memory's own speed, which is measured first.

    python -m experiments.benchmarks.decoding_7b                 # H100 or H200, about 6 minutes
    python -m experiments.benchmarks.decoding_7b --tiny          # any machine, seconds: shows that it runs

Fresh weights and cache in bf16. A step must read all weights but the embedding, and the keys and values of every
row's context; the roofline is these bytes over the bandwidth of copying an array (bytes read and written). Every row
has `--context` tokens before it, which are not read but taken as they lie: their values cost the same.
Goals: 75% at batch 1, 65% at 32 and 128.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence

from absl import flags

os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")

import jax
import jax.numpy as jnp
import numpy as np

from experiments.cli.program import run_program
from mlagent_jax.generate.batches import DecodeBatch, empty_decode_batch
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.programs import compile_programs
from mlagent_jax.models.config import Qwen2Config, qwen2_5
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.planner.traffic import cache_bytes

CONTEXT = flags.DEFINE_integer("context", 4096, "Tokens before the first one that is decoded.")
BATCHES = flags.DEFINE_multi_integer("batches", [1, 32, 128], "Rows decoded at once.")
STEPS = flags.DEFINE_integer("steps", 32, "Steps in one call.", lower_bound=1)
BLOCK_KV = flags.DEFINE_integer("block_kv", 512, "Keys that attention takes at a time.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Timed calls, after two to compile and warm up.", lower_bound=1)
TINY = flags.DEFINE_bool("tiny", False, "A toy model, to see that the script runs.")
GOALS = {1: 0.75, 32: 0.65, 128: 0.65}


def main(argv: Sequence[str]) -> None:
    del argv
    device, model = jax.devices()[0], _model()
    bandwidth = _copy_bandwidth()
    print(f"{device.device_kind}, jax {jax.__version__}, load average {os.getloadavg()[0]:.1f}")
    print(f"copying: {bandwidth / 1e9:,.0f} GB/s; medians of {REPEATS.value} calls of {STEPS.value} steps")
    mesh = make_mesh(MeshConfig(), [device])
    weights = jax.jit(lambda: _load(model, mesh))()
    read = sum(leaf.nbytes for leaf in jax.tree.leaves(weights)) - (
        0 if model.tie_word_embeddings else weights["embed"].nbytes
    )
    for batch in BATCHES.value:
        seconds = _seconds_per_step(model, weights, batch, mesh)
        context = _context() + STEPS.value / 2
        roofline = (read + batch * cache_bytes(model, context)) / bandwidth
        median = statistics.median(seconds)
        share = roofline / median
        print(
            f"batch {batch:>4}: {median * 1e3:8.2f} ms a step "
            f"({min(seconds) * 1e3:.2f} to {max(seconds) * 1e3:.2f}), "
            f"{batch / median:>9,.0f} tokens/s, {share:.0%} of the roofline {_verdict(batch, share)}",
            flush=True,
        )


def _model() -> Qwen2Config:
    if TINY.value:
        return Qwen2Config(256, 64, 128, 2, 4, 2, dtype="bfloat16", param_dtype="bfloat16")
    return qwen2_5("7b", dtype="bfloat16", param_dtype="bfloat16")


def _context() -> int:
    return 64 if TINY.value else CONTEXT.value


def _load(model: Qwen2Config, mesh: jax.sharding.Mesh) -> Params:
    small = EngineConfig(slots=1, max_length=128)
    return compile_programs(model, small, mesh).load(init_params(model, 0))


def _copy_bandwidth() -> float:
    """Bytes read and written a second, of a copy much larger than any cache."""
    x = jnp.zeros((2**20 if TINY.value else 2**31) // 2, jnp.bfloat16)
    add = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / statistics.median(_timed(lambda: add(x).block_until_ready()))


def _timed(run: Callable[[], object]) -> list[float]:
    """`run` must return only when its work is done."""
    run(), run()
    seconds = []
    for _ in range(REPEATS.value):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return seconds


def _seconds_per_step(
    model: Qwen2Config, weights: Params, batch: int, mesh: jax.sharding.Mesh
) -> list[float]:
    config = EngineConfig(
        slots=batch,
        max_length=_context() + STEPS.value,
        page_size=64,
        block_kv=64 if TINY.value else BLOCK_KV.value,
        decode_steps=STEPS.value,
    )
    programs = compile_programs(model, config, mesh)
    cache = programs.reset()
    full = _full(config, batch)

    def run() -> None:
        nonlocal cache
        cache, output = programs.decode(weights, cache, full)
        assert (np.asarray(output.counts) == STEPS.value).all()

    return [seconds / STEPS.value for seconds in _timed(run)]


def _full(config: EngineConfig, slots: int) -> DecodeBatch[np.ndarray]:
    """Every slot at the same context, with pages of its own and no stop."""
    pages = config.pages_for(config.max_length)
    batch = empty_decode_batch(config, slots)
    batch.page_tables[:, :pages] = 1 + np.arange(slots * pages).reshape(slots, pages)
    batch.length[:] = _context()
    batch.remaining[:] = STEPS.value
    batch.sampling.temperature[:] = 1.0
    return batch


def _verdict(batch: int, share: float) -> str:
    goal = GOALS.get(batch)
    if TINY.value or goal is None:
        return "(not judged)"
    return f"(goal {goal:.0%}: {'met' if share >= goal else 'MISSED'})"


if __name__ == "__main__":
    run_program(main)
