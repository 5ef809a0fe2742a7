"""In bfloat16, sampler and trainer give the same log-probs, with adapters too; and the bounds can fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapters import merged

from mlagent_jax.generate import decode, programs
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.sampling import SamplingParams, sample
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import LoRAConfig, join
from mlagent_jax.models.qwen2 import init_adapters, init_params
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, put
from mlagent_jax.ppo.batch import make_batch
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.rollout import ActionSample, Rollout
from mlagent_jax.ppo.update import Updater

PLAIN = Qwen2Config(
    256, 64, 128, 3, 4, 2, initializer_range=0.15, query_chunk=64, dtype="bfloat16", param_dtype="bfloat16"
)
ADAPTED = PLAIN.replace(lora=LoRAConfig(rank=4, alpha=8.0))
ENGINE = EngineConfig(
    slots=4, max_length=128, page_size=16, prefill_chunks=(128,), block_kv=128, decode_steps=16
)
PPO = PPOConfig(batch_size=4, minibatch_size=4, row_length=128, micro_rows=4, critic="none")

# Where all bits are equal before the head, differences are at most 1e-6. A sum in another order may flip a bit of
# bfloat16, and with it later ones; the bound allows this.
MEAN = 0.003


@pytest.fixture(scope="module")
def base():
    """With biases that are not zero, and logits as large as those of trained models."""
    params = jax.jit(lambda: init_params(PLAIN, 0))()
    params["lm_head"] *= 6
    for name in ("q_proj", "k_proj", "v_proj"):
        bias = params["layers"]["attention"][name]["bias"]
        bias += 0.5 * jnp.sin(jnp.arange(bias.size)).reshape(bias.shape)
        params["layers"]["attention"][name]["bias"] = bias
    return jax.tree.map(lambda leaf: leaf.astype("bfloat16"), params)


@pytest.fixture(scope="module")
def adapted(base):
    """As after a few small steps: B is 40 times a learning rate of 2e-5."""
    rng = np.random.default_rng(1)
    start = init_adapters(ADAPTED, 0)
    moved = jax.tree.map(
        lambda x: x if np.any(x) else np.float32(8e-4) * np.sign(rng.normal(size=x.shape)).astype("f"), start
    )
    return join(moved, base)


@pytest.fixture
def recompiled():
    programs.compile_programs.cache_clear()
    yield
    programs.compile_programs.cache_clear()


def differences(trained, params, sampled=None, weights=None):
    """|sampler's - trainer's| log-prob of each sampled token, as in PPO."""
    mesh = make_mesh(MeshConfig())
    engine = Engine(sampled or trained, ENGINE, mesh)
    engine.load(params if weights is None else weights)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 256, n).tolist() for n in (20, 30, 40, 33)]
    answers = engine.generate(prompts, range(4), 80, (), SamplingParams(1.0))
    rollouts = [
        Rollout(
            np.array([*prompt, *answer.tokens], np.int32),
            (ActionSample((len(prompt), len(prompt) + 80), answer.logprobs, 1.0, "", False),),
        )
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    batch = make_batch(PPO, rollouts, 0)
    updater = Updater(PPO, trained, put(params, param_shardings(trained, mesh)), mesh)
    experience = updater.compute_experience(updater.initial_states(), batch)
    mask = batch.arrays["mask"]
    return np.abs(experience["old_logprobs"] - batch.arrays["sampler_logprobs"])[mask]


def test_log_probs_of_sampler_and_trainer(base):
    assert differences(PLAIN, base).mean() < MEAN


# The tests of the bound are slow: a fault in sampler or trainer fails the test of log-probs above or below.
@pytest.mark.slow
@pytest.mark.usefixtures("recompiled")
def test_the_bound_is_below_logits_in_bfloat16(base, monkeypatch):
    rounded = lambda logits, *rest: sample(jax.lax.reduce_precision(logits, 8, 7), *rest)  # noqa: E731
    monkeypatch.setattr(decode, "sample", rounded)
    assert differences(PLAIN, base).mean() > 2 * MEAN


@pytest.mark.slow
@pytest.mark.usefixtures("recompiled")
def test_the_bound_is_below_programs_with_excess_precision(base, monkeypatch):
    monkeypatch.setattr(programs, "AS_WRITTEN", {})
    assert differences(PLAIN, base).mean() > 2 * MEAN


def test_log_probs_with_adapters(adapted):
    assert differences(ADAPTED, adapted).mean() < MEAN


@pytest.mark.slow
def test_the_bound_is_below_adapters_merged_into_bfloat16(adapted):
    """Merging loses most of their change."""
    kernels = merged(ADAPTED.lora, adapted)
    same = jax.tree.map(
        lambda new, old: jnp.mean(new == old), kernels["layers"]["mlp"], _kernels(adapted["layers"]["mlp"])
    )
    assert all(share["kernel"] > 0.5 for share in same.values())
    assert differences(ADAPTED, adapted, PLAIN, kernels).mean() > 2 * MEAN


def _kernels(layers):
    return {name: {"kernel": part["kernel"]} for name, part in layers.items()}
