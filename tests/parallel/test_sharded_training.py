import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(program, devices, *arguments, timeout):
    """The JSON object that a program beside this one prints last, with so many fake devices."""
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


def test_every_layout_has_the_same_loss_and_gradients():
    differences = run("same_on_every_mesh.py", 8, timeout=280)
    assert set(differences) == {"8x1", "4x2", "2x4", "sequence", "tied"}
    for name, difference in differences.items():
        assert difference < 1e-5, name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_layout_trains_alike_and_checkpoints_move_between_them(tmp_path):
    differences = run("sharded_training.py", 4, tmp_path, timeout=800)
    assert set(differences) == {"data", "fsdp", "fsdp x tensor", "data x tensor", "sequence", "moved"}
    for name, difference in differences.items():
        assert difference < 1e-5, name
