"""The choice of a trained agent's sampling temperature, by its episodes on validation tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.scores import normalised_gain
from mlagent_jax.tasks.task import Task

LEAST_GAIN = -1.0  # what a lower gain counts as, so that one runaway prediction does not decide


def choose(tasks: Sequence[Task], tried: Mapping[float, Sequence[Trajectory]]) -> dict[str, Any]:
    """The temperature with the highest mean normalised public gain, the first of equals; ready for JSON.

    tried: an agent's episodes by temperature. The gain is the unweighted mean of the tasks' means, without masked
    episodes. Raises UserError if no temperature has an episode of every task.
    """
    rows: list[dict[str, Any]] = []
    for temperature, trajectories in tried.items():
        counted = [each for each in trajectories if not each.is_masked]
        gains = {task.name: _mean_gain(task, counted) for task in tasks}
        known = [gain for gain in gains.values() if gain is not None]
        rows.append(
            {
                "temperature": temperature,
                "gain": float(np.mean(known)) if len(known) == len(tasks) else None,
                "tasks": gains,
                "episodes": len(counted),
            }
        )
    complete = [row for row in rows if row["gain"] is not None]
    if not complete:
        raise UserError(
            "no temperature can be chosen: infrastructure failures cut short all episodes of a validation task; repair "
            "the sandbox and run the same command again"
        )
    return {"chosen": max(complete, key=lambda row: row["gain"])["temperature"], "tried": rows}


def _mean_gain(task: Task, trajectories: Sequence[Trajectory]) -> float | None:
    gains = [
        normalised_gain(each.public_score, each.m_init_public, task.m_best)
        for each in trajectories
        if each.task == task.name
    ]
    known = [max(gain, LEAST_GAIN) for gain in gains if gain is not None]
    return float(np.mean(known)) if known else None
