"""Runs episodes, in which a policy and an environment take turns, and single turns from stored states for step-wise RL.

Many episodes are in flight, and none waits for another one's action. Each depends only on its own request, since seed
and step determine a response, and the state determines the rest. So an episode is the same whatever else is in flight.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress, islice
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
        """The initial state of a task, in the background unless it is known. Raises ValueError for an unknown task.

        The result raises StarterError.
        """
        if name not in self.environments:
            raise ValueError(f"there is no task {name!r}; the tasks are {', '.join(self.environments)}")
        known = self._initial.get(name)
        if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
            known = self._initial[name] = self._pool.submit(self.environments[name].initial_state)
        own: Future[EnvState] = Future()
        known.add_done_callback(partial(_pass_on, own))
        return own

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


def _pass_on(own: Future[EnvState], known: Future[EnvState]) -> None:
    """Several episodes may begin with one result, and each may be given up by itself."""
    if not own.set_running_or_notify_cancel():
        return
    error = CancelledError() if known.cancelled() else known.exception()
    if error is None:
        own.set_result(known.result())
    else:
        own.set_exception(error)


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
    own. Any other policy is asked in this thread, for several episodes together; see `_Flight.room`.

    An episode that an infrastructure fault ended has `ended == "infrastructure"`, `meta["infrastructure"]`, and a last
    step with that outcome and no reward. Count it, but do not score it.

    on_step: called for every step. Close the generator if you leave it early: that asks for nothing more, and waits for
    the answers that have been asked for, which may cost money and are stored by whoever asked.
    """
    waiting, ready = iter(requests), list[_Episode]()
    with _Flight(policy, env_runner) as flight:
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


class _Flight:
    """Episodes that begin, whose next action is being asked for, or whose action is carried out."""

    def __init__(self, policy: Policy, env_runner: EnvRunner) -> None:
        self._policy, self._env_runner = policy, env_runner
        self._beginning: dict[Future[EnvState], EpisodeRequest] = {}
        self._asking: dict[Future[Response], tuple[_Episode, float]] = {}
        self._acting: dict[Future[tuple[Step, float]], tuple[_Episode, Response, float]] = {}
        self._threads: ThreadPoolExecutor | None = None
        if isinstance(policy, RemotePolicy):
            self._threads = ThreadPoolExecutor(policy.parallel, "policy")

    def __len__(self) -> int:
        return len(self._futures())

    def room(self, ready: int) -> int:
        """How many of the `ready` episodes to ask for now.

        A remote policy: as many as it has threads; what would wait for one could not be called back. Any other: all or
        none. Later, more of them can be asked for together, which costs a model hardly more than a single one. So they
        wait until they are half of those in flight, unless half of the environment's threads have nothing to do; and as
        long as each thread has an action waiting.
        """
        if isinstance(self._policy, RemotePolicy):
            return min(ready, self._policy.parallel - len(self._asking))
        acting, threads = len(self._acting), self._env_runner.threads
        return ready if acting < threads // 2 or acting < min(2 * threads, ready + 1) else 0

    def begin(self, request: EpisodeRequest) -> None:
        self._beginning[self._env_runner.begin(request.task)] = request

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

    def completed(self) -> Iterator[tuple[_Episode, StepRecord | None]]:
        """Waits until anything has completed. Yields episodes that have begun, and steps, which theirs then include."""
        done, _ = wait(self._futures(), return_when=FIRST_COMPLETED)
        for state in [each for each in self._beginning if each in done]:
            request = self._beginning.pop(state)
            yield _Episode(request, self._env_runner.environments[request.task].task, state.result()), None
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
        return [*self._beginning, *self._asking, *self._acting]

    def _act(self, episode: _Episode, response: Response, asked: float) -> None:
        self._acting[self._env_runner.submit(episode.turn, response)] = episode, response, asked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        never_ran = [future for future in self._futures() if future.cancel()]
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        left = [episode for episode, _ in self._asking.values()]
        left += [episode for action, (episode, _, _) in self._acting.items() if action in never_ran]
        for episode in left:
            self._env_runner.release(episode.request.task, episode.lease)
