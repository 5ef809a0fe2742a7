"""Evaluation along training: at the updates that were asked for, the training untouched, and nothing repeated."""

from __future__ import annotations

from collections import Counter

import pytest
import tiny
from scripted import run_stages, scripted

import experiments.stages.ppo
from mlagent_jax.agent.trajectory_log import read_trajectories
from mlagent_jax.evaluation.read_run import read_run
from mlagent_jax.evaluation.report import render

SMALL = {
    "tasks.micro": True,
    "collect.episodes_per_task": 4,
    "sft.steps": 4,
    "ppo.updates": 2,
    "evaluate.agents": ("starter", "sft"),
}
STAGES = ("ideas", "collect", "sft", "ppo")


class Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_along_training_the_policy_is_evaluated_and_trained_as_without(tmp_path, monkeypatch):
    with scripted(tiny.get_config(), tmp_path / "without", **SMALL) as experiment:
        run_stages(experiment, STAGES)
        rollouts = experiment.workdir.rollouts.read_bytes()
        weights = (experiment.workdir.export("ppo") / "model.safetensors").read_bytes()
    run_missing, calls = experiments.stages.ppo.run_missing, Counter()

    def killed_once(stage, experiment, path, plans, batch):
        calls[stage] += 1
        if calls.total() == 2:  # after the first update, with half of the episodes done
            run_missing(stage, experiment, path, [(plans[0][0], plans[0][1][:2])], batch)
            raise Killed
        return run_missing(stage, experiment, path, plans, batch)

    monkeypatch.setattr(experiments.stages.ppo, "run_missing", killed_once)
    every = {"evaluate.every": 1, "evaluate.along_episodes": 2}
    with (
        scripted(tiny.get_config(), tmp_path / "with", **SMALL, **every) as experiment,
        pytest.raises(Killed),
    ):
        run_stages(experiment, STAGES)
    with scripted(tiny.get_config(), tmp_path / "with", **SMALL, **every) as experiment:
        run_stages(experiment, (*STAGES, "evaluate"))
        workdir = experiment.workdir
    done = Counter((each.agent, each.task) for each in read_trajectories(workdir.along_training("ppo")))
    agents, tasks = ("ppo@0", "ppo@1", "ppo@2"), ("digits8", "hotel_rates")
    assert done == {(agent, task): 2 for agent in agents for task in tasks}
    assert workdir.rollouts.read_bytes() == rollouts
    assert (workdir.export("ppo") / "model.safetensors").read_bytes() == weights
    page = render(read_run(workdir.root))
    assert "Held-in gain along training" in page and "hours of training" in page
