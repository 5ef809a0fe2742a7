"""Runs side by side: by hand, by SciPy, and refused where they are not alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats
from synthetic_run import make_task, make_trajectory, write_lines

from experiments.ablations.compare import parse_variant
from mlagent_jax.agent.trajectory import to_json
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.comparison import Variant, compare
from mlagent_jax.evaluation.scores import score_trajectories, write_scores
from mlagent_jax.evaluation.text_tables import comparison_table

TASKS = [make_task("digits8"), make_task("mnist5k", "held_out")]


def write_run(folder: Path, shift: float, seed: int = 0, m_init: float = 0.5, agents=("sft", "ppo")) -> Path:
    """Episodes whose scores are the same in every run but for `shift`, twice that for the second agent."""
    trajectories = [
        make_trajectory(agent, task.name, index, 0.5 + 0.01 * index + shift * (place + 1), m_init=m_init)
        for place, agent in enumerate(agents)
        for task in TASKS
        for index in range(8)
    ]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"seed": seed}))
    write_lines(folder / "evaluate/trajectories.jsonl", [to_json(each) for each in trajectories])
    write_scores(folder / "evaluate/scores.json", score_trajectories(trajectories, TASKS, resamples=200))
    return folder


def variant(label: str, *folders: Path, agent: str = "ppo") -> Variant:
    return Variant(label, agent, folders)


def test_one_run_each_is_compared_over_episodes(tmp_path) -> None:
    full, without = write_run(tmp_path / "full", 0.05), write_run(tmp_path / "without", 0.01)
    found = compare([variant("full", full), variant("without", without)])
    reference, other = found["rows"]
    assert reference["held_in"]["relative_gain"]["mean"] == pytest.approx((0.035 + 0.1) / 0.5)
    assert "held_in_difference" not in reference
    difference = other["held_out_difference"]["relative_gain"]
    # The same episodes but for a constant shift, so that pairs leave nothing to be unsure of.
    assert [difference[name] for name in ("mean", "low", "high")] == pytest.approx([-0.16] * 3)
    assert (
        "does not cover other tasks, other data splits or another training seed" in found["interval_covers"]
    )


def test_several_seeds_are_compared_over_runs(tmp_path) -> None:
    shifts = {"full": (0.05, 0.06, 0.04), "without": (0.01, 0.03, 0.0)}
    groups = {
        label: [write_run(tmp_path / label / str(seed), shift, seed) for seed, shift in enumerate(values)]
        for label, values in shifts.items()
    }
    found = compare([variant(label, *folders) for label, folders in groups.items()])
    got = found["rows"][1]["held_in_difference"]["relative_gain"]
    expected = [2 * (b - a) / 0.5 for a, b in zip(*shifts.values(), strict=True)]
    assert got["runs"] == pytest.approx(expected)
    low, high = stats.ttest_1samp(expected, 0).confidence_interval(0.95)
    assert (got["low"], got["high"]) == (pytest.approx(low), pytest.approx(high))
    assert found["interval_covers"].startswith("Student's interval over independent runs")


def test_agents_of_the_same_run(tmp_path) -> None:
    run = write_run(tmp_path / "run", 0.05)
    found = compare([variant("SFT", run, agent="sft"), variant("PPO", run, agent="ppo")])
    assert found["rows"][1]["held_in_difference"]["relative_gain"]["mean"] == pytest.approx(0.1)


def test_runs_that_are_not_alike_are_refused(tmp_path) -> None:
    full = write_run(tmp_path / "full", 0.05)
    with pytest.raises(UserError, match=r"nowhere has no config.json: finish the run first"):
        compare([variant("full", full), variant("other", tmp_path / "nowhere")])
    with pytest.raises(UserError, match=r"evaluated sft, ppo, but not 'expert'"):
        compare([variant("full", full, agent="expert")])
    with pytest.raises(UserError, match=r"seeds \[1\], but full of \[0\]"):
        compare([variant("full", full), variant("other", write_run(tmp_path / "seed", 0.0, seed=1))])
    with pytest.raises(UserError, match=r"starter of 'digits8' scores 0.4, but 0.5"):
        compare([variant("full", full), variant("other", write_run(tmp_path / "data", 0.0, m_init=0.4))])
    one, two = (write_run(tmp_path / str(seed), 0.0, seed=seed) for seed in (1, 2))
    with pytest.raises(UserError, match=r"seeds \[2, 1\], but a of \[1, 2\]"):
        compare([variant("a", one, two), variant("b", two, one)])


def test_arguments() -> None:
    assert parse_variant("full=a,b/c", "ppo") == Variant("full", "ppo", (Path("a"), Path("b/c")))
    assert parse_variant("S@sft=a=b", "ppo") == Variant("S", "sft", (Path("a=b"),))
    for text in ("full", "=a", "full="):
        with pytest.raises(UserError, match="is not of the form"):
            parse_variant(text, "ppo")


def test_the_command(tmp_path) -> None:
    full, without = write_run(tmp_path / "full", 0.05), write_run(tmp_path / "without", 0.01)
    command = [sys.executable, "-m", "experiments.ablations.compare", f"full={full}", f"without={without}"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, f"--out={tmp_path}/out.json"], cwd=root, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["variant", "runs"]
    assert lines[2].startswith("full     1     +27.00 [")
    assert "-16.00 [-16.00, -16.00]" in lines[3]
    assert done.stdout.rstrip() == comparison_table(json.loads((tmp_path / "out.json").read_text()))
    failed = subprocess.run([*command[:3], "full"], cwd=root, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: 'full' is not of the form")
