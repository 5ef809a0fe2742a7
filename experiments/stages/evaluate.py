"""Evaluation: K episodes of each agent on each task, scored on the private split."""

from __future__ import annotations

from typing import Any

from experiments.experiment import Experiment
from experiments.settings import CONTROLS, TRAINED
from experiments.stages import controls, trained_agents
from experiments.stages.episodes import evaluation_requests, run_missing
from experiments.stages.first_seed import copy_untrained
from experiments.stages.stage import run_on_all
from mlagent_jax.agent.baselines import BASELINES
from mlagent_jax.agent.policy import Policy
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.evaluation.read_run import read_json
from mlagent_jax.evaluation.scores import score_trajectories, write_scores
from mlagent_jax.evaluation.text_tables import (
    SCORE_COLUMNS,
    TEMPERATURE_COLUMNS,
    score_rows,
    temperature_rows,
)
from mlagent_jax.parallel import distributed

STAGE = "evaluate"
# Their episodes of a task are all alike by construction, so one is enough.
_ONE_OUTCOME = ("starter", "constant", "bandit")


def run(experiment: Experiment) -> None:
    run_on_all(STAGE, experiment, _evaluate)


def _evaluate(experiment: Experiment) -> dict[str, Any]:
    trajectories: list[Trajectory] = []
    distributed.on_main(lambda: copy_untrained(experiment))
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
    trajectories = engine.on_main(lambda: trained_agents.run(experiment, agent))
    engine.unload()
    return trajectories


def _run_other(experiment: Experiment, agent: str) -> list[Trajectory]:
    return distributed.on_main(lambda: _run(experiment, _policy(experiment, agent), agent))


def _run(experiment: Experiment, policy: Policy, agent: str) -> list[Trajectory]:
    settings = experiment.settings
    episodes = 1 if agent in _ONE_OUTCOME else settings.evaluate.episodes
    requests = evaluation_requests(experiment, episodes)
    return run_missing(
        STAGE,
        experiment,
        experiment.workdir.evaluation_trajectories,
        [(policy, requests)],
        batch=experiment.settings.sampling.batch,
        env_runner=controls.env_runner(experiment, agent),
    )


def _score(experiment: Experiment, trajectories: list[Trajectory]) -> dict[str, Any]:
    scores = score_trajectories(
        trajectories,
        experiment.tasks_of("evaluate"),
        agents=experiment.settings.evaluate.all_agents,
        pairs=trained_agents.pairs(experiment.settings.evaluate),
        one_outcome=(*_ONE_OUTCOME, *trained_agents.with_one_outcome(experiment)),
        seed=experiment.settings.seed,
    ) | {"temperatures": read_json(experiment.workdir.temperatures) or {}}
    write_scores(experiment.workdir.scores, scores)
    with experiment.tracking.open(experiment.workdir.evaluation) as tracker:
        tracker.log_table("scores", SCORE_COLUMNS, score_rows(scores))
        if scores["temperatures"]:
            tracker.log_table("temperatures", TEMPERATURE_COLUMNS, temperature_rows(scores))
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
    return experiment.llm_policy
