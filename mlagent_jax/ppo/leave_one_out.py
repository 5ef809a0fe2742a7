"""REINFORCE leave-one-out (RLOO, arXiv 2402.14740): the other samples of a state are its baseline.

What a state is worth differs more than what its actions are worth: a good script can hardly be bettered, a bad one
easily. A critic has to learn this from few rewards; other samples of the same state know it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlagent_jax.ppo.rollout import Rollout


def leave_one_out(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Each reward, less the mean reward of the other rollouts of its state.

    Actions without a reward, after an infrastructure failure, have no part in it. A reward without any other to compare
    it with becomes 0, and so has no effect (verl keeps it as it is). Raises ValueError for a rollout that is no single
    action from a state.
    """
    rewards: dict[int, list[float]] = defaultdict(list)
    for rollout in rollouts:
        state, reward = _sample(rollout)
        if reward is not None:
            rewards[state].append(reward)
    return [_less_baseline(rollout, rewards) for rollout in rollouts]


def _sample(rollout: Rollout) -> tuple[int, float | None]:
    if rollout.state is None or len(rollout.actions) != 1:
        raise ValueError("RLOO compares single actions from the same state, and this rollout is none of them")
    return rollout.state, rollout.actions[0].reward


def _less_baseline(rollout: Rollout, rewards: dict[int, list[float]]) -> Rollout:
    state, reward = _sample(rollout)
    if reward is None:
        return rollout
    of_state = rewards[state]
    others = len(of_state) - 1
    advantage = reward - (np.sum(of_state) - reward) / others if others else 0.0
    return replace(rollout, actions=(replace(rollout.actions[0], reward=float(advantage)),))
