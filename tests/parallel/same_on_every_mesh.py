"""Loss and gradients of one batch on different meshes of eight devices. JAX_NUM_CPU_DEVICES=8

Prints one JSON object: for each mesh, the largest difference from the result on one device.
"""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import forward, init_params, unembedding
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.models.value_head import init_value_head, value_head_axes, values
from mlagent_jax.nn.losses import cross_entropy, token_logprobs
from mlagent_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh, put, replicated
from mlagent_jax.parallel.rules import spec

MODEL = Qwen2Config(48, 32, 48, 2, 8, 4, initializer_range=0.3, logits_chunk=6, query_chunk=8)
TIED = MODEL.replace(attention="xla", tie_word_embeddings=True, remat="full")
LAYOUTS = {
    "4x2": (MODEL, MeshConfig(fsdp=4, tensor=2)),
    "unused ids": (MODEL.replace(unused_ids=((40, 41), (43, 48))), MeshConfig(fsdp=2, tensor=4)),
    "sequence": (MODEL, MeshConfig(data=2, fsdp=1, sequence=4)),
    # The heads are split into eight parts, but there are four KV heads.
    "tied": (TIED, MeshConfig(fsdp=1, tensor=4, sequence=2)),
}


def batch(rows=8, length=16):
    rng = np.random.default_rng(0)
    segments = np.zeros((rows, length), np.int32)
    positions = np.zeros((rows, length), np.int32)
    for row in range(rows):
        cut, end = 3 + row, 16 - row % 3
        segments[row, :cut], segments[row, cut:end] = 1, 2
        positions[row, :cut], positions[row, cut:end] = np.arange(cut), np.arange(end - cut)
    return {
        "tokens": rng.integers(0, 48, (rows, length)).astype(np.int32),
        "targets": rng.integers(0, 40, (rows, length)).astype(np.int32),
        "segment_ids": segments,
        "positions": positions,
        "weights": (segments > 0) * rng.random((rows, length)).astype(np.float32),
    }


def loss(model, params, rows, mesh):
    """Everything that is differentiated in training: cross-entropy, log-probs, entropies and values."""
    trunk = params["trunk"]
    hidden = forward(model, trunk, rows["tokens"], rows["positions"], rows["segment_ids"], mesh)
    unembed = unembedding(model, trunk)
    given = model.logits_chunk, mesh, model.unused_ids
    total, count = cross_entropy(hidden, unembed, rows["targets"], rows["weights"], *given)
    logprobs, entropy = token_logprobs(hidden, unembed, rows["targets"], 0.7, *given)
    predicted = values(params["head"], hidden)
    return total / count + jnp.mean(rows["weights"] * (logprobs + 0.1 * entropy + predicted**2))


def value_and_grad(model, mesh=None):
    return jax.value_and_grad(lambda params, rows: loss(model, params, rows, mesh))


@partial(jax.jit, static_argnums=0)
def initial(model):
    head = init_value_head(model)
    return {"trunk": init_params(model, 0), "head": head | {"kernel": head["kernel"] + 0.1}}


def main() -> None:
    rows, expected, differences = batch(), {}, {}
    for name, (model, degrees) in LAYOUTS.items():
        params = initial(model)
        if model not in expected:
            expected[model] = jax.jit(value_and_grad(model))(params, rows)
        mesh = make_mesh(degrees)
        head = {part: NamedSharding(mesh, spec(axes)) for part, axes in value_head_axes().items()}
        shardings = {"trunk": param_shardings(model, mesh), "head": head}
        step = jax.jit(value_and_grad(model, mesh), out_shardings=(replicated(mesh), shardings))
        found = step(put(params, shardings), put(rows, batch_sharding(mesh)))
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected[model]), strict=True)
        differences[name] = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)
    print(json.dumps(differences))


if __name__ == "__main__":
    main()
