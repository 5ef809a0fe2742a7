"""Step-wise RL from the expert's states (or, as the baseline, whole episodes), by PPO from the SFT model."""

from __future__ import annotations

from typing import Any

from experiments.experiment import Experiment
from experiments.stages.collect import expert_trajectories
from experiments.stages.stage import run_on_all
from mlagent_jax.agent.model_policy import ModelPolicy
from mlagent_jax.parallel import distributed
from mlagent_jax.ppo.episodes import EpisodeCollector
from mlagent_jax.ppo.loop import train
from mlagent_jax.ppo.rollout import Collector, StateCollector
from mlagent_jax.ppo.states import StatePool

STAGE = "ppo"


def run(experiment: Experiment) -> None:
    run_on_all(STAGE, experiment, _train)


def _train(experiment: Experiment) -> dict[str, Any]:
    settings = experiment.settings
    params = experiment.params_before_rl(needed_by=STAGE)
    policy = experiment.policy(STAGE, params, settings.ppo.temperature)
    collector = _collector(experiment, policy) if distributed.is_main() else None
    trained = train(
        settings.ppo, experiment.model, params, collector, policy, experiment.workdir.ppo, experiment.mesh
    )
    experiment.export(experiment.workdir.ppo, trained)
    return {"updates": settings.ppo.updates} | (experiment.execution_counts() if collector else {})


def _collector(experiment: Experiment, policy: ModelPolicy) -> Collector:
    settings = experiment.settings
    if settings.rl.rollouts == "episodes":
        return EpisodeCollector(
            [task.name for task in experiment.held_in], experiment.stepper, settings.sampling.batch
        )
    trajectories = expert_trajectories(experiment, needed_by=STAGE)
    pool = StatePool(trajectories, {task.name: task for task in experiment.held_in}, policy.fits)
    return StateCollector(pool, experiment.stepper)
