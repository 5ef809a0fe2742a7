"""Compiles an SFT step with FSDP on eight devices and prints facts about it as JSON. JAX_NUM_CPU_DEVICES=8

collectives: [operation, shape, whether it is in a loop] of each. shapes: of all arrays.
"""

import json
import re

import jax
import jax.numpy as jnp

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import abstract_params
from mlagent_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh, param_shardings
from mlagent_jax.sft.step import compile_train_step
from mlagent_jax.training.optimisers import OptimiserConfig, make_optimiser
from mlagent_jax.training.state import TrainState, state_shardings

# All sizes differ, so that a shape identifies an array.
B, T, D, F, V = 8, 40, 32, 96, 520
MODEL = Qwen2Config(V, D, F, 3, 4, 2, logits_chunk=10, remat="full")
COLLECTIVE = r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("


def main() -> None:
    mesh = make_mesh(MeshConfig())
    optimiser, shardings = make_optimiser(OptimiserConfig(), 10), param_shardings(MODEL, mesh)
    params = abstract_params(MODEL)
    layout = state_shardings(params, shardings, optimiser, mesh)
    state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(lambda p: TrainState(p, optimiser.init(p), jnp.int32(0)), params),
        layout,
    )
    rows = jax.ShapeDtypeStruct((1, B, T), jnp.int32, sharding=batch_sharding(mesh, leading=1))
    batch = dict.fromkeys(("tokens", "targets", "positions", "segment_ids", "action"), rows)
    program = compile_train_step(MODEL, optimiser, layout).lower(state, batch).compile().as_text()
    collectives, in_loop = [], False
    for line in program.splitlines():
        if line and not line.startswith(" "):
            in_loop = not line.startswith("ENTRY")
        if found := re.search(COLLECTIVE, line):
            collectives += [[found[2], shape, in_loop] for shape in shapes_in(found[1])]
    print(json.dumps({"collectives": collectives, "shapes": shapes_in(program)}))


def shapes_in(text):
    """[[2, 3]] for "f32[2,3]"; with repetitions."""
    return [[int(n) for n in inside.split(",")] for inside in re.findall(r"\w\[([\d,]+)\]", text)]


if __name__ == "__main__":
    main()
