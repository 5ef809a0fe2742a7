"""What later stages learn from: the expert's stored episodes, and the chats that a policy sees of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import PromptFormat, messages
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
