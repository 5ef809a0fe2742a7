"""Every metric that a run logs: its unit, the place of its formula, and its name in verl. METRICS.md is made from it.

    python -m mlagent_jax.tracking.glossary

verl's names are those of its `trainer/ppo/metric_utils.py`, `trainer/ppo/core_algos.py`, `utils/debug/metrics.py` and
`trainer/sft_trainer.py`. A name in capitals stands for whatever the run has, such as a task.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mlagent_jax.files import write_atomically
from mlagent_jax.tracking.metric import SAME, Metric, pattern

PAGE = Path(__file__).with_name("METRICS.md")
COMMAND = "python -m mlagent_jax.tracking.glossary"

SFT, PPO, LLM = "sft", "ppo", "llm"

_LOOP = "mlagent_jax/ppo/loop.py:train"
_SFT_LOOP = "mlagent_jax/sft/loop.py:train"
_ROLLOUT = "mlagent_jax/ppo/diagnostics.py:rollout_metrics"
_UPDATE = "mlagent_jax/ppo/diagnostics.py:update_metrics"
_TASKS = "mlagent_jax/ppo/diagnostics.py:task_metrics"
_AFTER = "mlagent_jax/ppo/diagnostics.py:after_step"
_MISMATCH = "mlagent_jax/ppo/diagnostics.py:_sampler_mismatch"
_REWARDS = "mlagent_jax/ppo/diagnostics.py:_rewards_with_kl"
_EPISODES = "mlagent_jax/ppo/episodes.py:EpisodeCollector"
_STATES = "mlagent_jax/ppo/rollout.py:StateCollector"
_UPDATER = "mlagent_jax/ppo/update.py:Updater"
_USAGE = "mlagent_jax/llm/usage.py:RoleUsage"

GLOSSARY: dict[str, tuple[Metric, ...]] = {
    SFT: (
        Metric(
            "train/loss",
            "nats / token",
            "mean negative log-likelihood of the step's action tokens",
            "mlagent_jax/sft/step.py:train_step",
            SAME,
        ),
        Metric(
            "val/loss",
            "nats / token",
            "the same of the held-out trajectories",
            "mlagent_jax/sft/loop.py:_Evaluation",
            SAME,
            "the mean over batches of each batch's mean",
        ),
        Metric(
            "train/grad_norm",
            "–",
            "global norm of the gradient, before clipping",
            "mlagent_jax/sft/step.py:train_step",
            SAME,
        ),
        Metric("train/lr", "–", "learning rate of the step", _SFT_LOOP, SAME),
        Metric(
            "train/action_tokens",
            "tokens",
            "tokens that the step's loss is a mean over",
            "mlagent_jax/sft/step.py:train_step",
        ),
        Metric(
            "train/total_tokens",
            "tokens",
            "tokens of all steps so far, prompts included",
            _SFT_LOOP,
            "train/total_tokens(B)",
            "in billions",
        ),
        Metric(
            "perf/throughput",
            "tokens / s / device",
            "tokens trained on since the line before, evaluation left out",
            _SFT_LOOP,
            SAME,
            "in its PPO trainer only",
        ),
    ),
    PPO: (
        Metric(
            "critic/score/{mean,min,max}",
            "reward",
            "rewards of the update's actions, from the environment alone",
            _ROLLOUT,
            SAME,
            "one score per sequence; here one per action",
        ),
        Metric(
            "critic/score/{std,p10,p90}",
            "reward",
            "their standard deviation and percentiles",
            _ROLLOUT,
        ),
        Metric(
            "critic/rewards/{mean,min,max}",
            "reward",
            "the same less the KL to the SFT model, if that is in the reward, and less the baseline of RLOO",
            _REWARDS,
            SAME,
            "one reward per sequence; here one per action",
        ),
        Metric("reward/TASK/mean", "reward", "mean reward of the actions on one task", _TASKS),
        Metric("reward/TASK/actions", "actions", "how many that mean is over", _TASKS),
        Metric(
            "outcome/{success,neutral,corner,error,malformed}",
            "share",
            "share of scored actions by outcome",
            _ROLLOUT,
        ),
        Metric("rollout/actions", "actions", "actions that were sampled", _ROLLOUT),
        Metric(
            "rollout/masked_actions",
            "actions",
            "actions lost to infrastructure failures; they are not trained on",
            _ROLLOUT,
        ),
        Metric("rollout/masked_ratio", "share", "masked_actions / actions", _ROLLOUT),
        Metric(
            "rollout/{episodes,masked_episodes,repeated_episodes,episodes_without_room}",
            "episodes",
            "episode-wise only: sampled; lost to the infrastructure; repeated for it; without room for a response",
            _EPISODES,
        ),
        Metric(
            "response_length/{mean,min,max}",
            "tokens",
            "of a sampled response, with its end of turn",
            _ROLLOUT,
            SAME,
        ),
        Metric(
            "response_length/clip_ratio",
            "share",
            "responses that were cut at the length limit",
            _ROLLOUT,
            SAME,
        ),
        Metric(
            "critic/advantages/{mean,min,max}",
            "reward",
            "over action tokens, as the loss is given them, so normalised if that is configured",
            _UPDATE,
            SAME,
        ),
        Metric("critic/advantages_raw/{mean,std}", "reward", "the same before normalisation", _UPDATE),
        Metric("critic/returns/{mean,min,max}", "reward", "returns, over action tokens", _UPDATE, SAME),
        Metric(
            "critic/values/{mean,min,max}",
            "reward",
            "the critic's values before the update, over action tokens",
            _UPDATE,
            SAME,
        ),
        Metric(
            "critic/vf_explained_var",
            "–",
            "1 - Var(returns - values) / Var(returns)",
            "mlagent_jax/ppo/diagnostics.py:explained_variance",
            SAME,
            "adds 1e-5 to the denominator",
        ),
        Metric(
            "critic/vf_loss",
            "reward²",
            "half the squared error, the larger of clipped and not",
            "mlagent_jax/ppo/losses.py:value_loss",
            SAME,
        ),
        Metric(
            "critic/vf_clipfrac",
            "share",
            "action tokens whose value the loss clips",
            "mlagent_jax/ppo/losses.py:clipped_values",
            SAME,
        ),
        Metric("critic/grad_norm", "–", "global norm of the critic's gradient", _UPDATER, SAME),
        Metric("critic/lr", "–", "learning rate of the update's last step", _UPDATER, SAME),
        Metric(
            "actor/pg_loss",
            "–",
            "the clipped objective, negated, over the update's last epoch",
            "mlagent_jax/ppo/losses.py:policy_loss",
            SAME,
        ),
        Metric(
            "actor/pg_clipfrac",
            "share",
            "action tokens whose ratio the loss clips",
            "mlagent_jax/ppo/losses.py:clipped_tokens",
            SAME,
        ),
        Metric(
            "actor/pg_clipfrac_lower",
            "share",
            "action tokens that the dual clip bounds",
            "mlagent_jax/ppo/losses.py:clipped_tokens",
            SAME,
        ),
        Metric(
            "actor/ppo_kl",
            "nats / token",
            "KL from the policy before the update, when gradients are taken: mean of log pi_old - log pi (k1)",
            _UPDATE,
            SAME,
        ),
        Metric("actor/ppo_kl_k3", "nats / token", "the same by the k3 estimator", _UPDATE),
        Metric(
            "actor/ratio/{mean,max,p99}",
            "–",
            "pi / pi_old of action tokens, when gradients are taken",
            _UPDATE,
        ),
        Metric(
            "actor/post_update_kl_k3",
            "nats / token",
            "KL from the policy before the update to that after its last step, on some of its rows",
            _AFTER,
        ),
        Metric(
            "actor/post_update_ratio_{min,max}",
            "–",
            "pi / pi_old of the same tokens",
            _AFTER,
        ),
        Metric("actor/post_update_tokens", "tokens", "how many those are", _AFTER),
        Metric(
            "actor/ref_kl",
            "nats / token",
            "KL to the SFT model: mean of log pi - log pi_ref over action tokens (k1)",
            _UPDATE,
            "actor/reward_kl_penalty",
            "a mean over sequences, by the configured estimator, logged only if the KL is in the reward",
        ),
        Metric(
            "actor/ref_kl_k3",
            "nats / token",
            "the same by the k3 estimator",
            "mlagent_jax/ppo/kl.py:kl_estimate",
        ),
        Metric(
            "actor/entropy",
            "nats / token",
            "of the policy at the sampling temperature, when gradients are taken",
            _UPDATE,
            SAME,
        ),
        Metric("actor/grad_norm", "–", "global norm of the actor's gradient", _UPDATER, SAME),
        Metric(
            "actor/lr",
            "–",
            "learning rate of the update's last step, 0 while only the critic learns",
            _UPDATER,
            SAME,
        ),
        Metric(
            "training/ppo_epochs", "epochs", "passes over the batch, fewer if target_kl ends them", _UPDATER
        ),
        Metric(
            "training/rollout_probs_diff_{mean,max,std}",
            "probability",
            "difference of a sampled token's probability between sampler and trainer, in absolute value",
            _MISMATCH,
            SAME,
        ),
        Metric(
            "training/rollout_logprobs_diff_{mean,max}",
            "nats",
            "the same of its log-probability",
            _MISMATCH,
        ),
        Metric("timing_s/update_weights", "s", "handing the new weights to the sampler", _LOOP, SAME),
        Metric(
            "timing_s/gen",
            "s",
            "sampling; episode-wise with the environment's time in it",
            _STATES,
            SAME,
        ),
        Metric("timing_s/env", "s", "applying, executing and grading the actions; step-wise only", _STATES),
        Metric(
            "timing_s/old_log_prob",
            "s",
            "log-probs, reference log-probs, values and advantages, in one pass",
            _LOOP,
            SAME,
            "with ref, values and adv timed apart",
        ),
        Metric(
            "timing_s/update_actor",
            "s",
            "all optimiser steps of actor and critic",
            _LOOP,
            SAME,
            "with update_critic timed apart",
        ),
        Metric("timing_s/post_update_check", "s", "measuring some rows again after the update", _LOOP),
        Metric("timing_s/step", "s", "the whole update, without its checkpoint", _LOOP, SAME),
        Metric(
            "perf/total_num_tokens",
            "tokens",
            "of the update's rollouts, prompts included",
            _LOOP,
            SAME,
        ),
        Metric("perf/throughput", "tokens / s / device", "total_num_tokens / step / devices", _LOOP, SAME),
    ),
    LLM: (
        Metric("llm/ROLE/calls", "calls", "answered by the role's model", _USAGE),
        Metric("llm/ROLE/recorded_calls", "calls", "answered from recorded calls, at no cost", _USAGE),
        Metric("llm/ROLE/abandoned_requests", "requests", "given up; each costs the most it can", _USAGE),
        Metric(
            "llm/ROLE/{prompt_tokens,completion_tokens}",
            "tokens",
            "read and written in these calls, as the server counts them",
            _USAGE,
        ),
        Metric(
            "llm/ROLE/cached_tokens",
            "tokens",
            "those of prompt_tokens that the server had in its cache",
            _USAGE,
        ),
        Metric(
            "llm/ROLE/reasoning_tokens",
            "tokens",
            "those of completion_tokens in which a reasoning model thought",
            _USAGE,
        ),
        Metric("llm/ROLE/dollars", "$", "what they cost by `config.models.ROLE.price`", _USAGE),
        Metric(
            "llm/dollars", "$", "what the calls of all roles have cost", "mlagent_jax/llm/usage.py:UsageLog"
        ),
    ),
}


def unknown_metrics(stage: str, logged: Iterable[str]) -> list[str]:
    """Names that the glossary has no entry for."""
    return sorted({name for name in logged if not any(metric.matches(name) for metric in GLOSSARY[stage])})


def unlogged_metrics(stage: str, logged: Iterable[str]) -> list[str]:
    """Names of the glossary that are not among those that were logged."""
    logged = list(logged)
    return [
        name
        for metric in GLOSSARY[stage]
        for name in metric.names
        if not any(re.fullmatch(pattern(name), each) for each in logged)
    ]


def page() -> str:
    """METRICS.md."""
    lines = [
        "# Metrics",
        "",
        f"Made by `{COMMAND}` from `glossary.py`.",
        "",
        "`WORKDIR/STAGE/metrics.jsonl` has a line for each step of a stage, and the trackers of `config.tracking`",
        "get the same names. Names are verl's where it has the metric.",
        "",
        "Rewards are those of `config.reward`. Action tokens are the sampled tokens that are trained on.",
        "In `llm` each step is a call, and its line has the totals of the role that made it, since the run began;",
        "trackers do not get them.",
    ]
    titles = {
        SFT: "Supervised fine-tuning (`sft`, `sft_filtered`)",
        PPO: "PPO (`ppo`, `ppo_shuffled`)",
        LLM: "Calls of language models (`llm`)",
    }
    for stage, metrics in GLOSSARY.items():
        lines += ["", f"## {titles[stage]}", "", "| metric | unit | meaning | formula | in verl |"]
        lines += ["| --- | --- | --- | --- | --- |", *map(_row, metrics)]
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    file, _, name = metric.where.partition(":")
    link = f"[{name}](../{file.removeprefix('mlagent_jax/')})"
    verl = {"": "none", SAME: "same name"}.get(metric.verl, f"`{metric.verl}`")
    differs = f"; {metric.differs}" if metric.differs else ""
    return f"| `{metric.name}` | {metric.unit} | {metric.meaning} | {link} | {verl}{differs} |"


def main() -> None:
    write_atomically(PAGE, page())
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
