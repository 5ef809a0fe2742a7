"""Rollouts: sampled token sequences, with the log-probs and the reward of each action."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int32

from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.model_policy import ModelPolicy
from mlagent_jax.agent.trajectory import Step
from mlagent_jax.environment.state import Outcome
from mlagent_jax.ppo.states import PoolState, StatePool
from mlagent_jax.text.chat import Encoded


@dataclass(frozen=True)
class ActionSample:
    """One response within a rollout.

    response_range: [start, end) of its tokens. logprobs: the sampler's, one for each token. reward: None after an
    infrastructure failure; the action is then masked out of the loss. truncated: cut at the length limit before its end
    of turn.
    """

    response_range: tuple[int, int]
    logprobs: tuple[float, ...]
    reward: float | None
    outcome: str
    truncated: bool


@dataclass(frozen=True)
class Rollout:
    """One sequence: a state and one action from it, or a whole episode.

    state: rollouts of an update with the same number have the same state. None for whole episodes.
    """

    tokens: Int32[np.ndarray, " T"]
    actions: tuple[ActionSample, ...]
    state: int | None = None


@dataclass(frozen=True)
class RolloutBatch:
    """The rollouts of one update.

    records: one JSON-ready object for each action. seconds: by phase. counts: further metrics.
    """

    rollouts: list[Rollout]
    records: list[dict[str, Any]]
    seconds: dict[str, float]
    counts: dict[str, int] = field(default_factory=dict)


class Collector(Protocol):
    """Collects rollouts; called on the main process only."""

    def collect(self, policy: ModelPolicy, count: int, seed: int, update: int) -> RolloutBatch:
        """`count` rollouts that depend on nothing but the policy, the seed and the update."""
        ...


class StateCollector:
    """Step-wise RL: states from the pool, `samples` actions from each."""

    def __init__(self, pool: StatePool, env_runner: EnvRunner, samples: int = 1):
        self.pool = pool
        self._env_runner = env_runner
        self._samples = samples

    def collect(self, policy: ModelPolicy, count: int, seed: int, update: int) -> RolloutBatch:
        states = self.pool.sample(count, seed, update, self._samples)
        began = time.monotonic()
        responses = policy.respond([state.turn.situation for state in states])
        sampled = time.monotonic()
        steps = self._env_runner.apply([state.turn for state in states], responses)
        acted = time.monotonic()
        rollouts = [
            _one_action(policy, state, step, number // self._samples)
            for number, (state, step) in enumerate(zip(states, steps, strict=True))
        ]
        records = [_record(state, step) for state, step in zip(states, steps, strict=True)]
        return RolloutBatch(rollouts, records, {"gen": sampled - began, "env": acted - sampled})


def action_sample(policy: ModelPolicy, step: Step, start: int) -> ActionSample:
    """The action of a step whose tokens begin at position `start` of the sequence.

    Raises ValueError for a response that was not sampled from a local model.
    """
    if step.tokens is None or step.logprobs is None:
        raise ValueError("a rollout needs the token ids and log-probs that the response was sampled with")
    return ActionSample(
        response_range=(start, start + len(step.tokens)),
        logprobs=step.logprobs,
        reward=None if step.outcome is Outcome.INFRASTRUCTURE else step.reward,
        outcome=str(step.outcome),
        truncated=step.tokens[-1] not in policy.stop_ids,
    )


def demonstration(encoded: Encoded, rewards: Sequence[float | None]) -> Rollout:
    """An expert's episode as a rollout, with the rewards of its actions. Their log-probs are unknown and set to 0."""
    actions = tuple(
        ActionSample((start, stop), (0.0,) * (stop - start), reward, "demonstration", False)
        for (start, stop), reward in zip(encoded.response_ranges, rewards, strict=False)
    )
    return Rollout(encoded.tokens, actions)


def action_record(trajectory: str, task: str, index: int, seed: int, step: Step) -> dict[str, Any]:
    """The line of `rollouts.jsonl` for an action, so that every reward can be traced to what earned it."""
    return {
        "task": task,
        "trajectory": trajectory,
        "index": index,
        "seed": seed,
        "response": step.response,
        "outcome": str(step.outcome),
        "reward": step.reward,
        "m_before": step.m_before,
        "m_after": step.m_after,
        "snapshot_before": step.before.snapshot,
        "snapshot_after": step.after.snapshot,
        "tokens": len(step.tokens or ()),
    }


def shuffled_rewards(rollouts: Sequence[Rollout], seed: int, update: int) -> list[Rollout]:
    """A control: the same rewards, permuted at random among the actions that have one."""
    rewards = [
        action.reward for rollout in rollouts for action in rollout.actions if action.reward is not None
    ]
    rng = np.random.default_rng([seed, 4, update])
    shuffled = iter(rng.permutation(np.array(rewards, np.float64)).tolist())
    return [
        replace(
            rollout,
            actions=tuple(
                action if action.reward is None else replace(action, reward=next(shuffled))
                for action in rollout.actions
            ),
        )
        for rollout in rollouts
    ]


def _one_action(policy: ModelPolicy, state: PoolState, step: Step, number: int) -> Rollout:
    prompt = policy.prompt(state.turn.situation)
    tokens = np.concatenate([prompt, np.array(step.tokens, np.int32)])
    return Rollout(tokens, (action_sample(policy, step, len(prompt)),), number)


def _record(state: PoolState, step: Step) -> dict[str, Any]:
    situation = state.turn.situation
    return action_record(state.trajectory, situation.task.name, state.index, situation.seed, step)
