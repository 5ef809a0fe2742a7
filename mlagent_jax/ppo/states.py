"""The pool of states for step-wise RL: the state before every step of the expert's trajectories.

The objective is an expectation over this fixed distribution (arXiv 2505.23723, equation 4):
J(theta) = E_{s ~ d_expert, a ~ pi_theta(.|s)} [R(s, a)].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlagent_jax.agent.env_runner import Turn, turn_at
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.environment.state import Outcome
from mlagent_jax.errors import UserError
from mlagent_jax.tasks.task import Task

TOO_LONG = "too long for the policy's context (sampling.max_length)"
AFTER_A_FAILURE = "after an infrastructure failure"


@dataclass(frozen=True)
class PoolState:
    """The state before step `index` of the stored episode `trajectory`, from which a new action is sampled."""

    trajectory: str
    index: int
    turn: Turn


class StatePool:
    """Uniform over steps, so longer episodes have more weight, as in the expert's own state distribution.

    total: how many states the trajectories have. left_out: how many of them are not in the pool, by reason.
    """

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        tasks: Mapping[str, Task],
        fits: Callable[[Situation], bool],
    ):
        """tasks: by name; trajectories of other tasks are ignored. fits: whether the context has room for a state.

        Raises UserError if no state is left.
        """
        self._trajectories = [trajectory for trajectory in trajectories if trajectory.task in tasks]
        self._tasks = tasks
        every = [
            (number, index)
            for number, trajectory in enumerate(self._trajectories)
            for index, step in enumerate(trajectory.steps)
            if not step.before.done
        ]
        valid = [place for place in every if not _follows_a_failure(self._trajectories[place[0]], place[1])]
        self.steps = [place for place in valid if fits(self._turn(*place, seed=0).situation)]
        self.total = len(every)
        counts = {TOO_LONG: len(valid) - len(self.steps), AFTER_A_FAILURE: len(every) - len(valid)}
        self.left_out = {reason: count for reason, count in counts.items() if count}
        if not self.steps:
            raise UserError(
                f"no state to learn from: {len(self._trajectories)} of {len(trajectories)} trajectories are "
                f"of the tasks {', '.join(sorted(tasks))}, with {len(every)} states, of which "
                f"{counts[TOO_LONG]} are too long for the policy; collect trajectories of these tasks, or raise "
                "the context length"
            )

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def left_out_summary(self) -> str:
        """`left_out` in words; empty if no state was left out."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())

    def sample(self, count: int, seed: int, update: int, samples: int = 1) -> list[PoolState]:
        """`count` states, each with a seed for its response; the same for the same seed and update.

        Each state comes `samples` times in a row. They are drawn without replacement within a pass over the pool:
        update u takes the u-th part of an endless shuffled stream.
        """
        size, different = len(self.steps), count // samples
        chosen = []
        for position in range(different * update, different * (update + 1)):
            order = np.random.default_rng([seed, 2, position // size]).permutation(size)
            chosen += [self.steps[order[position % size]]] * samples
        seeds = np.random.SeedSequence([seed, 3, update]).generate_state(count)
        return [
            PoolState(self._trajectories[number].key, index, self._turn(number, index, int(response_seed)))
            for (number, index), response_seed in zip(chosen, seeds, strict=True)
        ]

    def _turn(self, number: int, index: int, seed: int) -> Turn:
        trajectory = self._trajectories[number]
        return turn_at(trajectory, index, self._tasks[trajectory.task], seed)


def _follows_a_failure(trajectory: Trajectory, index: int) -> bool:
    """Whether the state's history contains an infrastructure failure, from which the policy should not learn."""
    return any(step.outcome is Outcome.INFRASTRUCTURE for step in trajectory.steps[:index])
