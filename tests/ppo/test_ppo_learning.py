"""PPO on a toy task: the true reward is learned, a shuffled one is not, and kill -9 changes nothing."""

import json
import subprocess
import sys
from pathlib import Path

import bandit
import numpy as np
import pytest

TIMES = ("timing_s/", "perf/throughput")


def lines(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_true_reward_is_learnt_and_a_shuffled_one_is_not(tmp_path):
    bandit.run(tmp_path / "true")
    bandit.run(tmp_path / "shuffled", shuffle_rewards=True)
    true, shuffled = lines(tmp_path / "true"), lines(tmp_path / "shuffled")
    rewards = [line["critic/score/mean"] for line in true]
    control = [line["critic/score/mean"] for line in shuffled]
    assert rewards[0] == control[0]  # they start alike and differ only in the rewards that they learn from
    assert np.mean(rewards[-5:]) > 0.6 > 0.4 > np.mean(rewards[:2])
    assert np.mean(control[-5:]) < 0.45
    for line in true:
        assert (
            line["training/rollout_logprobs_diff_max"] < 1e-4
        )  # sampler and trainer agree on what was sampled
        assert line["rollout/masked_actions"] == 0 and 0 <= line["actor/pg_clipfrac"] <= 1
        assert line["outcome/success"] == 1.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_samples_of_a_state_are_baseline_enough_for_each_other(tmp_path):
    bandit.run(tmp_path, advantage="rloo", critic="none", samples_per_state=4)
    rewards = [line["critic/score/mean"] for line in lines(tmp_path)]
    assert np.mean(rewards[-5:]) > 0.6 > 0.4 > np.mean(rewards[:2])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    def program(folder, kill_at=0):
        command = [sys.executable, str(Path(bandit.__file__)), str(folder), str(kill_at)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert program(whole).returncode == 0
    # Update 3 is logged with its rollouts, but the newest checkpoint is of update 2: both are removed on resuming.
    assert program(broken, kill_at=3).returncode == -9
    assert [line["step"] for line in lines(broken)] == [1, 2, 3]
    resumed = program(broken)
    assert resumed.returncode == 0, resumed.stderr
    assert lines(broken, "rollouts.jsonl") == lines(whole, "rollouts.jsonl")
    assert [line["step"] for line in lines(broken, "rollouts.jsonl")] == np.repeat([1, 2, 3, 4], 64).tolist()
    timeless = [
        [
            {name: value for name, value in line.items() if not name.startswith(TIMES)}
            for line in lines(folder)
        ]
        for folder in (whole, broken)
    ]
    assert timeless[0] == timeless[1]
    ours, theirs = np.load(broken / "params.npz"), np.load(whole / "params.npz")
    for name in theirs.files:
        np.testing.assert_array_equal(ours[name], theirs[name])
