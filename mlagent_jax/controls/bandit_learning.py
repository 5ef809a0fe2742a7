"""What a contextual bandit over operations learns on some tasks.

It plays episodes on all tasks at once. In each it changes the best pipeline so far by an operation that applies, gets
the reward that RL gets for it, and keeps what is better. A round is one pull on each task; what is learnt from it is
known in the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from mlagent_jax.controls.candidates import Candidate, starter_pipeline
from mlagent_jax.controls.context import FEATURES, context_of
from mlagent_jax.controls.executions import Executions
from mlagent_jax.controls.linucb import LinUCB
from mlagent_jax.environment.state import Outcome
from mlagent_jax.errors import UserError
from mlagent_jax.fields import check, setting
from mlagent_jax.pipelines.pipeline import Pipeline
from mlagent_jax.pipelines.rendering import render
from mlagent_jax.rewards import RewardConfig, Scale, reward, task_scale
from mlagent_jax.tasks.task import Task


@dataclass(frozen=True)
class BanditConfig:
    """pulls: single steps that it learns from; 0 for as many as PPO draws, config.ppo.updates * batch_size.

    alpha, ridge: see `LinUCB`. Contexts have length one, so an arm never pulled is judged at alpha / ridge^0.5.
    """

    pulls: int = setting(0, at_least=0)
    alpha: float = setting(0.25, at_least=0)
    ridge: float = setting(1.0, above=0)

    def __post_init__(self) -> None:
        check(self, "bandit")


@dataclass(frozen=True)
class LearntBandit:
    """weights: of each arm by its instruction, those of `FEATURES`; arms that were never pulled are left out.

    pulls: of each arm. executions: different scripts that were run, starters included.
    """

    weights: dict[str, Float[np.ndarray, " features"]]
    pulls: dict[str, int]
    executions: int


@dataclass
class _Episode:
    """tried: arms that did not better this pipeline."""

    task: Task
    scale: Scale
    starter: Pipeline
    pipeline: Pipeline
    score: float
    steps: int = 0
    tried: set[int] = field(default_factory=set)

    def restart(self) -> None:
        self.pipeline, self.score = self.starter, self.scale.m_init
        self.steps = 0
        self.tried = set()


def applicable(candidates: Sequence[Candidate], pipeline: Pipeline) -> dict[int, Pipeline]:
    """What the candidates that change a pipeline make of it, by their places."""
    changed = ((index, candidate.apply(pipeline)) for index, candidate in enumerate(candidates))
    return {index: after for index, after in changed if after != pipeline}


def learn_bandit(
    tasks: Sequence[Task],
    executions: Executions,
    candidates: Sequence[Candidate],
    rewards: RewardConfig,
    config: BanditConfig,
    steps: int,
    seed: int,
) -> LearntBandit:
    """The same arguments pull the same arms. steps: pulls of an episode.

    Raises UserError if a starter is no pipeline's, a starter gives no score, or the sandbox fails.
    """
    bandit = LinUCB(len(candidates), len(FEATURES), config.alpha, config.ridge)
    rng = np.random.default_rng([seed, 11])
    episodes = _begin(tasks, executions)
    left = config.pulls
    with executions.open_bar("pulls of the bandit", left) as bar:
        while left:
            playing = episodes[:left]
            pulled = [_pull(bandit, each, candidates, steps, rng) for each in playing]
            asked = [(each.task, render(after)) for each, (_, after) in zip(playing, pulled, strict=True)]
            ran = executions.run(asked, bar)
            for each, (arm, after), execution in zip(playing, pulled, ran, strict=True):
                score = each.score if execution.score is None else execution.score
                earned = reward(rewards, each.scale, execution.outcome, each.score, score)
                assert earned is not None  # a sandbox that fails raises
                bandit.update(arm, context_of(each.pipeline), earned)
                each.steps += 1
                each.tried.add(arm)
                if execution.outcome is Outcome.SUCCESS and each.scale.gain(each.score, score) > 0:
                    each.pipeline, each.score, each.tried = after, score, set()
            left -= len(playing)
    named = [(index, each.instruction) for index, each in enumerate(candidates) if bandit.pulls[index]]
    weights = bandit.weights
    return LearntBandit(
        {name: weights[index] for index, name in named},
        {name: int(bandit.pulls[index]) for index, name in named},
        executions.count,
    )


def _begin(tasks: Sequence[Task], executions: Executions) -> list[_Episode]:
    episodes = []
    starters = [starter_pipeline(task.name, task.starter, "bandit") for task in tasks]
    for task, starter, ran in zip(
        tasks, starters, executions.run([(task, task.starter) for task in tasks]), strict=True
    ):
        if ran.score is None:
            raise UserError(f"the starter of task {task.name} gives no score; fix its train.py")
        episodes.append(_Episode(task, task_scale(task, ran.score), starter, starter, ran.score))
    return episodes


def _pull(
    bandit: LinUCB, episode: _Episode, candidates: Sequence[Candidate], steps: int, rng: np.random.Generator
) -> tuple[int, Pipeline]:
    """The arm, and what it makes of the episode's pipeline; an episode that has ended begins again before."""
    if episode.steps >= steps:
        episode.restart()
    open_to = applicable(candidates, episode.pipeline)
    untried = [arm for arm in open_to if arm not in episode.tried]
    arm = bandit.choose(context_of(episode.pipeline), untried or list(open_to), rng)
    return arm, open_to[arm]
