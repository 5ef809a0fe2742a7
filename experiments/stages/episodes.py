"""Episodes of a stage: those that are not stored yet are run, and each is stored as soon as it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import logging

from experiments.experiment import Experiment
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.agent.policy import Policy
from mlagent_jax.agent.trajectory import Trajectory, episode_key
from mlagent_jax.agent.trajectory_log import TrajectoryLog
from mlagent_jax.training.progress import ProgressBar


def run_missing(
    stage: str,
    experiment: Experiment,
    path: Path,
    plans: Sequence[tuple[Policy, Sequence[EpisodeRequest]]],
    batch: int,
) -> list[Trajectory]:
    """All the planned trajectories in the order of the plan, whatever was done before and by whom."""
    keys = [episode_key(policy.name, r.task, r.index) for policy, requests in plans for r in requests]
    with TrajectoryLog(path) as log:
        stored = log.keys() & set(keys)
        if stored:
            logging.info("Stage %s goes on: %d of %d episodes are stored.", stage, len(stored), len(keys))
        with ProgressBar(stage, len(keys), start=len(stored)) as bar:
            for policy, requests in plans:
                missing = [r for r in requests if episode_key(policy.name, r.task, r.index) not in stored]
                for trajectory in run_episodes(policy, missing, experiment.stepper, batch):
                    log.append(trajectory)
                    bar.advance(f"{policy.name} on {trajectory.task}: {trajectory.public_score:.4f}")
        found = {trajectory.key: trajectory for trajectory in log.read()}
    return [found[key] for key in keys]
