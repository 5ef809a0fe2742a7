"""The smallest task that PPO can learn: after the prompt "1 c", say c + 1. Partial credit makes rewards fractions.

As a program, it trains in the given folder and kills itself with SIGKILL once update KILL_AT is logged.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from mlagent_jax.agent.model_policy import ModelPolicy
from mlagent_jax.agent.prompt import PromptFormat
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.loop import train
from mlagent_jax.ppo.rollout import ActionSample, Rollout, RolloutBatch
from mlagent_jax.tracking.tracker import Tracker
from mlagent_jax.training.optimisers import OptimiserConfig

V, STOP = 10, 0
MODEL = Qwen2Config(V, 16, 32, 1, 2, 1, tie_word_embeddings=True, initializer_range=0.1)
ENGINE = EngineConfig(slots=16, max_length=4, page_size=2, prefill_chunks=(2,), block_kv=2, decode_steps=2)
CONFIG = PPOConfig(
    updates=30,
    batch_size=64,
    minibatch_size=32,
    epochs=2,
    row_length=32,
    micro_rows=4,
    kl_coefficient=0.0,
    critic="shared",
    actor_optimiser=OptimiserConfig(learning_rate=1e-2),
    critic_optimiser=OptimiserConfig(learning_rate=1e-1),
)


class BanditCollector:
    def __init__(self, samples=1):
        self.samples = samples

    def collect(self, policy, count, seed, update):
        rng = np.random.default_rng([seed, update])
        prompts = [
            [1, int(c)] for c in rng.integers(2, V - 1, count // self.samples) for _ in range(self.samples)
        ]
        seeds = rng.integers(0, 2**32, count).tolist()
        answers = policy.engine.generate(prompts, seeds, 2, (STOP,), policy.sampling)
        rollouts, records = [], []
        for prompt, answer in zip(prompts, answers, strict=True):
            said = answer.tokens[0]
            reward = 0.9 if said == prompt[1] + 1 else 0.3 if said > 1 else 0.0
            tokens = np.array([*prompt, *answer.tokens], np.int32)
            action = ActionSample((2, len(tokens)), answer.logprobs, reward, "success", not answer.stopped)
            rollouts.append(Rollout(tokens, (action,), len(rollouts) // self.samples))
            records.append(
                {"task": "toy", "prompt": prompt, "response": list(answer.tokens), "reward": reward}
            )
        return RolloutBatch(rollouts, records, {"gen": 0.0, "env": 0.0})


def make_policy(mesh, model=MODEL):
    return ModelPolicy("toy", Engine(model, ENGINE, mesh), None, PromptFormat(), max_new_tokens=2)


def run(folder, lora=None, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    mesh = make_mesh(MeshConfig())
    model = MODEL.replace(lora=lora)
    policy = make_policy(mesh, model)
    return train(
        config, model, init_params(MODEL, 0), BanditCollector(config.samples_per_state), policy, folder, mesh
    )


def main():
    folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
    log_scalars = Tracker.log_scalars

    def log_or_die(self, step, values):
        log_scalars(self, step, values)
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    Tracker.log_scalars = log_or_die
    params = run(folder, updates=4, critic="separate", kl_coefficient=0.01)
    np.savez(folder / "params.npz", *jax.tree.leaves(params))


if __name__ == "__main__":
    main()
