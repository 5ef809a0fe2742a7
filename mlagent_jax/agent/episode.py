"""Runs episodes, in which a policy and an environment take turns.

Many episodes are in flight, and none waits for another one's action. Each depends only on its own request, since seed
and step determine a response, and the state determines the rest. So an episode is the same whatever else is in flight.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import compress, islice
from types import TracebackType
from typing import Any, Self

from mlagent_jax.agent.env_runner import EnvRunner, Turn
from mlagent_jax.agent.policy import Policy, RemotePolicy, Response, Situation
from mlagent_jax.agent.trajectory import Step, Trajectory
from mlagent_jax.environment.state import EnvState, Outcome
from mlagent_jax.grading.metrics import METRICS
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


@dataclass(eq=False)
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
) -> Generator[Trajectory, None, None]:
    """Runs the requested episodes, at most `parallel` at a time, and yields each as soon as it has ended.

    No episode waits for another one's action. A `RemotePolicy` is asked for each episode by itself, in a thread of its
    own. Any other policy is asked in this thread, for several episodes together; see `_InFlight.room`.

    An episode that an infrastructure fault ended has `ended == "infrastructure"`, `meta["infrastructure"]`, and a last
    step with that outcome and no reward. Count it, but do not score it.

    on_step: called for every step. Close the generator if you leave it early: that asks for nothing more, and waits for
    the answers that have been asked for, which may cost money and are stored by whoever asked.
    """
    waiting, ready = iter(requests), list[_Episode]()
    with _InFlight(policy, env_runner) as flight:
        while True:
            for request in islice(waiting, parallel - len(ready) - len(flight)):
                flight.begin(request)
            if count := flight.room(len(ready)):
                now, ready = ready[:count], ready[count:]
                fits = [policy.fits(episode.turn.situation) for episode in now]
                for episode in compress(now, (not fit for fit in fits)):
                    env_runner.release(episode.request.task, episode.lease)
                    yield episode.trajectory(policy.name, "context_limit")
                flight.ask(list(compress(now, fits)))
            elif flight:
                for episode, record in flight.completed():
                    if record is None:
                        ready.append(episode)
                        continue
                    on_step(record)
                    if episode.ended:
                        env_runner.release(episode.request.task, episode.lease)
                        yield episode.trajectory(policy.name, episode.ended)
                    else:
                        ready.append(episode)
            else:
                return


class _InFlight:
    """Episodes that begin, whose next action is being asked for, or whose action is carried out."""

    def __init__(self, policy: Policy, env_runner: EnvRunner) -> None:
        self._policy, self._env_runner = policy, env_runner
        self._remote = policy if isinstance(policy, RemotePolicy) else None
        self._threads = ThreadPoolExecutor(self._remote.parallel if self._remote else 1, "policy")
        self._beginning: list[tuple[Future[EnvState], EpisodeRequest]] = []
        self._asking: dict[Future[Response], tuple[_Episode, float]] = {}
        self._acting: dict[Future[tuple[Step, float]], tuple[_Episode, Response, float]] = {}

    def __len__(self) -> int:
        return len(self._futures())

    def room(self, ready: int) -> int:
        """How many of the `ready` episodes to ask for now.

        A remote policy: as many as it has threads; what would wait for one could not be called back. Any other: all or
        none. Later, more of them can be asked for together, which costs a model hardly more than a single one. So they
        wait until they are half of those in flight, unless half of the environment's threads have nothing to do; and as
        long as each thread has an action waiting.
        """
        if self._remote is not None:
            return min(ready, self._remote.parallel - len(self._asking))
        acting, threads = len(self._acting), self._env_runner.threads
        return ready if acting < threads // 2 or acting < min(2 * threads, ready + 1) else 0

    def begin(self, request: EpisodeRequest) -> None:
        self._beginning.append((self._env_runner.begin(request.task), request))

    def ask(self, episodes: Sequence[_Episode]) -> None:
        began = time.monotonic()
        if self._remote is not None:
            for episode in episodes:
                answer = self._threads.submit(self._remote.respond_to, episode.turn.situation)
                self._asking[answer] = episode, began
        elif episodes:
            responses = self._policy.respond([episode.turn.situation for episode in episodes])
            for episode, response in zip(episodes, responses, strict=True):
                self._act(episode, response, time.monotonic() - began)

    def completed(self) -> Iterator[tuple[_Episode, StepRecord | None]]:
        """Waits until anything has completed. Yields steps, which their episodes then include, and new episodes.

        Steps come first: an answer or a beginning may have failed, and raises.
        """
        done, _ = wait(self._futures(), return_when=FIRST_COMPLETED)
        for action in [each for each in self._acting if each in done]:
            episode, response, asked = self._acting.pop(action)
            step, acted = action.result()
            episode.steps.append(step)
            yield episode, StepRecord(episode.request, len(episode.steps), step, response, asked + acted)
        for answer in [each for each in self._asking if each in done]:
            episode, began = self._asking.pop(answer)
            response = answer.result()
            seconds = response.usage.seconds if response.usage else time.monotonic() - began
            self._act(episode, response, seconds)
        begun = [(state, request) for state, request in self._beginning if state in done]
        self._beginning = [(state, request) for state, request in self._beginning if state not in done]
        for state, request in begun:
            yield _Episode(request, self._env_runner.environments[request.task].task, state.result()), None

    def _futures(self) -> list[Future[Any]]:
        return [*(state for state, _ in self._beginning), *self._asking, *self._acting]

    def _act(self, episode: _Episode, response: Response, asked: float) -> None:
        self._acting[self._env_runner.submit(episode.turn, response)] = episode, response, asked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        never_ran = [future for future in self._futures() if future.cancel()]
        self._threads.shutdown(wait=True, cancel_futures=True)
        left = [episode for episode, _ in self._asking.values()]
        left += [episode for action, (episode, _, _) in self._acting.items() if action in never_ran]
        for episode in left:
            self._env_runner.release(episode.request.task, episode.lease)
