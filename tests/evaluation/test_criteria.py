"""Criteria over seeds: SciPy's t test, Holm's adjustment by hand, and nothing met for want of evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.configs import learning
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.criteria import Criterion, gain_of, holm, judge


def seed_scores(gains: dict[str, float], half_width: float | None = 0.1) -> dict[str, Any]:
    """The part of `scores.json` that is read, with these mean gains on both splits."""

    def interval(mean: float) -> dict[str, float | None]:
        bounds = (None, None) if half_width is None else (mean - half_width, mean + half_width)
        return {"mean": mean, "low": bounds[0], "high": bounds[1]}

    return {
        "means": [
            {
                "agent": agent,
                "split": split,
                "normalised_gain": interval(gain),
                "relative_gain": interval(gain),
            }
            for agent, gain in gains.items()
            for split in ("held_in", "held_out")
        ]
    }


PPO, SFT = [0.50, 0.62, 0.55, 0.48, 0.60], [0.40, 0.47, 0.52, 0.41, 0.44]
SEEDS = [seed_scores({"ppo": ppo, "sft": sft, "expert": 0.3}) for ppo, sft in zip(PPO, SFT, strict=True)]


def test_a_single_criterion_is_scipys_paired_test():
    (row,) = judge([Criterion("held_out", "ppo", "sft")], SEEDS)
    expected = stats.ttest_rel(PPO, SFT, alternative="greater")
    assert row["p"] == pytest.approx(expected.pvalue)
    bounds = stats.ttest_rel(PPO, SFT).confidence_interval(0.95)
    assert (row["interval"]["low"], row["interval"]["high"]) == pytest.approx(tuple(bounds))
    assert row["verdict"] == "met"


def test_a_share_and_a_margin_move_what_is_compared():
    share, margin = judge(
        [Criterion("held_in", "sft", "ppo", thirds=2), Criterion("held_in", "sft", "ppo", margin=0.2)], SEEDS
    )
    assert share["interval"]["mean"] == pytest.approx(np.mean(np.array(SFT) - 2 / 3 * np.array(PPO)))
    assert margin["interval"]["mean"] == pytest.approx(np.mean(np.array(SFT) - np.array(PPO)) + 0.2)


def test_an_agent_that_was_evaluated_once_brings_the_error_of_its_episodes():
    """Welch's test of five values and of one whose standard error is known, worked out by hand."""
    (row,) = judge([Criterion("held_out", "ppo", "expert")], SEEDS)
    over_seeds, once = np.var(PPO, ddof=1) / 5, (0.1 / 1.959964) ** 2
    freedom = (over_seeds + once) ** 2 / (over_seeds**2 / 4)
    error = np.sqrt(over_seeds + once)
    assert row["p"] == pytest.approx(stats.t.sf((np.mean(PPO) - 0.3) / error, freedom))
    expert = gain_of("expert", "held_out", SEEDS)
    assert expert is not None and expert.runs == (0.3,)
    assert (expert.interval["low"], expert.interval["high"]) == pytest.approx((0.2, 0.4))


def test_holm_by_hand():
    """Aickin and Gensler 1996: the smallest times 4, the next times 3, and never less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_criteria_are_adjusted_for_each_other_and_lost_ones_are_said():
    alone = judge([Criterion("held_in", "ppo", "sft")], SEEDS)[0]["p"]
    both = judge([Criterion("held_in", "ppo", "sft"), Criterion("held_in", "sft", "ppo")], SEEDS)
    assert both[0]["p"] == pytest.approx(2 * alone)
    assert [row["verdict"] for row in both] == ["met", "not met"]


@pytest.mark.parametrize(
    ("criterion", "scores", "verdict"),
    [
        (Criterion("held_in", "ppo", "bandit"), SEEDS, "Bandit not evaluated"),
        (Criterion("held_in", "ppo", "sft"), SEEDS[:1], "too few seeds"),
    ],
)
def test_without_evidence_there_is_no_verdict(criterion, scores, verdict):
    (row,) = judge([criterion], scores)
    assert (row["verdict"], row["p"]) == (verdict, None)


def test_no_scores_at_all():
    with pytest.raises(UserError, match="no scores"):
        judge([Criterion("held_in", "ppo", "sft")], [])


def test_the_experiment_states_exactly_its_criteria_before_it_is_run():
    stated = [line[2:] for line in (learning.__doc__ or "").splitlines() if line.startswith("- ")]
    assert stated == [str(criterion) for criterion in learning.CRITERIA]
