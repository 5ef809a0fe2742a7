"""Checks that the numbers of a PPO update are finite; each error names the network that diverged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from mlagent_jax.finite import Guard, NotFiniteError
from mlagent_jax.ppo.actor_critic import LearningRates
from mlagent_jax.ppo.rollout import Rollout

ACTOR = Guard("the PPO actor", "ppo.actor_optimiser.learning_rate")
CRITIC = Guard("the PPO critic", "ppo.critic_optimiser.learning_rate")
_SHARED_TRUNK = Guard(
    "the PPO actor, whose trunk the critic's loss moves too (ppo.critic_trunk_gradient),",
    "ppo.critic_optimiser.learning_rate or ppo.actor_optimiser.learning_rate",
)

Arrays = Mapping[str, Shaped[np.ndarray, "B T"]]


def check_rollouts(rollouts: Sequence[Rollout], when: str, actor_rate: float) -> None:
    """Raises NotFiniteError for a sampler's log-prob or a reward that is not finite."""
    actions = [action for rollout in rollouts for action in rollout.actions]
    sampled = [logprob for action in actions for logprob in action.logprobs]
    ACTOR.require({"the log-probs that it sampled with": np.array(sampled, np.float64)}, when, actor_rate)
    not_finite = [
        action.reward for action in actions if action.reward is not None and not math.isfinite(action.reward)
    ]
    if not_finite:
        raise NotFiniteError(
            f"{len(not_finite)} of {len(actions)} rewards are not finite {when} (the first is {not_finite[0]}), since "
            "a score is not: correct the metric or m_best of the tasks"
        )


def check_experience(
    experience: Arrays, mask: Bool[np.ndarray, "B T"], when: str, rates: LearningRates
) -> None:
    """Checks the result of `Updater.compute_experience` at the action tokens `mask`. Raises NotFiniteError.

    rates: learning rates of the networks' last steps, for the message. The actor is checked first, since a shared
    critic reads its hidden states. If its log-probs are finite, as rewards are, anything else is due to the critic.
    """
    of = {name: array[mask] for name, array in experience.items()}
    ACTOR.require(
        {
            "the log-probs of its tokens": of["old_logprobs"],
            "the log-probs under its reference": of["reference_logprobs"],
        },
        when,
        rates.actor,
    )
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.square(of["old_values"] - of["returns"])
    critic = {
        "its values": of["old_values"],
        "the advantages by its values": of["advantages"],
        "the returns by its values": of["returns"],
        "the squared errors of its values": error,
    }
    CRITIC.require(critic, when, rates.critic)


def check_step(
    aux: Arrays,
    mask: Bool[np.ndarray, "B T"],
    norms: Mapping[str, Any],
    when: str,
    rates: LearningRates,
    shared_trunk: bool = False,
) -> None:
    """Checks one optimiser step. Raises NotFiniteError.

    aux: the auxiliary outputs of `step.loss`, checked at the action tokens `mask`. norms: the scalars of
    `step.apply_gradients`. shared_trunk: whether the critic's loss is also part of the actor's gradient.
    """
    of = {name: array[mask] for name, array in aux.items()}
    actor = {"the log-probs of its tokens": of["logprobs"], "its policy loss": of["policy_loss"]}
    ACTOR.require(actor | {"its entropy": of["entropy"]}, when, rates.actor)
    CRITIC.require({"its value loss": of["value_loss"]}, when, rates.critic)
    actor_guard = _SHARED_TRUNK if shared_trunk else ACTOR
    for name, guard, rate in (("critic", CRITIC, rates.critic), ("actor", actor_guard, rates.actor)):
        quantities = {
            "its gradient's norm": norms[f"{name}_grad_norm"],
            "its parameters": norms[f"{name}_params_finite"],
            "its optimiser's moments": norms[f"{name}_optimiser_finite"],
        }
        guard.require(quantities, when, rate)
