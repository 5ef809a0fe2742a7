"""The same answers on every mesh, where no device holds the whole model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

PROGRAM = Path(__file__).with_name("sharded_generation.py")


def test_same_answers_on_every_mesh():
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    alone = {name: results.pop(name) for name in ("one", "adapters on one")}
    assert alone["one"]["tokens"] != alone["adapters on one"]["tokens"]
    assert len(results) == 3
    for name, found in results.items():
        one = alone["adapters on one" if "adapters" in name else "one"]
        assert found["tokens"] == one["tokens"], name
        np.testing.assert_allclose(found["logprobs"], one["logprobs"], atol=1e-4, err_msg=name)
        # Norms are replicated everywhere, biases within a tensor group.
        assert found["share"] < (0.55 if name == "data x sequence" else 0.3), name
