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

REPEATS = 1


def run_missing(
    stage: str,
    experiment: Experiment,
    path: Path,
    plans: Sequence[tuple[Policy, Sequence[EpisodeRequest]]],
    batch: int,
) -> list[Trajectory]:
    """All the planned trajectories in the order of the plan, whatever was done before and by whom.

    An episode that a fault of ours cut short is run again, `REPEATS` times at most; those that still are cut short are
    said aloud and count for nobody.
    """
    keys = [episode_key(policy.name, r.task, r.index) for policy, requests in plans for r in requests]
    with TrajectoryLog(path) as log:
        stored = log.keys() & set(keys)
        if stored:
            logging.info("Stage %s goes on: %d of %d episodes are stored.", stage, len(stored), len(keys))
        with ProgressBar(stage, len(keys), start=len(stored)) as bar:
            for policy, requests in plans:
                missing = [r for r in requests if episode_key(policy.name, r.task, r.index) not in stored]
                for attempt in range(1 + REPEATS):
                    cut_short = []
                    for trajectory in run_episodes(policy, missing, experiment.stepper, batch):
                        log.append(trajectory)
                        if trajectory.is_masked:
                            cut_short.append(trajectory.key)
                        if attempt == 0:
                            bar.advance(f"{policy.name} on {trajectory.task}: {trajectory.public_score:.4f}")
                    missing = [r for r in missing if episode_key(policy.name, r.task, r.index) in cut_short]
                    if not missing:
                        break
        found = {trajectory.key: trajectory for trajectory in log.read()}
    planned = [found[key] for key in keys]
    masked = sum(trajectory.is_masked for trajectory in planned)
    if masked:
        logging.warning(
            "Stage %s: %d of %d episodes were cut short by faults of the infrastructure, also when repeated, and count "
            "for nothing.",
            stage,
            masked,
            len(planned),
        )
    return planned
