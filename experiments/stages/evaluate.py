"""Evaluation: K episodes of each agent on each task, scored on the private split."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.experiment import Experiment
from experiments.settings import CONTROLS
from experiments.stages import controls
from experiments.stages.episodes import run_missing
from experiments.stages.stage import run_on_all
from mlagent_jax.agent.baselines import BASELINES
from mlagent_jax.agent.episode import EpisodeRequest
from mlagent_jax.agent.policy import Policy
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.evaluation.scores import score_trajectories, write_scores
from mlagent_jax.evaluation.text_tables import SCORE_COLUMNS, score_rows
from mlagent_jax.parallel import distributed

STAGE = "evaluate"
TRAINED = ("sft", "ppo")


def run(experiment: Experiment) -> None:
    run_on_all(STAGE, experiment, _evaluate)


def _evaluate(experiment: Experiment) -> dict[str, Any]:
    trajectories: list[Trajectory] = []
    for agent in experiment.settings.evaluate.agents:
        if agent in TRAINED:
            trajectories += _run_trained(experiment, agent)
        else:
            trajectories += _run_other(experiment, agent)
    return distributed.on_main(lambda: _score(experiment, trajectories))


def _run_trained(experiment: Experiment, agent: str) -> list[Trajectory]:
    """All processes must call this: they share the parameters, and all of them sample."""
    engine = experiment.engine
    engine.load(experiment.trained_params(agent, needed_by=STAGE))
    policy = experiment.policy(agent, experiment.settings.evaluate.temperature)
    trajectories = engine.on_main(lambda: _run(experiment, policy, agent))
    engine.unload()
    return trajectories


def _run_other(experiment: Experiment, agent: str) -> list[Trajectory]:
    return distributed.on_main(lambda: _run(experiment, _policy(experiment, agent), agent))


def _run(experiment: Experiment, policy: Policy, agent: str) -> list[Trajectory]:
    requests = [
        EpisodeRequest(task.name, index, _seed(experiment.settings.seed, task_number, index))
        for task_number, task in enumerate(experiment.tasks)
        for index in range(experiment.settings.evaluate.episodes)
    ]
    return run_missing(
        STAGE,
        experiment,
        experiment.workdir.evaluation_trajectories,
        [(policy, requests)],
        batch=experiment.settings.sampling.batch,
        stepper=controls.stepper(experiment, agent),
    )


def _score(experiment: Experiment, trajectories: list[Trajectory]) -> dict[str, Any]:
    scores = score_trajectories(
        trajectories,
        experiment.tasks,
        agents=experiment.settings.evaluate.agents,
        seed=experiment.settings.seed,
    )
    write_scores(experiment.workdir.scores, scores)
    with experiment.tracking.open(experiment.workdir.evaluation) as tracker:
        tracker.log_table("scores", SCORE_COLUMNS, score_rows(scores))
    masked = sum(trajectory.is_masked for trajectory in trajectories)
    counts = {"episodes": len(trajectories), "masked": masked}
    return counts | controls.preparation(experiment) | experiment.execution_counts()


def _policy(experiment: Experiment, agent: str) -> Policy:
    if agent in BASELINES:
        return BASELINES[agent](experiment.settings.prompt.thought)
    if agent in CONTROLS:
        return controls.policy(experiment, agent)
    if agent == "expert":
        return experiment.expert
    return experiment.endpoint_policy


def _seed(seed: int, task: int, index: int) -> int:
    """The same for all agents, so that nothing but the agent differs."""
    return int(np.random.default_rng([seed, task, index]).integers(2**31))
