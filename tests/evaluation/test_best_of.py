"""best@k against brute force over all sets of k episodes."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from synthetic_run import make_trajectory

from mlagent_jax.evaluation.best_of import expected_best, split_best_of


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_it_is_the_mean_over_all_sets(n, higher_is_better):
    scores = np.random.default_rng(n).normal(size=n).round(1).tolist()  # some are equal
    best = max if higher_is_better else min
    for k in range(1, n + 1):
        brute = np.mean([best(chosen) for chosen in combinations(scores, k)])
        assert expected_best(scores, k, higher_is_better=higher_is_better) == pytest.approx(brute, abs=1e-12)


def test_of_passes_it_is_the_published_pass_at_k():
    n, passed = 128, 5
    scores = [1.0] * passed + [0.0] * (n - passed)
    for k in (1, 4, 64, 128):
        published = 1.0 - math.comb(n - passed, k) / math.comb(n, k)
        assert expected_best(scores, k, higher_is_better=True) == pytest.approx(published, abs=1e-12)


@pytest.mark.parametrize("k", [0, 4])
def test_more_than_there_are_cannot_be_estimated(k):
    with pytest.raises(ValueError, match="cannot be estimated from 3"):
        expected_best([1.0, 2.0, 3.0], k, higher_is_better=True)


def test_means_are_over_tasks_up_to_what_every_task_has():
    facts = {
        "a": {"split": "held_in", "m_init": 0.5, "m_best": 1.0, "higher_is_better": True},
        "b": {"split": "held_in", "m_init": 2.0, "m_best": 1.0, "higher_is_better": False},
        "c": {"split": "held_out", "m_init": 2.0, "m_best": 1.0, "higher_is_better": False},
    }
    scores = {"a": [0.5, 0.7, 0.6], "b": [1.0, 2.0]}
    episodes = {
        task: [make_trajectory("ppo", task, index, score) for index, score in enumerate(found)]
        for task, found in scores.items()
    }
    curve = split_best_of("held_in", facts, episodes)
    assert curve["k"] == [1, 2]
    # a: mean 0.6; best of two of three 0.7, 0.7, 0.6. b: mean 1.5; best of two 1.0.
    assert curve["relative_gain"] == pytest.approx(
        [(0.2 + 0.25) / 2, ((2 / 3 * 0.7 + 0.2 - 0.5) / 0.5 + 0.5) / 2]
    )
    assert curve["normalised_gain"] == pytest.approx(
        [(0.2 + 0.5) / 2, ((2 / 3 * 0.7 + 0.2 - 0.5) / 0.5 + 1.0) / 2]
    )
    assert split_best_of("held_out", facts, episodes)["normalised_gain"] is None
