"""Two real processes of four devices each train to what one process trains to."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).with_name("worker.py")


def launch(folder, processes):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), str(port), str(processes), str(i)],
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
        ("sft", ("loss", "eval_loss", "grad_norm", "tokens")),
        ("ppo", ("reward_mean", "policy_loss", "value_loss", "kl", "entropy", "actor_grad_norm")),
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
