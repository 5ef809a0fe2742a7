"""Greedy answers and log-probs on different meshes of four devices. JAX_NUM_CPU_DEVICES=4

Prints one JSON object: for each mesh the tokens, their log-probs and the largest share of the model on one device.
"""

import json

import jax
import numpy as np

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.request import Request
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import LoRAConfig
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, put

MODEL = Qwen2Config(96, 32, 48, 2, 8, 4, initializer_range=0.3)
ADAPTED = MODEL.replace(lora=LoRAConfig(rank=2, targets=("q_proj", "v_proj", "o_proj", "up_proj")))
CONFIG = EngineConfig(
    slots=6, max_length=128, page_size=16, prefill_chunks=(32,), block_kv=16, decode_steps=4
)
LAYOUTS = {
    "one": (MODEL, None),
    "fsdp x tensor": (MODEL, MeshConfig(fsdp=2, tensor=2)),
    "data x sequence": (MODEL, MeshConfig(data=2, fsdp=1, sequence=2)),
    "adapters on one": (ADAPTED, None),
    "adapters on fsdp x tensor": (ADAPTED, MeshConfig(fsdp=2, tensor=2)),
}


def given(model: Qwen2Config) -> Params:
    """With noise: new biases and adapters are zero and norms one, and their order would not matter."""
    rng = np.random.default_rng(1)
    start = jax.jit(lambda: init_params(model, 0))()
    return jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(rng.normal(0, 0.1, leaf.shape)), start)


def main() -> None:
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(0, 96, n).tolist()) for n in (3, 70, 33, 16, 100, 64, 20, 90, 45)]
    results = {}
    for name, (model, degrees) in LAYOUTS.items():
        mesh = make_mesh(degrees) if degrees else make_mesh(MeshConfig(), jax.devices()[:1])
        params = put(given(model), param_shardings(model, mesh))
        engine = Engine(model, CONFIG, mesh)
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
