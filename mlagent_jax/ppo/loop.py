"""The PPO loop: sample, act, measure, update, write down. No update is ever lost or done twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mlagent_jax.agent.model_policy import ModelPolicy
from mlagent_jax.errors import UserError
from mlagent_jax.finite import require_finite
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import partition
from mlagent_jax.models.qwen2 import with_adapters
from mlagent_jax.parallel import distributed
from mlagent_jax.parallel.mesh import check_batch_fits
from mlagent_jax.ppo import guards
from mlagent_jax.ppo.batch import make_batch
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.critic_start import fit_value_head
from mlagent_jax.ppo.diagnostics import after_step, rollout_metrics, update_metrics
from mlagent_jax.ppo.rollout import Collector, Rollout, shuffled_rewards
from mlagent_jax.ppo.step import Learners
from mlagent_jax.ppo.update import Updater
from mlagent_jax.training.checkpoints import CheckpointError, Checkpoints
from mlagent_jax.training.metrics import MetricsWriter, append_jsonl, drop_after
from mlagent_jax.training.progress import ProgressBar
from mlagent_jax.training.state import TrainState

CHECKPOINT_ITEMS = ("params", "training")

_log = logging.getLogger("mlagent_jax")


def train(
    config: PPOConfig,
    model: Qwen2Config,
    params: Any,
    collector: Collector | None,
    policy: ModelPolicy,
    workdir: Path,
    mesh: Mesh,
    demonstrations: Sequence[Rollout] = (),
) -> Any:
    """Trains from the SFT model `params`, which stays the KL's reference; returns the actor's parameters.

    With `model.lora`, actor and critic are adapters beside `params`, which start as its own, or as fresh ones where it
    has none. What is sampled from, saved for later stages and returned is `params` with the actor's; the engine of
    `policy` is one of `model`.
    collector: step-wise (`StateCollector`) or episode-wise (`EpisodeCollector`); needed on the main process
    only, which acts; all of them sample together. policy: how to sample; its engine's weights and its temperature
    are set here.
    demonstrations: the expert's actions and rewards, the same on every process, for `critic_start` "expert".
    Goes on from the newest checkpoint in `workdir`, to the same bits as an uninterrupted run. Writes
    checkpoints, metrics.jsonl, rollouts.jsonl and TensorBoard events there.
    Raises UserError for settings that cannot work, and where not one action of an update could be scored, and
    NotFiniteError where actor or critic diverges: what was saved before stays, and nothing is written of that update.
    """
    check(config, policy.engine.config, mesh)
    policy = policy.with_sampling(config.temperature)
    require_finite(params, "the weights that PPO starts from", "start from others")
    params = with_adapters(model, params, config.seed)
    updater = Updater(config, model, params, mesh)
    states = updater.initial_states(_value_head(config, model, params, demonstrations, mesh))
    main = distributed.is_main()
    rollouts_path = workdir / "rollouts.jsonl"
    with Checkpoints(workdir / "checkpoints", CHECKPOINT_ITEMS, config.keep) as checkpoints:
        start, states = resume(checkpoints, states, updater.policy_params(states))
        if main:
            drop_after(rollouts_path, start)
        writer = MetricsWriter(workdir, start, enabled=main)
        with ProgressBar("ppo", config.updates, start, shown=main) as bar:
            for update in range(start, config.updates):
                clock = _Clock()
                policy.engine.load(updater.policy_params(states))
                clock.lap("sync")
                rates = updater.learning_rates(states)
                rollouts, records, counts = _collect(config, collector, policy, update, rates, clock)
                states, line = learn(config, updater, states, rollouts, update, clock)
                tokens = sum(len(rollout.tokens) for rollout in rollouts)
                line |= {"tokens_per_second": tokens / clock.total} | clock.seconds | counts
                if line["masked"]:
                    _log.warning(
                        "PPO update %d: %d of %d actions met faults of the infrastructure and are not learnt from",
                        update + 1,
                        line["masked"],
                        line["actions"],
                    )
                if main:
                    append_jsonl(rollouts_path, [{"step": update + 1} | record for record in records])
                writer.write(update + 1, line)
                save(checkpoints, update + 1, states, updater.policy_params(states))
                bar.advance(f"reward {line['reward_mean']:.3f}, KL {line['kl']:.4f}, {clock.total:.1f} s")
        writer.close()
    return updater.policy_params(states)


def _value_head(
    config: PPOConfig, model: Qwen2Config, params: Any, demonstrations: Sequence[Rollout], mesh: Mesh
) -> Any:
    if config.critic == "none" or config.critic_start == "zero":
        return None
    if not demonstrations:
        raise UserError("ppo.critic_start is 'expert', but there are no expert actions to fit the critic to")
    return fit_value_head(config, model, params, demonstrations, mesh)


def check(config: PPOConfig, engine: EngineConfig, mesh: Mesh) -> None:
    """Raises UserError where settings of the engine, the mesh and PPO do not go together."""
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
    states: Learners,
    rollouts: Sequence[Rollout],
    update: int,
    clock: _Clock | None = None,
) -> tuple[Learners, dict[str, float]]:
    """One update from given rollouts: the new states (the old ones are donated) and its metrics."""
    clock = clock or _Clock()
    line = rollout_metrics(rollouts)
    if config.shuffle_rewards:
        rollouts = shuffled_rewards(rollouts, config.seed, update)
    batch = make_batch(config, rollouts, update)
    measured = updater.measure(states, batch)
    mask = batch.arrays["mask"]
    guards.check_measured(measured, mask, f"before update {update + 1}", updater.learning_rates(states))
    clock.lap("logprob")
    states, learnt, norms = updater.update(states, batch, measured, update)
    clock.lap("update")
    line |= update_metrics(batch.arrays | measured, learnt, config) | norms
    # Finite weights may be too large to compute with, so some rows are measured again before anything is saved.
    rows = _some_rows(config, mask, update)
    after, tried = updater.measure(states, batch, rows), mask[rows]
    guards.check_measured(after, tried, f"after update {update + 1}", updater.learning_rates(states))
    line |= after_step(measured["old_logprobs"][rows][tried], after["old_logprobs"][tried])
    clock.lap("check")
    return states, line


def _some_rows(config: PPOConfig, mask: np.ndarray, update: int) -> slice:
    """A micro-batch of rows with an action in it, another one in each update."""
    starts = [
        start
        for start in range(0, len(mask), config.micro_rows)
        if mask[start : start + config.micro_rows].any()
    ]
    start = starts[update % len(starts)]
    return slice(start, start + config.micro_rows)


def save(checkpoints: Checkpoints, update: int, states: Learners, policy: Any) -> None:
    """The policy (`Updater.policy_params`) apart from the rest, so that a later stage can read it alone."""
    actor, critic = states
    checkpoints.save(update, params=policy, training=(actor.opt_state, actor.step, critic))


def resume(checkpoints: Checkpoints, states: Learners, policy: Any) -> tuple[int, Learners]:
    """The newest whole states and their update, with the shardings of `states` and of their policy
    (`Updater.policy_params`); 0 and `states` where none was saved.
    """
    actor, critic = states
    found = checkpoints.resume(params=policy, training=(actor.opt_state, actor.step, critic))
    if found is None:
        return 0, states
    update, saved = found
    opt_state, step, critic = saved["training"]
    if not update <= int(critic.step) or int(step) > int(critic.step):
        raise CheckpointError(
            f"checkpoint {update} of PPO holds an actor of {int(step)} steps and a critic of {int(critic.step)}, which "
            "are not of one update: delete its folder to go on from the one before"
        )
    return update, Learners(TrainState(partition(saved["params"])[0], opt_state, step), critic)


def _collect(
    config: PPOConfig,
    collector: Collector | None,
    policy: ModelPolicy,
    update: int,
    rates: Learners,
    clock: _Clock,
) -> tuple[list[Rollout], list[dict[str, Any]], dict[str, int]]:
    """The update's rollouts and further metrics, the same on every process; on the main one the actions' records."""
    engine = policy.engine
    records: list[dict[str, Any]] = []

    def work() -> tuple[list[Rollout], dict[str, float], dict[str, int]]:
        assert collector is not None, "the main process needs a collector"
        got = collector.collect(policy, config.batch_size, config.seed, update)
        records.extend(got.records)
        return got.rollouts, got.seconds, got.counts

    rollouts, seconds, counts = engine.on_main(work)
    engine.unload()
    clock.note(seconds)
    guards.check_rollouts(rollouts, f"while update {update + 1} was sampled", rates.actor)
    scored = sum(action.reward is not None for rollout in rollouts for action in rollout.actions)
    if not scored:
        raise UserError(
            f"none of the rollouts of PPO update {update + 1} could be scored: all met a failure of our own "
            "infrastructure; mend the sandbox and run the same command again"
        )
    return rollouts, records, counts


class _Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[f"seconds/{phase}"] = now - self._last
        self._last = now

    def note(self, seconds: dict[str, float]) -> None:
        self.seconds |= {f"seconds/{phase}": value for phase, value in seconds.items()}
        self._last = time.monotonic()

    @property
    def total(self) -> float:
        return time.monotonic() - self._began
