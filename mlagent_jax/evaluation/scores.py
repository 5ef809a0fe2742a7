"""Scores of agents over their episodes: avg@K, best@K, gains, valid rates, and their confidence intervals.

Definitions follow arXiv 2505.23723, section 5.1. All scores are private: neither agents nor rewards have seen them.
Everything is JSON-ready, and every number can be traced to stored trajectories.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.environment.state import Outcome
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation import bootstrap
from mlagent_jax.evaluation.best_of import split_best_of
from mlagent_jax.evaluation.execution_curves import split_curve
from mlagent_jax.evaluation.gains import normalised_gain, relative_gain
from mlagent_jax.files import write_atomically
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.tasks.task import Task

SCHEMA_VERSION = 4
SPLITS = ("held_in", "held_out")
ONE_OUTCOME = "all episodes of the agent are alike by construction, so one was run and there is no interval."
HEADLINE = ("ppo", "sft")  # the agent that a run is about, and the one that it is compared with

Value = Callable[[Trajectory], float | None]
Facts = Mapping[str, Mapping[str, Any]]


def mean_step_reward(trajectory: Trajectory) -> float | None:
    """Mean over the episode's rewarded steps, by the run's `RewardConfig`; None if no step was rewarded."""
    rewards = [step.reward for step in trajectory.steps if step.reward is not None]
    return float(np.mean(rewards)) if rewards else None


def score_trajectories(
    trajectories: Iterable[Trajectory],
    tasks: Iterable[Task],
    *,
    agents: Sequence[str] | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    one_outcome: Collection[str] = (),
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """The contents of `scores.json`: one row for each agent and task, split means and paired differences.

    tasks: those that were evaluated; a split mean needs episodes of all of its tasks.
    agents: in the order of the tables; by default that of their first trajectories.
    pairs: (agent, baseline) to compare, as far as both have episodes; by default `default_pairs`.
    one_outcome: agents whose episodes of a task are all alike by construction. One of them counts, without an interval:
        one of width zero would look like certainty.
    Raises UserError for an unknown task, a private score that is not finite, or trajectories of one task that disagree
    on m_init.
    """
    tasks = list(tasks)
    known = {task.name for task in tasks}
    trajectories = sorted(trajectories, key=lambda each: each.index)
    all_episodes: dict[tuple[str, str], list[Trajectory]] = {}
    for trajectory in trajectories:
        if trajectory.task not in known:
            raise UserError(
                f"trajectory {trajectory.key} is of task {trajectory.task!r}, which is not one of the evaluated tasks"
            )
        if not math.isfinite(trajectory.private_score):
            raise UserError(
                f"trajectory {trajectory.key} has the private score {trajectory.private_score}; delete its line and "
                "evaluate it again"
            )
        all_episodes.setdefault((trajectory.agent, trajectory.task), []).append(trajectory)

    facts = {task.name: _task_facts(task, all_episodes) for task in tasks}
    present = list(dict.fromkeys(agent for agent, _ in all_episodes))
    agents = [agent for agent in agents if agent in present] if agents is not None else present
    pairs = [
        pair for pair in (default_pairs(agents) if pairs is None else pairs) if set(pair) <= set(present)
    ]
    alike = [agent for agent in present if agent in one_outcome]
    counted = {
        agent: unmasked((each for each in trajectories if each.agent == agent), agent in alike)
        for agent in present
    }
    splits = [split for split in SPLITS if _names(facts, split)]
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    return {
        "schema": SCHEMA_VERSION,
        "k": max(map(len, all_episodes.values()), default=0),
        **options,
        "interval_covers": bootstrap.COVERS,
        "agents": agents,
        "one_outcome": alike,
        "tasks": facts,
        "per_task": [
            _row(agent, facts[task], all_episodes[agent, task]) | {"one_outcome": agent in alike}
            for agent in agents
            for task in facts
            if (agent, task) in all_episodes
        ],
        "means": [
            {"agent": agent, "one_outcome": agent in alike}
            | split_means(split, facts, counted[agent], **options)
            for agent in agents
            for split in splits
        ],
        "differences": [
            {"agent": agent, "baseline": baseline, "one_outcome": {agent, baseline} <= {*alike}}
            | split_differences(
                split,
                facts,
                counted[agent],
                counted[baseline],
                (agent in alike, baseline in alike),
                **options,
            )
            for agent, baseline in pairs
            for split in splits
        ],
        "execution_curves": [
            {"agent": agent} | split_curve(split, facts, counted[agent])
            for agent in agents
            for split in splits
        ],
        "best_of": [
            {"agent": agent} | split_best_of(split, facts, counted[agent])
            for agent in agents
            for split in splits
        ],
    }


def default_pairs(agents: Sequence[str]) -> list[tuple[str, str]]:
    """Each agent with every agent before it, and those of `HEADLINE` in the order given there."""
    return [
        HEADLINE if {agent, earlier} == set(HEADLINE) else (agent, earlier)
        for place, agent in enumerate(agents)
        for earlier in reversed(agents[:place])
    ]


def _task_facts(task: Task, episodes: Mapping[tuple[str, str], Sequence[Trajectory]]) -> dict[str, Any]:
    of_task = [each for (_, name), group in episodes.items() if name == task.name for each in group]
    for score in ("m_init_private", "m_init_public"):
        values = {getattr(each, score) for each in of_task}
        if values and not math.isclose(min(values), max(values), rel_tol=1e-9):
            raise UserError(
                f"task {task.name!r}: its trajectories disagree on {score} ({min(values)} to {max(values)}), "
                "so they come from different data or starters; evaluate them again with the same ones"
            )
    return {
        "name": task.name,
        "title": task.title,
        "kind": task.kind,
        "split": task.split,
        "metric": task.metric,
        "higher_is_better": METRICS[task.metric].higher_is_better,
        "m_init": of_task[0].m_init_private if of_task else None,
        "m_init_public": of_task[0].m_init_public if of_task else None,
        "m_best": task.m_best,
        "m_best_source": task.m_best_source,
    }


def _row(agent: str, facts: Mapping[str, Any], group: Sequence[Trajectory]) -> dict[str, Any]:
    """One agent on one task, over its unmasked episodes; outcomes are counted over their steps."""
    counted = [each for each in group if not each.is_masked]
    scores = np.array([each.private_score for each in counted])
    outcomes = Counter(step.outcome for each in counted for step in each.steps)
    steps = sum(outcomes.values())
    row: dict[str, Any] = {
        "agent": agent,
        "task": facts["name"],
        "episodes": len(counted),
        "masked": len(group) - len(counted),
        "steps": steps,
        "outcomes": {outcome.value: outcomes[outcome] for outcome in Outcome},
        "outcome_fractions": {
            outcome.value: outcomes[outcome] / steps if steps else None
            for outcome in Outcome
            if outcome is not Outcome.INFRASTRUCTURE
        },
        "ended": dict(Counter(each.ended for each in counted)),
    }
    if not counted:
        return row
    best = float(scores.max() if facts["higher_is_better"] else scores.min())
    row |= {
        "avg": float(scores.mean()),
        "best": best,
        "sd": float(scores.std(ddof=1)) if len(counted) > 1 else None,
        "best_relative_gain": relative_gain(
            best, facts["m_init"], higher_is_better=facts["higher_is_better"]
        ),
        "best_normalised_gain": normalised_gain(best, facts["m_init"], facts["m_best"]),
    }
    for name, value in _values(facts).items():
        episode_values = [number for each in counted if (number := value(each)) is not None]
        row[name] = float(np.mean(episode_values)) if episode_values else None
    return row


def _values(facts: Mapping[str, Any]) -> dict[str, Value]:
    """What is averaged over episodes. Gains are linear in the score, so the mean gain is the gain of the mean."""
    m_init, m_best, higher = facts["m_init"], facts["m_best"], facts["higher_is_better"]
    return {
        "relative_gain": lambda each: relative_gain(each.private_score, m_init, higher_is_better=higher),
        "normalised_gain": lambda each: normalised_gain(each.private_score, m_init, m_best),
        "valid_rate": lambda each: float(each.valid),
        "mean_step_reward": mean_step_reward,
        "executions": lambda each: float(each.executions),
    }


VALUE_NAMES = ("relative_gain", "normalised_gain", "valid_rate", "mean_step_reward", "executions")


def unmasked(trajectories: Iterable[Trajectory], one_outcome: bool = False) -> dict[str, list[Trajectory]]:
    """An agent's episodes by task, without those that an infrastructure failure cut short.

    one_outcome: whether they are all alike, so that the first of each task stands for all.
    """
    groups: dict[str, list[Trajectory]] = {}
    for each in trajectories:
        if not each.is_masked:
            groups.setdefault(each.task, []).append(each)
    return {task: group[:1] if one_outcome else group for task, group in groups.items()}


def split_means(
    split: str, facts: Facts, episodes: Mapping[str, Sequence[Trajectory]], **options: Any
) -> dict[str, Any]:
    """Unweighted means over a split's tasks; a value is None if one of them has no episode with that value.

    facts: the "tasks" of `scores.json`. episodes: one agent's by task, none masked. options: of
    `bootstrap.stratified_mean`.
    """
    names = _names(facts, split)
    groups = {name: episodes.get(name, ()) for name in names}
    row: dict[str, Any] = {
        "split": split,
        "tasks": names,
        "missing_tasks": [name for name in names if not groups[name]],
        "episodes": sum(map(len, groups.values())),
    }
    for value_name in VALUE_NAMES:
        values = {name: _values(facts[name])[value_name] for name in names}
        strata = [[values[name](each) for each in groups[name]] for name in names]
        row[value_name] = _interval(strata, options)
    return row


def split_differences(
    split: str,
    facts: Facts,
    episodes: Mapping[str, Sequence[Trajectory]],
    baseline: Mapping[str, Sequence[Trajectory]],
    one_outcome: tuple[bool, bool] = (False, False),
    **options: Any,
) -> dict[str, Any]:
    """As `split_means`, of the differences between pairs of episodes with the same task and index.

    one_outcome: whether the episodes of the agent, and of its baseline, are all alike. The one then pairs with each of
        the other's.
    """
    names = _names(facts, split)
    pairs = {name: _pairs(episodes.get(name, ()), baseline.get(name, ()), *one_outcome) for name in names}
    row: dict[str, Any] = {
        "split": split,
        "tasks": names,
        "missing_tasks": [name for name in names if not pairs[name]],
        "pairs": sum(map(len, pairs.values())),
    }
    for value_name in VALUE_NAMES:
        values = {name: _values(facts[name])[value_name] for name in names}
        strata = [[_minus(values[name](a), values[name](b)) for a, b in pairs[name]] for name in names]
        row[value_name] = _interval(strata, options)
    return row


def _pairs(
    mine: Sequence[Trajectory], others: Sequence[Trajectory], mine_alike: bool, others_alike: bool
) -> list[tuple[Trajectory, Trajectory]]:
    if others_alike and others:
        return [(each, others[0]) for each in mine]
    if mine_alike and mine:
        return [(mine[0], each) for each in others]
    by_index = {each.index: each for each in others}
    return [(each, by_index[each.index]) for each in mine if each.index in by_index]


def _names(facts: Facts, split: str) -> list[str]:
    return [name for name, task in facts.items() if task["split"] == split]


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _interval(strata: Sequence[Sequence[float | None]], options: Mapping[str, Any]) -> dict[str, Any] | None:
    known = [[value for value in values if value is not None] for values in strata]
    return asdict(bootstrap.stratified_mean(known, **options)) if all(known) else None


def write_scores(path: Path, scores: Mapping[str, Any]) -> None:
    """Writes `scores.json` atomically."""
    write_atomically(path, json.dumps(scores, indent=1, allow_nan=False) + "\n")
