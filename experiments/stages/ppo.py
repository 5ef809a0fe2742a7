"""PPO from the SFT model: step-wise from the expert's states or, as the baseline, on whole episodes."""

from __future__ import annotations

from typing import Any

from absl import logging

from experiments.experiment import Experiment
from experiments.stages.episodes import evaluation_requests, run_missing
from experiments.stages.stage import run_on_all
from mlagent_jax.agent.model_policy import ModelPolicy
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.evaluation.along_training import along_training_name
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.parallel import distributed
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.episodes import EpisodeCollector
from mlagent_jax.ppo.loop import train
from mlagent_jax.ppo.periodic_evaluation import PeriodicEvaluation
from mlagent_jax.ppo.rollout import Collector, Rollout, StateCollector, demonstration
from mlagent_jax.ppo.states import StatePool
from mlagent_jax.rewards import reward, task_scale
from mlagent_jax.text.chat import encode_chat
from mlagent_jax.text.packing import cut_at_step

STAGE = "ppo"


def run(experiment: Experiment) -> None:
    run_on_all(STAGE, experiment, lambda each: train_policy(STAGE, each, each.settings.ppo))


def train_policy(stage: str, experiment: Experiment, config: PPOConfig) -> dict[str, Any]:
    """Trains and exports the model of a stage, and returns the stage's summary."""
    if not experiment.settings.tasks.rl:
        return {"skipped": "config.tasks.rl is empty"}
    params = experiment.params_before_rl(needed_by=stage)
    policy = experiment.policy(stage, config.temperature)
    collector = _collector(stage, experiment, policy) if distributed.is_main() else None
    trained = train(
        config,
        experiment.trained_model,
        params,
        collector,
        policy,
        experiment.workdir.stage(stage),
        experiment.mesh,
        demonstrations=distributed.on_main(lambda: _demonstrations(stage, experiment)),
        tracking=experiment.tracking,
        evaluation=_evaluation(stage, experiment),
    )
    experiment.export(stage, trained)
    summary: dict[str, Any] = {"updates": config.updates}
    if isinstance(collector, StateCollector):
        summary |= {"states": len(collector.pool), "states_left_out": collector.pool.left_out}
    return summary | (experiment.execution_counts() if collector else {})


def _evaluation(stage: str, experiment: Experiment) -> PeriodicEvaluation | None:
    settings = experiment.settings

    def run(update: int) -> None:
        policy = experiment.policy(along_training_name(stage, update), settings.evaluate.temperature)
        run_missing(
            f"{stage}, evaluation after {update} updates",
            experiment,
            experiment.workdir.along_training(stage),
            [(policy, evaluation_requests(experiment, settings.evaluate.along_episodes))],
            batch=settings.sampling.batch,
        )

    return PeriodicEvaluation(settings.evaluate.every, run) if settings.evaluate.every else None


def _collector(stage: str, experiment: Experiment, policy: ModelPolicy) -> Collector:
    settings = experiment.settings
    if settings.rl.rollouts == "episodes":
        names = [task.name for task in experiment.tasks_of("rl")]
        return EpisodeCollector(names, experiment.env_runner, settings.sampling.batch)
    trajectories = experiment.expert_trajectories(stage, "rl")
    pool = StatePool(trajectories, {task.name: task for task in experiment.tasks_of("rl")}, policy.fits)
    if pool.left_out:
        logging.warning(
            "%d of %d states of the expert's episodes are not in the pool: %s",
            pool.total - len(pool),
            pool.total,
            pool.left_out_summary,
        )
    return StateCollector(pool, experiment.env_runner, settings.ppo.samples_per_state)


def _demonstrations(stage: str, experiment: Experiment) -> list[Rollout]:
    """The expert's actions and their rewards, if the critic starts from them."""
    ppo = experiment.settings.ppo
    if ppo.critic_start != "expert":
        return []
    expert = [t for t in experiment.expert_trajectories(stage, "rl") if not t.is_masked]
    encoded = [encode_chat(experiment.tokenizer, chat) for chat in experiment.chats(expert)]
    return [
        demonstration(cut_at_step(sequence, ppo.row_length), expert_rewards(experiment, trajectory))
        for sequence, trajectory in zip(encoded, expert, strict=True)
    ]


def expert_rewards(experiment: Experiment, trajectory: Trajectory) -> list[float | None]:
    """The rewards of the expert's actions: as single steps, or as in their episode if rollouts are episodes.

    They are computed anew, as the trajectories may be of a run with another form of reward.
    """
    settings = experiment.settings
    (task,) = (task for task in experiment.tasks_of("rl") if task.name == trajectory.task)
    scale, is_better = task_scale(task, trajectory.m_init_public), METRICS[task.metric].is_better
    over_best = settings.rl.rollouts == "episodes" and settings.reward.episode_baseline == "best"
    best, found = trajectory.m_init_public, []
    for step in trajectory.steps:
        baseline = best if over_best else step.m_before
        found.append(reward(settings.reward, scale, step.outcome, baseline, step.m_after))
        if is_better(step.after.public_score, best):
            best = step.after.public_score
    return found
