"""Evaluation: K episodes of every agent on every task, scored on the private split."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.experiment import Experiment
from experiments.stages.episodes import run_missing
from experiments.stages.stage import run_on_all
from mlagent_jax.agent.episode import EpisodeRequest
from mlagent_jax.agent.policy import Policy
from mlagent_jax.agent.random_policy import RandomPolicy
from mlagent_jax.agent.starter import StarterPolicy
from mlagent_jax.evaluation.scores import score_trajectories, write_scores
from mlagent_jax.parallel import distributed
from mlagent_jax.parallel.mesh import to_local

STAGE = "evaluate"


def run(experiment: Experiment) -> None:
    run_on_all(STAGE, experiment, _evaluate)


def _evaluate(experiment: Experiment) -> dict[str, Any]:
    policies = [_policy(experiment, agent) for agent in experiment.settings.evaluate.agents]
    return distributed.on_main(lambda: _score(experiment, policies))


def _score(experiment: Experiment, policies: list[Policy]) -> dict[str, Any]:
    requests = [
        EpisodeRequest(task.name, index, _seed(experiment.settings.seed, task_number, index))
        for task_number, task in enumerate(experiment.tasks)
        for index in range(experiment.settings.evaluate.episodes)
    ]
    trajectories = run_missing(
        STAGE,
        experiment,
        experiment.workdir.evaluation_trajectories,
        [(policy, requests) for policy in policies],
        batch=experiment.settings.sampling.batch,
    )
    scores = score_trajectories(
        trajectories,
        experiment.tasks,
        agents=experiment.settings.evaluate.agents,
        seed=experiment.settings.seed,
    )
    write_scores(experiment.workdir.scores, scores)
    return {"episodes": len(trajectories)} | experiment.execution_counts()


def _policy(experiment: Experiment, agent: str) -> Policy:
    """All processes must call this: parameters may be spread over them."""
    if agent == "starter":
        return StarterPolicy()
    if agent == "random":
        return RandomPolicy()
    if agent == "expert":
        return experiment.expert
    if agent == "endpoint":
        return experiment.endpoint_policy
    params = to_local(experiment.trained_params(agent, needed_by=STAGE), experiment.mesh)
    return experiment.policy(agent, params, experiment.settings.evaluate.temperature)


def _seed(seed: int, task: int, index: int) -> int:
    """The same for every agent, so that they differ in nothing else."""
    return int(np.random.default_rng([seed, task, index]).integers(2**31))
