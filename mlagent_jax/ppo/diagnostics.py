"""PPO's metrics, computed from arrays on the host. `tracking/METRICS.md` explains each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mlagent_jax.environment.state import Outcome
from mlagent_jax.ppo.batch import Arrays
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.kl import kl_estimate
from mlagent_jax.ppo.losses import clipped_tokens, clipped_values
from mlagent_jax.ppo.rollout import ActionSample, Rollout

Line = dict[str, float]
Tokens = Float[np.ndarray, " tokens"]  # one number for each action token


def rollout_metrics(rollouts: Sequence[Rollout]) -> Line:
    """Rewards, outcomes and lengths of an update's actions; masked actions met an infrastructure failure."""
    actions = [action for rollout in rollouts for action in rollout.actions]
    scored = [action for action in actions if action.reward is not None]
    rewards = np.array([action.reward for action in scored], np.float64)
    lengths = np.array([action.response_range[1] - action.response_range[0] for action in actions])
    line: Line = {
        "critic/score/mean": float(rewards.mean()),
        "critic/score/std": float(rewards.std()),
        "critic/score/min": float(np.min(rewards)),
        "critic/score/max": float(np.max(rewards)),
        "critic/score/p10": float(np.quantile(rewards, 0.1)),
        "critic/score/p90": float(np.quantile(rewards, 0.9)),
        "rollout/actions": len(actions),
        "rollout/masked_actions": len(actions) - len(scored),
        "rollout/masked_ratio": 1 - len(scored) / len(actions),
        "response_length/mean": float(lengths.mean()),
        "response_length/min": int(np.min(lengths)),
        "response_length/max": int(np.max(lengths)),
        "response_length/clip_ratio": float(np.mean([action.truncated for action in actions])),
    }
    return line | {f"outcome/{name}": _share(scored, name) for name in _SCORED_OUTCOMES}


def task_metrics(records: Sequence[Mapping[str, Any]]) -> Line:
    """Mean reward and number of scored actions of each task. records: those of `rollout.action_record`."""
    rewards: dict[str, list[float]] = {}
    for record in records:
        if record["reward"] is not None:
            rewards.setdefault(record["task"], []).append(record["reward"])
    line: Line = {}
    for task, earned in sorted(rewards.items()):
        line |= {f"reward/{task}/mean": float(np.mean(earned)), f"reward/{task}/actions": len(earned)}
    return line


def update_metrics(batch: Arrays, aux: Arrays, config: PPOConfig) -> Line:
    """Metrics of the policy, the critic and the losses, from arrays of the batch and of the last epoch.

    batch: a `PPOBatch` with its experience, advantages not normalised. aux: the auxiliary outputs of `Updater.update`.

    `actor/ratio`, `actor/ppo_kl` and the clip fractions are those of the loss: of each row when its gradient was taken,
    so of the policy before that step. With one minibatch and one epoch they are always 1, 0 and 0. `after_step`
    measures how far the step moved the policy.
    """
    mask = batch["mask"]
    of = {name: array[mask].astype(np.float64) for name, array in batch.items() if array.dtype == np.float32}
    new = {name: array[mask].astype(np.float64) for name, array in aux.items()}
    ratio = np.exp(new["logprobs"] - of["old_logprobs"])
    weights = of["weights"] / of["weights"].sum()
    clipped, lower = clipped_tokens(
        new["logprobs"],
        of["old_logprobs"],
        new["advantages"],
        config.clip_low,
        config.clip_high,
        config.dual_clip,
    )
    values_clipped = clipped_values(new["values"], of["old_values"], of["returns"], config.value_clip)
    return {
        **_summary("critic/rewards", _rewards_with_kl(batch, config)),
        **_summary("critic/advantages", new["advantages"]),
        "critic/advantages_raw/mean": float(of["advantages"].mean()),
        "critic/advantages_raw/std": float(of["advantages"].std()),
        **_summary("critic/returns", of["returns"]),
        **_summary("critic/values", of["old_values"]),
        "critic/vf_explained_var": explained_variance(of["returns"], of["old_values"]),
        "critic/vf_loss": float((weights * new["value_loss"]).sum()),
        "critic/vf_clipfrac": float(values_clipped.mean()),
        "actor/pg_loss": float((weights * new["policy_loss"]).sum()),
        "actor/pg_clipfrac": float(clipped.mean()),
        "actor/pg_clipfrac_lower": float(lower.mean()),
        "actor/ppo_kl": _mean_kl(of["old_logprobs"], new["logprobs"], "k1"),
        "actor/ppo_kl_k3": _mean_kl(of["old_logprobs"], new["logprobs"], "k3"),
        "actor/ratio/mean": float(ratio.mean()),
        "actor/ratio/max": float(ratio.max()),
        "actor/ratio/p99": float(np.quantile(ratio, 0.99)),
        "actor/ref_kl": _mean_kl(of["old_logprobs"], of["reference_logprobs"], "k1"),
        "actor/ref_kl_k3": _mean_kl(of["old_logprobs"], of["reference_logprobs"], "k3"),
        "actor/entropy": float((weights * new["entropy"]).sum()),
        **_sampler_mismatch(of["sampler_logprobs"], of["old_logprobs"]),
    }


def after_step(old_logprobs: Tokens, logprobs: Tokens) -> Line:
    """How far the update moved the policy, from the log-probs of the same tokens before it and after its last step."""
    ratio = np.exp(logprobs.astype(np.float64) - old_logprobs)
    return {
        "actor/post_update_kl_k3": _mean_kl(old_logprobs, logprobs, "k3"),
        "actor/post_update_ratio_max": float(ratio.max()),
        "actor/post_update_ratio_min": float(ratio.min()),
        "actor/post_update_tokens": int(ratio.size),
    }


def _rewards_with_kl(batch: Arrays, config: PPOConfig) -> Float[np.ndarray, " actions"]:
    """The reward of each scored action, minus its KL penalty if that is part of the reward.

    The mask of an action is a run of positions followed by a gap, even at the end of a row: the last position of a row
    predicts nothing.
    """
    mask, rewards = batch["mask"].ravel(), batch["rewards"].astype(np.float64)
    if config.kl_in == "reward":
        kl = kl_estimate(batch["old_logprobs"], batch["reference_logprobs"], config.kl_estimator)
        rewards = rewards - config.kl_coefficient * np.asarray(kl, np.float64)
    starts = np.flatnonzero(mask & ~np.r_[False, mask[:-1]])
    return np.add.reduceat(np.where(mask, rewards.ravel(), 0.0), starts)


def _sampler_mismatch(sampler_logprobs: Tokens, logprobs: Tokens) -> Line:
    """Absolute differences between sampler and trainer, in probabilities as in verl, and in log-probs."""
    probs = np.abs(np.exp(sampler_logprobs) - np.exp(logprobs))
    difference = np.abs(sampler_logprobs - logprobs)
    return {
        "training/rollout_probs_diff_mean": float(probs.mean()),
        "training/rollout_probs_diff_max": float(probs.max()),
        "training/rollout_probs_diff_std": float(probs.std()),
        "training/rollout_logprobs_diff_mean": float(difference.mean()),
        "training/rollout_logprobs_diff_max": float(difference.max()),
    }


def _summary(name: str, values: Float[np.ndarray, " values"]) -> Line:
    return {
        f"{name}/mean": float(values.mean()),
        f"{name}/min": float(np.min(values)),
        f"{name}/max": float(np.max(values)),
    }


def explained_variance(returns: Tokens, values: Tokens) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for a constant one or constant returns."""
    spread = returns.var()
    return float(1.0 - (returns - values).var() / spread) if spread > 0 else 0.0


_SCORED_OUTCOMES = tuple(str(outcome) for outcome in Outcome if outcome is not Outcome.INFRASTRUCTURE)


def _share(actions: Sequence[ActionSample], outcome: str) -> float:
    return sum(action.outcome == outcome for action in actions) / len(actions)


def _mean_kl(sampled: Tokens, other: Tokens, estimator: str) -> float:
    return float(np.mean(kl_estimate(sampled, other, estimator)))
