"""Every configuration that users are given loads, and a wrong field is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from experiments.experiment import Experiment
from experiments.settings import Settings, SettingsError
from experiments.workdir import Workdir
from mlagent_jax.errors import UserError
from mlagent_jax.grading.labels import read_truth

ROOT = Path(__file__).parents[2]
NO_CONFIGS = {"__init__.py", "compare.py", "suite.py"}
CONFIGS = sorted(
    path
    for folder in ("experiments/configs", "experiments/ablations")
    for path in (ROOT / folder).glob("*.py")
    if path.name not in NO_CONFIGS
)


def load(path: Path) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.fixture
def config() -> ConfigDict:
    return load(ROOT / "experiments/configs/quickstart.py")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_loads(path):
    settings = Settings.from_config(load(path))
    assert settings.tasks.held_in
    assert f"--config={path.relative_to(ROOT)}" in path.read_text(), "its docstring gives the command"


def test_there_are_configs_to_load():
    assert {"quickstart", "learning", "no_sft", "no_stepwise", "no_reward"} <= {path.stem for path in CONFIGS}


def test_ablations_differ_from_the_full_system_in_what_they_name():
    full, *others = (
        Settings.from_config(load(ROOT / f"experiments/ablations/{name}.py"))
        for name in ("full", "no_sft", "no_stepwise", "no_reward")
    )
    assert (full.rl.start, full.rl.rollouts, full.reward.ml_specific) == ("sft", "states", True)
    assert others[0].rl.start == "base"
    assert others[1].rl.rollouts == "episodes"
    assert not others[2].reward.ml_specific


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("ppo.updatess", 3, "config.ppo.updatess is not a setting"),
        ("sft.optimiser.nam", "adamw", "config.sft.optimiser.nam is not a setting"),
        (
            "evaluate.agents",
            ("human",),
            "config.evaluate.agents has 'human', but must be some of starter, random",
        ),
        ("rl.rollouts", "tokens", "config.rl.rollouts is 'tokens'"),
        ("prompt.style", "terse", "config.prompt.style is 'terse', but must be one of full, compact"),
        ("sft.steps", -1, "sft.steps is -1"),
        ("mesh.tensor", 0, "mesh.tensor is 0"),
        ("model.lora", {"rank": 0}, "config.model.lora.rank is 0, but must be a whole number of at least 1"),
        ("model.lora", {"ranks": 8}, "config.model.lora.ranks is not a setting"),
    ],
)
def test_a_wrong_field_is_named(config, field, value, expected):
    *parents, name = field.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    with section.unlocked():
        section[name] = value
    with pytest.raises(UserError, match=expected):
        Settings.from_config(config)


def test_a_missing_section_is_named(config):
    del config.tasks
    with pytest.raises(SettingsError, match=r"config\.tasks is missing"):
        Settings.from_config(config)


def test_the_seed_reaches_every_stage(config):
    settings = Settings.from_config(config).with_seed(7)
    assert (settings.seed, settings.sft.seed, settings.ppo.seed, settings.seeds) == (7, 7, 7, ())


def test_one_switch_takes_the_small_version_of_every_task(config, tmp_path):
    config.tasks.held_in, config.tasks.held_out, config.tasks.micro = ("digits8",), ("ames",), True
    with Experiment(Settings.from_config(config), Workdir(tmp_path)) as experiment:
        for task in (*experiment.held_in, *experiment.held_out):
            assert len(read_truth(task).row_of) == 100
            assert len((task.data_dir / "test.csv").read_text().splitlines()) == 101
