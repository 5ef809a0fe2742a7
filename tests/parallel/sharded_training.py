"""The same SFT steps on different meshes of four devices, and from a checkpoint of one mesh on another.

JAX_NUM_CPU_DEVICES=4 sharded_training.py FOLDER; prints one JSON object.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, to_local
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.loop import train
from mlagent_jax.text.chat import Encoded
from mlagent_jax.training.optimisers import OptimiserConfig

MODEL = Qwen2Config(32, 16, 24, 2, 4, 2, initializer_range=0.3)
# A large eps, since Adam would turn rounding errors of near-zero gradients into full steps.
CONFIG = SFTConfig(
    row_length=16,
    batch_rows=8,
    micro_rows=4,
    steps=4,
    checkpoint_every=2,
    eval_fraction=0.0,
    optimiser=OptimiserConfig(learning_rate=1e-2, eps=1e-2),
)
MESHES = {
    "one": None,
    "data": MeshConfig(data=4, fsdp=1),
    "fsdp": MeshConfig(fsdp=4),
    "fsdp x tensor": MeshConfig(fsdp=2, tensor=2),
    "data x tensor": MeshConfig(data=2, fsdp=1, tensor=2),
    "sequence": MeshConfig(fsdp=2, sequence=2),
}


def mesh_of(config):
    return make_mesh(MeshConfig(), jax.devices()[:1]) if config is None else make_mesh(config)


def main() -> None:
    folder = Path(sys.argv[1])
    rng = np.random.default_rng(0)
    sequences = [
        Encoded(rng.integers(0, 32, n).astype(np.int32), np.arange(n) >= 3, ((3, int(n)),))
        for n in rng.integers(5, 12, 20)
    ]
    trained = {}
    for name, layout in MESHES.items():
        mesh = mesh_of(layout)
        params = train(CONFIG, MODEL, init_params(MODEL, 0), sequences, folder / name, mesh)
        trained[name] = [np.asarray(leaf) for leaf in jax.tree.leaves(to_local(params, mesh))]
    # Two steps on four devices, then two more on one device.
    moved = folder / "moved"
    half = dataclasses.replace(CONFIG, steps=2)
    train(half, MODEL, init_params(MODEL, 0), sequences, moved, mesh_of(MESHES["fsdp x tensor"]))
    params = train(CONFIG, MODEL, init_params(MODEL, 0), sequences, moved, mesh_of(None))
    trained["moved"] = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    reference = trained.pop("one")
    differences = {
        name: max(float(np.abs(a - b).max()) for a, b in zip(leaves, reference, strict=True))
        for name, leaves in trained.items()
    }
    print(json.dumps(differences))


if __name__ == "__main__":
    main()
