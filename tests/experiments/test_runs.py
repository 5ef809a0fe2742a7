"""The list of runs is what lies in their folders; a damaged one is listed with the reason; deleting is asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from experiments import runs
from experiments.workdir import Workdir
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.read_run import read_json
from mlagent_jax.evaluation.registry import differing_settings, find_runs, mean_gains, read_entry
from mlagent_jax.evaluation.text_tables import headline_table

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))  # for synthetic_run

from synthetic_run import write_workdir


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run, two seeds of another, and things that are no runs."""
    write_workdir(tmp_path / "one", k=2, text="", seed=0)
    for seed in (0, 1):
        write_workdir(tmp_path / "several" / f"seed_{seed}", k=2, text="", seed=seed)
    (tmp_path / "several" / "config.json").write_text(json.dumps({"seeds": [0, 1]}))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "config.json").write_text("{}")
    return tmp_path


def listed(folder: Path, capsys) -> list[str]:
    assert runs.COMMANDS["list"]([folder]) == 0
    return capsys.readouterr().out.splitlines()


def test_every_run_is_found_and_nothing_else(folder):
    found = [str(path.relative_to(folder)) for path in find_runs(folder)]
    assert found == ["one", "several/seed_0", "several/seed_1"]


def test_a_line_has_the_gains_of_the_scores(folder, capsys):
    head, *lines = listed(folder, capsys)
    assert head.split()[:2] == ["run", "begun"] and len(lines) == 3
    assert "2026-01-01 00:00" in lines[0] and "abc123abc123" in lines[0] and "(SFT + PPO)" in lines[0]
    scores = read_json(folder / "one/evaluate/scores.json")
    expected = {
        (row["agent"], row["split"]): row["relative_gain"] and row["relative_gain"]["mean"]
        for row in scores["means"]
    }
    gains = mean_gains(scores)
    assert {(agent, split): gain for agent, of in gains.items() for split, gain in of.items()} == expected


@pytest.mark.parametrize("name", ["environment.json", "evaluate/scores.json"])
@pytest.mark.parametrize("text", ["{", "[]", '{"starts": 3, "means": 3}', '{"starts": [3], "means": [3]}'])
def test_a_damaged_run_does_not_hide_the_others(folder, capsys, name, text):
    (folder / "one" / name).write_text(text)
    _, *lines = listed(folder, capsys)
    assert len(lines) == 3 and "cannot be read" in lines[0] and "cannot be read" not in lines[1]
    assert read_entry(folder / "one").problem


def test_no_runs_and_no_folder_are_said(tmp_path, capsys):
    assert listed(tmp_path, capsys) == ["There are no runs here."]
    with pytest.raises(UserError, match="there is no folder"):
        runs.COMMANDS["list"]([tmp_path / "nowhere"])


def test_a_run_is_shown_with_its_stages_and_scores(folder, capsys):
    assert runs.COMMANDS["show"]([folder / "one"]) == 0
    out = capsys.readouterr().out
    assert headline_table(read_json(folder / "one/evaluate/scores.json")) in out
    assert "evaluate" in out and "jax" in out
    with pytest.raises(UserError, match="is not the work directory of a run"):
        runs.COMMANDS["show"]([folder])


def test_runs_are_compared_by_what_differs(folder, capsys):
    first, second = folder / "several/seed_0", folder / "several/seed_1"
    config = json.loads((second / "config.json").read_text())
    config["sft"]["learning_rate"] = 0.5
    (second / "config.json").write_text(json.dumps(config | {"new": True}))
    found = dict(differing_settings([read_json(each / "config.json") for each in (first, second)]))
    assert found == {"sft.learning_rate": ["0.001", "0.5"], "new": ["", "true"]}
    assert runs.COMMANDS["compare"]([first, second]) == 0
    out = capsys.readouterr().out
    assert "sft.learning_rate" in out and "SFT + PPO" in out and "rows" not in out


def test_runs_are_deleted_only_if_that_is_asked_for_and_nobody_uses_them(folder, capsys, monkeypatch):
    one, other = folder / "one", folder / "several/seed_0"
    monkeypatch.setattr(runs, "YES", type("Flag", (), {"value": False}))
    runs.COMMANDS["rm"]([one])
    assert "would delete" in capsys.readouterr().out and one.exists()
    monkeypatch.setattr(runs, "YES", type("Flag", (), {"value": True}))
    (folder / "link").symlink_to(one)
    for wrong in ("notes", "notes/nothing", "several", "link"):
        with pytest.raises(UserError, match=r"is not the work directory of a run|is a link to"):
            runs.COMMANDS["rm"]([one, folder / wrong])
        assert one.exists() and (folder / "notes/config.json").exists()
    with Workdir(one).locked(), pytest.raises(UserError, match="another run is using"):
        runs.COMMANDS["rm"]([one])
    assert one.exists()
    runs.COMMANDS["rm"]([one])
    assert not one.exists() and other.exists()
