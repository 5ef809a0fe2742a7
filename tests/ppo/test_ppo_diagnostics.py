"""Clip fractions and KL against verl's published formulas, written out one token at a time."""

import dataclasses

import numpy as np
import pytest

from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.diagnostics import after_step, task_metrics, update_metrics
from mlagent_jax.ppo.losses import clipped_tokens, policy_loss, value_loss
from mlagent_jax.ppo.update import normalised


def arrays(seed=0, shape=(8, 50)):
    """An update whose raw advantages are nearly all positive, as with a critic of zeros and positive rewards."""
    rng = np.random.default_rng(seed)
    f32 = lambda x: x.astype(np.float32)  # noqa: E731
    mask = rng.random(shape) < 0.7
    old = rng.normal(size=shape) - 2
    batch = {
        "mask": mask,
        "advantages": f32(rng.normal(size=shape) + 2.0),
        "old_logprobs": f32(old),
        "reference_logprobs": f32(old + 0.1),
        "sampler_logprobs": f32(old),
        "old_values": f32(rng.normal(size=shape)),
        "returns": f32(rng.normal(size=shape)),
        "rewards": f32(np.zeros(shape)),
        "weights": f32(mask / mask.sum()),
    }
    learnt = {
        "logprobs": f32(old + 0.6 + 1.2 * rng.normal(size=shape)),  # most tokens became likelier
        "values": f32(batch["old_values"] + rng.normal(size=shape)),
        "entropy": f32(rng.random(shape)),
        "policy_loss": f32(rng.normal(size=shape)),
        "value_loss": f32(rng.random(shape)),
        "advantages": normalised(batch["advantages"], mask),
    }
    return batch, learnt


def verl(batch, learnt, low, high, c, value_clip):
    """`compute_policy_loss_vanilla` and `compute_value_loss`: pg_clipfrac, pg_clipfrac_lower, ppo_kl, vf_clipfrac."""
    clipped, lower, kl, values = [], [], [], []
    for at in np.argwhere(batch["mask"]):
        at = tuple(at)
        a, new, old = learnt["advantages"][at], learnt["logprobs"][at], batch["old_logprobs"][at]
        ratio = np.exp(np.clip(new - old, -20, 20))
        losses1, losses2 = -a * ratio, -a * np.clip(ratio, 1 - low, 1 + high)
        clipped.append(losses2 > losses1)
        lower.append(max(losses1, losses2) > -a * c and a < 0)
        kl.append(-(new - old))
        v, v0, r = learnt["values"][at], batch["old_values"][at], batch["returns"][at]
        values.append((np.clip(v, v0 - value_clip, v0 + value_clip) - r) ** 2 > (v - r) ** 2)
    return np.mean(clipped), np.mean(lower), np.mean(kl), np.mean(values)


@pytest.mark.parametrize("low, high, c", [(0.2, 0.2, 3.0), (0.1, 0.28, 1.5)])
def test_fractions_are_verls_of_the_advantages_that_the_loss_was_given(low, high, c):
    batch, learnt = arrays()
    config = PPOConfig(clip_low=low, clip_high=high, dual_clip=c, value_clip=0.5)
    for name, array in learnt.items():
        if name != "advantages":
            array[~batch["mask"]] = np.nan  # what is masked out has no part in any of it
    learnt_line = update_metrics(batch, learnt, config)
    names = ("actor/pg_clipfrac", "actor/pg_clipfrac_lower", "actor/ppo_kl", "critic/vf_clipfrac")
    expected = verl(batch, learnt, low, high, c, 0.5)
    np.testing.assert_allclose([learnt_line[name] for name in names], expected, rtol=1e-5)
    assert min(learnt_line["actor/pg_clipfrac"], learnt_line["actor/pg_clipfrac_lower"]) > 0
    # By the raw advantages, all positive here, it would be another number.
    raw = update_metrics(batch, learnt | {"advantages": batch["advantages"]}, config)
    assert abs(raw["actor/pg_clipfrac"] - learnt_line["actor/pg_clipfrac"]) > 0.02
    off = update_metrics(batch, learnt, dataclasses.replace(config, dual_clip=0.0, value_clip=0.0))
    assert off["actor/pg_clipfrac_lower"] == off["critic/vf_clipfrac"] == 0.0


def test_a_token_counts_as_clipped_where_its_loss_has_no_gradient():
    batch, learnt = arrays(1)
    new, old, a = learnt["logprobs"], batch["old_logprobs"], learnt["advantages"]
    clipped, lower = clipped_tokens(new, old, a, 0.2, 0.2, 3.0)
    moved = policy_loss(new + 1e-3, old, a, 0.2, 0.2, 3.0) != policy_loss(new, old, a, 0.2, 0.2, 3.0)
    near_an_edge = np.zeros(new.shape, bool)
    for edge in (0.8, 1.2, 3.0):
        near_an_edge |= np.abs(np.exp(new - old) - edge) < 0.02
    chosen = batch["mask"] & ~near_an_edge
    np.testing.assert_array_equal(np.asarray(clipped | lower)[chosen], ~np.asarray(moved)[chosen])


def test_a_log_ratio_too_large_for_exp_leaves_the_loss_finite():
    zeros = np.zeros(3, np.float32)
    loss = policy_loss(zeros, zeros - 200, np.array([1.0, -1.0, 0.0], np.float32), 0.2, 0.2)
    assert np.isfinite(loss).all() and float(loss[2]) == 0.0
    assert np.isfinite(value_loss(zeros + 1e3, zeros, zeros, 0.5)).all()


def test_what_a_step_did_is_measured_after_it():
    old, new = np.log([0.5, 0.25, 0.25]), np.log([0.6, 0.3, 0.1])
    line = after_step(old, new)
    ratios = np.array([1.2, 1.2, 0.4])
    assert line["actor/post_update_ratio_max"] == pytest.approx(1.2)
    assert line["actor/post_update_ratio_min"] == pytest.approx(0.4)
    assert line["actor/post_update_kl_k3"] == pytest.approx(np.mean(ratios - 1 - np.log(ratios)), rel=1e-4)
    assert line["actor/post_update_tokens"] == 3


@pytest.mark.parametrize("estimator, kl_in", [("k1", "reward"), ("k3", "reward"), ("k1", "loss")])
def test_the_reward_of_an_action_is_its_score_less_its_kl_as_in_verl(estimator, kl_in):
    """verl's `apply_kl_penalty` and `critic/rewards`: one action at a time, as its lists of tokens."""
    batch, learnt = arrays(2, (2, 12))
    actions = {
        (0, 0, 3): 0.5,
        (0, 4, 6): 0.0,
        (0, 7, 11): -1.0,
        (1, 0, 11): 0.25,
    }  # row, first and last token: score
    batch["mask"][:] = False
    for (row, start, stop), score in actions.items():
        batch["mask"][row, start:stop] = True
        batch["rewards"][row, stop - 1] = score
    config = PPOConfig(kl_estimator=estimator, kl_in=kl_in, kl_coefficient=0.3)
    expected = []
    for (row, start, stop), score in actions.items():
        difference = batch["old_logprobs"][row, start:stop] - batch["reference_logprobs"][row, start:stop]
        kl = difference if estimator == "k1" else np.exp(-difference) - 1 + difference
        expected.append(score - (0.3 * kl.sum() if kl_in == "reward" else 0.0))
    line = update_metrics(batch, learnt, config)
    found = [line[f"critic/rewards/{name}"] for name in ("mean", "min", "max")]
    np.testing.assert_allclose(found, [np.mean(expected), min(expected), max(expected)], rtol=1e-4)


def test_sampler_and_trainer_are_compared_by_probabilities_as_in_verl():
    batch, learnt = arrays()
    batch["sampler_logprobs"] = np.where(batch["mask"], np.log(0.5), 0).astype(np.float32)
    batch["old_logprobs"] = np.where(batch["mask"], np.log(0.4), 0).astype(np.float32)
    line = update_metrics(batch, learnt, PPOConfig())
    assert line["training/rollout_probs_diff_mean"] == pytest.approx(0.1, rel=1e-5)
    assert line["training/rollout_probs_diff_max"] == pytest.approx(0.1, rel=1e-5)
    assert line["training/rollout_probs_diff_std"] == pytest.approx(0.0, abs=1e-6)
    assert line["training/rollout_logprobs_diff_mean"] == pytest.approx(np.log(0.5 / 0.4), rel=1e-5)


def test_rewards_of_each_task_leave_out_what_was_masked():
    records = [
        {"task": "ames", "reward": 1.0},
        {"task": "tate", "reward": -1.0},
        {"task": "ames", "reward": None},
        {"task": "ames", "reward": 0.5},
        {"task": "foods", "reward": None},
    ]
    assert task_metrics(records) == {
        "reward/ames/mean": 0.75,
        "reward/ames/actions": 2,
        "reward/tate/mean": -1.0,
        "reward/tate/actions": 1,
    }
