"""Every configuration and ablation that users are given, run from its first stage to its last at a tiny size."""

from __future__ import annotations

import json
import re
from collections import Counter

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from scripted import run_stages, scripted
from test_configs import CONFIGS, load

from experiments.cli.config_flags import with_changes
from experiments.settings import Settings
from experiments.stages.preflight import check_setup
from mlagent_jax.agent.trajectory_log import read_trajectories
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import load_hf, save_hf
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.text.tokenizer import train_sentencepiece

STAGES = ("ideas", "collect", "sft", "ppo", "evaluate")
TRAINS = {"sft_qwen2_5_7b": {"sft"}, "no_sft": {"ppo"}}  # the others train both
SIZE = {
    "tasks.held_in": ("digits8",),
    "tasks.held_out": ("hotel_rates",),
    "tasks.micro": True,
    "collect.episodes_per_task": 6,
    "sampling.batch": 4,
    "sampling.max_new_tokens": 16,
    "sampling.prefill_chunks": (64, 256),
    "sft.steps": 2,
    "sft.batch_rows": 2,
    "sft.micro_rows": 2,
    "ppo.updates": 1,
    "ppo.batch_size": 4,
    "ppo.minibatch_size": 4,
    "ppo.micro_rows": 2,
    "evaluate.episodes": 1,
}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder in place of Qwen2.5-7B's."""
    folder = tmp_path_factory.mktemp("weights")
    words = ["Reflection: Action: Action Input: score 0.5 of train.py\n"] * 20
    tokenizer = train_sentencepiece(words, 310, folder / "tokenizer")
    config = Qwen2Config(vocab_size=320, **SHAPE)
    save_hf(folder / "hf", config, init_params(config, 0), tokenizer)
    return folder / "hf"


def shrunk(config: ConfigDict, weights) -> ConfigDict:
    """With the same switches, and sizes that take seconds."""
    if not config.model.get("pretrained"):
        changes = SIZE | {f"model.shape.{name}": value for name, value in SHAPE.items()}
        return with_changes(config, changes | {"model.vocab_size": 500})
    changes = SIZE | {"model.pretrained": str(weights), "model.size": "", "mesh.fsdp": 1}
    # A byte is a token here, and so a prompt is long; and there is no GPU.
    changes |= {"model.shape.attention": "xla_chunked", "sampling.cache_tokens": 0}
    changes |= {f"{name}": 12_288 for name in ("sampling.max_length", "sft.row_length", "ppo.row_length")}
    return with_changes(config, changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, weights):
    """The work directory of a configuration's run, with its experiment."""
    done = {}

    def finish(path):
        if path not in done:
            config = shrunk(load(path), weights)
            settings = Settings.from_config(config)
            if settings.seeds:
                config = with_changes(config, {"seed": settings.seeds[0], "seeds": ()})
            trains = TRAINS.get(path.stem, {"sft", "ppo"})
            stages = [stage for stage in STAGES if stage in trains or stage not in ("sft", "ppo")]
            with scripted(config, tmp_path_factory.mktemp(path.stem)) as experiment:
                run_stages(experiment, stages)
            done[path] = experiment
        return done[path]

    return finish


def named(name: str):
    return next(path for path in CONFIGS if path.stem == name)


def rollouts(experiment):
    return [json.loads(line) for line in (experiment.workdir.rollouts).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_runs_to_its_end(finished, path):
    experiment = finished(path)
    settings = experiment.settings
    evaluated = list(read_trajectories(experiment.workdir.evaluation_trajectories))
    counts = Counter((t.agent, t.task) for t in evaluated)
    assert counts == {
        (agent, task): 1 for agent in settings.evaluate.agents for task in ("digits8", "hotel_rates")
    }
    for stage in TRAINS.get(path.stem, {"sft", "ppo"}):
        model, params = load_hf(experiment.workdir.root / stage / "hf", **settings.model.execution)
        assert model.num_parameters == experiment.model.num_parameters
        assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(params))
    collected = list(read_trajectories(experiment.workdir.expert_trajectories))
    fields = re.compile("^Reflection: ", re.M)
    assert all(
        bool(fields.search(step.response)) == settings.prompt.thought for t in collected for step in t.steps
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_the_ml_specific_reward_ppo_learns_from_zeros_and_ones(finished):
    full, ablated = rollouts(finished(named("full"))), rollouts(finished(named("no_reward")))
    assert {record["reward"] for record in ablated} <= {0.0, 1.0}
    assert min(record["reward"] for record in full) == -1.0, (
        "a model that has learnt nothing says nothing valid"
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_sft_rl_starts_from_the_base(finished):
    experiment = finished(named("no_sft"))
    start, base = experiment.params_before_rl("ppo"), experiment.initial_params()
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(start), jax.device_get(base))
    assert not (experiment.workdir.checkpoints("sft")).exists()
    full = finished(named("full"))
    differ = jax.tree.map(
        lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()),
        full.params_before_rl("ppo"),
        full.initial_params(),
    )
    assert all(jax.tree.leaves(differ)), "and with it, from what fine-tuning made of all of it"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_step_wise_rl_episodes_begin_at_their_beginning(finished):
    """From the task's description, where step-wise RL starts from states of the expert."""
    episodes, states = finished(named("no_stepwise")), finished(named("full"))
    assert Counter(record["index"] for record in rollouts(episodes))[0] == episodes.settings.ppo.batch_size
    expert = {t.key for t in read_trajectories(states.workdir.expert_trajectories)}
    assert {record["trajectory"] for record in rollouts(states)} <= expert
    assert not {record["trajectory"] for record in rollouts(episodes)} & expert


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quickstart_starts_from_a_folder(tmp_path, weights):
    """README's `--config.model.pretrained=FOLDER`: the folder says what the model is, not the quickstart's shape."""
    length = dict.fromkeys(("sampling.max_length", "sft.row_length", "ppo.row_length"), 4096)
    changes = {"model.pretrained": str(weights), "evaluate.agents": ("ppo",)}
    with scripted(
        with_changes(load(named("quickstart")), SIZE | length | changes), tmp_path / "run"
    ) as experiment:
        check_setup(experiment, STAGES)
        run_stages(experiment, STAGES)
        started, given = experiment.initial_params(), load_hf(weights)[1]
    assert experiment.model.hidden_size == SHAPE["hidden_size"] and experiment.model.query_chunk == 64
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(started), jax.device_get(given))
    trained = load_hf(tmp_path / "run/sft/hf")[1]
    assert not np.array_equal(jax.tree.leaves(trained)[0], jax.tree.leaves(given)[0])
