"""Random search and Optuna as agents: their episodes have the steps, scores and costs of any other's."""

import dataclasses
import hashlib

import pytest
from toys import PipelineSandbox, environment, toy

from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.agent.policy import Situation
from mlagent_jax.controls.search import SEARCHES, SearchPolicy
from mlagent_jax.controls.verbatim_coder import VerbatimCoder
from mlagent_jax.environment.state import Outcome
from mlagent_jax.environment.tools import EDIT
from mlagent_jax.errors import UserError
from mlagent_jax.pipelines.rendering import render
from mlagent_jax.rewards import RewardConfig


def quality(pipeline):
    number = int(hashlib.sha256(render(pipeline).encode()).hexdigest(), 16)
    return None if number % 7 == 0 else number % 997 / 997


def episodes(tmp_path, agent, seeds=(1, 2), parallel=2, steps=8):
    task = toy(tmp_path)
    made = environment(tmp_path, task, PipelineSandbox({"toy": quality}), VerbatimCoder(), steps)
    with EnvRunner({"toy": made}, RewardConfig()) as env_runner:
        requests = [EpisodeRequest("toy", index, seed) for index, seed in enumerate(seeds)]
        done = list(run_episodes(SearchPolicy(agent, steps), requests, env_runner, parallel))
    return task, sorted(done, key=lambda trajectory: trajectory.index)


def scripts(trajectory):
    return [s.action.arguments["edit_instruction"] for s in trajectory.steps if s.action.tool == EDIT]


@pytest.mark.parametrize("agent", SEARCHES)
def test_each_step_runs_a_pipeline_and_the_best_by_public_score_is_submitted(tmp_path, agent):
    _, done = episodes(tmp_path, agent)
    for trajectory in done:
        assert len(trajectory.steps) == 8 and trajectory.agent == agent
        assert 7 <= trajectory.executions <= 8
        assert len(set(scripts(trajectory))) == 7
        shown = [step.m_after for step in trajectory.steps if step.outcome is Outcome.SUCCESS]
        assert trajectory.public_score == min([trajectory.m_init_public, *shown])
        assert trajectory.private_score == pytest.approx(trajectory.public_score + 1)
    assert len({script for trajectory in done for script in scripts(trajectory)}) == 14  # seeds differ


@pytest.mark.parametrize("agent", SEARCHES)
def test_an_episode_depends_on_its_request_alone(tmp_path, agent):
    task, together = episodes(tmp_path / "a", agent)
    _, alone = episodes(tmp_path / "b", agent, parallel=1)
    assert [scripts(one) for one in together] == [scripts(one) for one in alone]
    # A policy that has not seen the steps before goes on as the one that has.
    half = Situation(task, together[1].steps[:4], (), together[1].seed)
    (response,) = SearchPolicy(agent, 8).respond([half])
    assert response.text == together[1].steps[4].response


def test_optuna_is_told_what_scored(tmp_path):
    """After the trials that it draws at random, what it asks for follows from the scores."""
    task, (trajectory,) = episodes(tmp_path, "optuna", seeds=(5,), steps=22)
    turned = tuple(dataclasses.replace(step, m_after=-step.m_after) for step in trajectory.steps[:20])
    (other,) = SearchPolicy("optuna", 22).respond([Situation(task, turned, (), 5)])
    assert other.text != trajectory.steps[20].response


def test_a_starter_that_is_no_pipeline_is_refused(tmp_path):
    task = toy(tmp_path, "odd", starter="print(1)")
    with pytest.raises(
        UserError, match="the agent 'optuna' works on pipelines, but the starter of task odd is none"
    ):
        SearchPolicy("optuna", 8).respond([Situation(task, ())])
