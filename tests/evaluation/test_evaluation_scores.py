"""Scores against hand-computed cases, and intervals against SciPy, a closed form and simulated coverage."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats
from synthetic_run import make_step, make_task, make_trajectory

from mlagent_jax.environment.state import Outcome
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.bootstrap import stratified_mean, student_mean
from mlagent_jax.evaluation.scores import (
    normalised_gain,
    relative_gain,
    score_trajectories,
    write_scores,
)


def only(rows, **wanted):
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


def test_relative_gain_reproduces_the_paper() -> None:
    # Table 1 of arXiv 2505.23723 v1 (avg@8) with the initial scores that follow from v2's gains.
    assert relative_gain(68.88, 51.48, higher_is_better=True) == pytest.approx(0.338, abs=5e-4)  # cifar-10
    assert relative_gain(0.0741, 0.1556, higher_is_better=False) == pytest.approx(
        0.5238, abs=5e-4
    )  # denoising
    assert relative_gain(20209, 21676, higher_is_better=False) == pytest.approx(
        0.0677, abs=5e-4
    )  # house-price


def test_gains_at_the_edges() -> None:
    assert relative_gain(0.1, -0.2, higher_is_better=True) == pytest.approx(1.5)  # better is positive
    assert relative_gain(0.1, 0.0, higher_is_better=True) is None
    assert normalised_gain(0.4, 0.5, 0.3) == pytest.approx(0.5)  # lower is better
    assert normalised_gain(0.4, 0.5, 0.5) is None


def test_one_row_by_hand() -> None:
    steps = (
        make_step(Outcome.SUCCESS, reward=0.5),
        make_step(Outcome.ERROR, reward=-1.0),
        make_step(Outcome.NEUTRAL, reward=0.0),
        make_step(Outcome.MALFORMED, reward=-1.0),
    )
    trajectories = [
        make_trajectory("sft", "digits8", 0, 0.6, steps=steps),
        make_trajectory("sft", "digits8", 1, 0.5, steps=steps[:1], valid=False),
        make_trajectory("sft", "digits8", 2, 0.7, valid=True),
    ]
    scores = score_trajectories(trajectories, [make_task("digits8", m_best=0.9)])
    row = only(scores["per_task"], agent="sft", task="digits8")
    assert (row["episodes"], row["masked"], row["steps"]) == (3, 0, 5)
    assert row["avg"] == pytest.approx(0.6)
    assert row["best"] == 0.7
    assert row["sd"] == pytest.approx(0.1)
    assert row["relative_gain"] == pytest.approx(0.2)
    assert row["normalised_gain"] == pytest.approx(0.25)
    assert row["best_relative_gain"] == pytest.approx(0.4)
    assert row["valid_rate"] == pytest.approx(2 / 3)
    assert row["mean_step_reward"] == pytest.approx((-0.375 + 0.5) / 2)  # the third episode has no steps
    assert row["outcomes"]["success"] == 2
    assert row["outcome_fractions"]["malformed"] == pytest.approx(0.2)
    assert row["ended"] == {"step_limit": 2, "final_answer": 1}


def test_best_follows_the_metric() -> None:
    trajectories = [make_trajectory("sft", "ames", index, score) for index, score in enumerate((0.4, 0.6))]
    scores = score_trajectories(trajectories, [make_task("ames", metric="rmsle", m_best=0.1)])
    row = only(scores["per_task"], agent="sft")
    assert row["best"] == 0.4
    assert row["best_relative_gain"] == pytest.approx(0.2)


def test_masked_episodes_are_left_out_and_counted() -> None:
    broken = (make_step(Outcome.INFRASTRUCTURE),)
    trajectories = [
        make_trajectory("sft", "digits8", 0, 0.6),
        make_trajectory("sft", "digits8", 1, 0.0, steps=broken, valid=False),
        make_trajectory("ppo", "digits8", 0, 0.8),
        make_trajectory("ppo", "digits8", 1, 0.9),
    ]
    scores = score_trajectories(trajectories, [make_task("digits8")])
    row = only(scores["per_task"], agent="sft")
    assert (row["episodes"], row["masked"], row["avg"], row["valid_rate"]) == (1, 1, 0.6, 1.0)
    difference = only(scores["differences"], agent="ppo", baseline="sft")
    assert difference["pairs"] == 1
    assert difference["relative_gain"]["mean"] == pytest.approx(0.4)


def test_split_means_weigh_tasks_alike_whatever_their_episodes() -> None:
    trajectories = [make_trajectory("sft", "digits8", index, 0.6) for index in range(4)]
    trajectories += [make_trajectory("sft", "foods", 0, 1.0), make_trajectory("sft", "mnist5k", 0, 0.4)]
    tasks = [make_task("digits8"), make_task("foods"), make_task("mnist5k", "held_out")]
    scores = score_trajectories(trajectories, tasks)
    held_in = only(scores["means"], agent="sft", split="held_in")
    assert held_in["relative_gain"]["mean"] == pytest.approx((0.2 + 1.0) / 2)
    assert held_in["relative_gain"]["low"] is None  # one episode of foods says nothing about its spread
    assert only(scores["means"], agent="sft", split="held_out")["relative_gain"]["mean"] == pytest.approx(
        -0.2
    )


def test_no_mean_over_a_part_of_a_split() -> None:
    tasks = [make_task("digits8"), make_task("foods")]
    scores = score_trajectories([make_trajectory("sft", "digits8", 0, 0.6)], tasks)
    row = only(scores["means"], agent="sft")
    assert row["relative_gain"] is None
    assert row["missing_tasks"] == ["foods"]


def test_differences_pair_by_index_not_by_order() -> None:
    ours = [make_trajectory("b", "digits8", index, 0.5 + 0.1 * index) for index in (2, 0, 1)]
    theirs = [make_trajectory("a", "digits8", index, 0.45 + 0.1 * index) for index in (0, 1, 2)]
    scores = score_trajectories(theirs + ours, [make_task("digits8")])
    gain = only(scores["differences"], agent="b", baseline="a")["relative_gain"]
    # Each pair differs by exactly 0.1 of the starter's 0.5, so paired right there is nothing to be unsure of.
    assert gain["low"] == pytest.approx(0.1)
    assert gain["high"] == pytest.approx(0.1)


def test_given_agents_fix_the_order_and_their_pairs() -> None:
    trajectories = [make_trajectory(agent, "digits8", 0, 0.6) for agent in ("ppo", "sft", "starter")]
    scores = score_trajectories(
        trajectories, [make_task("digits8")], agents=("starter", "random", "sft", "ppo")
    )
    assert scores["agents"] == ["starter", "sft", "ppo"]
    assert [(row["agent"], row["baseline"]) for row in scores["differences"]] == [
        ("sft", "starter"),
        ("ppo", "sft"),
        ("ppo", "starter"),
    ]


def test_bad_input_is_refused_by_name() -> None:
    task = make_task("digits8")
    with pytest.raises(UserError, match="'mnist5k'"):
        score_trajectories([make_trajectory("sft", "mnist5k", 0, 0.5)], [task])
    with pytest.raises(UserError, match="sft/digits8/3 has the private score nan"):
        score_trajectories([make_trajectory("sft", "digits8", 3, math.nan)], [task])
    disagreeing = [
        make_trajectory("sft", "digits8", 0, 0.5, m_init=0.5),
        make_trajectory("sft", "digits8", 1, 0.5, m_init=0.6),
    ]
    with pytest.raises(UserError, match="disagree on m_init_private"):
        score_trajectories(disagreeing, [task])


def test_scores_are_strict_json_and_repeatable(tmp_path) -> None:
    rng = np.random.default_rng(0)
    trajectories = [
        make_trajectory(agent, "digits8", index, float(rng.normal(0.6, 0.1)))
        for agent in ("a", "b")
        for index in range(8)
    ]
    first = score_trajectories(trajectories, [make_task("digits8")])
    again = score_trajectories(list(reversed(trajectories)), [make_task("digits8")], agents=("a", "b"))
    assert first == again
    write_scores(tmp_path / "evaluate" / "scores.json", first)
    assert json.loads((tmp_path / "evaluate" / "scores.json").read_text()) == json.loads(json.dumps(first))


# ---- intervals ----


@pytest.fixture
def strata() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(0.1, 0.05, 8), rng.exponential(0.2, 8), rng.normal(0.3, 0.3, 8)]


def test_interval_agrees_with_scipy(strata) -> None:
    """SciPy draws n of n, we n - 1, so its bootstrap errors are narrower by sqrt((n - 1) / n)."""
    ours = stratified_mean(strata, resamples=40_000)
    theirs = stats.bootstrap(
        tuple(strata),
        lambda *groups, axis=-1: sum(group.mean(axis=axis) for group in groups) / len(groups),
        n_resamples=40_000,
        method="percentile",
        random_state=np.random.default_rng(2),
    )
    width = (theirs.confidence_interval.high - theirs.confidence_interval.low) * math.sqrt(8 / 7)
    assert ours.mean == pytest.approx(np.mean([values.mean() for values in strata]))
    assert ours.high - ours.low == pytest.approx(width, rel=0.03)
    middle = (theirs.confidence_interval.high + theirs.confidence_interval.low) / 2
    assert (ours.high + ours.low) / 2 == pytest.approx(middle, abs=0.03 * width)


def test_interval_agrees_with_the_closed_form(strata) -> None:
    """Of a sum of many independent means the bootstrap is nearly normal, with the textbook standard error."""
    many = strata * 20
    interval = stratified_mean(many, resamples=20_000, confidence=0.9)
    error = math.sqrt(sum(values.var(ddof=1) / values.size for values in many)) / len(many)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.6449 * error, rel=0.03)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(400):
        interval = stratified_mean(
            [rng.normal(0, scale, 8) for scale in (1, 2, 3)], resamples=1000, seed=trial
        )
        covered += interval.low <= 0 <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


def test_intervals_are_seeded(strata) -> None:
    assert stratified_mean(strata, seed=5) == stratified_mean(strata, seed=5)
    assert stratified_mean(strata, seed=5) != stratified_mean(strata, seed=6)


def test_too_little_for_an_interval() -> None:
    assert stratified_mean([[1.0], [2.0, 4.0]]).mean == 2.0
    assert stratified_mean([[1.0], [2.0, 4.0]]).low is None
    with pytest.raises(ValueError, match="at least one"):
        stratified_mean([[1.0], []])
    with pytest.raises(ValueError, match="finite"):
        stratified_mean([[1.0, math.inf]])


def test_student_interval_agrees_with_scipy() -> None:
    values = [0.1, 0.3, 0.25]
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    interval = student_mean(values)
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))
    assert student_mean([0.1]).low is None


def test_agents_with_one_outcome_have_no_interval_and_are_compared_with_every_episode_of_others() -> None:
    tasks = [make_task("digits8"), make_task("ames")]
    gains = {"digits8": (0.6, 0.7, 0.8), "ames": (0.5, 0.6, 0.9)}
    episodes = [
        make_trajectory("ppo", task, index, score)
        for task, scores in gains.items()
        for index, score in enumerate(scores)
    ]
    episodes += [make_trajectory(agent, task, 0, 0.6) for agent in ("constant", "bandit") for task in gains]
    scores = score_trajectories(episodes, tasks, one_outcome=("constant", "bandit", "sft_greedy"))
    assert sorted(scores["one_outcome"]) == ["bandit", "constant"]
    mean = only(scores["means"], agent="constant")
    assert mean["one_outcome"] and mean["relative_gain"]["low"] is None
    assert not only(scores["means"], agent="ppo")["one_outcome"]

    both = only(scores["differences"], agent="bandit", baseline="constant")
    assert both["one_outcome"] and both["relative_gain"]["low"] is None
    # Where only one of the two varies, the difference varies as that one does.
    row = next(row for row in scores["differences"] if {row["agent"], row["baseline"]} == {"ppo", "constant"})
    sign = 1 if row["agent"] == "ppo" else -1
    alone = only(scores["means"], agent="ppo")["relative_gain"]
    assert not row["one_outcome"] and row["pairs"] == 6
    assert sign * row["relative_gain"]["mean"] == pytest.approx(alone["mean"] - mean["relative_gain"]["mean"])
    width = row["relative_gain"]["high"] - row["relative_gain"]["low"]
    assert width == pytest.approx(alone["high"] - alone["low"])
