"""What was sampled for an update: token sequences whose actions carry their log-probs and rewards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mlagent_jax.agent.episode import Stepper
from mlagent_jax.agent.model_policy import ModelPolicy
from mlagent_jax.agent.trajectory import Step
from mlagent_jax.environment.state import Outcome
from mlagent_jax.ppo.states import PoolState, StatePool
from mlagent_jax.text.chat import Encoded


@dataclass(frozen=True)
class ActionSample:
    """One response within a rollout.

    span: [start, end) of its tokens. logprobs: the sampler's, one a token. reward: None where our own
    infrastructure failed, which is masked out. truncated: cut at the length limit before its end of turn.
    """

    span: tuple[int, int]
    logprobs: tuple[float, ...]
    reward: float | None
    outcome: str
    truncated: bool


@dataclass(frozen=True)
class Rollout:
    """One sequence: a state and one action from it, or a whole episode. tokens: int32 (T,)."""

    tokens: np.ndarray
    actions: tuple[ActionSample, ...]


@dataclass(frozen=True)
class Collected:
    """Rollouts of one update; records: one JSON-ready line for each action; seconds by phase; counts: more metrics."""

    rollouts: list[Rollout]
    records: list[dict[str, Any]]
    seconds: dict[str, float]
    counts: dict[str, int] = field(default_factory=dict)


class Collector(Protocol):
    """Where rollouts come from; called on the main process only."""

    def collect(self, policy: ModelPolicy, count: int, seed: int, update: int) -> Collected:
        """`count` rollouts that depend on the policy, seed and update alone."""
        ...


class StateCollector:
    """Step-wise: states from the pool, one action each."""

    def __init__(self, pool: StatePool, stepper: Stepper):
        self.pool = pool
        self._stepper = stepper

    def collect(self, policy: ModelPolicy, count: int, seed: int, update: int) -> Collected:
        states = self.pool.sample(count, seed, update)
        began = time.monotonic()
        responses = policy.respond([state.turn.situation for state in states])
        sampled = time.monotonic()
        steps = self._stepper.apply([state.turn for state in states], responses)
        acted = time.monotonic()
        rollouts = [_one_action(policy, state, step) for state, step in zip(states, steps, strict=True)]
        records = [_record(state, step) for state, step in zip(states, steps, strict=True)]
        return Collected(rollouts, records, {"gen": sampled - began, "env": acted - sampled})


def action_sample(policy: ModelPolicy, step: Step, start: int) -> ActionSample:
    """The action of a step whose tokens begin at `start` of its sequence."""
    if step.tokens is None or step.logprobs is None:
        raise ValueError("a rollout needs the token ids and log-probs that the response was sampled with")
    return ActionSample(
        span=(start, start + len(step.tokens)),
        logprobs=step.logprobs,
        reward=None if step.outcome is Outcome.INFRASTRUCTURE else step.reward,
        outcome=str(step.outcome),
        truncated=step.tokens[-1] not in policy.stop_ids,
    )


def demonstration(encoded: Encoded, rewards: Sequence[float | None]) -> Rollout:
    """An agent's episode as a rollout: what its actions were and earned. They were not sampled here."""
    actions = tuple(
        ActionSample((start, stop), (0.0,) * (stop - start), reward, "demonstration", False)
        for (start, stop), reward in zip(encoded.spans, rewards, strict=False)
    )
    return Rollout(encoded.tokens, actions)


def action_record(trajectory: str, task: str, index: int, seed: int, step: Step) -> dict[str, Any]:
    """What `rollouts.jsonl` keeps of an action, so that every reward can be traced to what earned it."""
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
    """A control: the same rewards, handed to each other's actions at random."""
    earned = [
        action.reward for rollout in rollouts for action in rollout.actions if action.reward is not None
    ]
    mixed = iter(np.random.default_rng([seed, 4, update]).permutation(np.array(earned, np.float64)).tolist())
    return [
        Rollout(
            rollout.tokens,
            tuple(
                action
                if action.reward is None
                else ActionSample(action.span, action.logprobs, next(mixed), action.outcome, action.truncated)
                for action in rollout.actions
            ),
        )
        for rollout in rollouts
    ]


def _one_action(policy: ModelPolicy, state: PoolState, step: Step) -> Rollout:
    prompt = policy.prompt(state.turn.situation)
    tokens = np.concatenate([prompt, np.array(step.tokens, np.int32)])
    return Rollout(tokens, (action_sample(policy, step, len(prompt)),))


def _record(state: PoolState, step: Step) -> dict[str, Any]:
    situation = state.turn.situation
    return action_record(state.trajectory, situation.task.name, state.index, situation.seed, step)
