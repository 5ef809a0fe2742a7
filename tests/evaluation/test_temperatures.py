"""The choice of a temperature: by public gain alone, without what cannot count."""

from __future__ import annotations

import dataclasses

import pytest
from synthetic_run import make_step, make_task, make_trajectory

from mlagent_jax.environment.state import Outcome
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.temperatures import choose

# m_init is 0.51 (public): a score of 0.9 is a gain of 1 on the first, one of 0.41 a gain of 1 on the second.
TASKS = [make_task("foods", m_best=0.91), make_task("wine", metric="mae", m_best=0.41)]


def episode(task: str, public: float, index: int = 0):
    return dataclasses.replace(make_trajectory("ppo", task, index, 0.5), public_score=public)


def test_the_highest_mean_gain_over_the_tasks_is_chosen():
    found = choose(
        TASKS,
        {
            0.0: [episode("foods", 0.51), episode("wine", 0.51)],
            0.5: [episode("foods", 0.71), episode("foods", 0.91, 1), episode("wine", 0.46)],
            1.0: [episode("foods", 0.91), episode("wine", 0.51)],
        },
    )
    assert [row["gain"] for row in found["tried"]] == pytest.approx([0.0, (0.75 + 0.5) / 2, 0.5])
    assert found["chosen"] == 0.5
    assert found["tried"][1]["tasks"] == pytest.approx({"foods": 0.75, "wine": 0.5})


def test_one_runaway_prediction_does_not_decide():
    wild = [
        episode("foods", 0.91),
        episode("wine", 1e6),
        *(episode("wine", 0.41, index) for index in range(1, 4)),
    ]
    tame = [episode("foods", 0.51), episode("wine", 0.51)]
    assert choose(TASKS, {0.8: wild, 0.2: tame})["chosen"] == 0.8


def test_private_scores_do_not_matter():
    better = [dataclasses.replace(episode(task.name, 0.51), private_score=0.9) for task in TASKS]
    found = choose(TASKS, {0.0: better, 1.0: [episode("foods", 0.52), episode("wine", 0.51)]})
    assert found["chosen"] == 1.0


def test_masked_episodes_are_left_out():
    broken = make_step(Outcome.INFRASTRUCTURE)
    masked = dataclasses.replace(episode("wine", 0.41), steps=(broken,))
    partly = {0.0: [episode("foods", 0.51), episode("wine", 0.51)], 1.0: [episode("foods", 0.91), masked]}
    found = choose(TASKS, partly)
    assert (found["chosen"], found["tried"][1]["gain"]) == (0.0, None)
    with pytest.raises(UserError, match="no temperature can be chosen"):
        choose(TASKS, {1.0: [episode("foods", 0.91), masked]})
