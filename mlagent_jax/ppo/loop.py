"""The PPO loop: collect rollouts, update, log, save. A run that is killed resumes with no update lost or repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Bool

from mlagent_jax.agent.model_policy import ModelPolicy
from mlagent_jax.errors import UserError
from mlagent_jax.finite import require_finite
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.jsonl import Record, append_jsonl, drop_after
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import partition
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import with_adapters
from mlagent_jax.parallel import distributed
from mlagent_jax.parallel.mesh import check_batch_fits
from mlagent_jax.ppo import guards
from mlagent_jax.ppo.actor_critic import ActorCritic, LearningRates, TrainStates
from mlagent_jax.ppo.batch import make_batch
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.critic_start import fit_value_head
from mlagent_jax.ppo.diagnostics import after_step, rollout_metrics, task_metrics, update_metrics
from mlagent_jax.ppo.leave_one_out import leave_one_out
from mlagent_jax.ppo.periodic_evaluation import PeriodicEvaluation
from mlagent_jax.ppo.phase_timer import PhaseTimer
from mlagent_jax.ppo.rollout import Collector, Rollout, shuffled_rewards
from mlagent_jax.ppo.update import Updater
from mlagent_jax.run_folder import ROLLOUTS
from mlagent_jax.tracking.tracker import Tracker, Tracking
from mlagent_jax.training.checkpoints import CheckpointError, Checkpoints
from mlagent_jax.training.progress import ProgressBar
from mlagent_jax.training.stage_checkpoints import (
    SavedState,
    open_checkpoints,
    resume_state,
    save_state,
)
from mlagent_jax.training.state import TrainState


def train(
    config: PPOConfig,
    model: Qwen2Config,
    params: Params,
    collector: Collector | None,
    policy: ModelPolicy,
    workdir: Path,
    mesh: Mesh,
    demonstrations: Sequence[Rollout] = (),
    tracking: Tracking = Tracking(),
    evaluation: PeriodicEvaluation | None = None,
) -> Params:
    """Trains from the SFT model `params`, which remains the reference of the KL; returns the actor's parameters.

    With `model.lora`, actor and critic are adapters beside `params`. They start as the adapters in `params`, or as new
    ones if it has none. The model that is sampled, saved and returned is `params` with the actor's adapters.

    collector: step-wise (`StateCollector`) or episode-wise (`EpisodeCollector`). It is needed on the main process only,
    which runs the environment; all processes sample together. policy: its engine is one of `model`; the engine's
    weights and the temperature are set here. demonstrations: the expert's actions and rewards, the same on every
    process, for `critic_start` "expert". evaluation: of the policy along training, none by default.

    Resumes from the newest checkpoint in `workdir`, with the same bits as an uninterrupted run. Writes checkpoints,
    rollouts.jsonl and what `tracking` chooses there; the metrics are those of tracking/METRICS.md.

    Raises UserError for settings that cannot work, or if no action of an update could be scored. Raises NotFiniteError
    if actor or critic diverges: nothing of that update is written, and earlier checkpoints are kept.
    """
    check(config, policy.engine.config, mesh)
    policy = policy.with_sampling(config.temperature)
    require_finite(params, "the weights that PPO starts from", "start from others")
    params = with_adapters(model, params, config.seed)
    updater = Updater(config, model, params, mesh)
    states = updater.initial_states(_value_head(config, model, params, demonstrations, mesh))
    main = distributed.is_main()
    rollouts_path = workdir / ROLLOUTS
    with open_checkpoints(workdir, config.keep) as checkpoints:
        start, states = resume(checkpoints, states, updater.policy_params(states))
        if main:
            drop_after(rollouts_path, start)
        with (
            tracking.open(workdir, start) as tracker,
            ProgressBar(workdir.name, config.updates, start, shown=main) as bar,
        ):
            for update in range(start, config.updates):
                if evaluation is not None:
                    evaluation.at(update, policy.engine, updater.policy_params(states))
                timer = PhaseTimer()
                states, records, line = _run_update(config, updater, states, collector, policy, update, timer)
                line["perf/throughput"] = line["perf/total_num_tokens"] / line["timing_s/step"] / mesh.size
                if main:
                    append_jsonl(rollouts_path, [{"step": update + 1} | record for record in records])
                _log_update(tracker, update, line)
                save(checkpoints, update + 1, states, updater.policy_params(states))
                bar.advance(
                    f"reward {line['critic/score/mean']:.3f}, KL {line['actor/ref_kl']:.4f}, {timer.total:.1f} s"
                )
            if evaluation is not None:
                evaluation.at(config.updates, policy.engine, updater.policy_params(states), is_last=True)
    return updater.policy_params(states)


def _run_update(
    config: PPOConfig,
    updater: Updater,
    states: TrainStates,
    collector: Collector | None,
    policy: ModelPolicy,
    update: int,
    timer: PhaseTimer,
) -> tuple[TrainStates, list[Record], dict[str, float]]:
    """Samples with the current policy and learns from it; the old states are donated.

    Returns the new states, the records of the actions (on the main process only) and the update's metrics.
    """
    policy.engine.load(updater.policy_params(states))
    timer.end_phase("update_weights")
    rates = updater.learning_rates(states)
    rollouts, records, counts = _collect(config, collector, policy, update, rates, timer)
    states, line = learn(config, updater, states, rollouts, update, timer)
    line |= task_metrics(records) | timer.seconds | counts
    line |= {
        "timing_s/step": timer.total,
        "perf/total_num_tokens": sum(len(rollout.tokens) for rollout in rollouts),
    }
    return states, records, line


def _log_update(tracker: Tracker, update: int, line: Mapping[str, float]) -> None:
    if line["rollout/masked_actions"]:
        logging.warning(
            "PPO update %d: %d of %d actions met infrastructure failures and are not trained on",
            update + 1,
            line["rollout/masked_actions"],
            line["rollout/actions"],
        )
    tracker.log_scalars(update + 1, line)


def _value_head(
    config: PPOConfig, model: Qwen2Config, params: Params, demonstrations: Sequence[Rollout], mesh: Mesh
) -> Params | None:
    """The critic's start; None for zeros."""
    if config.critic == "none" or config.critic_start == "zero":
        return None
    if not demonstrations:
        raise UserError("ppo.critic_start is 'expert', but there are no expert actions to fit the critic to")
    return fit_value_head(config, model, params, demonstrations, mesh)


def check(config: PPOConfig, engine: EngineConfig, mesh: Mesh) -> None:
    """Raises UserError if the settings of engine, mesh and PPO do not fit together."""
    config.validate()
    if engine.max_length > config.row_length:
        raise UserError(
            f"ppo.row_length is {config.row_length}, but a prompt and its response may have {engine.max_length} "
            "tokens (sampling.max_length)"
        )
    check_batch_fits(config.micro_rows, config.row_length, mesh, "ppo")


def learn(
    config: PPOConfig,
    updater: Updater,
    states: TrainStates,
    rollouts: Sequence[Rollout],
    update: int,
    timer: PhaseTimer | None = None,
) -> tuple[TrainStates, dict[str, float]]:
    """One update from given rollouts: the new states (the old ones are donated) and the update's metrics."""
    timer = timer or PhaseTimer()
    line = rollout_metrics(rollouts)
    if config.shuffle_rewards:
        rollouts = shuffled_rewards(rollouts, config.seed, update)
    if config.advantage == "rloo":
        rollouts = leave_one_out(rollouts)
    batch = make_batch(config, rollouts, update)
    experience = updater.compute_experience(states, batch)
    mask = batch.arrays["mask"]
    guards.check_experience(experience, mask, f"before update {update + 1}", updater.learning_rates(states))
    timer.end_phase("old_log_prob")
    states, aux, scalars = updater.update(states, batch, experience, update)
    timer.end_phase("update_actor")
    line |= update_metrics(batch.arrays | experience, aux, config) | scalars
    # Finite weights can still be too large to compute with: some rows are computed again before anything is saved.
    rows = _rows_to_check(config, mask, update)
    after, checked = updater.compute_experience(states, batch, rows), mask[rows]
    guards.check_experience(after, checked, f"after update {update + 1}", updater.learning_rates(states))
    line |= after_step(experience["old_logprobs"][rows][checked], after["old_logprobs"][checked])
    timer.end_phase("post_update_check")
    return states, line


def _rows_to_check(config: PPOConfig, mask: Bool[np.ndarray, "B T"], update: int) -> slice:
    """A micro-batch that contains an action; a different one in each update."""
    starts = [
        start
        for start in range(0, len(mask), config.micro_rows)
        if mask[start : start + config.micro_rows].any()
    ]
    start = starts[update % len(starts)]
    return slice(start, start + config.micro_rows)


def save(checkpoints: Checkpoints, update: int, states: TrainStates, policy_params: Params) -> None:
    """Saves the states after `update`, the actor's parameters as those of the whole policy."""
    save_state(checkpoints, SavedState(update, policy_params, _other_than_policy(states)))


def resume(checkpoints: Checkpoints, states: TrainStates, policy_params: Params) -> tuple[int, TrainStates]:
    """The number of updates done and the states after them, from the newest intact checkpoint.

    They get the shardings of `states` and of `policy_params`, the policy's parameters in `states`. Returns 0 and
    `states` if nothing has been saved. Raises CheckpointError.
    """
    saved = resume_state(checkpoints, policy_params, _other_than_policy(states))
    if saved is None:
        return 0, states
    update = saved.step
    opt_state, step, critic = saved.training
    if not update <= int(critic.step) or int(step) > int(critic.step):
        raise CheckpointError(
            f"checkpoint {update} of PPO holds an actor of {int(step)} steps and a critic of {int(critic.step)}, which "
            "are not of one update: delete its folder to resume from the one before"
        )
    return update, ActorCritic(TrainState(partition(saved.params)[0], opt_state, step), critic)


def _other_than_policy(states: TrainStates) -> tuple[Any, ...]:
    """What a checkpoint holds besides the policy's parameters."""
    return states.actor.opt_state, states.actor.step, states.critic


def _collect(
    config: PPOConfig,
    collector: Collector | None,
    policy: ModelPolicy,
    update: int,
    rates: LearningRates,
    timer: PhaseTimer,
) -> tuple[list[Rollout], list[Record], dict[str, int]]:
    """The update's rollouts, the records of its actions (on the main process only) and further metrics."""
    engine = policy.engine
    records: list[Record] = []

    def collect() -> tuple[list[Rollout], dict[str, float], dict[str, int]]:
        assert collector is not None, "the main process needs a collector"
        collected = collector.collect(policy, config.batch_size, config.seed, update)
        records.extend(collected.records)
        return collected.rollouts, collected.seconds, collected.counts

    rollouts, seconds, counts = engine.on_main(collect)
    engine.unload()
    timer.end_phases(seconds)
    guards.check_rollouts(rollouts, f"while update {update + 1} was sampled", rates.actor)
    scored = sum(action.reward is not None for rollout in rollouts for action in rollout.actions)
    if not scored:
        raise UserError(
            f"none of the rollouts of PPO update {update + 1} could be scored: all met infrastructure failures; repair "
            "the sandbox and run the same command again"
        )
    return rollouts, records, counts
