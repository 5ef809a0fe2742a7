"""Plans the expert's episodes: their tasks, ideas and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlagent_jax.agent.episode import EpisodeRequest
from mlagent_jax.exploration.ideas import IdeaError
from mlagent_jax.exploration.pool import IdeaPool, draw
from mlagent_jax.tasks.task import Task


def plan_episodes(
    tasks: Sequence[Task], pools: Mapping[str, IdeaPool], per_task: int, seed: int
) -> list[EpisodeRequest]:
    """`per_task` episodes of each task, in turn, each with ideas drawn from the task's pool.

    The ideas and the seed of an episode are a function of (seed, task, index), so a larger plan starts with the
    episodes of a smaller one. Raises IdeaError for a task without a pool.
    """
    for task in tasks:
        if task.name not in pools:
            raise IdeaError(f"there is no idea pool for task {task.name}; run the stage ideas for it")
    return [_request(task.name, pools[task.name], index, seed) for index in range(per_task) for task in tasks]


def _request(task: str, pool: IdeaPool, index: int, seed: int) -> EpisodeRequest:
    rng = np.random.default_rng([seed, index, *task.encode()])
    ideas = draw(pool, rng)
    return EpisodeRequest(task, index, int(rng.integers(2**31)), ideas)
