"""One PPO update as pure functions of arrays: what is measured before it, its gradient, its application.

Of a model with adapters, actor and critic are adapters of their own (the critic with a value head) beside the same
frozen weights, those of the SFT model, which is the reference too: the only whole model that there is. `frozen` is this
model then, and {} where actor and critic are whole models themselves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import join
from mlagent_jax.models.qwen2 import Params, forward, unembedding
from mlagent_jax.models.value_head import init_value_head, values
from mlagent_jax.nn.losses import token_logprobs
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.gae import generalised_advantages
from mlagent_jax.ppo.kl import kl_estimate
from mlagent_jax.ppo.losses import policy_loss, value_loss
from mlagent_jax.training.state import TrainState

Rows = dict[str, jax.Array]


class Learners(NamedTuple):
    """Actor's and critic's: training states, or parameters, gradients, shardings or optimisers alone."""

    actor: Any
    critic: Any


def init_critic(config: PPOConfig, model: Qwen2Config, params: Params) -> dict[str, Any]:
    """A value head of zeros, and for a separate critic a trunk that starts as the actor's `params` do."""
    head = {"head": init_value_head(model)}
    if config.critic != "separate":
        return head
    return head | {"trunk": {name: part for name, part in params.items() if name != "lm_head"}}


def act_and_judge(
    config: PPOConfig,
    model: Qwen2Config,
    params: Learners,
    frozen: Params,
    rows: Rows,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probs of the targets and entropies, at the sampling temperature, and the critic's values; [B,T]
    each. mesh: as in `forward`.
    """
    hidden, logprobs, entropy = _act(config, model, join(params.actor, frozen), rows, mesh)
    if config.critic == "none":
        return logprobs, entropy, jnp.zeros_like(logprobs)
    if config.critic == "separate":
        trunk = join(params.critic["trunk"], frozen)
        hidden = forward(model, trunk, rows["tokens"], rows["positions"], rows["segment_ids"], mesh)
    elif not config.critic_trunk_gradient:
        hidden = jax.lax.stop_gradient(hidden)
    return logprobs, entropy, values(params.critic["head"], hidden)


def _act(
    config: PPOConfig, model: Qwen2Config, params: Params, rows: Rows, mesh: Mesh | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hidden states [B,T,D], log-probs of the targets and entropies, [B,T] each."""
    hidden = forward(model, params, rows["tokens"], rows["positions"], rows["segment_ids"], mesh)
    unembed = unembedding(model, params)
    logprobs, entropy = token_logprobs(
        hidden, unembed, rows["targets"], config.temperature, model.logits_chunk, mesh, model.unused_ids
    )
    return hidden, logprobs, entropy


def measure(
    config: PPOConfig,
    model: Qwen2Config,
    params: Learners,
    reference: Params,
    rows: Rows,
    mesh: Mesh | None = None,
) -> dict[str, jax.Array]:
    """What an update is measured against, [B,T] each: the log-probs of the policy as it is and of the
    reference, values, advantages (not yet normalised) and returns. The KL's share of the reward is in them.
    """
    frozen = reference if model.lora else {}
    logprobs, _, old_values = act_and_judge(config, model, params, frozen, rows, mesh)
    _, reference_logprobs, _ = _act(config, model.replace(lora=None), reference, rows, mesh)
    rewards = rows["rewards"]
    if config.kl_in == "reward":
        rewards -= config.kl_coefficient * kl_estimate(logprobs, reference_logprobs, config.kl_estimator)
    rewards = jnp.where(rows["mask"], rewards, 0.0)
    advantages, returns = generalised_advantages(
        rewards, old_values, rows["mask"], rows["ends"], config.gamma, config.lam
    )
    return {
        "old_logprobs": logprobs,
        "reference_logprobs": reference_logprobs,
        "old_values": old_values,
        "advantages": advantages,
        "returns": returns,
    }


def loss(
    config: PPOConfig,
    model: Qwen2Config,
    params: Learners,
    frozen: Params,
    rows: Rows,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The share of these rows in the minibatch's loss, and what became of each token ([B,T]).

    rows: those of `PPOBatch` with those of `measure`. Since `weights` sum to 1 over the whole minibatch, the
    losses of any split of its rows add up to it.
    """
    mask, weights = rows["mask"], rows["weights"]
    logprobs, entropy, new_values = act_and_judge(config, model, params, frozen, rows, mesh)
    # Elsewhere the ratio means nothing and might overflow.
    logprobs = jnp.where(mask, logprobs, rows["old_logprobs"])
    policy = policy_loss(
        logprobs,
        rows["old_logprobs"],
        rows["advantages"],
        config.clip_low,
        config.clip_high,
        config.dual_clip,
    )
    value = value_loss(new_values, rows["old_values"], rows["returns"], config.value_clip)
    total = policy + config.value_coefficient * value - config.entropy_coefficient * entropy
    if config.kl_in == "loss":
        reference = jnp.where(mask, rows["reference_logprobs"], rows["old_logprobs"])
        total += config.kl_coefficient * kl_estimate(logprobs, reference, config.kl_estimator)
    outcome = {"logprobs": logprobs, "entropy": entropy, "policy_loss": policy, "value_loss": value}
    return jnp.sum(jnp.where(mask, weights * total, 0.0)), outcome


def add_gradients(
    config: PPOConfig,
    model: Qwen2Config,
    params: Learners,
    frozen: Params,
    total: Learners,
    rows: Rows,
    mesh: Mesh | None = None,
) -> tuple[Learners, dict[str, jax.Array]]:
    """`total` plus the gradient of these rows' share of the loss, and `loss`'s second result."""
    gradients, outcome = jax.grad(lambda p: loss(config, model, p, frozen, rows, mesh), has_aux=True)(params)
    return jax.tree.map(jnp.add, total, gradients), outcome


def zero_gradients(params: Learners) -> Learners:
    return jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)


def apply_gradients(
    optimisers: Learners, states: Learners, gradients: Learners, actor_too: bool
) -> tuple[Learners, dict[str, jax.Array]]:
    """One optimiser step of the critic and, if `actor_too`, of the actor; and the gradients' norms."""
    norms = {
        "actor_grad_norm": optax.tree.norm(gradients.actor),
        "critic_grad_norm": optax.tree.norm(gradients.critic),
    }
    actor = _apply(optimisers.actor, states.actor, gradients.actor) if actor_too else states.actor
    return Learners(actor, _apply(optimisers.critic, states.critic, gradients.critic)), norms


def _apply(optimiser: optax.GradientTransformation, state: TrainState, gradients: Any) -> TrainState:
    updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1)
