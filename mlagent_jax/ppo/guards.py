"""What must be finite in a PPO update, in the order in which it can go wrong, and who is to blame where it is not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlagent_jax.finite import Guard, NotFiniteError
from mlagent_jax.ppo.rollout import Rollout
from mlagent_jax.ppo.step import Learners

ACTOR = Guard("the PPO actor", "ppo.actor_optimiser.learning_rate")
CRITIC = Guard("the PPO critic", "ppo.critic_optimiser.learning_rate")
_SHARED_TRUNK = Guard(
    "the PPO actor, whose trunk the critic's loss moves too (ppo.critic_trunk_gradient),",
    "ppo.critic_optimiser.learning_rate or ppo.actor_optimiser.learning_rate",
)

Arrays = Mapping[str, np.ndarray]


def check_rollouts(rollouts: Sequence[Rollout], when: str, actor_rate: float) -> None:
    """Raises NotFiniteError for a log-prob that was sampled with or a reward that is not finite."""
    actions = [action for rollout in rollouts for action in rollout.actions]
    sampled = [logprob for action in actions for logprob in action.logprobs]
    ACTOR.require({"the log-probs that it sampled with": np.array(sampled, np.float64)}, when, actor_rate)
    strange = [
        action.reward for action in actions if action.reward is not None and not math.isfinite(action.reward)
    ]
    if strange:
        raise NotFiniteError(
            f"{len(strange)} of {len(actions)} rewards are not finite {when} (the first is {strange[0]}), since a "
            "score is not: correct the metric or m_best of the tasks"
        )


def check_measured(measured: Arrays, mask: np.ndarray, when: str, rates: Learners) -> None:
    """Of `Updater.measure`, at the action tokens `mask`. rates: learning rates of the networks' last steps.

    The actor comes first, since a shared critic reads its hidden states. What is not finite after its log-probs is the
    critic's: rewards are finite. Raises NotFiniteError.
    """
    of = {name: array[mask] for name, array in measured.items()}
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
    learnt: Arrays,
    mask: np.ndarray,
    norms: Mapping[str, Any],
    when: str,
    rates: Learners,
    shared_trunk: bool = False,
) -> None:
    """Of one optimiser step: `step.loss`'s second result at the action tokens, and what `apply_gradients` tells.

    shared_trunk: whether the critic's loss is in the actor's gradient as well.
    """
    of = {name: array[mask] for name, array in learnt.items()}
    actor = {"the log-probs of its tokens": of["logprobs"], "its policy loss": of["policy_loss"]}
    ACTOR.require(actor | {"its entropy": of["entropy"]}, when, rates.actor)
    CRITIC.require({"its value loss": of["value_loss"]}, when, rates.critic)
    moved = _SHARED_TRUNK if shared_trunk else ACTOR
    for name, guard, rate in (("critic", CRITIC, rates.critic), ("actor", moved, rates.actor)):
        quantities = {
            "its gradient's norm": norms[f"{name}_grad_norm"],
            "its parameters": norms[f"{name}_params_finite"],
            "its optimiser's moments": norms[f"{name}_optimiser_finite"],
        }
        guard.require(quantities, when, rate)
