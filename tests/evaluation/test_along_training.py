"""Gains along training, by hand."""

from __future__ import annotations

import pytest
from synthetic_run import make_trajectory

from mlagent_jax.evaluation.along_training import along_training_name, gains_along_training

FACTS = {
    "a": {"split": "held_in", "m_init": 0.5, "m_best": 1.0, "higher_is_better": True},
    "b": {"split": "held_out", "m_init": 2.0, "m_best": 1.0, "higher_is_better": False},
}
METRICS = [{"step": step, "timing_s/step": 1800.0} for step in (1, 2, 3, 4)]


def episode(update: int, task: str, score: float, index: int = 0):
    return make_trajectory(along_training_name("ppo", update), task, index, score)


def test_gains_and_hours_are_those_after_each_evaluation():
    found = gains_along_training(
        FACTS,
        [
            *(episode(4, "a", score, index) for index, score in enumerate((0.6, 0.7))),
            *(episode(4, "b", score, index) for index, score in enumerate((1.0, 3.0))),
            *(episode(0, name, FACTS[name]["m_init"]) for name in FACTS),
            episode(2, "a", 0.55),
        ],
        METRICS,
    )
    assert [record["step"] for record in found] == [0, 2, 4]
    assert [record["hours"] for record in found] == [0.0, 1.0, 2.0]
    start, middle, end = found
    assert start["held_in"] == start["held_out"] == 0.0 and "held_in_low" not in start
    assert middle["held_in"] == pytest.approx(10.0) and "held_out" not in middle
    assert end["held_in"] == pytest.approx(30.0) and end["held_out"] == pytest.approx(0.0)
    assert end["held_in_low"] <= 30.0 <= end["held_in_high"]
