"""A history in other words: the same operations, none of the wordings of a trajectory, and nothing else changed."""

from __future__ import annotations

import dataclasses

import pytest
from fakes import make_environment

from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.agent.expert import NO_SLIPS, ScriptedExpert
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.reworded import RewordedPolicy, reworded
from mlagent_jax.environment.tools import EDIT
from mlagent_jax.pipelines.grammar import normalise
from mlagent_jax.pipelines.instructions import parse_instruction
from mlagent_jax.pipelines.operations import catalogue
from mlagent_jax.rewards import RewardConfig

TAUGHT = {normalise(wording) for operation in catalogue().values() for wording in operation.train_wordings}


def test_every_instruction_keeps_its_operation_and_its_numbers_in_words_that_are_not_taught():
    changed = 0
    for operation in catalogue().values():
        for values in operation.param_grid():
            said = operation.say(values)
            other = reworded(said)
            assert parse_instruction(other) == (operation, values) == parse_instruction(said)
            if operation.held_out:
                changed += 1
                assert normalise(other) not in TAUGHT
            else:
                assert other == said
    assert changed > 100


@pytest.mark.parametrize("text", ["make it better", "", "Use a forest of 10000000000 trees"])
def test_what_is_not_understood_stays(text):
    assert reworded(text) == text


class Reader(ScriptedExpert):
    """Keeps what it was given to read."""

    def respond(self, situations):
        self.__dict__.setdefault("read", []).extend(situations)
        return super().respond(situations)


def test_the_policy_reads_other_words_and_acts_in_the_same_environment(tmp_path):
    inner = Reader(NO_SLIPS, thought=True)
    operation = next(one for one in catalogue().values() if one.held_out)
    said = operation.say(next(operation.param_grid()))
    with EnvRunner({"toy": make_environment(tmp_path)}, RewardConfig()) as env_runner:
        (trajectory,) = run_episodes(inner, [EpisodeRequest("toy", 0, seed=0, ideas=(said,))], env_runner)
    edits = [step for step in trajectory.steps if step.action is not None and step.action.tool == EDIT]
    assert edits and edits[0].action.arguments["edit_instruction"] == said
    sampled = tuple(dataclasses.replace(step, tokens=(1, 2)) for step in trajectory.steps)
    task = inner.read[0].task
    RewordedPolicy(inner).respond([Situation(task, sampled)])
    for shown, step in zip(inner.read[-1].steps, sampled, strict=True):
        instruction = str(step.action.arguments.get("edit_instruction", ""))
        assert shown.action == step.action
        assert reworded(instruction) in shown.response
        assert (shown.tokens is None) == (reworded(instruction) != instruction)
        if shown.tokens is None:
            assert instruction not in shown.response
