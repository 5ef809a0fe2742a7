"""Runs the episodes of a stage that are not stored yet, and stores each as soon as it ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from absl import logging

from experiments.experiment import Experiment
from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest, StepRecord, run_episodes
from mlagent_jax.agent.policy import Policy
from mlagent_jax.agent.trajectory import Trajectory, episode_key
from mlagent_jax.agent.trajectory_log import TrajectoryLog, latest_trajectories
from mlagent_jax.tasks.task import Task
from mlagent_jax.training.progress import ProgressBar

SEED_OF_VALIDATION = 1_000  # added to a task's number, so that no episode of the evaluation has the same seed
REPEATS = 1
LONG_STEP_SECONDS = 30.0


def episode_requests(seed: int, tasks: Sequence[Task], episodes: int, first: int = 0) -> list[EpisodeRequest]:
    """K episodes of each task, with seeds that are the same for all agents, so that nothing but the agent differs.

    first: the first task's number, from which its seeds follow.
    """
    return [
        EpisodeRequest(task.name, index, int(np.random.default_rng([seed, number, index]).integers(2**31)))
        for number, task in enumerate(tasks, first)
        for index in range(episodes)
    ]


def evaluation_requests(experiment: Experiment, episodes: int) -> list[EpisodeRequest]:
    """K episodes of each scored task. Its seeds are the same whichever other tasks are scored."""
    names = experiment.settings.tasks.names("evaluate")
    tasks = [*experiment.held_in, *experiment.held_out]
    return [
        request
        for request in episode_requests(experiment.settings.seed, tasks, episodes)
        if request.task in names
    ]


def run_missing(
    stage: str,
    experiment: Experiment,
    path: Path,
    plans: Sequence[tuple[Policy, Sequence[EpisodeRequest]]],
    batch: int,
    env_runner: EnvRunner | None = None,
) -> list[Trajectory]:
    """All planned trajectories in the order of the plan, whether they were stored before or are run now.

    An episode that an infrastructure failure cuts short is repeated, at most `REPEATS` times. If that does not help, it
    is masked, and a warning gives the number of such episodes.

    env_runner: for agents that do not act through the run's coder; by default the experiment's.
    """
    log_each = partial(log_step, stage)
    keys = [episode_key(policy.name, r.task, r.index) for policy, requests in plans for r in requests]
    with TrajectoryLog(path) as log:
        stored = log.keys() & set(keys)
        if stored:
            logging.info("Stage %s resumes: %d of %d episodes are stored.", stage, len(stored), len(keys))
        with ProgressBar(stage, len(keys), start=len(stored)) as bar:
            for policy, requests in plans:
                missing = [r for r in requests if episode_key(policy.name, r.task, r.index) not in stored]
                for attempt in range(1 + REPEATS):
                    if not missing:
                        break
                    cut_short = []
                    runner = env_runner or experiment.env_runner
                    with closing(run_episodes(policy, missing, runner, batch, log_each)) as episodes:
                        for trajectory in episodes:
                            log.append(trajectory)
                            if trajectory.is_masked:
                                cut_short.append(trajectory.key)
                            if attempt == 0:
                                bar.advance(_note(trajectory, experiment.models.spent()))
                    missing = [r for r in missing if episode_key(policy.name, r.task, r.index) in cut_short]
        found = latest_trajectories(path)
    planned = [found[key] for key in keys]
    masked = sum(trajectory.is_masked for trajectory in planned)
    if masked:
        logging.warning(
            "Stage %s: %d of %d episodes are masked, since infrastructure failures cut them short even when repeated.",
            stage,
            masked,
            len(planned),
        )
    return planned


def _note(trajectory: Trajectory, spent: str) -> str:
    """For the progress line. spent: on the calls of language models; "" for nothing."""
    note = f"{trajectory.agent} on {trajectory.task}: {trajectory.public_score:.4f}"
    return f"{note}; models: {spent}" if spent else note


def log_step(stage: str, record: StepRecord) -> None:
    """Logs each step of a remote model, and any step that takes long, to show that the run is progressing."""
    usage = record.response.usage
    if usage is None and record.seconds < LONG_STEP_SECONDS:
        return
    logging.info(
        "%s: %s, episode %d, step %d: %s, %s, %.1f s%s",
        *(stage, record.request.task, record.request.index, record.number),
        record.step.action.tool if record.step.action is not None else "no action",
        *(record.step.outcome.value, record.seconds),
        f", {usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens, ${usage.dollars:.4g}"
        if usage
        else "",
    )
