"""The GPU benchmark runs to its end in miniature, so that a rented GPU does not meet its errors first."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_tiny():
    if importlib.util.find_spec("torch") is None:
        if "torch" in os.environ.get("MLAGENT_REQUIRE", ""):
            pytest.fail("MLAGENT_REQUIRE names torch, but it is missing")
        pytest.skip("needs torch, which it is compared with")
    command = [
        sys.executable,
        "-m",
        "experiments.benchmarks.training_7b",
        "--tiny",
        "--repeats=2",
        "--micro_batches=2",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}
    )
    assert done.returncode == 0, done.stderr
    assert "2 layers, 2 x 64 tokens a step," in done.stdout
    assert re.search(r"ratio: \d+\.\d+ times as fast as torch", done.stdout)
    assert "not judged here" in done.stdout
