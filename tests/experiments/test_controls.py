"""Controls as agents of one evaluation: prepared once, resumed, scored beside the others, and shown in the report."""

import json

import pytest
import tiny
from scripted import run_stages, scripted

from experiments.stages import controls
from experiments.stages.evaluate import STAGE
from mlagent_jax.agent.trajectory_log import read_trajectories
from mlagent_jax.environment.state import Outcome
from mlagent_jax.environment.tools import EDIT
from mlagent_jax.evaluation.read_run import read_run
from mlagent_jax.evaluation.report import render

AGENTS = ("starter", "expert_without_slips", "constant", "bandit", "random_search", "optuna")
SMALL = {
    "tasks.micro": True,
    "episode.steps": 5,
    "evaluate.episodes": 2,
    "evaluate.agents": AGENTS,
    "evaluate.constant.length": 2,
    "evaluate.constant.numbers": "first",
    "evaluate.bandit.pulls": 9,
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with scripted(tiny.get_config(), folder, **SMALL) as experiment:
        run_stages(experiment, (STAGE,))
    return experiment


def trajectories(experiment):
    found = {}
    for each in read_trajectories(experiment.workdir.evaluation_trajectories):
        found.setdefault(each.agent, []).append(each)
    return found


def test_every_agent_has_its_episodes_on_every_task(evaluated):
    found = trajectories(evaluated)
    assert tuple(found) == AGENTS
    # Two tasks; where nothing in an agent is random, one episode of each is enough.
    alike = {"starter", "constant", "bandit"}
    assert {agent: len(each) for agent, each in found.items()} == {
        agent: 2 if agent in alike else 4 for agent in AGENTS
    }
    assert set(json.loads(evaluated.workdir.scores.read_text())["one_outcome"]) == alike
    for agent in ("constant", "bandit", "random_search", "optuna"):
        steps = [step for each in found[agent] for step in each.steps]
        assert {step.outcome for step in steps} <= set(Outcome) - {Outcome.MALFORMED, Outcome.INFRASTRUCTURE}
        assert any(step.outcome is Outcome.SUCCESS for step in steps)
    assert all(
        step.outcome is not Outcome.MALFORMED for each in found["expert_without_slips"] for step in each.steps
    )


def test_the_sequence_is_chosen_on_held_in_and_played_everywhere(evaluated):
    stored = json.loads(evaluated.workdir.control("constant").read_text())
    assert 1 <= len(stored["sequence"]) <= 2
    assert {task for trial in stored["rounds"][0] for task in trial["gains"]} == {"digits8"}
    for each in trajectories(evaluated)["constant"]:
        said = [s.action.arguments["edit_instruction"] for s in each.steps if s.action.tool == EDIT]
        assert said == stored["sequence"]


def test_the_summary_says_what_preparing_cost(evaluated):
    summary = json.loads(evaluated.workdir.done(STAGE).read_text())
    for agent in ("constant", "bandit"):
        stored = json.loads(evaluated.workdir.control(agent).read_text())
        assert summary[f"{agent}_prepared_by"] == stored["executions"] > 1
    assert sum(json.loads(evaluated.workdir.control("bandit").read_text())["pulls"].values()) == 9


def test_the_report_shows_executions_and_the_sequence(evaluated):
    run = read_run(evaluated.workdir.root)
    page = render(run)
    stored = json.loads(evaluated.workdir.control("constant").read_text())
    assert all(f"<li>{instruction}</li>" in page for instruction in stored["sequence"])
    assert "The bandit learnt from 9 pulls" in page
    assert "Held-in: % of the way to m_best by executions" in page
    searched = [row for row in run.scores["means"] if row["agent"] == "optuna"]
    assert all(4 <= row["executions"]["mean"] <= 5 for row in searched)


def test_what_is_stored_is_used_again(evaluated, monkeypatch):
    def unwanted(*arguments):
        raise AssertionError("it was made again")

    monkeypatch.setattr(controls, "select_sequence", unwanted)
    monkeypatch.setattr(controls, "learn_bandit", unwanted)
    before = evaluated.workdir.evaluation_trajectories.read_bytes()
    evaluated.workdir.done(STAGE).unlink()
    with scripted(tiny.get_config(), evaluated.workdir.root, **SMALL) as again:
        run_stages(again, (STAGE,))
    assert evaluated.workdir.evaluation_trajectories.read_bytes() == before


def test_the_bandit_has_as_many_pulls_as_ppo_draws_samples(tmp_path):
    changes = {"evaluate.agents": ("bandit",), "evaluate.bandit.pulls": 0, "evaluate.episodes": 1}
    with scripted(tiny.get_config(), tmp_path, **SMALL | changes) as experiment:
        run_stages(experiment, (STAGE,))
        stored = json.loads(experiment.workdir.control("bandit").read_text())
    ppo = experiment.settings.ppo
    assert sum(stored["pulls"].values()) == ppo.updates * ppo.batch_size == 18
