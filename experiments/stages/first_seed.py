"""Agents that nothing trains are the same for every seed: the first of several runs evaluates them for all."""

from __future__ import annotations

from absl import logging

from experiments.experiment import Experiment
from experiments.settings import TRAINED
from mlagent_jax.agent.trajectory_log import TrajectoryLog, latest_trajectories
from mlagent_jax.files import write_atomically


def copy_untrained(experiment: Experiment) -> None:
    """Copies the first run's episodes of untrained agents, and what these have chosen or learnt, if it has finished.

    Each folder so holds all that its scores are made of. Their snapshots stay in the first run's folder.
    """
    first, workdir = experiment.first_seed, experiment.workdir
    untrained = {agent for agent in experiment.settings.evaluate.agents if agent not in TRAINED}
    if first is None or not first.is_done("evaluate") or not untrained:
        return
    for agent in untrained:
        learnt = first.control(agent)
        if learnt.exists():
            write_atomically(workdir.control(agent), learnt.read_text())
    with TrajectoryLog(workdir.evaluation_trajectories) as log:
        stored, copied = log.keys(), 0
        for key, trajectory in latest_trajectories(first.evaluation_trajectories).items():
            if trajectory.agent in untrained and key not in stored:
                log.append(trajectory)
                copied += 1
    if copied:
        logging.info(
            "%d episodes of %s are those of %s: they do not depend on the seed",
            copied,
            ", ".join(sorted(untrained)),
            first.name,
        )
