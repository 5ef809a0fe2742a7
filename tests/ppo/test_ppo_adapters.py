"""PPO of adapters beside a frozen model: the same loss as of the merged models, and nothing else changes."""

import dataclasses

import bandit
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import LoRAConfig, join, merge
from mlagent_jax.models.qwen2 import init_adapters, init_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.ppo import step
from mlagent_jax.ppo.batch import make_batch
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.rollout import ActionSample, Rollout
from mlagent_jax.ppo.step import Learners
from mlagent_jax.sft.loop import load_params

PLAIN = Qwen2Config(30, 16, 24, 1, 2, 1, initializer_range=0.3)
MODEL = PLAIN.replace(lora=LoRAConfig(rank=2, alpha=4.0))
CONFIG = PPOConfig(
    batch_size=4, minibatch_size=4, row_length=24, micro_rows=2, kl_in="loss", kl_coefficient=0.1
)


def noise(tree, seed, size=0.3):
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(
        structure, [leaf + np.float32(size) * rng.normal(size=leaf.shape).astype("f") for leaf in leaves]
    )


@pytest.mark.parametrize("critic", ["separate", "shared"])
def test_loss_and_gradient_are_those_of_the_merged_models(critic):
    config = dataclasses.replace(CONFIG, critic=critic)
    base = init_params(PLAIN, 0)
    actor = noise(init_adapters(MODEL, 1), 2)
    params = Learners(actor, noise(step.init_critic(config, MODEL, actor), 3))

    def whole(p):
        critic = dict(p.critic)
        if "trunk" in critic:
            critic["trunk"] = merge(MODEL.lora, join(critic["trunk"], base))
        return Learners(merge(MODEL.lora, join(p.actor, base)), critic)

    rng = np.random.default_rng(0)
    samples = [
        Rollout(rng.integers(0, 30, 6).astype(np.int32), (ActionSample((3, 6), (-1.0,) * 3, r, "", False),))
        for r in (0.5, -0.2, 0.1, 0.9)
    ]
    rows = {name: jnp.asarray(array) for name, array in make_batch(config, samples, 0).arrays.items()}
    measured = jax.jit(lambda p: step.measure(config, MODEL, p, base, rows))(params)
    expected = jax.jit(lambda p: step.measure(config, PLAIN, whole(p), base, rows))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), measured, expected)

    after = noise(params, 4, 0.05)

    @jax.jit
    @jax.value_and_grad
    def adapted(p):
        return step.loss(config, MODEL, p, base, rows | measured)[0]

    @jax.jit
    @jax.value_and_grad
    def merged(p):
        return step.loss(config, PLAIN, whole(p), {}, rows | measured)[0]

    (ours, gradient), (theirs, slope) = adapted(after), merged(after)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-3), gradient, slope)


def test_training_changes_what_has_adapters_alone_and_resumes(tmp_path):
    lora = LoRAConfig(rank=2, targets=("q_proj", "down_proj"))
    run = lambda name, updates: bandit.run(  # noqa: E731
        tmp_path / name, lora=lora, updates=updates, critic="separate", kl_coefficient=0.01
    )
    straight = run("straight", 2)
    run("halves", 1)
    jax.tree.map(np.testing.assert_array_equal, run("halves", 2), straight)
    read = load_params(tmp_path / "halves", bandit.MODEL, make_mesh(MeshConfig()))
    jax.tree.map(np.testing.assert_array_equal, read, straight)  # a whole model, as later stages read it

    start = init_params(bandit.MODEL, 0)
    changed = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), straight, start)
    paths = [path for path, yes in jax.tree_util.tree_leaves_with_path(changed) if yes]
    assert {path[-2].key for path in paths} == {"q_proj", "down_proj"}
