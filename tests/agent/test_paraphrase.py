"""An episode in other words asks for the same operations, in words that may be taught, and nothing else changes."""

from __future__ import annotations

import dataclasses
import random

from fakes import make_environment

from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.agent.expert import NO_SLIPS, ScriptedExpert
from mlagent_jax.agent.paraphrase import MAX_DROPOUT, paraphrased, word_dropout
from mlagent_jax.agent.response import parse
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.environment.tools import EDIT
from mlagent_jax.pipelines.grammar import normalise
from mlagent_jax.pipelines.instructions import parse_instruction
from mlagent_jax.pipelines.operations import catalogue
from mlagent_jax.rewards import RewardConfig

TAUGHT = {normalise(wording) for operation in catalogue().values() for wording in operation.train_wordings}
GIBBERISH = "Make it better"


def episode(tmp_path, ideas) -> Trajectory:
    with EnvRunner({"toy": make_environment(tmp_path)}, RewardConfig()) as env_runner:
        request = EpisodeRequest("toy", 0, seed=0, ideas=tuple(ideas))
        (trajectory,) = run_episodes(ScriptedExpert(NO_SLIPS), [request], env_runner)
    return trajectory


def instructions(trajectory: Trajectory) -> list[str]:
    edits = [step for step in trajectory.steps if step.action is not None and step.action.tool == EDIT]
    return [str(step.action.arguments["edit_instruction"]) for step in edits]


def unworded(trajectory: Trajectory) -> list[object]:
    """The steps without what may change."""
    return [dataclasses.replace(step, response="", action=None) for step in trajectory.steps]


def test_the_operations_stay_and_only_their_words_change(tmp_path):
    operations = [one for one in catalogue().values() if len(one.train_wordings) > 1][:8]
    said = [operation.say(next(operation.param_grid())) for operation in operations]
    original = episode(tmp_path, [*said, GIBBERISH])
    assert len(instructions(original)) > 8
    wordings = set()
    for seed in range(6):
        other = paraphrased(original, seed)
        assert unworded(other) == unworded(original)
        for mine, theirs in zip(instructions(original), instructions(other), strict=True):
            if mine == GIBBERISH:
                assert theirs == mine
                continue
            assert parse_instruction(theirs) == parse_instruction(mine)
            assert normalise(theirs) in TAUGHT
        for step in other.steps:
            assert parse(step.response, thought=True) == step.action
        wordings.add(tuple(instructions(other)))
        assert paraphrased(original, seed) == other
    assert len(wordings) > 3


def test_sampled_ids_are_kept_only_where_the_text_is(tmp_path):
    operation = next(one for one in catalogue().values() if len(one.train_wordings) > 1)
    original = episode(tmp_path, [operation.say(next(operation.param_grid()))])
    steps = tuple(dataclasses.replace(step, tokens=(1, 2)) for step in original.steps)
    original = dataclasses.replace(original, steps=steps)
    others = [paraphrased(original, seed) for seed in range(6)]
    assert any(other != original for other in others)
    for other in others:
        for mine, theirs in zip(original.steps, other.steps, strict=True):
            assert (theirs.tokens is None) == (theirs.response != mine.response)


def test_what_is_repeated_is_repeated_in_the_same_words(tmp_path):
    operation = next(one for one in catalogue().values() if len(one.train_wordings) > 2)
    original = episode(tmp_path, [operation.say(next(operation.param_grid()))])
    twice = dataclasses.replace(original, steps=original.steps * 2)
    for seed in range(6):
        said = instructions(paraphrased(twice, seed))
        assert said[: len(said) // 2] == said[len(said) // 2 :]


def test_word_dropout_leaves_words_out_at_all_rates_up_to_its_largest_and_keeps_order_and_lines():
    lines = [[f"{line}.{word}" for word in range(500)] for line in range(2)]
    text = "\n".join(map(" ".join, lines))
    shares = []
    for seed in range(200):
        kept = [line.split(" ") for line in word_dropout(text, random.Random(seed)).split("\n")]
        assert [sorted(line, key=lambda word: int(word.split(".")[1])) for line in kept] == kept
        assert all(set(some) <= set(every) for some, every in zip(kept, lines, strict=True))
        shares.append(1 - sum(map(len, kept)) / 1000)
    assert min(shares) < 0.05 and abs(max(shares) - MAX_DROPOUT) < 0.05
    assert abs(sum(shares) / len(shares) - MAX_DROPOUT / 2) < 0.05
