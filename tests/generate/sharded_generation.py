"""Greedy answers and log-probs on differently laid out meshes of four devices. JAX_NUM_CPU_DEVICES=4

Prints one JSON object: for each layout the tokens, their log-probs and how much of the model one device holds at most.
"""

import json

import jax
import numpy as np

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.request import Request
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, param_shardings, put

MODEL = Qwen2Config(96, 32, 48, 2, 8, 4, initializer_range=0.3)
CONFIG = EngineConfig(slots=6, max_length=128, page=16, chunks=(32,), span=16, steps=4)
LAYOUTS = {
    "one": None,
    "fsdp": MeshConfig(fsdp=4),
    "fsdp x tensor": MeshConfig(fsdp=2, tensor=2),
    "data x sequence": MeshConfig(data=2, fsdp=1, sequence=2),
}


def main() -> None:
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(0, 96, n).tolist()) for n in (3, 70, 33, 16, 100, 64, 20, 90, 45)]
    # Fresh biases are zero and norms one, which would be the same in any order.
    given = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape), init_params(MODEL, 0))
    results = {}
    for name, degrees in LAYOUTS.items():
        mesh = make_mesh(degrees) if degrees else make_mesh(MeshConfig(), jax.devices()[:1])
        params = put(given, param_shardings(MODEL, mesh))
        engine = Engine(MODEL, CONFIG, mesh)
        engine.load(params)
        weights = jax.tree.leaves(engine._runner._weights)
        shares = sum(leaf.addressable_shards[0].data.nbytes for leaf in weights)
        answers = engine.generate(prompts, range(len(prompts)), 20, (1,), SamplingParams(0.0))
        many = engine.submit(Request(prompts[4], (0, 1, 2), 20, (1,), SamplingParams(0.0)))
        while not engine.idle:
            engine.step()
        assert all(sample.generation.tokens == answers[4].tokens for sample in many)
        results[name] = {
            "tokens": [answer.tokens for answer in answers],
            "logprobs": [logprob for answer in answers for logprob in answer.logprobs],
            "share": shares / sum(leaf.nbytes for leaf in weights),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
