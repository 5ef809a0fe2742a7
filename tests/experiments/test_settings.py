"""Every setting has a type, a range and a flag, and whatever is wrong is said at once, before any work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args, get_origin

import pytest
import tiny
from absl import flags
from absl.testing import flagsaver
from tiny import settings_with

from experiments.cli import config_flags
from experiments.cli.config_flags import with_changes
from experiments.settings import Settings, SettingsError
from mlagent_jax.fields import Field, build, leaves
from mlagent_jax.llm.config import ROLES

TINY = Path(tiny.__file__)
FIELDS = dict(leaves(Settings))
# Names, addresses and paths: any text may be right.
FREE_TEXT = {
    *("tasks.held_in", "tasks.held_out", "tasks.validation", "tasks.data_dir", "model.pretrained"),
    *("tasks.collect", "tasks.sft", "tasks.rl", "tasks.evaluate"),
    *(
        "sandbox.cache_dir",
        "sandbox.ray_address",
        "sandbox.docker.engines",
        "sandbox.docker.runtime",
        "sandbox.docker.gpus",
    ),
    "models.cache_dir",
    *(f"models.{role}.{name}" for role in ROLES for name in ("base_url", "model", "api_key_variable")),
}
_MISSING = object()


def inner(field: Field):
    return get_args(field.kind)[0] if get_origin(field.kind) is tuple else field.kind


def value_at(config, name: str):
    value = config.to_dict() if hasattr(config, "to_dict") else config
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = value[part]
    return value


def wrong_values(field: Field) -> list:
    """What no field of this type and range may be, worked out from the type alone but for choices and bounds."""
    kind, rule = inner(field), field.rule
    wrong: list = [None] if not field.optional else []
    if field.nested:
        return [3, "sixteen"]
    if kind is bool:
        wrong += ["maybe", 2, 1.0]
    elif kind is int:
        wrong += [True, "three", 1.5, 2**40, -(2**40)]
    elif kind is float:
        wrong += [True, "three", math.nan, math.inf, -math.inf, 1e60, 1e-60]
    else:
        wrong += [3, True]
        wrong += ["no such choice"] if rule.choices else []
        wrong += [""] if rule.filled and get_origin(field.kind) is not tuple else []
    if kind in (int, float):
        step = 1 if kind is int else 1e-3
        below = [bound for bound in (rule.at_least, rule.above) if bound is not None]
        above = [bound for bound in (rule.at_most, rule.below) if bound is not None]
        wrong += [kind(bound - 7 * step) for bound in below] + [kind(bound + 7 * step) for bound in above]
        wrong += [kind(bound) for bound in (rule.above, rule.below) if bound is not None]
        wrong = [
            value for value in wrong if value is None or isinstance(value, str) or value != rule.or_value
        ]
    if get_origin(field.kind) is tuple:
        wrong = [(value,) for value in wrong] + [7, "text"] + ([()] if rule.filled else [])
    return wrong


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_value_of_any_field_is_named(name):
    field = FIELDS[name]
    for wrong in wrong_values(field):
        with pytest.raises(SettingsError) as error:
            settings_with(**{name: wrong})
        assert f"config.{name} " in str(error.value), (wrong, str(error.value))


def test_every_number_has_a_range_and_every_word_its_choices():
    for name, field in FIELDS.items():
        if inner(field) in (int, float):
            rule = field.rule
            assert {rule.at_least, rule.above, rule.at_most, rule.below} != {None}, f"{name} has no bound"
        elif inner(field) is str and name not in FREE_TEXT:
            assert field.rule.choices or field.rule.filled, f"{name} may be any text"


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(SettingsError) as error:
        settings_with(
            **{"seed": -1, "ppo.gamma": 1.5, "tasks.micro": "maybe", "evaluate.agents": (), "ppo.gama": 1}
        )
    lines = str(error.value).splitlines()
    assert lines[0] == "5 settings are wrong:"
    assert sorted(line.strip() for line in lines[1:]) == [
        "config.evaluate.agents is empty, but must be some of starter, random, expert_without_slips, constant, "
        "bandit, random_search, optuna, expert, sft, sft_filtered, ppo, ppo_shuffled, llm, each once",
        "config.ppo.gama is not a setting; did you mean config.ppo.gamma?",
        "config.ppo.gamma is 1.5, but must be a number from 0 to 1",
        "config.seed is -1, but must be a whole number from 0 to 2,147,483,647",
        "config.tasks.micro is 'maybe', but must be True or False",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 2**31}, "config.seed is 2147483648, but must be a whole number from 0 to 2,147,483,647"),
        ({"episode.steps": 0}, "config.episode.steps is 0, but must be a whole number of at least 1"),
        (
            {"model.size": "8b"},
            "config.model.size is '8b', but must be one of '', 0.5b, 1.5b, 3b, 7b, 14b, 32b, 72b",
        ),
    ],
)
def test_what_is_wrong_is_said_once_and_whole(changes, said):
    with pytest.raises(SettingsError) as error:
        settings_with(**changes)
    assert str(error.value) == said


CODER = {"models.coder.backend": "endpoint", "models.coder.model": "qwen"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks.held_in": ("ames", "ames")}, "config.tasks.held_in names 'ames' twice"),
        (
            {"tasks.held_in": ("ames",), "tasks.held_out": ("tate", "ames")},
            "config.tasks.held_out has 'ames'",
        ),
        ({"tasks.held_in": ("ames",), "tasks.held_out": ("./tasks/ames",)}, "config.tasks.held_out has"),
        ({"tasks.held_in": ("",)}, "config.tasks.held_in has ''"),
        ({"sampling.max_new_tokens": 1024}, "config.sampling.max_new_tokens is 1024"),
        ({"sampling.prefill_chunks": (100,)}, "must be multiples of its page_size"),
        ({"sampling.prefill_chunks": (64, 64)}, "config.sampling.prefill_chunks names 64 twice"),
        ({"sampling.cache_tokens": 64}, "cache_tokens 64"),
        ({"sft.batch_rows": 3}, "config.sft.batch_rows is 3, which is not a multiple of sft.micro_rows 2"),
        ({"sft.steps": 0, "sft.epochs": 0.0}, "config.sft.steps is 0 and sft.epochs 0.0"),
        (
            {"rl.rollouts": "episodes", "ppo.samples_per_state": 2},
            "config.ppo.samples_per_state is 2, but config.rl.rollouts is 'episodes'",
        ),
        (
            {"ppo.minibatch_size": 7},
            "config.ppo.minibatch_size is 7, but must be at most config.ppo.batch_size, 6",
        ),
        ({"mesh.data": -1, "mesh.fsdp": -1}, "only one of mesh.data"),
        ({"rl.start": "base"}, "config.evaluate.agents has 'sft', but config.rl.start is 'base'"),
        (
            {"rl.start": "base", "evaluate.agents": ("sft_filtered",)},
            "config.evaluate.agents has 'sft_filtered', but config.rl.start is 'base'",
        ),
        (
            {"ppo.shuffle_rewards": True, "evaluate.agents": ("ppo", "ppo_shuffled")},
            "config.evaluate.agents has 'ppo_shuffled', but config.ppo.shuffle_rewards is True",
        ),
        ({"tasks.validation": ("ames", "digits8")}, "config.tasks.validation has 'digits8'"),
        (
            {"tasks.validation": ("foods",)},
            "config.tasks.validation is set, but config.evaluate.temperatures",
        ),
        (
            {"evaluate.temperatures": (0.5,)},
            "config.evaluate.temperatures is set, but config.tasks.validation",
        ),
        ({"seeds": (1, 1)}, "config.seeds names 1 twice"),
        ({"ideas.keep": 41}, "ideas.keep is 41, but must be at most ideas.candidates, 40"),
        (
            {"models.coder.backend": "endpoint"},
            "config.models.coder has the backend 'endpoint', but config.models.coder.model is ''; set it to the "
            "model's name at that endpoint",
        ),
        (
            {"models.expert.backend": "checkpoint"},
            "config.models.expert.model is ''; set it to a folder of weights",
        ),
        ({"evaluate.agents": ("llm",)}, "config.models.agent.model is ''; set it"),
        (
            {"models.coder.model": "gpt"},
            "config.models.coder.model is 'gpt', but config.models.coder.backend is 'scripted'",
        ),
        (
            CODER | {"models.coder.context_tokens": 4096},
            "config.models.coder.max_tokens is 4096, but must leave room",
        ),
        (CODER | {"models.budget": 5.0}, "config.models.budget is 5, but config.models.coder has no price"),
        (
            CODER | {"models.budget": 5.0, "models.coder.base_url": "http://localhost:8000/v1"},
            "config.models.budget is 5, but config.models.coder has no price",
        ),
        (
            CODER
            | {
                f"models.expert.{name}": value
                for name, value in {"backend": "endpoint", "model": "gpt"}.items()
            }
            | {"models.budget": 5.0, "models.coder.price.output": 1.0},
            "config.models.budget is 5, but config.models.expert has no price",
        ),
        (
            {"models.expert": {"backend": "checkpoint", "model": "hf", "structured_output": True}},
            "config.models.expert.structured_output is True, but config.models.expert.backend is 'checkpoint'",
        ),
        (
            CODER | {"models.coder.api_key_variable": "sk-123"},
            "config.models.coder.api_key_variable is no name of an environment variable",
        ),
        (
            CODER | {"models.coder.base_url": "http://me:s3cret@host/v1"},
            "config.models.coder.base_url holds a user or password",
        ),
        ({"models.budget": 0.0}, "config.models.budget is 0.0, but must be a number above 0, or -1"),
        ({"prompt.max_steps": 9}, "config.prompt.max_steps is 9, but config.episode.steps is 15"),
        ({"model.shape.num_key_value_heads": 3}, "config.model.shape: num_attention_heads 2"),
        ({"model.shape.attention": "cudnn"}, "config.model.shape: attention 'cudnn'"),
        ({"model.lora.targets": ("q_proj", "q_proj")}, "config.model.lora.targets names 'q_proj' twice"),
    ],
)
def test_what_does_not_go_together_is_named(changes, said):
    with pytest.raises(SettingsError) as error:
        settings_with(**changes)
    assert said in str(error.value)


def test_the_prompt_says_how_many_steps_an_episode_has():
    assert settings_with(**{"episode.steps": 7}).prompt.max_steps == 7


def test_the_whole_tree_is_stored_and_read_back():
    settings = settings_with(**{"model.lora.rank": 4, "seeds": (3, 5)})
    tree = settings.to_config()
    assert set(FIELDS) - {name for name in FIELDS if value_at(tree, name) is not _MISSING} <= {
        "model.lora",
        *(name for name in FIELDS if name.startswith("model.shape.")),
    }
    assert Settings.from_config(tree) == settings
    assert value_at(tree, "model.lora.rank") == 4 and value_at(tree, "reward.performance") is True


# Flags.


@pytest.fixture(scope="module")
def field_flags():
    """The flags of `experiments.run`'s configuration, as long as these tests last."""
    before = set(flags.FLAGS)
    config_flags.define_flags()
    yield
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


def given(*arguments: str):
    with flagsaver.flagsaver():
        flags.FLAGS(["run", f"--config={TINY}", *arguments])
        return config_flags.given_config()


def other_value(field: Field):
    """One that the field may have, and not its usual one."""
    kind, rule = inner(field), field.rule
    if kind is bool:
        value = True
    elif rule.choices:
        value = rule.choices[-1]
    elif kind is str:
        value = "something"
    else:
        low = rule.at_least if rule.at_least is not None else rule.above
        value = kind((low if low is not None else -3) + (5 if kind is int else 0.125))
        if rule.below is not None and value >= rule.below:
            value = kind(rule.below - 0.25)
        if rule.at_most is not None and value > rule.at_most:
            value = kind(rule.at_most)
    return (value,) if get_origin(field.kind) is tuple else value


@pytest.mark.usefixtures("field_flags")
@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if not field.nested])
def test_every_field_can_be_set_by_a_flag(name):
    field = FIELDS[name]
    value = other_value(field)
    texts = [str(value)] if not isinstance(value, tuple) else [str(value), str(value[0])]
    for text in texts:
        set_by_flag = value_at(given(f"--config.{name}={text}"), name)
        assert set_by_flag == value and type(set_by_flag) is type(value)
    problems: list[str] = []
    build(Settings, with_changes(tiny.get_config(), {name: value}).to_dict(), "config", problems)
    assert not any(f"config.{name} " in problem for problem in problems), (
        "and it is one that the field may have"
    )


@pytest.mark.usefixtures("field_flags")
def test_fields_of_which_a_configuration_says_nothing():
    settings = Settings.from_config(
        given(
            "--config.reward.performance=False",
            "--noconfig.reward.corner",
            "--config.model.lora.rank=4",
            "--config.evaluate.agents=('starter','expert')",
            "--config.seeds=",
            "--config.mesh.sequence=1",
        )
    )
    assert (settings.reward.performance, settings.reward.corner) == (False, False)
    assert settings.model.lora is not None and settings.model.lora.rank == 4
    assert settings.evaluate.agents == ("starter", "expert") and settings.seeds == ()


@pytest.mark.usefixtures("field_flags")
def test_adapters_are_switched_off_by_none(tmp_path):
    file = tmp_path / "adapted.py"
    file.write_text(
        TINY.read_text().replace("return config", "config.model.lora = {'rank': 8}\n    return config")
    )
    config = given(f"--config={file}")
    assert Settings.from_config(config).model.lora is not None
    assert Settings.from_config(given(f"--config={file}", "--config.model.lora=none")).model.lora is None


@pytest.mark.usefixtures("field_flags")
def test_what_a_flag_cannot_be_read_as_is_reported_with_all_else():
    with pytest.raises(SettingsError) as error:
        Settings.from_config(given("--config.seed=one", "--config.tasks.micro=maybe", "--config.ppo.lam=2"))
    for said in ("config.seed is 'one'", "config.tasks.micro is 'maybe'", "config.ppo.lam is 2.0"):
        assert said in str(error.value)


# Configuration files.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no file"),
        ("get_config = 3", "defines no function get_config()"),
        ("def get_config(:", "raises SyntaxError"),
        ("raise KeyError('x')", "raises KeyError: 'x'"),
        ("import sys; sys.exit(0)", "raises SystemExit"),
        ("def get_config():\n    return {}", "returns dict, not a ConfigDict"),
        ("def get_config():\n    return 1 / 0", "raises ZeroDivisionError: division by zero"),
        ("\x00\x01", "raises"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path, text, said):
    file = tmp_path / "config.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match="--config can't be") as error:
        config_flags.load_config_file(str(file))
    assert said in str(error.value) and str(file) in str(error.value)


@pytest.mark.usefixtures("field_flags")
def test_a_shape_by_a_flag_and_a_pretrained_model_contradict():
    with pytest.raises(SettingsError, match=r"config.model.shape.hidden_size is 64 by a flag"):
        given("--config.model.pretrained=folder", "--config.model.shape.hidden_size=64")
    given("--config.model.pretrained=folder", "--config.model.shape.query_chunk=32")
