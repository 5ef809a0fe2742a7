"""Carries out actions by a pool of threads: those of whole episodes, and single ones from stored states."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.response import parse
from mlagent_jax.agent.trajectory import Step, Trajectory
from mlagent_jax.environment.mdp import Environment
from mlagent_jax.environment.state import Action, EnvState, Malformed, Outcome, Transition
from mlagent_jax.rewards import RewardConfig, Scale, reward, task_scale
from mlagent_jax.tasks.task import Task


@dataclass(frozen=True)
class Turn:
    """What the agent knows (`situation`) and the environment's state before an action.

    lease: see `Job.lease`. Turns without one share leases with others of their batch.
    best: the best public score of the episode so far, for `RewardConfig.episode_baseline`; None for a single turn.
    """

    situation: Situation
    state: EnvState
    lease: str = ""
    best: float | None = None


def turn_at(trajectory: Trajectory, index: int, task: Task, seed: int) -> Turn:
    """The turn before step `index` of a stored episode, without the expert's ideas."""
    return Turn(Situation(task, trajectory.steps[:index], (), seed), trajectory.steps[index].before)


class EnvRunner:
    """Takes turns in a pool of `threads`. Close it, or use it in a `with` statement.

    thought: whether responses must have all six fields.
    retries: further attempts at an action after an infrastructure fault. The first pause is `retry_seconds` long, and
        each following one twice as long.
    """

    def __init__(
        self,
        environments: Mapping[str, Environment],
        rewards: RewardConfig,
        threads: int = 2,
        thought: bool = True,
        retries: int = 2,
        retry_seconds: float = 0.5,
    ) -> None:
        self.environments = environments
        self._rewards = rewards
        self._thought = thought
        self._retries = retries
        self._retry_seconds = retry_seconds
        self.threads = threads
        self._initial: dict[str, Future[EnvState]] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="environment")

    def apply(self, turns: Sequence[Turn], responses: Sequence[Response]) -> list[Step]:
        """Takes the steps for given responses. An outcome `INFRASTRUCTURE` means that all retries failed.

        Turns without a lease, such as those from stored states, share one lease per thread for the time of this batch.
        Their actions come from one policy, as those of an episode do.
        """
        if len(turns) != len(responses):
            raise ValueError(f"{len(turns)} turns, but {len(responses)} responses")
        batch, used = uuid.uuid4().hex, set[tuple[str, str]]()

        def apply(turn: Turn, response: Response) -> Step:
            if not turn.lease:
                turn = replace(turn, lease=f"{batch}-{threading.get_ident()}")
                used.add((turn.situation.task.name, turn.lease))
            return self._apply(turn, response)

        try:
            return list(self._pool.map(apply, turns, responses))
        finally:
            for task, lease in used:
                self.release(task, lease)

    def submit(self, turn: Turn, response: Response) -> Future[tuple[Step, float]]:
        """Takes a step in the background: the step, and the seconds that it took. The turn needs a lease of its own."""
        return self._pool.submit(self._timed, turn, response)

    def begin(self, name: str) -> Future[EnvState]:
        """The initial state of a task, in the background and once for all. Raises ValueError for an unknown task.

        The result raises StarterError.
        """
        if name not in self.environments:
            raise ValueError(f"there is no task {name!r}; the tasks are {', '.join(self.environments)}")
        state = self._initial.get(name)
        if state is None or (state.done() and (state.cancelled() or state.exception() is not None)):
            state = self._initial[name] = self._pool.submit(self.environments[name].initial_state)
        return state

    def initial_states(self, names: Sequence[str]) -> list[EnvState]:
        """The initial state of each task. Raises StarterError, and ValueError for a task without an environment."""
        return [state.result() for state in [self.begin(name) for name in names]]

    def scale(self, name: str) -> Scale:
        """The scale of rewards on a task. Raises RewardScaleError."""
        environment = self.environments[name]
        return task_scale(environment.task, environment.initial_state().public_score)

    def release(self, task: str, lease: str) -> None:
        """Tells the environment that no further turn on `task` will use `lease`."""
        self.environments[task].release(lease)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _timed(self, turn: Turn, response: Response) -> tuple[Step, float]:
        began = time.monotonic()
        return self._apply(turn, response), time.monotonic() - began

    def _apply(self, turn: Turn, response: Response) -> Step:
        name = turn.situation.task.name
        scale = self.scale(name)
        action = parse(response.text, self._thought)
        transition = self._step(self.environments[name], turn, action)
        baseline = transition.m_before
        if turn.best is not None and self._rewards.episode_baseline == "best":
            baseline = turn.best
        return Step(
            before=turn.state,
            response=response.text,
            action=action if isinstance(action, Action) else None,
            outcome=transition.outcome,
            feedback=transition.feedback,
            after=transition.state,
            reward=reward(self._rewards, scale, transition.outcome, baseline, transition.m_after),
            m_before=transition.m_before,
            m_after=transition.m_after,
            diff=transition.diff,
            output=transition.output,
            status=transition.status,
            cached=transition.cached,
            tokens=response.tokens,
            logprobs=response.logprobs,
        )

    def _step(self, environment: Environment, turn: Turn, action: Action | Malformed) -> Transition:
        for attempt in range(self._retries):
            transition = environment.step(turn.state, action, turn.lease)
            if transition.outcome is not Outcome.INFRASTRUCTURE:
                return transition
            time.sleep(self._retry_seconds * 2**attempt)
        return environment.step(turn.state, action, turn.lease)
