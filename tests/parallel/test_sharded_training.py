import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_layout_trains_alike_and_checkpoints_move_between_them(tmp_path):
    program = Path(__file__).with_name("sharded_training.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "4"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout.splitlines()[-1])
    assert set(differences) == {"data", "fsdp", "fsdp x tensor", "data x tensor", "moved"}
    for name, difference in differences.items():
        assert difference < 1e-5, name
