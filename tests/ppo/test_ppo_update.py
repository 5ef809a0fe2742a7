"""A whole PPO update of a tiny Qwen2, compared with a plain numpy PPO of one sequence and one token at a time."""

import dataclasses
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import forward, init_params, unembedding
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.ppo import step
from mlagent_jax.ppo.actor_critic import ActorCritic, params_of
from mlagent_jax.ppo.batch import make_batch
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.loop import learn
from mlagent_jax.ppo.rollout import ActionSample, Rollout, shuffled_rewards
from mlagent_jax.ppo.update import Updater, normalised
from mlagent_jax.training.optimisers import OptimiserConfig

MODEL = Qwen2Config(
    vocab_size=30,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    initializer_range=0.3,
)
LENGTH = 24
CONFIG = PPOConfig(
    updates=2,
    batch_size=6,
    minibatch_size=6,
    row_length=LENGTH,
    micro_rows=2,
    temperature=0.8,
    gamma=0.95,
    lam=0.9,
    kl_coefficient=0.1,
    entropy_coefficient=0.01,
    value_coefficient=0.5,
    value_clip=0.1,
    dual_clip=1.5,
    actor_optimiser=OptimiserConfig(learning_rate=1e-2),
    critic_optimiser=OptimiserConfig(learning_rate=1e-2),
)


def rollouts(count=6, seed=0):
    """Some with two actions; fractional rewards of both signs."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        ranges = [(3, 6)] if i % 2 else [(3, 6), (8, 8 + int(rng.integers(1, 6)))]
        tokens = rng.integers(0, MODEL.vocab_size, ranges[-1][1]).astype(np.int32)
        actions = tuple(
            ActionSample((start, stop), (-1.0,) * (stop - start), float(rng.normal()), "success", False)
            for start, stop in ranges
        )
        out.append(Rollout(tokens, actions))
    return out


def perturbed(params, seed, size=0.05):
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(
        tree,
        [leaf + np.float32(size) * rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves],
    )


PARAMS = jax.jit(lambda: init_params(MODEL, 0))()
REFERENCE = perturbed(PARAMS, 1)


def actor_critic(config, seed=0):
    critic = perturbed(step.init_critic(config, MODEL, PARAMS), seed + 2)
    return ActorCritic(PARAMS, critic)


@jax.jit
def trunk(params, tokens):
    return forward(MODEL, params, tokens, jnp.arange(LENGTH)[None], jnp.ones_like(tokens))[0]


class NumpyPPO:
    """Straight from the formulas, in float64, no packing, no masks."""

    def __init__(self, config):
        self.config = config

    def tokens(self, params, rollout):
        """log-prob, entropy and value of each action token."""
        padded = np.pad(rollout.tokens, (0, LENGTH - len(rollout.tokens)))[None]
        hidden = np.asarray(trunk(params.actor, padded), np.float64)
        logits = hidden @ np.asarray(unembedding(MODEL, params.actor), np.float64) / self.config.temperature
        logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        if self.config.critic == "separate":
            hidden = np.asarray(trunk(params.critic["trunk"], padded), np.float64)
        head = params.critic["head"]
        value = hidden @ np.asarray(head["kernel"], np.float64) + float(head["bias"])
        where = [j for action in rollout.actions for j in range(*action.response_range)]
        return (
            np.array([logp[j - 1, rollout.tokens[j]] for j in where]),
            np.array([-(np.exp(logp[j - 1]) * logp[j - 1]).sum() for j in where]),
            np.array([value[j - 1] for j in where]),
        )

    def advantages(self, old, reference, values, rollout):
        c = self.config
        rewards = -c.kl_coefficient * (old - reference) if c.kl_in == "reward" else np.zeros_like(old)
        lasts = (
            np.cumsum([action.response_range[1] - action.response_range[0] for action in rollout.actions]) - 1
        )
        for last, action in zip(lasts, rollout.actions, strict=True):
            rewards[last] += action.reward
        out, following, next_value = np.zeros_like(old), 0.0, 0.0
        for t in reversed(range(len(old))):
            if t in lasts and not c.reward_to_go:
                following = next_value = 0.0
            delta = rewards[t] + c.gamma * next_value - values[t]
            out[t] = following = delta + c.gamma * c.lam * following
            next_value = values[t]
        return out

    def loss(self, old_params, new_params, rollouts):
        c, rows = self.config, []
        for rollout in rollouts:
            old, _, old_values = self.tokens(old_params, rollout)
            reference, _, _ = self.tokens(dataclasses.replace(old_params, actor=REFERENCE), rollout)
            new, entropy, new_values = self.tokens(new_params, rollout)
            advantages = self.advantages(old, reference, old_values, rollout)
            rows.append(np.stack([old, reference, old_values, new, entropy, new_values, advantages]))
        old, reference, old_values, new, entropy, new_values, advantages = np.concatenate(rows, 1)
        returns = advantages + old_values
        advantages = (advantages - advantages.mean()) / advantages.std()
        total = 0.0
        for i in range(len(old)):
            ratio = np.exp(new[i] - old[i])
            gain = min(ratio * advantages[i], np.clip(ratio, 0.8, 1.2) * advantages[i])
            if advantages[i] < 0:
                gain = max(gain, c.dual_clip * advantages[i])
            near = old_values[i] + np.clip(new_values[i] - old_values[i], -c.value_clip, c.value_clip)
            value = 0.5 * max((new_values[i] - returns[i]) ** 2, (near - returns[i]) ** 2)
            total += -gain + c.value_coefficient * value - c.entropy_coefficient * entropy[i]
            if c.kl_in == "loss":
                total += c.kl_coefficient * 0.5 * (new[i] - reference[i]) ** 2
        return total / len(old)


def packed_loss(config, old, new, samples):
    """Our loss of `samples` and its gradient for parameters `new`, with the experience of `old`."""
    batch = make_batch(config, samples, update=0)
    rows = {name: jnp.asarray(array) for name, array in batch.arrays.items()}
    experience = jax.jit(lambda p, r: step.compute_experience(config, MODEL, p, REFERENCE, r))(old, rows)
    arrays = rows | experience
    arrays["advantages"] = jnp.asarray(normalised(np.asarray(arrays["advantages"]), batch.arrays["mask"]))

    def loss(params):
        return step.loss(config, MODEL, params, {}, arrays)[0]

    return jax.jit(jax.value_and_grad(loss))(new)


CASES = {
    "shared": dataclasses.replace(CONFIG, critic="shared"),
    "shared, KL in the loss": dataclasses.replace(CONFIG, kl_in="loss", kl_estimator="k2", critic="shared"),
    "separate, own rewards": dataclasses.replace(CONFIG, critic="separate", reward_to_go=False),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_is_that_of_a_plain_numpy_ppo(case):
    config = CASES[case]
    old = actor_critic(config)
    new = perturbed(old, 5, 0.1)
    samples = rollouts()
    assert len(make_batch(config, samples, 0).arrays["tokens"]) < len(samples)  # some share a row
    ours, _ = packed_loss(config, old, new, samples)
    np.testing.assert_allclose(ours, NumpyPPO(config).loss(old, new, samples), rtol=1e-4)


def test_gradient_is_the_slope_of_the_numpy_ppo():
    config = dataclasses.replace(CONFIG, critic="shared", critic_trunk_gradient=True, kl_in="loss")
    config = dataclasses.replace(config, kl_estimator="k2")
    old, samples = actor_critic(config), rollouts()
    new = perturbed(old, 5, 0.02)
    _, gradient = packed_loss(config, old, new, samples)
    direction = perturbed(jax.tree.map(jnp.zeros_like, new), 6, 1.0)
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: float((g * d).sum()), gradient, direction)))

    def at(distance):
        return NumpyPPO(config).loss(
            old, jax.tree.map(lambda p, d: p + distance * d, new, direction), samples
        )

    np.testing.assert_allclose(slope, (at(1e-4) - at(-1e-4)) / 2e-4, rtol=2e-2)


@pytest.mark.parametrize("changes", [{"micro_rows": 4}, {"row_length": 16}])
def test_micro_batches_packing_and_padding_do_not_change_an_update(changes):
    config = dataclasses.replace(CONFIG, critic="shared", aggregation="action_mean")
    a, b = (updated(c, rollouts()) for c in (config, dataclasses.replace(config, **changes)))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a[0], b[0])
    for name in (
        "actor/ref_kl",
        "actor/entropy",
        "actor/pg_loss",
        "critic/vf_loss",
        "critic/vf_explained_var",
        "actor/grad_norm",
    ):
        np.testing.assert_allclose(a[1][name], b[1][name], rtol=1e-3, atol=1e-6)


@lru_cache
def updater_for(config):
    return Updater(config, MODEL, PARAMS, make_mesh(MeshConfig()))


def updated(config, samples, update=0):
    """Parameters after one update, and its metrics."""
    # Adam turns rounding noise in near-zero gradients into whole steps; a large eps keeps it smooth.
    rule = OptimiserConfig(learning_rate=1e-2, eps=1.0)
    config = dataclasses.replace(config, actor_optimiser=rule, critic_optimiser=rule)
    updater = updater_for(config)
    states, line = learn(config, updater, updater.initial_states(), samples, update)
    return params_of(states), line


def test_an_infrastructure_failure_has_no_part_in_the_loss():
    """The update with a masked action is the update without its rollout, and the failure is counted."""
    samples = rollouts()
    lost = dataclasses.replace(samples[1].actions[0], reward=None, outcome="infrastructure")
    with_fault = [*samples[:1], Rollout(samples[1].tokens, (lost,)), *samples[2:]]
    without = samples[:1] + samples[2:]
    a, b = updated(CONFIG, with_fault), updated(CONFIG, without)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a[0], b[0])
    assert (a[1]["rollout/masked_actions"], b[1]["rollout/masked_actions"]) == (1, 0)
    np.testing.assert_allclose(a[1]["critic/score/mean"], b[1]["critic/score/mean"])
    np.testing.assert_allclose(a[1]["rollout/masked_ratio"], 1 / a[1]["rollout/actions"])


def test_fractional_rewards_reach_the_returns():
    config = dataclasses.replace(CONFIG, critic="none", kl_coefficient=0.0, gamma=1.0, lam=1.0)
    sample = rollouts(2)[1]
    action = dataclasses.replace(sample.actions[0], reward=0.7)
    batch = make_batch(config, [Rollout(sample.tokens, (action,))], 0)
    assert batch.arrays["rewards"].dtype == np.float32
    rows = {name: jnp.asarray(array) for name, array in batch.arrays.items()}
    experience = jax.jit(lambda p, r: step.compute_experience(config, MODEL, p, REFERENCE, r))(
        actor_critic(config), rows
    )
    np.testing.assert_allclose(np.asarray(experience["returns"])[batch.arrays["mask"]], 0.7, rtol=1e-6)


def test_critic_warmup_leaves_the_actor_alone():
    after, line = updated(dataclasses.replace(CONFIG, critic_warmup=1), rollouts())
    jax.tree.map(np.testing.assert_array_equal, after.actor, PARAMS)
    assert np.abs(after.critic["head"]["kernel"]).sum() > 0
    assert line["actor/lr"] == 0.0


def test_no_further_epoch_beyond_the_target_kl():
    # With one minibatch, the gradients of the first epoch are those of the old policy itself, whose KL is 0.
    config = dataclasses.replace(CONFIG, epochs=4, target_kl=1e-12)
    _, line = updated(config, rollouts())
    assert line["training/ppo_epochs"] == 1
    _, line = updated(dataclasses.replace(config, target_kl=1e9), rollouts())
    assert line["training/ppo_epochs"] == 4


def test_first_measurements_of_an_unmoved_policy():
    _, line = updated(CONFIG, rollouts())
    assert line["actor/ratio/max"] == pytest.approx(1.0, abs=1e-5)
    assert line["actor/pg_clipfrac"] == 0.0 and line["actor/ppo_kl_k3"] == pytest.approx(0.0, abs=1e-8)
    assert line["actor/ref_kl"] == pytest.approx(0.0, abs=1e-6)  # the reference is where it started
    assert line["critic/vf_explained_var"] == 0.0  # a zero critic
    # With one minibatch and one epoch those are of the policy before its only step; these are of the one after it.
    assert line["actor/post_update_kl_k3"] > 1e-8
    assert line["actor/post_update_ratio_max"] > 1.0001 > 0.9999 > line["actor/post_update_ratio_min"]


def test_shuffled_rewards_are_the_same_rewards_elsewhere():
    samples = rollouts(40)
    mixed = shuffled_rewards(samples, seed=0, update=3)
    before = [action.reward for rollout in samples for action in rollout.actions]
    after = [action.reward for rollout in mixed for action in rollout.actions]
    assert sorted(before) == sorted(after) and before != after
    assert [a.response_range for r in samples for a in r.actions] == [
        a.response_range for r in mixed for a in r.actions
    ]
    assert mixed[0].actions == shuffled_rewards(samples, seed=0, update=3)[0].actions


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch_size": 0}, "ppo.batch_size is 0"),
        ({"critic": "both"}, "ppo.critic is 'both'"),
        ({"kl_in": "prompt"}, "ppo.kl_in is 'prompt'"),
        ({"gamma": 1.5}, "ppo.gamma is 1.5"),
        ({"dual_clip": 0.5}, "ppo.dual_clip is 0.5"),
        (
            {"target_kl": 0.01},
            "ppo.target_kl is 0.01, but there is no further epoch to stop: ppo.epochs is 1",
        ),
        ({"temperature": 0.0}, "ppo.temperature is 0.0"),
        ({"temperature": 1e-9}, "ppo.temperature is 1e-09"),
        ({"actor_optimiser": OptimiserConfig(schedule="step")}, "ppo.actor_optimiser.schedule is 'step'"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **changes).validate()


def test_a_rollout_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"more than ppo\.row_length 8"):
        make_batch(dataclasses.replace(CONFIG, row_length=8), rollouts(), 0)
