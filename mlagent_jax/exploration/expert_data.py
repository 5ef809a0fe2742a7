"""What later stages learn from: the expert's stored episodes, and the chats that a policy sees of them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mlagent_jax.agent.paraphrase import paraphrased, word_dropout
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import TASK_MESSAGE, PromptFormat, messages
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.agent.trajectory_log import latest_trajectories
from mlagent_jax.tasks.task import Task
from mlagent_jax.text.chat import Message


def read_expert_trajectories(path: Path) -> list[Trajectory]:
    """Each stored episode once, in an order that does not depend on which one finished first. Raises JsonlError."""
    return sorted(
        latest_trajectories(path).values(), key=lambda trajectory: (trajectory.index, trajectory.task)
    )


def trajectory_chats(
    form: PromptFormat, tasks: Iterable[Task], trajectories: Iterable[Trajectory]
) -> list[list[Message]]:
    """Whole episodes as chat messages, without the ideas that the expert was given; masked episodes are left out."""
    by_name = {task.name: task for task in tasks}
    return [
        messages(form, Situation(by_name[trajectory.task], trajectory.steps))
        for trajectory in trajectories
        if not trajectory.is_masked
    ]


def paraphrase_chats(
    form: PromptFormat, tasks: Iterable[Task], trajectory: Trajectory, seeds: Sequence[int]
) -> list[list[Message]]:
    """A whole episode in other wordings, one chat for each seed, with word dropout on the task's message.

    None of a masked episode.
    """
    chats = trajectory_chats(form, tasks, [paraphrased(trajectory, seed) for seed in seeds])
    for seed, chat in zip(seeds, chats, strict=False):
        rng = random.Random(f"word dropout/{seed}/{trajectory.key}")
        chat[TASK_MESSAGE] = replace(
            chat[TASK_MESSAGE], content=word_dropout(chat[TASK_MESSAGE].content, rng)
        )
    return chats


def best_episodes(
    tasks: Iterable[Task], trajectories: Sequence[Trajectory], share: float
) -> list[Trajectory]:
    """Of each task's episodes the share that ended with the best public scores, at least one; in the order given.

    Masked episodes are left out first. Among equals those that were given first are kept.
    """
    kept = set()
    for task in tasks:
        of_task = [each for each in trajectories if each.task == task.name and not each.is_masked]
        rises = bool(of_task) and task.m_best > of_task[0].m_init_public
        of_task.sort(key=lambda each: -each.public_score if rises else each.public_score)
        kept |= {each.key for each in of_task[: math.ceil(share * len(of_task))]}
    return [each for each in trajectories if each.key in kept]
