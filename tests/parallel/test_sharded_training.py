import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(program, devices, *arguments, timeout):
    """The last line that a program in this folder prints, as JSON; it runs with this many fake devices."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(program)), *map(str, arguments)],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_mesh_gives_the_same_loss_and_gradients():
    differences = run("same_on_every_mesh.py", 8, timeout=280)
    assert set(differences) == {"4x2", "sequence", "tied", "unused ids"}
    for name, difference in differences.items():
        assert difference < 1e-5, name


@pytest.mark.usefixtures("optimised")
def test_fsdp_communicates_parameters_and_never_activations():
    facts = run("fsdp_program.py", 8, timeout=280)
    B, T, D, F, V, chunk = 8, 40, 32, 96, 520, 10
    gathered = [(shape, looped) for kind, shape, looped in facts["collectives"] if kind == "all-gather"]
    scattered = [(shape, looped) for kind, shape, looped in facts["collectives"] if kind == "reduce-scatter"]
    summed = [(shape, looped) for kind, shape, looped in facts["collectives"] if kind == "all-reduce"]
    # Each layer's kernels are gathered in forward and backward pass, and their gradients summed. On a CPU XLA has no
    # pass that turns a sum and a slice into a reduce-scatter, as it has for GPUs and TPUs.
    assert gathered.count(([D, F], True)) == 4 and gathered.count(([F, D], True)) == 2
    assert summed.count(([D, F], True)) == 2 and summed.count(([F, D], True)) == 1
    # The unembedding is gathered once per step, not once per chunk.
    assert [looped for shape, looped in gathered if V in shape] == [False]
    assert [looped for shape, looped in scattered if V in shape] == [False]
    # Of the arrays with a time axis only token ids are gathered, and no device has the logits of more than a chunk.
    assert [shape for shape, _ in gathered + scattered if T in shape] == [[B, T]]
    assert max(math.prod(shape) for shape in facts["shapes"] if V in shape) == max(chunk, D) * V
    assert not [shape for shape in facts["shapes"] if V in shape and T in shape]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_is_the_same_on_every_mesh_and_checkpoints_move_between_meshes(tmp_path):
    differences = run("sharded_training.py", 4, tmp_path, timeout=800)
    assert set(differences) == {"data", "fsdp", "fsdp x tensor", "data x tensor", "sequence", "moved"}
    for name, difference in differences.items():
        assert difference < 1e-5, name
