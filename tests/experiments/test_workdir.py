"""A work directory belongs to what defines a run: refused, resumed or left alone before anything is written."""

from __future__ import annotations

import json

import pytest
import tiny
from absl import logging
from ml_collections import ConfigDict

from experiments.cli.config_flags import with_changes
from experiments.experiment import Experiment
from experiments.settings import Settings, SettingsError
from experiments.stages.preflight import asked_stages, check_inputs, check_setup, ordered_stages
from experiments.workdir import MissingInputError, Workdir, WorkdirError
from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import save_hf
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.text.tokenizer import train_sentencepiece


def settings(**changes) -> Settings:
    return Settings.from_config(with_changes(tiny.get_config(), changes))


@pytest.fixture
def workdir(tmp_path):
    """Of a run with the usual settings."""
    workdir = Workdir.at(str(tmp_path / "run"))
    with workdir.claimed(settings()):
        pass
    return workdir


def stored(workdir):
    return json.loads((workdir.root / "config.json").read_text())


MEANS = {
    "sandbox.workers": 7,
    "sandbox.backend": "ray",
    "sandbox.ray_address": "10.0.0.1:6379",
    "sandbox.docker.call_seconds": 3.0,
    "mesh.data": 1,
    "mesh.fsdp": -1,
    "sft.micro_rows": 1,
    "sft.log_every": 5,
    "model.shape.attention": "xla",
    "tasks.data_dir": "/data",
    "models.coder.base_url": "http://localhost:8000/v1",
    "models.coder.timeout_seconds": 5.0,
    "models.budget": 2.0,
}


@pytest.mark.parametrize("name", MEANS)
def test_what_changes_no_result_may_change(workdir, name, caplog):
    logging.use_absl_handler()
    changed = settings(**{name: MEANS[name]} | ({"mesh.data": 1} if name == "mesh.fsdp" else {}))
    with caplog.at_level("INFO"), workdir.claimed(changed):
        assert Settings.from_config(ConfigDict(stored(workdir))) == changed
    assert f"config.{name} was " in caplog.text and f"now {MEANS[name]!r}" in caplog.text


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seed", 1, "config.seed was 0, now 1"),
        ("ppo.gamma", 0.5, "config.ppo.gamma was 1.0, now 0.5"),
        ("reward.performance", False, "config.reward.performance was True, now False"),
        ("tasks.held_in", ("ames",), "config.tasks.held_in was ['digits8'], now ['ames']"),
        ("model.lora.rank", 8, "config.model.lora.rank was not set, now 8"),
        ("model.shape.dtype", "bfloat16", "config.model.shape.dtype was not set, now 'bfloat16'"),
        ("sandbox.backend", "docker", "config.sandbox.backend was 'this host', now 'docker'"),
        ("models.coder.temperature", 0.5, "config.models.coder.temperature was 0.0, now 0.5"),
    ],
)
def test_what_defines_the_run_may_not(workdir, name, value, said):
    before = (workdir.root / "config.json").read_bytes()
    with (
        pytest.raises(WorkdirError) as error,
        workdir.claimed(settings(**{name: value, "sandbox.workers": 9})),
    ):
        pass
    assert said in str(error.value) and "workers" not in str(error.value)
    assert (workdir.root / "config.json").read_bytes() == before


def test_every_difference_is_told(workdir):
    changes = {
        "seed": 1,
        "ppo.gamma": 0.5,
        "ppo.lam": 0.5,
        "sft.steps": 9,
        "ppo.updates": 9,
        "collect.episodes_per_task": 3,
    }
    with pytest.raises(WorkdirError) as error, workdir.claimed(settings(**changes)):
        pass
    assert all(f"config.{name} was" in str(error.value) for name in changes)


def test_a_run_of_an_older_version_goes_on_with_defaults_for_what_it_did_not_know(workdir):
    tree = stored(workdir)
    del tree["reward"]["performance"], tree["ppo"]["gamma"], tree["sandbox"]["docker"]
    tree["model"]["lora"] = {}  # as it was written then
    (workdir.root / "config.json").write_text(json.dumps(tree))
    with workdir.claimed(settings()):
        assert stored(workdir)["ppo"]["gamma"] == 1.0
    (workdir.root / "config.json").write_text(json.dumps(tree))
    with (
        pytest.raises(WorkdirError, match=r"config\.ppo\.gamma was 1\.0, now 0\.5"),
        workdir.claimed(settings(**{"ppo.gamma": 0.5})),
    ):
        pass


def test_a_run_of_a_version_with_other_settings_is_refused(workdir):
    tree = stored(workdir)
    tree["ppo"]["temperament"] = 3
    (workdir.root / "config.json").write_text(json.dumps(tree))
    with (
        pytest.raises(WorkdirError, match=r"another version.*config\.ppo\.temperament is not a setting"),
        workdir.claimed(settings()),
    ):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_a_damaged_configuration_is_refused_in_a_sentence(workdir, text):
    (workdir.root / "config.json").write_text(text)
    with pytest.raises(WorkdirError, match=r"config\.json is damaged"), workdir.claimed(settings()):
        pass
    assert (workdir.root / "config.json").read_text() == text


def test_a_file_and_a_folder_of_something_else_are_left_alone(tmp_path):
    (tmp_path / "file").write_text("precious")
    with (
        pytest.raises(WorkdirError, match="is a file"),
        Workdir.at(str(tmp_path / "file")).claimed(settings()),
    ):
        pass
    with (
        pytest.raises(WorkdirError, match=r"not a run's work directory .it holds file"),
        Workdir.at(str(tmp_path)).claimed(settings()),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with (
        pytest.raises(WorkdirError, match="can't be written"),
        Workdir.at(str(tmp_path / "file/below")).claimed(settings()),
    ):
        pass


def test_a_start_that_was_killed_while_it_wrote_is_taken_up(tmp_path):
    (tmp_path / ".config.json.abc").write_text("{")
    (tmp_path / ".lock").write_text("")
    workdir = Workdir.at(str(tmp_path))
    with workdir.claimed(settings()):
        assert stored(workdir)["seed"] == 0


def test_two_runs_cannot_have_one_work_directory(workdir):
    with (
        workdir.claimed(settings()),
        pytest.raises(WorkdirError, match="another run is using"),
        workdir.claimed(settings()),
    ):
        pass
    with workdir.claimed(settings()):
        pass


def test_seeds_of_one_configuration():
    one = settings(seeds=(4, 5)).with_seed(4)
    assert (one.seed, one.sft.seed, one.ppo.seed, one.seeds) == (4, 4, 4, ())
    assert settings(**{"seeds": (4, 5), "ppo.seed": 9}).with_seed(5).ppo.seed == 9


# Before work begins.


def test_stages_in_their_order():
    assert ordered_stages(["ideas", "sft"]) == ["ideas", "sft"]
    for names, said in (
        (["sft", "ideas"], "write --stages=ideas,sft"),
        (["sft", "sft"], "twice"),
        ([], "empty"),
    ):
        with pytest.raises(SettingsError, match=said):
            ordered_stages(names)


def test_controls_are_trained_only_if_the_evaluation_has_them():
    every = ["sft", "sft_filtered", "ppo", "ppo_shuffled", "evaluate"]
    with_one = settings(**{"evaluate.agents": ("sft", "ppo", "ppo_shuffled")})
    assert asked_stages(settings(), every, named=False) == ["sft", "ppo", "evaluate"]
    assert asked_stages(with_one, every, named=False) == ["sft", "ppo", "ppo_shuffled", "evaluate"]
    assert asked_stages(with_one, ["ppo_shuffled"], named=True) == ["ppo_shuffled"]
    with pytest.raises(SettingsError, match="names 'sft_filtered', which trains an agent that"):
        asked_stages(with_one, ["sft_filtered"], named=True)


@pytest.mark.parametrize(
    ("stages", "changes", "needs"),
    [
        (["collect"], {}, "stage 'collect' reads .*ideas, which is missing: run stage 'ideas' first"),
        (["sft"], {}, "stage 'sft' reads .*trajectories.jsonl"),
        (["ppo"], {}, "stage 'ppo' reads .*trajectories.jsonl"),
        (["ideas", "collect", "ppo"], {}, "stage 'ppo' reads .*sft/checkpoints"),
        (["ideas", "collect", "sft", "evaluate"], {}, "stage 'evaluate' reads .*ppo/checkpoints"),
        (["evaluate"], {"evaluate.agents": ("starter", "sft")}, "reads .*sft/checkpoints"),
        (["evaluate"], {"evaluate.agents": ("sft_filtered",)}, "reads .*sft_filtered/checkpoints"),
        (
            ["sft_filtered"],
            {"evaluate.agents": ("sft_filtered",)},
            "stage 'sft_filtered' reads .*trajectories",
        ),
        (["ideas", "collect", "ppo_shuffled"], {}, "stage 'ppo_shuffled' reads .*sft/checkpoints"),
        (["ppo"], {"rl.start": "base", "evaluate.agents": ("ppo",)}, "trajectories.jsonl"),
    ],
)
def test_a_stage_whose_input_no_stage_makes_is_refused_at_once(tmp_path, stages, changes, needs):
    with pytest.raises(MissingInputError, match=needs):
        check_inputs(settings(**changes), Workdir.at(str(tmp_path / "run")), stages)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stages", "changes"),
    [
        (["ideas", "collect", "sft", "ppo", "evaluate", "report"], {}),
        (["evaluate"], {"evaluate.agents": ("starter", "expert")}),
        (["ideas", "collect", "ppo"], {"rl.start": "base", "evaluate.agents": ("ppo",)}),
        (["report"], {}),
    ],
)
def test_stages_that_have_what_they_need(tmp_path, stages, changes):
    check_inputs(settings(**changes), Workdir.at(str(tmp_path / "run")), stages)


def setup(tmp_path, stages, **changes):
    with Experiment(settings(**changes), Workdir.at(str(tmp_path / "run"))) as experiment:
        check_setup(experiment, stages)
        return experiment.model if changes.get("model.pretrained") else None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks.held_in": ("titanic",)}, "there is no task 'titanic'"),
        ({"tasks.folder": "/nowhere"}, "there is no task"),
        ({"mesh.data": 64}, "does not match the"),
        ({"ppo.row_length": 256}, "ppo.row_length is 256, but a prompt and its response may have 768"),
        ({"model.pretrained": "/nowhere"}, "/nowhere"),
    ],
)
def test_tasks_devices_and_model_are_looked_at_first(tmp_path, changes, said):
    with pytest.raises(UserError) as error:
        setup(tmp_path, ["sft", "ppo"], **changes)
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    tokenizer = train_sentencepiece(["score 0.5 of train.py\n"] * 20, 300, folder / "tokenizer")
    config = Qwen2Config(320, 48, 64, 2, 4, 2, max_position_embeddings=512)
    save_hf(folder / "hf", config, init_params(config, 0), tokenizer)
    return folder / "hf"


def test_a_pretrained_model_is_what_its_folder_says_and_is_computed_as_asked(tmp_path, pretrained):
    """The quickstart's own shape is of a model from nothing."""
    model = setup(
        tmp_path,
        ["sft"],
        **{
            "model.pretrained": str(pretrained),
            "model.shape.query_chunk": 32,
            "model.shape.dtype": "bfloat16",
        },
    )
    assert (model.hidden_size, model.num_hidden_layers, model.num_attention_heads) == (48, 2, 4)
    assert (model.query_chunk, model.dtype, model.scan_layers) == (32, "bfloat16", False)


def test_a_context_that_the_pretrained_model_has_not_is_refused(tmp_path, pretrained):
    with pytest.raises(SettingsError, match=r"config.sampling.max_length is 640, but .* was trained for 512"):
        setup(
            tmp_path,
            ["ppo"],
            **{"model.pretrained": str(pretrained), "sampling.max_length": 640, "ppo.row_length": 640},
        )
