"""PPO with adapters beside a frozen model: the same loss as with merged models, and only adapters change."""

import dataclasses

import bandit
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapters import merged

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import LoRAConfig, join, partition
from mlagent_jax.models.qwen2 import init_adapters, init_params
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, put
from mlagent_jax.ppo import step
from mlagent_jax.ppo.actor_critic import ActorCritic
from mlagent_jax.ppo.batch import make_batch
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.rollout import ActionSample, Rollout
from mlagent_jax.ppo.update import Updater
from mlagent_jax.training.stage_checkpoints import load_params

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
    params = ActorCritic(actor, noise(step.init_critic(config, MODEL, actor), 3))

    def whole(p):
        critic = dict(p.critic)
        if "trunk" in critic:
            critic["trunk"] = merged(MODEL.lora, join(critic["trunk"], base))
        return ActorCritic(merged(MODEL.lora, join(p.actor, base)), critic)

    rng = np.random.default_rng(0)
    samples = [
        Rollout(rng.integers(0, 30, 6).astype(np.int32), (ActionSample((3, 6), (-1.0,) * 3, r, "", False),))
        for r in (0.5, -0.2, 0.1, 0.9)
    ]
    rows = {name: jnp.asarray(array) for name, array in make_batch(config, samples, 0).arrays.items()}
    reference = join(noise(actor, 5), base)  # the SFT model, whose adapters are not the actor's
    experience = jax.jit(lambda p: step.compute_experience(config, MODEL, p, reference, rows))(params)
    plain_reference = merged(MODEL.lora, reference)
    expected = jax.jit(lambda p: step.compute_experience(config, PLAIN, whole(p), plain_reference, rows))(
        params
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), experience, expected)

    after = noise(params, 4, 0.05)

    @jax.jit
    @jax.value_and_grad
    def adapted(p):
        return step.loss(config, MODEL, p, reference, rows | experience)[0]

    @jax.jit
    @jax.value_and_grad
    def plain(p):
        return step.loss(config, PLAIN, whole(p), {}, rows | experience)[0]

    (ours, gradient), (theirs, slope) = adapted(after), plain(after)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-3), gradient, slope)


# The fast tests have loss and gradient above, steps of adapters in tests/training/test_dtypes.py, and fine-tuning with
# a resume in tests/models/test_lora.py.
@pytest.mark.slow
def test_training_changes_adapters_only_and_resumes(tmp_path):
    lora = LoRAConfig(rank=2, targets=("q_proj", "down_proj"))
    run = lambda name, updates: bandit.run(  # noqa: E731
        tmp_path / name, lora=lora, updates=updates, critic="separate", kl_coefficient=0.01
    )
    straight = run("straight", 2)
    run("halves", 1)
    jax.tree.map(np.testing.assert_array_equal, run("halves", 2), straight)
    read = load_params(tmp_path / "halves", bandit.MODEL.replace(lora=lora), make_mesh(MeshConfig()))
    jax.tree.map(np.testing.assert_array_equal, read, straight)  # a whole model, as later stages read it
    trained, kept = partition(straight)
    jax.tree.map(np.testing.assert_array_equal, kept, init_params(bandit.MODEL, 0))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(trained)), "B starts at zero"


def test_it_starts_from_the_adapters_it_is_given():
    """The adapters of fine-tuning are the first policy and the reference."""
    mesh = make_mesh(MeshConfig())
    given = join(noise(init_adapters(MODEL, 1), 2), init_params(PLAIN, 0))
    updater = Updater(CONFIG, MODEL, put(given, param_shardings(MODEL, mesh)), mesh)
    states = updater.initial_states()
    jax.tree.map(np.testing.assert_array_equal, updater.policy_params(states), given)
    jax.tree.map(np.testing.assert_array_equal, states.critic.params["trunk"], partition(given)[0])
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 30, 9).astype(np.int32)
    batch = make_batch(CONFIG, [Rollout(tokens, (ActionSample((3, 9), (-1.0,) * 6, 0.5, "", False),))], 0)
    experience = updater.compute_experience(states, batch)
    np.testing.assert_allclose(experience["old_logprobs"], experience["reference_logprobs"], atol=1e-6)
