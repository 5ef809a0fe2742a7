"""Gains against executions: what an agent would have reached with fewer of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.evaluation.gains import normalised_gain, relative_gain


def best_after_executions(trajectory: Trajectory, *, higher_is_better: bool) -> list[float]:
    """The private score of the submission with the best public score, after 0, 1, ... executions of an episode.

    The starter's is the first. Of equal public scores the earlier counts.
    """
    sign = 1 if higher_is_better else -1
    public, private = trajectory.m_init_public, trajectory.m_init_private
    scores = [private]
    for step in trajectory.steps:
        if not step.status:
            continue
        if sign * step.after.public_score > sign * public:
            public, private = step.after.public_score, step.after.private_score
        scores.append(private)
    return scores


def split_curve(
    split: str, facts: Mapping[str, Mapping[str, Any]], episodes: Mapping[str, Sequence[Trajectory]]
) -> dict[str, Any]:
    """Mean gains of an agent after 0, 1, ... executions, over each task's episodes and then over the split's tasks.

    An episode that has ended keeps its gain. A gain is None as in `split_means`: if a task has no episode, or no such
    gain. facts: the "tasks" of `scores.json`. episodes: the agent's by task, none masked.
    """
    names = [name for name, task in facts.items() if task["split"] == split]
    groups = {
        name: [
            best_after_executions(each, higher_is_better=facts[name]["higher_is_better"])
            for each in episodes.get(name, ())
        ]
        for name in names
    }
    length = max((len(scores) for group in groups.values() for scores in group), default=0)
    of_tasks = [
        np.mean([scores + scores[-1:] * (length - len(scores)) for scores in groups[name]], axis=0).tolist()
        if groups[name]
        else None
        for name in names
    ]
    curve: dict[str, Any] = {"split": split, "executions": list(range(length))}
    for gain in ("relative_gain", "normalised_gain"):
        of_each = [_gains(gain, scores, facts[name]) for name, scores in zip(names, of_tasks, strict=True)]
        known = [gains for gains in of_each if gains is not None]
        curve[gain] = np.mean(known, axis=0).tolist() if len(known) == len(names) else None
    return curve


def _gains(kind: str, scores: Sequence[float] | None, facts: Mapping[str, Any]) -> list[float] | None:
    """Gains are linear in the score, so the gain of a mean score is the mean gain."""
    if scores is None:
        return None
    m_init = facts["m_init"]
    gains = [
        relative_gain(score, m_init, higher_is_better=facts["higher_is_better"])
        if kind == "relative_gain"
        else normalised_gain(score, m_init, facts["m_best"])
        for score in scores
    ]
    known = [gain for gain in gains if gain is not None]
    return known if len(known) == len(gains) else None
