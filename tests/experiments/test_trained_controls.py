"""A whole tiny run with every trained agent: what each stage makes, and at which temperature each is evaluated."""

from __future__ import annotations

import json

import pytest
import tiny
from scripted import run_stages, scripted

from experiments.experiment import Experiment
from experiments.settings import TRAINED
from mlagent_jax.agent.trajectory_log import read_trajectories
from mlagent_jax.evaluation.read_run import read_run
from mlagent_jax.evaluation.report import render

STAGES = ("ideas", "collect", *TRAINED, "evaluate")
QUICK = {
    "tasks.micro": True,
    "tasks.validation": ("ames",),
    "episode.steps": 3,
    "collect.episodes_per_task": 8,
    "sft.steps": 0,
    "sft.epochs": 2.0,
    "sft.eval_every": 100,
    "ppo.updates": 1,
    "ppo.batch_size": 4,
    "ppo.minibatch_size": 4,
    "evaluate.agents": ("starter", *TRAINED),
    "evaluate.temperatures": (0.7, 0.0),
    "evaluate.validation_episodes": 2,
    "evaluate.variants": ("greedy", "reworded"),
    "tracking": ("jsonl",),
}


def trained(test):
    """A test of the run that trains all four agents, which takes more than ten seconds."""
    return pytest.mark.slow(pytest.mark.timeout(900)(test))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    with scripted(tiny.get_config(), tmp_path_factory.mktemp("runs") / "run", **QUICK) as made:
        run_stages(made, STAGES)
        yield made


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@trained
def test_filtered_sft_takes_as_many_steps_on_fewer_episodes(experiment: Experiment):
    workdir = experiment.workdir
    every, best = (lines(workdir.metrics(stage)) for stage in ("sft", "sft_filtered"))
    assert every[-1]["step"] == best[-1]["step"] > 1
    assert every[-1]["train/loss"] != best[-1]["train/loss"]
    summary = json.loads(workdir.done("sft_filtered").read_text())
    assert (summary["trajectories"], summary["of_trajectories"]) == (2, 8)
    assert workdir.export("sft_filtered").exists()


@trained
def test_shuffled_ppo_samples_the_same_and_learns_from_something_else(experiment: Experiment):
    """In the first update both sample from the SFT model."""
    workdir = experiment.workdir
    rollouts = [lines(workdir.stage(stage) / "rollouts.jsonl") for stage in ("ppo", "ppo_shuffled")]
    assert rollouts[0] == rollouts[1] != []
    assert workdir.checkpoints("ppo_shuffled").exists() and workdir.export("ppo_shuffled").exists()


@trained
def test_each_trained_agent_has_a_temperature_of_its_own_and_its_variants(experiment: Experiment):
    workdir = experiment.workdir
    scores, chosen = (json.loads(path.read_text()) for path in (workdir.scores, workdir.temperatures))
    variants = [f"{agent}{variant}" for agent in TRAINED for variant in ("", "_greedy", "_reworded")]
    assert scores["agents"] == ["starter", *variants]
    episodes = {row["agent"]: row["episodes"] for row in scores["per_task"]}
    assert {episodes[f"{agent}_greedy"] for agent in TRAINED} == {1}
    assert {episodes[f"{agent}_reworded"] for agent in TRAINED} == {2}
    assert set(chosen) == set(TRAINED) and scores["temperatures"] == chosen
    for choice in chosen.values():
        assert [row["temperature"] for row in choice["tried"]] == [0.0, 0.7]
        assert choice["chosen"] in (0.0, 0.7)


@trained
def test_validation_counts_in_no_score(experiment: Experiment):
    workdir = experiment.workdir
    validated = list(read_trajectories(workdir.validation_trajectories))
    evaluated = list(read_trajectories(workdir.evaluation_trajectories))
    assert {each.task for each in validated} == {"ames"}
    assert len(validated) == len(TRAINED) * 3
    assert "ames" not in json.loads(workdir.scores.read_text())["tasks"]
    assert not {each.seed for each in validated} & {each.seed for each in evaluated}


@trained
def test_an_evaluation_that_was_interrupted_chooses_the_same_and_runs_nothing_twice(experiment: Experiment):
    workdir = experiment.workdir
    logs = (workdir.validation_trajectories, workdir.evaluation_trajectories)
    before = [path.read_bytes() for path in (*logs, workdir.temperatures, workdir.scores)]
    workdir.temperatures.unlink()
    workdir.done("evaluate").unlink()
    run_stages(experiment, ["evaluate"])
    assert [path.read_bytes() for path in (*logs, workdir.temperatures, workdir.scores)] == before


@trained
def test_the_report_shows_them(experiment: Experiment):
    page = render(read_run(experiment.workdir.root))
    for said in (
        "Filtered SFT",
        "SFT + shuffled PPO, greedy",
        "PPO with shuffled rewards",
        "chosen",
        "sft_filtered",
    ):
        assert said in page, said


def test_the_first_seed_evaluates_what_nothing_trains_for_all(tmp_path):
    changes = {"tasks.micro": True, "evaluate.agents": ("starter", "expert"), "tracking": ("jsonl",)}
    with scripted(tiny.get_config(), tmp_path / "seed_0", **changes) as first:
        run_stages(first, ["evaluate"])
        first.workdir.evaluation.joinpath("expert.json").write_text("learnt")
    with scripted(tiny.get_config(), tmp_path / "seed_1", **changes, seed=1) as second:
        second.first_seed = first.workdir  # its own episodes would have other seeds
        run_stages(second, ["evaluate"])
    paths = [each.workdir.evaluation_trajectories for each in (first, second)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert second.workdir.evaluation.joinpath("expert.json").read_text() == "learnt"
