"""Where a gain came from: what stands in the final script counts, what was given up does not, and all adds up."""

from __future__ import annotations

import dataclasses

import pytest
from synthetic_run import make_step, make_task, make_trajectory

from mlagent_jax.environment.state import Action, Outcome
from mlagent_jax.environment.tools import COPY_FILE, EDIT, EXECUTE
from mlagent_jax.evaluation.attribution import OTHER, parts, shares
from mlagent_jax.evaluation.scores import score_trajectories
from mlagent_jax.pipelines.operations import catalogue

FIRST, SECOND, THIRD = [
    (operation.id, operation.say(next(operation.param_grid())))
    for operation in list(catalogue().values())[:3]
]


def edit(source: str, instruction: str, saved: str, score: float, status: str = "ok"):
    arguments = {"script_name": source, "edit_instruction": instruction, "save_name": saved}
    return step(Action(EDIT, arguments), score, status, diff="+ a line")


def run(name: str, score: float):
    return step(Action(EXECUTE, {"script_name": name}), score, "ok")


def step(action: Action, score: float, status: str, diff: str = ""):
    made = make_step(Outcome.SUCCESS)
    after = dataclasses.replace(made.after, private_score=score, graded=True)
    return dataclasses.replace(made, action=action, after=after, status=status, diff=diff)


def episode(*steps, private: float, agent: str = "ppo", task: str = "digits8", index: int = 0):
    return make_trajectory(agent, task, index, private, steps=tuple(steps))


def test_a_chain_of_edits_adds_up():
    found = parts(
        episode(
            edit("train.py", FIRST[1], "train_1.py", 0.6),
            edit("train_1.py", SECOND[1], "train_2.py", 0.55),
            private=0.55,
        )
    )
    assert found == [(FIRST[0], pytest.approx(0.1)), (SECOND[0], pytest.approx(-0.05))]


def test_what_was_given_up_brings_nothing():
    found = parts(
        episode(
            edit("train.py", FIRST[1], "train_1.py", 0.6),
            edit("train_1.py", SECOND[1], "train_2.py", 0.4),
            run("train_1.py", 0.6),
            private=0.6,
        )
    )
    assert found == [(FIRST[0], pytest.approx(0.1))]


def test_a_script_that_failed_is_passed_over_and_a_copy_is_its_source():
    found = parts(
        episode(
            edit("train.py", FIRST[1], "train_1.py", 0.5, status="failed"),
            edit("train_1.py", SECOND[1], "train_2.py", 0.7),
            step(Action(COPY_FILE, {"source": "train_2.py", "destination": "best.py"}), 0.7, ""),
            edit("best.py", THIRD[1], "train_3.py", 0.8),
            private=0.8,
        )
    )
    assert found == [(FIRST[0], 0.0), (SECOND[0], pytest.approx(0.2)), (THIRD[0], pytest.approx(0.1))]


def test_what_no_operation_explains_is_said():
    unknown = edit("train.py", "make it better", "train_1.py", 0.6)
    assert parts(episode(unknown, private=0.6)) == [(OTHER, pytest.approx(0.1))]
    assert parts(episode(private=0.65)) == [(OTHER, pytest.approx(0.15))]
    assert parts(episode(private=0.5)) == []


def test_the_rows_of_an_agent_add_up_to_its_mean_normalised_gain():
    tasks = [make_task("digits8"), make_task("mnist5k"), make_task("ames", "held_out", "mae", 0.1)]
    trajectories = [
        episode(edit("train.py", FIRST[1], "a.py", 0.6), private=0.6),
        episode(edit("train.py", SECOND[1], "a.py", 0.8), private=0.8, index=1),
        episode(
            edit("train.py", FIRST[1], "a.py", 0.7),
            edit("a.py", SECOND[1], "b.py", 0.65),
            private=0.65,
            task="mnist5k",
        ),
        episode(edit("train.py", THIRD[1], "a.py", 0.3), private=0.3, task="ames"),
    ]
    scores = score_trajectories(trajectories, tasks, resamples=10)
    rows = shares(scores["tasks"], trajectories)
    for split in ("held_in", "held_out"):
        of_split = [row for row in rows if row["split"] == split]
        (mean,) = [row["normalised_gain"]["mean"] for row in scores["means"] if row["split"] == split]
        assert sum(row["gain"] for row in of_split) == pytest.approx(mean)
        assert sum(row["share"] for row in of_split) == pytest.approx(1.0)
    first = next(row for row in rows if (row["split"], row["operation"]) == ("held_in", FIRST[0]))
    assert first["gain"] == pytest.approx((0.1 / 0.4 / 2 + 0.2 / 0.4) / 2) and first["episodes"] == 2
