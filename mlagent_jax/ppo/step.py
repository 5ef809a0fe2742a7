"""One PPO update as pure functions of arrays: the experience it learns from, its gradients, the optimiser step.

In a model with LoRA adapters, actor and critic are two sets of adapters (the critic's with a value head) beside the
same frozen weights, those of the SFT model. The reference is the SFT model with its own adapters. `frozen` is then the
SFT model; it is {} where actor and critic are whole models.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Shaped

from mlagent_jax.finite import all_finite
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import join
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import forward, unembedding
from mlagent_jax.models.value_head import init_value_head, values
from mlagent_jax.nn.losses import token_logprobs
from mlagent_jax.ppo.actor_critic import ActorCritic, Gradients, Optimisers, Parameters, TrainStates
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.gae import generalised_advantages
from mlagent_jax.ppo.kl import kl_estimate
from mlagent_jax.ppo.losses import policy_loss, value_loss
from mlagent_jax.training.state import take_step

Rows = dict[str, Shaped[Array, "B T"]]
TokenArrays = dict[str, Float[Array, "B T"]]
Scalars = dict[str, Shaped[Array, ""]]

_FORWARD_INPUTS = ("positions", "segment_ids", "targets", "tokens")
# Names of the rows that `compute_experience` and `loss` read.
EXPERIENCE_INPUTS = (*_FORWARD_INPUTS, "dones", "mask", "rewards")
LOSS_INPUTS = (
    *_FORWARD_INPUTS,
    "advantages",
    "mask",
    "old_logprobs",
    "old_values",
    "reference_logprobs",
    "returns",
    "weights",
)


class ActorOutputs(NamedTuple):
    """hidden: the last layer's states. logprobs: of the targets. entropy: of each position's distribution, in nats."""

    hidden: Float[Array, "B T D"]
    logprobs: Float[Array, "B T"]
    entropy: Float[Array, "B T"]


class ActorCriticOutputs(NamedTuple):
    """logprobs and entropy: as in `ActorOutputs`. values: the critic's."""

    logprobs: Float[Array, "B T"]
    entropy: Float[Array, "B T"]
    values: Float[Array, "B T"]


def init_critic(config: PPOConfig, model: Qwen2Config, params: Params) -> Params:
    """A value head of zeros; a separate critic also gets a trunk, which starts as the actor's `params`."""
    head = {"head": init_value_head(model)}
    if config.critic != "separate":
        return head
    return head | {"trunk": {name: part for name, part in params.items() if name != "lm_head"}}


def forward_actor_critic(
    config: PPOConfig,
    model: Qwen2Config,
    params: Parameters,
    frozen: Params,
    rows: Rows,
    mesh: Mesh | None = None,
) -> ActorCriticOutputs:
    """Log-probs and entropies at the sampling temperature, and values (0 without a critic). mesh: as in `forward`."""
    hidden, logprobs, entropy = _forward_actor(config, model, join(params.actor, frozen), rows, mesh)
    if config.critic == "none":
        return ActorCriticOutputs(logprobs, entropy, jnp.zeros_like(logprobs))
    if config.critic == "separate":
        trunk = join(params.critic["trunk"], frozen)
        hidden = forward(model, trunk, rows["tokens"], rows["positions"], rows["segment_ids"], mesh)
    elif not config.critic_trunk_gradient:
        hidden = jax.lax.stop_gradient(hidden)
    return ActorCriticOutputs(logprobs, entropy, values(params.critic["head"], hidden))


def _forward_actor(
    config: PPOConfig, model: Qwen2Config, params: Params, rows: Rows, mesh: Mesh | None
) -> ActorOutputs:
    hidden = forward(model, params, rows["tokens"], rows["positions"], rows["segment_ids"], mesh)
    unembed = unembedding(model, params)
    logprobs, entropy = token_logprobs(
        hidden, unembed, rows["targets"], config.temperature, model.logits_chunk, mesh, model.unused_ids
    )
    return ActorOutputs(hidden, logprobs, entropy)


def compute_experience(
    config: PPOConfig,
    model: Qwen2Config,
    params: Parameters,
    reference: Params,
    rows: Rows,
    mesh: Mesh | None = None,
) -> TokenArrays:
    """What stays fixed during an update, computed before its first step.

    rows: `EXPERIENCE_INPUTS` of a `PPOBatch`. Returns the log-probs of the current policy (`old_logprobs`) and of the
    reference (`reference_logprobs`), `old_values`, `advantages` (not normalised) and `returns`. With `kl_in` "reward",
    each token's reward includes its KL penalty.
    """
    frozen = reference if model.lora else {}
    logprobs, _, old_values = forward_actor_critic(config, model, params, frozen, rows, mesh)
    reference_logprobs = _forward_actor(config, model, reference, rows, mesh).logprobs
    rewards = rows["rewards"]
    if config.kl_in == "reward":
        rewards -= config.kl_coefficient * kl_estimate(logprobs, reference_logprobs, config.kl_estimator)
    rewards = jnp.where(rows["mask"], rewards, 0.0)
    advantages, returns = generalised_advantages(
        rewards, old_values, rows["mask"], rows["dones"], config.gamma, config.lam
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
    params: Parameters,
    frozen: Params,
    rows: Rows,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, ""], TokenArrays]:
    """These rows' share of the minibatch's loss, and auxiliary outputs for each token.

    rows: `LOSS_INPUTS` of a `PPOBatch` and its experience. `weights` sum to 1 over the whole minibatch, so the losses
    of its micro-batches add up to the minibatch's, however it is split.
    """
    mask, weights = rows["mask"], rows["weights"]
    logprobs, entropy, new_values = forward_actor_critic(config, model, params, frozen, rows, mesh)
    # Outside of actions the ratio has no meaning and may overflow.
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
    aux = {
        "logprobs": logprobs,
        "entropy": entropy,
        "values": new_values,
        "policy_loss": policy,
        "value_loss": value,
    }
    return jnp.sum(jnp.where(mask, weights * total, 0.0)), aux


def accumulate_gradients(
    config: PPOConfig,
    model: Qwen2Config,
    params: Parameters,
    frozen: Params,
    total: Gradients,
    rows: Rows,
    mesh: Mesh | None = None,
) -> tuple[Gradients, TokenArrays]:
    """`total` plus the gradient of these rows' share of the loss, and the auxiliary outputs of `loss`."""
    gradients, aux = jax.grad(lambda p: loss(config, model, p, frozen, rows, mesh), has_aux=True)(params)
    return jax.tree.map(jnp.add, total, gradients), aux


def zero_gradients(params: Parameters) -> Gradients:
    return jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)


def apply_gradients(
    optimisers: Optimisers, states: TrainStates, gradients: Gradients, train_actor: bool
) -> tuple[TrainStates, Scalars]:
    """One optimiser step of the critic and, if `train_actor`, of the actor.

    Also returns the norm of each gradient, and bools that say whether the new parameters and moments are finite.
    """
    scalars = {
        "actor_grad_norm": optax.tree.norm(gradients.actor),
        "critic_grad_norm": optax.tree.norm(gradients.critic),
    }
    actor = states.actor
    if train_actor:
        actor = take_step(optimisers.actor, actor, gradients.actor)
    critic = take_step(optimisers.critic, states.critic, gradients.critic)
    for name, state in (("actor", actor), ("critic", critic)):
        scalars[f"{name}_params_finite"] = all_finite(state.params)
        scalars[f"{name}_optimiser_finite"] = all_finite(state.opt_state)
    return ActorCritic(actor, critic), scalars
