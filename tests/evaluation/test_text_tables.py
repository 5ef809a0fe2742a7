"""The tables that programs print have the figures of the report's tables."""

from __future__ import annotations

import html
import json
import re

import pytest
from synthetic_run import make_task, make_trajectory, write_workdir

from mlagent_jax.evaluation.report import write_report
from mlagent_jax.evaluation.scores import score_trajectories
from mlagent_jax.evaluation.text_tables import SCORE_COLUMNS, aligned, headline_table, score_rows


def test_the_printed_table_has_the_figures_of_the_reports(tmp_path):
    workdir = tmp_path / "run"
    tasks = write_workdir(workdir, text="")
    page = write_report(workdir, tmp_path / "report.html").read_text()
    (matrix,) = re.findall(r'<table class="matrix">.*?</table>', page, re.DOTALL)
    scores = json.loads((workdir / "evaluate/scores.json").read_text())
    lines = headline_table(scores).splitlines()
    for task in tasks:
        (line,) = [line for line in lines if line.split()[:1] == task.name.split()[:1]]
        row = next(row for row in matrix.split("<tr>") if f">{task.name}</a>" in row)
        averages = re.findall(r'class="avg[^>]*>([^<]+)</a>', row)
        gains = re.findall(r'<span class="gain">([^<]+)</span>', row)
        assert len(averages) == len(gains) == len(scores["agents"])
        figures = [f"{average} {gain}" for average, gain in zip(averages, gains, strict=True)]
        assert all(figure in line for figure in figures), (line, figures)
    means = re.findall(r'<b class="gain">([^<]+)</b>\s*<span>([^<]+)</span>', matrix)
    printed = " ".join(line for line in lines if "mean gain" in line)
    assert len(means) == 2 * len(scores["agents"]) and "not all tasks" not in printed
    for mean, bounds in means:
        assert f"{mean} {html.unescape(bounds)}" in printed


def test_columns_are_aligned_and_what_is_missing_is_said():
    tasks = [make_task("digits8"), make_task("mnist5k", "held_out")]
    episodes = [make_trajectory("starter", task.name, index, 0.5) for task in tasks for index in range(2)]
    episodes.append(make_trajectory("ppo", "digits8", 0, 0.75))
    scores = score_trajectories(episodes, tasks, resamples=100)
    head, _, *lines = headline_table(scores).splitlines()
    (digits,) = [line for line in lines if "digits8" in line]
    (mnist,) = [line for line in lines if "mnist5k" in line]
    place = head.index("SFT + PPO")
    assert digits[place:] == "0.75 +50.0 % (1 episodes)"
    assert mnist[place:] == "–"
    held_in, held_out = (line for line in lines if "mean gain" in line)
    assert held_in[place:] == "+50.0 %"  # one episode has no interval
    assert held_out[place:] == "not all tasks"


def test_one_outcome_is_said_in_place_of_an_interval_and_of_a_number_of_episodes():
    tasks = [make_task("digits8")]
    episodes = [make_trajectory("ppo", "digits8", index, score) for index, score in enumerate((0.5, 0.75))]
    episodes.append(make_trajectory("constant", "digits8", 0, 0.75))
    scores = score_trajectories(episodes, tasks, resamples=100, one_outcome=["constant"])
    table = headline_table(scores)
    head, _, *lines = table.splitlines()
    (digits,) = [line for line in lines if "digits8" in line]
    (gain,) = [line for line in lines if "mean gain" in line]
    place = head.index("Best constant")
    assert digits[place:].startswith("0.75 +50.0 %") and "episodes" not in digits
    assert "+50.0 % (one outcome)" in gain and "alike by construction" in table


def test_rows_for_trackers():
    scores = score_trajectories(
        [make_trajectory("sft", "digits8", index, score) for index, score in enumerate((0.6, 0.8))],
        [make_task("digits8")],
        resamples=100,
    )
    (row,) = score_rows(scores)
    assert dict(zip(SCORE_COLUMNS, row, strict=True)) == {
        "task": "digits8",
        "split": "held_in",
        "metric": "accuracy",
        "agent": "sft",
        "episodes": 2,
        "avg": 0.7,
        "best": 0.8,
        "relative_gain": pytest.approx(0.4),
        "valid_rate": 1.0,
        "executions": 0.0,
    }


def test_aligned():
    assert aligned([("a", "b"), ("long", ""), ("", "c")]) == ["a     b", "long", "      c"]
