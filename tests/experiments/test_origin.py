"""Stages taken from another run: the same results as without, complete after any interruption, or refused in words."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import tiny
from scripted import run_stages, scripted

from experiments import origin
from experiments.cli.config_flags import with_changes
from experiments.origin import Origin, OriginError
from experiments.settings import Settings
from experiments.stage_settings import NEEDS, read_by
from experiments.workdir import Workdir, WorkdirError
from mlagent_jax.agent.trajectory_log import latest_trajectories
from mlagent_jax.environment.snapshots import SnapshotError
from mlagent_jax.evaluation.read_run import read_run
from mlagent_jax.evaluation.report import render

SMALL = {"tasks.micro": True, "sft.steps": 4, "ppo.updates": 2, "collect.episodes_per_task": 4}
STAGES = ("ideas", "collect", "sft")


def begin(folder: Path, taken: Origin | None = None, stages=(), **changes) -> Workdir:
    """A run as `experiments.run` has it, with these stages and settings."""
    with scripted(tiny.get_config(), folder, **{**SMALL, **changes}) as experiment:
        settings, workdir = experiment.settings, experiment.workdir
        if taken:
            taken.check(settings, workdir)
        with workdir.claimed(settings):
            if taken:
                taken.take(workdir)
            else:
                origin.complete(workdir)
            workdir.record_environment(settings.seed)
            run_stages(experiment, stages)
    return workdir


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Workdir:
    return begin(tmp_path_factory.mktemp("runs") / "full", stages=STAGES)


@pytest.fixture
def with_ppo(full):
    """As if it had gone through PPO."""
    (full.checkpoints("ppo") / "2").mkdir(parents=True)
    full.mark_done("ppo", {})
    yield full
    shutil.rmtree(full.stage("ppo"))


@pytest.fixture
def source(full, tmp_path) -> Workdir:
    """A copy of it, which a test may change."""
    shutil.copytree(full.root, tmp_path / "source")
    return Workdir(tmp_path / "source")


def scripted_settings(**changes) -> Settings:
    return Settings.from_config(with_changes(tiny.get_config(), changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_from_a_shared_sft_rl_is_the_very_same(source, tmp_path):
    taken = begin(tmp_path / "taken", Origin(source, "sft"))
    for workdir in (source, taken):
        begin(workdir.root, stages=(*STAGES, "ppo"))
    weights = "model.safetensors"
    assert (taken.export("ppo") / weights).read_bytes() == (source.export("ppo") / weights).read_bytes()
    assert taken.rollouts.read_bytes() == source.rollouts.read_bytes()


def test_weights_are_linked_and_records_copied(full, tmp_path):
    """So weights take no room, and what the other run may yet append to its records is not appended here."""
    taken = begin(
        tmp_path / "taken", Origin(full, "sft"), STAGES
    )  # which are finished, so nothing is done again
    for stage in STAGES:
        assert contents(taken.stage(stage)) == contents(full.stage(stage))
    for folder in (full.export("sft"), full.checkpoints("sft")):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            assert path.samefile(taken.root / path.relative_to(full.root))
    assert not full.expert_trajectories.samefile(taken.expert_trajectories)


def test_what_was_taken_is_recorded_and_reported_with_where_it_came_from_before(full, tmp_path):
    first = begin(tmp_path / "first", Origin(full, "collect"))
    second = begin(tmp_path / "second", Origin(first, "ideas"))
    record = json.loads(second.origin.read_text())
    assert list(record["summaries"]) == ["ideas"] and record["start"]["seed"] == 0
    assert record["origin"]["folder"] == str(full.root) and record["origin"]["stage"] == "collect"
    page = render(read_run(second.root))
    assert f"ideas of {first.root}" in page and f"which took ideas, collect of {full.root}" in page
    assert not second.stage("collect").exists() and not second.snapshots.exists()


def test_every_snapshot_of_the_episodes_is_there_when_the_other_run_is_gone(source, tmp_path, caplog):
    taken = begin(tmp_path / "taken", Origin(source, "collect"))
    shutil.rmtree(source.root)
    with scripted(tiny.get_config(), taken.root, **SMALL) as experiment:
        for trajectory in latest_trajectories(taken.expert_trajectories).values():
            for step in trajectory.steps:
                assert experiment.store.get(step.before.snapshot)
    before = contents(taken.root / "collect")
    with caplog.at_level(logging.WARNING):
        begin(taken.root, Origin(source, "collect"))
    assert "has changed since its stages were taken, or is gone" in caplog.text
    assert contents(taken.root / "collect") == before


@pytest.mark.parametrize("calls", [0, 1, 3])
@pytest.mark.parametrize("again", ["with the flag", "without it"])
def test_interrupted_anywhere_it_is_completed(full, tmp_path, monkeypatch, calls, again):
    """calls: folders that are in their place before the process is killed; 0 for one that is killed while it copies."""
    folder, rename, left = tmp_path / "taken", Path.rename, [calls]

    def interrupted(path, target):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if calls:
            patch.setattr(Path, "rename", interrupted)
        else:
            patch.setattr(origin.SnapshotStore, "share_with", lambda *_: interrupted(None, None))
        begin(folder, Origin(full, "sft"))
    if calls or again == "with the flag":
        taken = begin(folder, Origin(full, "sft") if again == "with the flag" else None)
        assert contents(taken.stage("sft")) == contents(full.stage("sft"))
        assert contents(taken.tokenizer) == contents(full.tokenizer)
        assert taken.snapshots.is_dir() and not (folder / ".taken").exists()
    else:  # nothing has been taken
        taken = begin(folder)
        assert not any(taken.stage(stage).exists() for stage in STAGES) and not taken.origin.exists()


def test_a_stage_that_is_not_finished_is_refused_with_what_can_be_taken(source, tmp_path):
    source.done("sft").unlink()
    with pytest.raises(OriginError, match=r"stage sft of .* is not finished.* take --from=.*:collect$"):
        begin(tmp_path / "taken", Origin(source, "sft"))
    shutil.rmtree(source.ideas)
    with pytest.raises(OriginError, match=r"stage ideas of .*, or leave --from out$"):
        begin(tmp_path / "taken", Origin(source, "collect"))
    assert not (tmp_path / "taken").exists()


@pytest.mark.parametrize(
    ("stage", "changes", "said"),
    [
        (
            "sft",
            {"sft.steps": 5},
            r"stage sft .*config.sft.steps is 4 there, 5 here\): .*, or take --from=.*:collect$",
        ),
        (
            "ppo",
            {"ppo.gamma": 0.5},
            r"stage ppo .*config.ppo.gamma is .* there, 0.5 here.*or take --from=.*:sft$",
        ),
        (
            "ppo",
            {"reward.ml_specific": False},
            "stage ppo .*config.reward.ml_specific is True there, False here",
        ),
        ("collect", {"seed": 1}, "stage ideas .*config.seed is 0 there, 1 here.* or leave --from out$"),
        (
            "sft",
            {"tasks.held_in": ("ames",)},
            r"config.tasks.collect is \['digits8'\] there, \['ames'\] here",
        ),
    ],
)
def test_settings_that_matter_must_be_the_same(with_ppo, tmp_path, stage, changes, said):
    with pytest.raises(OriginError, match=said):
        begin(tmp_path / "taken", Origin(with_ppo, stage), **changes)


EDITS = {
    "description.md": lambda text: text + "More.\n",
    "train.py": lambda text: text + "# changed\n",
    "prepare.py": lambda text: text + "# changed\n",
    "task.toml": lambda text: text.replace("0.994", "0.99"),
}


@pytest.mark.parametrize("name", EDITS)
def test_stages_on_a_task_that_was_another_one_are_refused_and_so_is_going_on(full, tmp_path, name):
    """The settings name a task, and say nothing of its description, scripts, scale or data."""
    tasks = Path(Settings.from_config(tiny.get_config()).tasks.folder)
    for task in ("digits8", "hotel_rates"):
        shutil.copytree(tasks / task, tmp_path / "tasks" / task)
    path = tmp_path / "tasks" / "digits8" / name
    before = path.read_text()
    changes = {**SMALL, "tasks.folder": str(tmp_path / "tasks")}
    settings = scripted_settings(**changes)
    with Workdir(tmp_path / "begun").claimed(settings):
        pass
    Origin(full, "sft").check(settings, Workdir(tmp_path / "taken"))
    path.write_text(EDITS[name](before))
    assert path.read_text() != before
    for stage in ("ideas", "sft"):
        with pytest.raises(OriginError, match="task 'digits8' is not what it was there"):
            Origin(full, stage).check(settings, Workdir(tmp_path / "taken"))
    with (
        pytest.raises(WorkdirError, match="was begun with another task 'digits8'"),
        Workdir(tmp_path / "begun").claimed(settings),
    ):
        pass


def test_a_run_of_a_seed_goes_on_when_the_other_is_gone(source, tmp_path):
    several = tmp_path / "several"
    several.mkdir()
    source.root.rename(several / "seed_0")
    begin(tmp_path / "taken", Origin(Workdir(several), "collect").of_seed(0))
    shutil.rmtree(several)
    begin(tmp_path / "taken", Origin(Workdir(several), "collect").of_seed(0))


def test_a_damaged_workspace_is_not_left_out_in_silence(source, tmp_path):
    for path in (source.snapshots / "workspaces").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    with pytest.raises(SnapshotError):
        begin(tmp_path / "taken", Origin(source, "collect"))


def test_checkpoints_on_another_disk_are_taken_too(source, tmp_path):
    source.checkpoints("sft").rename(tmp_path / "disk")
    source.checkpoints("sft").symlink_to(tmp_path / "disk")
    taken = begin(tmp_path / "taken", Origin(source, "sft"))
    assert contents(taken.checkpoints("sft")) == contents(tmp_path / "disk")


@pytest.mark.parametrize("missing", ["checkpoints", "tokenizer"])
def test_a_stage_without_what_it_made_is_not_finished(source, tmp_path, missing):
    path = source.tokenizer if missing == "tokenizer" else source.checkpoints("sft")
    shutil.rmtree(path)
    if missing == "checkpoints":
        path.mkdir()
    with pytest.raises(OriginError, match="is not finished, or its files are gone"):
        begin(tmp_path / "taken", Origin(source, "sft"))


def test_what_an_interrupted_start_left_is_removed(full, tmp_path):
    (tmp_path / "run").mkdir()
    with Workdir(tmp_path / "run").claimed(scripted_settings(**SMALL)):
        (tmp_path / "run" / ".taken").mkdir()
    begin(tmp_path / "run")
    assert not (tmp_path / "run" / ".taken").exists()


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("sft", {"ppo.gamma": 0.5, "ppo.seed": 3, "reward.ml_specific": False, "evaluate.episodes": 3}),
        ("sft", {"rl.rollouts": "episodes", "reward.episode_baseline": "best", "tasks.held_out": ()}),
        ("collect", {"sft.steps": 5, "collect.filtered_share": 0.5}),
        ("ideas", {"collect.episodes_per_task": 3, "prompt.thought": False}),
    ],
)
def test_others_may_differ(full, tmp_path, stage, changes):
    with scripted(tiny.get_config(), tmp_path / "taken", **{**SMALL, **changes}) as experiment:
        Origin(full, stage).check(experiment.settings, experiment.workdir)


def test_every_setting_that_defines_a_run_is_one_that_some_stage_depends_on():
    definition = Settings.from_config(tiny.get_config()).definition()
    read = {name for stage in (*NEEDS, "evaluate") for name in read_by(stage, definition)}
    assert definition.keys() == read


def test_what_a_folder_has_already_is_not_replaced(full, source, tmp_path):
    taken = begin(tmp_path / "taken", Origin(full, "collect"))
    with pytest.raises(OriginError, match=r"has its stages from .*full:collect, not from .*source:collect"):
        begin(taken.root, Origin(source, "collect"))
    own = begin(tmp_path / "own", stages=("ideas",))
    with pytest.raises(OriginError, match="has ideas of its own already"):
        begin(own.root, Origin(full, "collect"))
    with pytest.raises(OriginError, match="is the work directory itself"):
        begin(full.root, Origin(full, "collect"))
    with pytest.raises(OriginError, match="is not a run's work directory"):
        begin(tmp_path / "new", Origin(Workdir(tmp_path), "collect"))


def test_how_it_is_named(tmp_path):
    assert Origin.parse("runs/a").stage == "sft"
    parsed = Origin.parse("runs/a:b:collect")
    assert parsed.workdir.root.name == "a:b" and parsed.stages == ("ideas", "collect")
    for wrong in ("runs/a:evaluate", ":sft", "runs/a:"):
        with pytest.raises(OriginError, match="stages that can be taken are ideas, collect, sft"):
            Origin.parse(wrong)


def test_each_seed_takes_the_run_of_its_own(tmp_path):
    several = Workdir(tmp_path / "several")
    one = several.of_seed(3)
    one.root.mkdir(parents=True)
    one.config.write_text("{}")
    assert Origin(several, "sft").of_seed(3).workdir.root == one.root
    assert Origin(several, "sft").of_seed(4).workdir.root == several.root
