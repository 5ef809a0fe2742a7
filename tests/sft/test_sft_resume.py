"""kill -9 in the middle of fine-tuning, then the same command again: nothing lost or repeated, same bits."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.sft.batches import make_batches
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.loop import train
from mlagent_jax.text.chat import Encoded
from mlagent_jax.training.optimisers import OptimiserConfig

PROGRAM = """
import os, signal, sys
from pathlib import Path
import jax, numpy as np
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.loop import train
from mlagent_jax.text.chat import Encoded
from mlagent_jax.tracking.tracker import Tracker
from mlagent_jax.training.optimisers import OptimiserConfig

folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
log_scalars = Tracker.log_scalars
def log_or_die(self, step, values):
    log_scalars(self, step, values)
    if step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
Tracker.log_scalars = log_or_die

rng = np.random.default_rng(0)
def sequence(n):
    return Encoded(rng.integers(0, 30, n).astype(np.int32), np.arange(n) >= 4, ((4, n),))
model = Qwen2Config(30, 16, 24, 1, 2, 1)
config = SFTConfig(row_length=16, batch_rows=4, micro_rows=2, steps=6, checkpoint_every=2, eval_every=3,
                   optimiser=OptimiserConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=2))
sequences = [sequence(int(n)) for n in rng.integers(6, 14, 11)]
params = train(config, model, init_params(model, 0), sequences, folder, make_mesh(MeshConfig()))
np.savez(folder / "params.npz", *jax.tree.leaves(params))
"""


def run(folder, kill_at=0):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(kill_at)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole).returncode == 0
    # Step 5 is logged, but the newest checkpoint is of step 4: the line must be removed.
    assert run(broken, kill_at=5).returncode == -9
    assert [line["step"] for line in metrics(broken)] == [1, 2, 3, 4, 5]
    resumed = run(broken)
    assert resumed.returncode == 0, resumed.stderr
    assert metrics(broken) == metrics(whole)
    ours, theirs = np.load(broken / "params.npz"), np.load(whole / "params.npz")
    for name in theirs.files:
        np.testing.assert_array_equal(ours[name], theirs[name])
    # A finished stage run again changes nothing.
    before = (broken / "metrics.jsonl").read_bytes()
    assert run(broken).returncode == 0
    assert (broken / "metrics.jsonl").read_bytes() == before


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "perf/throughput"} for line in lines]


def sequences(count, length=8):
    return [Encoded(np.arange(length, dtype=np.int32), np.arange(length) >= 4, ((4, length),))] * count


def test_held_out_share_is_whole_sequences_and_reproducible():
    config = SFTConfig(row_length=8, eval_fraction=0.25, micro_rows=1)
    batches, eval_rows = make_batches(config, sequences(8))
    assert batches.per_epoch * config.batch_rows == 6
    assert eval_rows is not None and len(eval_rows.tokens) == 2
    assert make_batches(SFTConfig(row_length=8, eval_fraction=0.0), sequences(8))[1] is None


def test_a_trajectory_without_an_action_is_refused_by_number():
    silent = Encoded(np.arange(8, dtype=np.int32), np.zeros(8, bool), ())
    with pytest.raises(UserError, match="trajectory 2 has 8 tokens, none of them an assistant's"):
        make_batches(SFTConfig(row_length=8), [*sequences(2), silent])


@pytest.mark.parametrize(
    "config, count, message",
    [
        (SFTConfig(row_length=0), 8, "sft.row_length is 0"),
        (
            SFTConfig(batch_rows=3, micro_rows=2),
            8,
            "sft.batch_rows is 3, which is not a multiple of sft.micro_rows 2",
        ),
        (SFTConfig(optimiser=OptimiserConfig(name="sgd")), 8, "sft.optimiser.name is 'sgd'"),
        (SFTConfig(eval_fraction=0.5), 1, "1 trajectories leave none to train on"),
        (SFTConfig(row_length=7), 8, "none of 7 trajectories has an action within sft.row_length 7"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(config, count, message, tmp_path):
    model = Qwen2Config(30, 16, 24, 1, 2, 1)
    with pytest.raises(UserError, match=message):
        train(config, model, {}, sequences(count), tmp_path / "sft", make_mesh(MeshConfig()))
    assert not (tmp_path / "sft").exists()
