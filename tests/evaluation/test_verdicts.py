"""What a run is about is told by the agents' names, not by their place; what was left out is counted."""

import pytest
from synthetic_run import AGENTS, make_task, make_trajectory, write_workdir

from experiments import settings
from mlagent_jax.evaluation.report import write_report
from mlagent_jax.evaluation.scores import score_trajectories
from mlagent_jax.evaluation.tables import difference_tables, no_verdict, verdicts

SCORES = {"starter": 0.5, "random": 0.55, "expert": 0.8, "sft": 0.6, "ppo": 0.7}


def scores(*agents):
    """The PPO agent is 0.1 above SFT in every episode."""
    episodes = [
        make_trajectory(agent, "digits8", index, SCORES[agent] + 0.001 * index)
        for agent in agents
        for index in range(4)
    ]
    return score_trajectories(episodes, [make_task("digits8")], agents=agents, resamples=200)


@pytest.mark.parametrize(
    "agents", [("starter", "sft", "ppo"), ("sft", "ppo", "expert"), ("ppo", "expert", "sft", "random")]
)
def test_the_verdict_is_of_ppo_over_sft_in_any_order(agents):
    (told,) = [each for each in verdicts(scores(*agents)) if each["value"] == "relative_gain"]
    assert (told["agent"], told["baseline"], told["verdict"]) == ("ppo", "sft", "better")
    assert told["interval"]["mean"] == pytest.approx(0.1 / 0.5)
    assert no_verdict(scores(*agents)) == ""
    (table,) = difference_tables(scores(*agents))
    assert table["leading"] == "ppo" == table["rows"][0]["agent"]


@pytest.mark.parametrize(
    "agents, missing",
    [
        (("starter", "expert", "sft"), "ppo"),
        (("expert", "ppo"), "sft"),
        (("random",), "ppo and sft"),
    ],
)
def test_a_missing_agent_is_said_and_nobody_stands_in(agents, missing):
    assert verdicts(scores(*agents)) == []
    assert no_verdict(scores(*agents)) == f"No verdict on ppo against sft: {missing} was not evaluated."


def test_the_invented_run_names_agents_as_real_runs_do(tmp_path):
    assert set(AGENTS) <= set(settings.AGENTS)
    write_workdir(tmp_path / "run", k=2)
    text = write_report(tmp_path / "run", tmp_path / "report.html").read_text()
    assert "105 states left out of the pool: too long for the policy&#39;s context" in text
    assert "20 actions masked because of infrastructure failures" in text
    assert "1 masked, since infrastructure failures cut them short" in text
    assert "3 trajectories longer than a row and cut at a step, 1 of them dropped" in text
    write_workdir(tmp_path / "early", k=2, ppo=False)
    text = write_report(tmp_path / "early", tmp_path / "early.html").read_text()
    assert "No verdict on ppo against sft: ppo was not evaluated." in text
