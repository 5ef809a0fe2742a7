"""The numbers by which one sees whether PPO is well: all from arrays on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlagent_jax.environment.state import Outcome
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.kl import kl_estimate
from mlagent_jax.ppo.losses import clipped_tokens, clipped_values
from mlagent_jax.ppo.rollout import ActionSample, Rollout

Arrays = dict[str, np.ndarray]
Line = dict[str, float]


def rollout_metrics(rollouts: Sequence[Rollout]) -> Line:
    """Rewards, outcomes and lengths of an update's actions. `masked` counts those our infrastructure
    failed.
    """
    actions = [action for rollout in rollouts for action in rollout.actions]
    scored = [action for action in actions if action.reward is not None]
    rewards = np.array([action.reward for action in scored], np.float64)
    lengths = np.array([action.span[1] - action.span[0] for action in actions])
    line: Line = {
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "reward_min": float(np.min(rewards)),
        "reward_max": float(np.max(rewards)),
        "reward_p10": float(np.quantile(rewards, 0.1)),
        "reward_p90": float(np.quantile(rewards, 0.9)),
        "actions": len(actions),
        "masked": len(actions) - len(scored),
        "infrastructure_rate": 1 - len(scored) / len(actions),
        "response_tokens_mean": float(lengths.mean()),
        "response_tokens_max": int(lengths.max()),
        "truncation_rate": float(np.mean([action.truncated for action in actions])),
    }
    return line | {f"outcome/{name}": _share(scored, name) for name in _SCORED_OUTCOMES}


def update_metrics(batch: Arrays, learnt: Arrays, config: PPOConfig) -> Line:
    """How far the policy moved and what the critic knew; arrays [R,T], of the batch and of the last epoch.

    batch: a `PPOBatch` with its experience, advantages not normalised. learnt: the auxiliary outputs of
    `Updater.update`.

    `ratio_*`, `kl_old` and the clip fractions are those of the loss, as verl has them (`ppo_kl`, `pg_clipfrac`,
    `pg_clipfrac_lower`, `vf_clipfrac`): of each row when its gradient was taken, so of the policy before that step.
    With one minibatch and one epoch they are 1, 0 and 0, whatever the step does; `after_step` tells what it did.
    """
    mask = batch["mask"]
    of = {name: array[mask].astype(np.float64) for name, array in batch.items() if array.dtype == np.float32}
    new = {name: array[mask].astype(np.float64) for name, array in learnt.items()}
    ratio = np.exp(new["logprobs"] - of["old_logprobs"])
    mismatch = np.abs(of["sampler_logprobs"] - of["old_logprobs"])
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
        "advantage_mean": float(of["advantages"].mean()),
        "advantage_std": float(of["advantages"].std()),
        "advantage_min": float(np.min(of["advantages"])),
        "advantage_max": float(np.max(of["advantages"])),
        "return_mean": float(of["returns"].mean()),
        "value_mean": float(of["old_values"].mean()),
        "explained_variance": explained_variance(of["returns"], of["old_values"]),
        "clip_fraction": float(clipped.mean()),
        "clip_fraction_lower": float(lower.mean()),
        "value_clip_fraction": float(values_clipped.mean()),
        "ratio_mean": float(ratio.mean()),
        "ratio_max": float(ratio.max()),
        "ratio_p99": float(np.quantile(ratio, 0.99)),
        "kl_old": _mean_kl(of["old_logprobs"], new["logprobs"], "k3"),
        "ppo_kl": _mean_kl(of["old_logprobs"], new["logprobs"], "k1"),
        "kl": _mean_kl(of["old_logprobs"], of["reference_logprobs"], "k1"),
        "kl_k3": _mean_kl(of["old_logprobs"], of["reference_logprobs"], "k3"),
        "entropy": float((weights * new["entropy"]).sum()),
        "policy_loss": float((weights * new["policy_loss"]).sum()),
        "value_loss": float((weights * new["value_loss"]).sum()),
        "logprob_diff_mean": float(mismatch.mean()),
        "logprob_diff_max": float(mismatch.max()),
    }


def after_step(old_logprobs: np.ndarray, logprobs: np.ndarray) -> Line:
    """How far the update moved the policy, from log-probs before it and after its last step, of the same tokens [N]."""
    ratio = np.exp(logprobs.astype(np.float64) - old_logprobs)
    return {
        "step_kl": _mean_kl(old_logprobs, logprobs, "k3"),
        "step_ratio_max": float(ratio.max()),
        "step_ratio_min": float(ratio.min()),
        "step_tokens": int(ratio.size),
    }


def explained_variance(returns: np.ndarray, values: np.ndarray) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for a constant; 0 if nothing
    varies.
    """
    spread = returns.var()
    return float(1.0 - (returns - values).var() / spread) if spread > 0 else 0.0


_SCORED_OUTCOMES = tuple(str(outcome) for outcome in Outcome if outcome is not Outcome.INFRASTRUCTURE)


def _share(actions: Sequence[ActionSample], outcome: str) -> float:
    return sum(action.outcome == outcome for action in actions) / len(actions)


def _mean_kl(sampled: np.ndarray, other: np.ndarray, estimator: str) -> float:
    return float(np.mean(kl_estimate(sampled, other, estimator)))
