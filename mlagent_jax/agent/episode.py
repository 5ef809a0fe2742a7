"""Runs episodes, in which a policy and an environment take turns, and single turns from stored states for step-wise RL.

Many episodes are in flight, and none waits for another one's action. Each depends only on its own request, since seed
and step determine a response, and the state determines the rest. So an episode is the same whatever else is in flight.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import islice
from types import TracebackType
from typing import Any, Self

from mlagent_jax.agent.policy import Policy, RemotePolicy, Response, Situation
from mlagent_jax.agent.response import parse
from mlagent_jax.agent.trajectory import Step, Trajectory
from mlagent_jax.environment.mdp import Environment
from mlagent_jax.environment.state import Action, EnvState, Malformed, Outcome, Transition
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.rewards import RewardConfig, Scale, reward, task_scale
from mlagent_jax.tasks.task import Task

INFRASTRUCTURE = "infrastructure"  # `Trajectory.ended` of an episode that an infrastructure fault ended


@dataclass(frozen=True)
class EpisodeRequest:
    """One episode to run. Its key consists of task, index and the agent's name."""

    task: str
    index: int
    seed: int
    ideas: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class StepRecord:
    """A completed step, for logging.

    number: counted from 1.
    seconds: for the response and the action, without waiting for a thread. Episodes that are asked for together have
        the same time for their responses.
    """

    request: EpisodeRequest
    number: int
    step: Step
    response: Response
    seconds: float


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

    def initial_states(self, names: Sequence[str]) -> list[EnvState]:
        """The initial state of each task. Raises StarterError, and ValueError for a task without an environment."""
        for name in names:
            if name not in self.environments:
                raise ValueError(f"there is no task {name!r}; the tasks are {', '.join(self.environments)}")
        return list(self._pool.map(lambda name: self.environments[name].initial_state(), names))

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


@dataclass
class _Episode:
    """An unfinished episode."""

    request: EpisodeRequest
    task: Task
    initial: EnvState
    steps: list[Step] = field(default_factory=list)
    lease: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def state(self) -> EnvState:
        return self.steps[-1].after if self.steps else self.initial

    @property
    def turn(self) -> Turn:
        situation = Situation(self.task, tuple(self.steps), self.request.ideas, self.request.seed)
        return Turn(situation, self.state, self.lease, self.best)

    @property
    def best(self) -> float:
        scores = [self.initial.public_score, *(step.after.public_score for step in self.steps)]
        return max(scores) if METRICS[self.task.metric].higher_is_better else min(scores)

    @property
    def failed(self) -> bool:
        return bool(self.steps) and self.steps[-1].outcome is Outcome.INFRASTRUCTURE

    @property
    def ended(self) -> str:
        return INFRASTRUCTURE if self.failed else self.state.done

    def trajectory(self, agent: str, ended: str) -> Trajectory:
        request, state = self.request, self.state
        return Trajectory(
            task=request.task,
            agent=agent,
            index=request.index,
            seed=request.seed,
            ideas=request.ideas,
            steps=tuple(self.steps),
            m_init_public=self.initial.public_score,
            m_init_private=self.initial.private_score,
            public_score=state.public_score,
            private_score=state.private_score,
            valid=state.graded,
            ended=ended,
            meta={"infrastructure": True} if self.failed else {},
        )


def run_episodes(
    policy: Policy,
    requests: Iterable[EpisodeRequest],
    env_runner: EnvRunner,
    parallel: int = 8,
    on_step: Callable[[StepRecord], None] = lambda record: None,
) -> Iterator[Trajectory]:
    """Runs the requested episodes, at most `parallel` at a time, and yields each as soon as it has ended.

    No episode waits for another one's action. A `RemotePolicy` is asked for each episode by itself, in a thread of its
    own. Any other policy is asked in this thread, for all episodes together that wait for it by the time that the
    environment's threads have hardly anything left to do.

    An episode that an infrastructure fault ended has `ended == "infrastructure"`, `meta["infrastructure"]`, and a last
    step with that outcome and no reward. Count it, but do not score it.

    on_step: called for every step.
    """
    waiting, ready = iter(requests), list[_Episode]()
    with _Flight(policy, env_runner, parallel) as flight:
        while True:
            ready += _begin(list(islice(waiting, parallel - len(ready) - len(flight))), env_runner)
            if ready and flight.has_room:
                fitting = [episode for episode in ready if policy.fits(episode.turn.situation)]
                for episode in ready:
                    if episode not in fitting:
                        env_runner.release(episode.request.task, episode.lease)
                        yield episode.trajectory(policy.name, "context_limit")
                flight.ask(fitting)
                ready = []
            elif flight:
                for episode, record in flight.completed():
                    on_step(record)
                    if episode.ended:
                        env_runner.release(episode.request.task, episode.lease)
                        yield episode.trajectory(policy.name, episode.ended)
                    else:
                        ready.append(episode)
            else:
                return


class _Flight:
    """Episodes whose next action is being asked for, or carried out. Leaving it ends what has not begun."""

    def __init__(self, policy: Policy, env_runner: EnvRunner, parallel: int) -> None:
        self._policy, self._env_runner = policy, env_runner
        self._asking: dict[Future[Response], tuple[_Episode, float]] = {}
        self._acting: dict[Future[tuple[Step, float]], tuple[_Episode, Response, float]] = {}
        self._threads = ThreadPoolExecutor(parallel, "policy") if isinstance(policy, RemotePolicy) else None

    def __len__(self) -> int:
        return len(self._asking) + len(self._acting)

    @property
    def has_room(self) -> bool:
        """Whether to ask for further actions now. Later, more episodes can be asked for together."""
        return self._threads is not None or len(self._acting) < 2 * self._env_runner.threads

    def ask(self, episodes: Sequence[_Episode]) -> None:
        began = time.monotonic()
        if self._threads is not None and isinstance(self._policy, RemotePolicy):
            for episode in episodes:
                answer = self._threads.submit(self._policy.respond_to, episode.turn.situation)
                self._asking[answer] = episode, began
        elif episodes:
            responses = self._policy.respond([episode.turn.situation for episode in episodes])
            for episode, response in zip(episodes, responses, strict=True):
                self._act(episode, response, time.monotonic() - began)

    def completed(self) -> Iterator[tuple[_Episode, StepRecord]]:
        """Waits until anything has completed. Yields the steps that have, which their episodes then include."""
        done, _ = wait(self._futures(), return_when=FIRST_COMPLETED)
        for answer in [each for each in self._asking if each in done]:
            episode, began = self._asking.pop(answer)
            response = answer.result()
            seconds = response.usage.seconds if response.usage else time.monotonic() - began
            self._act(episode, response, seconds)
        for action in [each for each in self._acting if each in done]:
            episode, response, asked = self._acting.pop(action)
            step, acted = action.result()
            episode.steps.append(step)
            yield episode, StepRecord(episode.request, len(episode.steps), step, response, asked + acted)

    def _futures(self) -> list[Future[Any]]:
        return [*self._asking, *self._acting]

    def _act(self, episode: _Episode, response: Response, asked: float) -> None:
        self._acting[self._env_runner.submit(episode.turn, response)] = episode, response, asked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for future in self._futures():
            future.cancel()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _begin(requests: Sequence[EpisodeRequest], env_runner: EnvRunner) -> list[_Episode]:
    states = env_runner.initial_states([request.task for request in requests])
    return [
        _Episode(request, env_runner.environments[request.task].task, state)
        for request, state in zip(requests, states, strict=True)
    ]
