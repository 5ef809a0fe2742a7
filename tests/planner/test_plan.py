"""Plans by the command line: the 7B configurations with two layers, on TPUs and GPUs, and what does not fit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.planning.plans import ALTERNATIVES, alternatives

ROOT = Path(__file__).parents[2]
SMALL = """
from experiments.configs import {name}


def get_config():
    config = {name}.get_config()
    config.model.pretrained = config.model.size = ""
    config.model.vocab_size = {vocab}
    config.model.shape.update(
        hidden_size=512, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    {also}
    return config
"""


def plan(folder, *flags, name="sft_qwen2_5_7b", vocab=2048, also=""):
    """Exit status, output and what --json wrote."""
    config, file = folder / "small.py", folder / "plan.json"
    config.write_text(SMALL.format(name=name, vocab=vocab, also=also))
    command = [sys.executable, "-m", "experiments.plan", f"--config={config}", f"--json={file}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr, json.loads(file.read_text()) if file.exists() else None


UNCOMPILED = """
import json, sys
from experiments.cli.config_flags import with_changes
from experiments.planning.plans import adapt, stage_programs
from mlagent_jax.planner.compilation import compile_program
from mlagent_jax.planner.programs import bytes_per_device
from mlagent_jax.planner.targets import find_target, prepare
prepare()
import small
from dataclasses import asdict

name, stage, compiled, changes = json.loads(sys.argv[1])
config, target = with_changes(small.get_config(), changes), find_target(name)
adapted = adapt(config, target, [stage])
told = {"changes": dict(adapted.changes), "programs": {}}
for program in stage_programs(adapted, [stage]):
    program.function.trace(*program.arguments)
    of = {part: {name: bytes_per_device(tree) for name, tree in getattr(program, part).items()}
          for part in ("parts", "beside")}
    if program.name == compiled:
        found = compile_program(program, target)
        of |= {"memory": asdict(found.memory), "attention_kernels": found.attention_kernels}
        of["collectives"] = [asdict(each) for each in found.collectives]
    told["programs"][program.name.split(",")[0]] = of
print(json.dumps(told))
"""


def traced(folder, target, stage, compiled="", name="sft_qwen2_5_7b", changes=None):
    """Changes for the target, and what each program holds. Programs are traced, and only one of them is compiled."""
    (folder / "small.py").write_text(SMALL.format(name=name, vocab=2048, also=""))
    given = json.dumps([target, stage, compiled, changes or {}])
    done = subprocess.run(
        [sys.executable, "-c", UNCOMPILED, given],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return told["changes"], told["programs"]


@pytest.mark.usefixtures("compilers")
def test_sft_on_a_tpu_slice(tmp_path):
    """The held-out loss is compiled. The training step takes more than a minute: the slow test below."""
    changes, programs = traced(
        tmp_path, "v5e-16", "sft", compiled="sft held-out loss", changes={"sft.row_length": 4096}
    )
    assert changes == {"model.shape.attention": "splash", "sft.micro_rows": 16}
    train, held_out = programs["sft train step"], programs["sft held-out loss"]
    assert held_out["attention_kernels"]["tpu_custom_call"] >= 1
    gathers = [c for c in held_out["collectives"] if c["kind"] == "all-gather"]
    assert sum(c["count"] for c in gathers) >= 2, "two layers, forward"
    assert train["parts"]["parameters"] == pytest.approx(_parameters(2048) * 4 / 16, rel=0.02)
    assert train["parts"]["optimiser"] == pytest.approx(2 * train["parts"]["parameters"], rel=0.01)
    memory = held_out["memory"]
    assert memory["peak"] > memory["arguments"] >= sum(held_out["parts"].values())


@pytest.mark.slow
@pytest.mark.usefixtures("compilers")
def test_the_training_step_of_sft_on_a_tpu_slice(tmp_path):
    status, output, told = plan(tmp_path, "--target=v5e-16", "--stages=sft", "--config.sft.row_length=4096")
    assert status == 0, output
    assert told["changes"] == {"model.shape.attention": "splash", "sft.micro_rows": 16}
    assert "--config.model.shape.attention=splash --config.sft.micro_rows=16" in output
    train, _ = told["plan"]["programs"]
    assert train["attention_kernels"]["tpu_custom_call"] >= 3, "forward, forward again, and backward"
    gathers = [c for c in train["collectives"] if c["kind"] == "all-gather"]
    assert sum(c["count"] for c in gathers) >= 2 * 2 * 4, (
        "two layers, forward and backward, for each of four micro-batches"
    )
    compiled = train["bytes"]["compiled"]
    parts = train["bytes"]["parts"]
    assert parts["parameters"] == pytest.approx(_parameters(2048) * 4 / 16, rel=0.02)
    assert parts["optimiser"] == pytest.approx(2 * parts["parameters"], rel=0.01)
    assert compiled["peak"] > compiled["arguments"] >= sum(parts.values())
    assert told["versions"]["jax"] and told["versions"]["libtpu"]


@pytest.mark.usefixtures("compilers")
def test_ppo_on_a_gpu_node(tmp_path):
    status, output, told = plan(tmp_path, "--target=h100-8", "--stages=ppo", name="ppo_qwen2_5_7b")
    assert status == 0, output
    assert told["changes"] == {}, "the configuration is meant for this target"
    programs = {program["name"].split(",")[0]: program for program in told["plan"]["programs"]}
    assert list(programs) == [
        *("ppo weights for sampling", "ppo prefill", "ppo decode"),
        *("ppo log-probs and values", "ppo gradients", "ppo apply"),
    ]
    assert any("Backward" in kernel for kernel in programs["ppo gradients"]["attention_kernels"])
    decode = programs["ppo decode"]
    assert decode["devices"] == 8 and decode["bytes"]["parts"]["parameters"] == pytest.approx(
        _parameters(2048) * 2 / 8, rel=0.02
    ), "the weights stay split"
    # The activations of 32 rows are communicated, and no weights: those of one layer would be 4 MB.
    assert sum(each["received"] for each in decode["collectives"]) < 2e6
    assert programs["ppo gradients"]["runs_per_step"] == 32, "256 rows, eight at a time"
    # While sampling, a device still holds its share of both training states and of the reference.
    beside = decode["bytes"]["beside"]
    assert sum(beside.values()) == pytest.approx((12 + 12 + 4) * _parameters(2048) / 8, rel=0.15)


ADAPTERS = {"model.shape.param_dtype": "bfloat16", "ppo.micro_rows": 1, "model.lora.rank": 4}


@pytest.mark.slow
@pytest.mark.usefixtures("compilers")
def test_ppo_of_adapters_compiles(tmp_path):
    """The tests above compile PPO, the test below traces it with adapters."""
    flags = [f"--config.{field}={value}" for field, value in ADAPTERS.items()]
    status, output, _ = plan(tmp_path, "--target=h100-1", "--stages=ppo", *flags, name="ppo_qwen2_5_7b")
    assert status == 0, output


@pytest.mark.usefixtures("compilers")
def test_ppo_of_adapters_holds_one_whole_model(tmp_path):
    _, programs = traced(tmp_path, "h100-1", "ppo", name="ppo_qwen2_5_7b", changes=ADAPTERS)
    held = programs["ppo gradients"]["parts"] | programs["ppo gradients"]["beside"]
    adapters = 2 * 4 * (2 * (512 + 512) + 2 * (512 + 256) + 3 * (512 + 1024))
    # Three sets of adapters: the actor's, the critic's and the reference's.
    assert held["parameters"] == pytest.approx(2 * _parameters(2048) + 3 * 4 * adapters, rel=0.01)
    assert held["gradients"] == pytest.approx(2 * 4 * adapters, rel=0.02), "for actor and critic, in float32"
    assert held["optimiser"] == pytest.approx(2 * held["gradients"], rel=0.02)
    assert "reference" not in held
    load, decode = (programs[f"ppo {name}"] for name in ("weights for sampling", "decode"))
    assert decode["parts"]["parameters"] == pytest.approx(2 * (_parameters(2048) + adapters), rel=0.01)
    assert load["parts"]["parameters"] == pytest.approx(2 * _parameters(2048) + 4 * adapters, rel=0.01)
    assert load["beside"]["reference"] == pytest.approx(4 * adapters, rel=0.01), (
        "its frozen weights are the actor's"
    )


NARROW = {
    "sft.row_length": 1024,
    "model.shape.param_dtype": "bfloat16",
    "sft.optimiser.mu_dtype": "bfloat16",
}


@pytest.mark.slow
@pytest.mark.usefixtures("compilers")
def test_a_step_with_first_moments_in_bfloat16_compiles(tmp_path):
    """The test below traces it."""
    also = f"from experiments.cli.config_flags import with_changes; config = with_changes(config, {NARROW})"
    status, output, _ = plan(tmp_path, "--target=v5e-16", "--stages=sft", also=also)
    assert status == 0, output


@pytest.mark.usefixtures("compilers")
def test_first_moments_in_bfloat16_keep_the_second_in_float32(tmp_path):
    _, programs = traced(tmp_path, "v5e-16", "sft", changes=NARROW)
    parts = programs["sft train step"]["parts"]
    assert parts["parameters"] == pytest.approx(2 * _parameters(2048) / 16, rel=0.02)
    assert parts["optimiser"] == pytest.approx((2 + 4) * _parameters(2048) / 16, rel=0.02)


def test_suggestions_are_for_the_given_stages():
    """Each once, without fields of other stages; with bfloat16 parameters, first moments are bfloat16 too."""
    both, sft = (alternatives(stages) for stages in (["sft", "ppo"], ["sft"]))
    assert len(both) == len(ALTERNATIVES)
    assert not [field for _, changes in sft for field in changes if field.startswith("ppo.")]
    assert len({str(changes) for _, changes in sft}) == len(sft) < len(both)
    wide = [
        changes
        for _, changes in both
        if changes.get("model.shape.param_dtype") and "model.lora.rank" not in changes
    ]
    assert len(wide) == 3
    for changes in wide:
        for rule in ("sft.optimiser", "ppo.actor_optimiser", "ppo.critic_optimiser"):
            assert changes[f"{rule}.mu_dtype"] == "bfloat16"


@pytest.mark.usefixtures("compilers")
def test_a_plan_that_does_not_fit_says_why_and_what_was_tried(tmp_path):
    """Forty million words of 512 numbers: the arguments alone exceed the memory of one GPU."""
    status, output, told = plan(tmp_path, "--target=h100-1", "--stages=sft", "--suggest", vocab=40_000_000)
    assert status == 1
    assert "DOES NOT FIT" in output and "sft train step needs" in output
    assert told["plan"]["fits"] is False
    assert "its arguments alone take" in told["attempts"][0]["problem"]
    assert (
        "does not divide" in told["attempts"][1]["problem"]
        or "does not match" in told["attempts"][1]["problem"]
    )


REFUSED = """
from mlagent_jax.planner.targets import find_target, prepare, target_devices
prepare()
import jax, jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from mlagent_jax.planner.plan import make_plan
from mlagent_jax.planner.programs import Program, Work

target = find_target("v5e-16")
x = jax.ShapeDtypeStruct((2**16, 2**16), jnp.float32, sharding=SingleDeviceSharding(target_devices(target)[0]))
print(make_plan([Program("square", jax.jit(lambda x: x @ x), (x,), {"x": x}, 1, Work())], target).problems)
"""


@pytest.mark.usefixtures("compilers")
def test_the_compiler_refuses_a_program():
    """Two arrays of 16 GiB on a chip with 15.75 GiB."""
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True)
    assert "square: Ran out of memory" in done.stdout or "exceed" in done.stdout, done.stdout + done.stderr
    assert "15.75G" in done.stdout


def test_an_unknown_target_and_stage(tmp_path):
    status, output, _ = plan(tmp_path, "--target=h100-9")
    assert status == 1
    assert "h100-8" in output and "v5p-16" in output
    status, output, _ = plan(tmp_path, "--target=h100-8", "--stages=sft,rl")
    assert status == 1 and "--stages=sft,rl: 'rl' is not a stage; there are the stages sft, ppo" in output


def _parameters(vocab: int) -> int:
    layer = 2 * 512 * 512 + 2 * 512 * 256 + 512 + 2 * 256 + 3 * 512 * 1024 + 2 * 512
    return 2 * layer + 2 * vocab * 512 + 512
