"""Curves of gain against executions, by hand."""

from dataclasses import replace

import pytest
from synthetic_run import make_step, make_task, make_trajectory

from mlagent_jax.environment.state import Outcome
from mlagent_jax.evaluation.execution_curves import best_after_executions
from mlagent_jax.evaluation.scores import score_trajectories
from mlagent_jax.evaluation.tables import execution_charts


def episode(agent, task, *scores, index=0):
    """scores: (public, private) after each execution, None for a step that executes nothing."""
    steps, standing = [], (0.51, 0.5)
    for scored in scores:
        before = standing
        standing = scored or standing
        step = make_step(Outcome.SUCCESS)
        states = [
            replace(state, public_score=public, private_score=private)
            for state, (public, private) in ((step.before, before), (step.after, standing))
        ]
        steps.append(replace(step, before=states[0], after=states[1], status="ok" if scored else ""))
    return make_trajectory(agent, task, index, standing[1], steps=tuple(steps))


def test_the_public_score_selects_and_the_private_one_is_shown():
    one = episode("ppo", "digits8", (0.6, 0.7), None, (0.8, 0.65), (0.7, 0.9))
    assert best_after_executions(one, higher_is_better=True) == [0.5, 0.7, 0.65, 0.65]
    assert one.executions == 3
    lower = episode("ppo", "digits8", (0.6, 0.7), (0.4, 0.45))
    assert best_after_executions(lower, higher_is_better=False) == [0.5, 0.5, 0.45]


def test_a_mean_is_over_episodes_and_then_over_tasks():
    tasks = [make_task("digits8", m_best=1.0), make_task("foods", m_best=1.0)]
    scores = score_trajectories(
        [
            episode("ppo", "digits8", (0.6, 0.7), (0.8, 0.8)),
            episode("ppo", "digits8", (0.6, 0.6), index=1),  # ends early, and keeps its score
            episode("ppo", "foods", (0.6, 0.9)),
            episode("sft", "digits8", (0.6, 0.9)),
            episode("starter", "digits8"),
            episode("starter", "foods"),
        ],
        tasks,
        resamples=50,
    )
    curves = {curve["agent"]: curve for curve in scores["execution_curves"]}
    assert curves["ppo"]["executions"] == [0, 1, 2]
    assert curves["ppo"]["normalised_gain"] == pytest.approx([0, (0.3 + 0.8) / 2, (0.4 + 0.8) / 2])
    assert curves["ppo"]["relative_gain"] == pytest.approx([0, (0.3 + 0.8) / 2, (0.4 + 0.8) / 2])
    assert curves["sft"]["normalised_gain"] is None  # not on all tasks
    assert curves["starter"]["normalised_gain"] == [0]
    (row,) = [row for row in scores["per_task"] if (row["agent"], row["task"]) == ("ppo", "digits8")]
    assert row["executions"] == 1.5
    (mean,) = [row for row in scores["means"] if row["agent"] == "ppo"]
    assert mean["executions"]["mean"] == pytest.approx((1.5 + 1) / 2)
    (chart,) = execution_charts(scores)
    assert [line["label"] for line in chart["series"]] == ["SFT + PPO"]
