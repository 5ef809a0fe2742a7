"""RLOO's advantages: verl's formula, and what has no reward to be compared with has no effect."""

from __future__ import annotations

import numpy as np
import pytest

from mlagent_jax.errors import UserError
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.leave_one_out import leave_one_out
from mlagent_jax.ppo.rollout import ActionSample, Rollout


def rollout(reward, state):
    action = ActionSample((2, 4), (-0.1, -0.2), reward, "success", False)
    return Rollout(np.arange(4, dtype=np.int32), (action,), state)


def rewards(rollouts):
    return [one.actions[0].reward for one in rollouts]


def verl(scores, states):
    """`compute_rloo_outcome_advantage`: score * n / (n - 1) - mean * n / (n - 1), for n above 1."""
    out = []
    for score, state in zip(scores, states, strict=True):
        group = [s for s, other in zip(scores, states, strict=True) if other == state]
        n = len(group)
        out.append(score * n / (n - 1) - np.mean(group) * n / (n - 1))
    return out


def test_advantages_are_verls():
    rng = np.random.default_rng(0)
    states = rng.permutation([0] * 2 + [1] * 3 + [2] * 7).tolist()
    scores = rng.normal(size=len(states)).tolist()
    given = [rollout(*pair) for pair in zip(scores, states, strict=True)]
    got = leave_one_out(given)
    np.testing.assert_allclose(rewards(got), verl(scores, states), rtol=1e-12, atol=1e-12)
    assert [one.state for one in got] == states and rewards(given) == scores
    # They are zero on average in each state, whatever that state is worth.
    worth = [rollout(score + 5 * state, state) for score, state in zip(scores, states, strict=True)]
    np.testing.assert_allclose(rewards(leave_one_out(worth)), rewards(got), atol=1e-9)


def test_what_has_no_reward_has_no_part_in_it():
    got = leave_one_out(
        [rollout(1.0, 0), rollout(None, 0), rollout(0.0, 0), rollout(0.7, 1), rollout(None, 1)]
    )
    assert rewards(got) == [1.0, None, -1.0, 0.0, None]


def test_whole_episodes_are_refused():
    action = rollout(1.0, 0).actions[0]
    for whole in (rollout(1.0, None), Rollout(np.arange(4, dtype=np.int32), (action, action), 0)):
        with pytest.raises(ValueError, match="this rollout is none of them"):
            leave_one_out([whole])


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"samples_per_state": 3},
            "ppo.batch_size is 256, which is not a multiple of ppo.samples_per_state 3",
        ),
        ({"advantage": "rloo", "samples_per_state": 4}, "needs ppo.critic none (it is separate)"),
        ({"advantage": "rloo", "critic": "none"}, "of 2 or more (it is 1)"),
        ({"advantage": "grpo"}, "ppo.advantage is 'grpo'"),
    ],
)
def test_settings_that_contradict_each_other(changes, message):
    with pytest.raises(UserError) as error:
        PPOConfig(**changes).validate()
    assert message in str(error.value)
