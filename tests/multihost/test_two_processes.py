"""Two real processes of four devices each train to what one process trains to, export it and load it again."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import save_hf
from mlagent_jax.models.qwen2 import init_params

WORKER = Path(__file__).with_name("worker.py")


def launch(folder, processes, worker=WORKER):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    workers = [
        subprocess.Popen(
            [sys.executable, str(worker), str(folder), str(port), str(processes), str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(processes)
    ]
    try:
        outputs = [worker.communicate(timeout=600)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, output in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, output
    return outputs


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_as_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    launch(one, 1)
    outputs = launch(two, 2)
    assert "process 0 heard: ZeroDivisionError" in outputs[0]
    assert "process 1 heard: RuntimeError" in outputs[1] and "ZeroDivisionError" in outputs[1]

    for stage, names in (
        ("sft", ("train/loss", "val/loss", "train/grad_norm", "train/total_tokens")),
        (
            "ppo",
            (
                "critic/score/mean",
                "actor/pg_loss",
                "critic/vf_loss",
                "actor/ref_kl",
                "actor/entropy",
                "actor/grad_norm",
            ),
        ),
    ):
        ours, theirs = lines(two / stage / "metrics.jsonl"), lines(one / stage / "metrics.jsonl")
        assert [line["step"] for line in ours] == [line["step"] for line in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            for name in names:
                if name in other:
                    np.testing.assert_allclose(mine[name], other[name], rtol=1e-5, atol=1e-5, err_msg=name)
    # Only the first process writes: each action stands there once.
    assert len(lines(two / "ppo" / "rollouts.jsonl")) == 2 * 16
    ours, theirs = np.load(two / "params.npz"), np.load(one / "params.npz")
    for name in theirs.files:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)


def test_two_processes_export_and_load(tmp_path):
    outputs = launch(tmp_path, 2, Path(__file__).with_name("export_worker.py"))
    # The same files as one process writes, and what a failing export leaves of them.
    config = Qwen2Config(64, 32, 48, 2, 4, 2)
    save_hf(tmp_path / "one", config, init_params(config, 0), max_shard_bytes=10_000)
    ours, theirs = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("hf", "one"))
    assert ours == theirs and len(ours) > 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "one"]
    for output in outputs:
        # Norms are on every device, and biases in both processes; all else is read by one process alone.
        read, total = map(int, re.search(r"read (\d+) of (\d+)", output).groups())
        assert 0.5 * total <= read < 0.52 * total
        assert "No space left on device" in output
    assert "the first process failed" in outputs[1]
