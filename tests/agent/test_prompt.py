"""Prompts: what agents are shown, and that a state stays a prefix of its episode."""

from dataclasses import replace
from pathlib import Path

import pytest
from fakes import edit, make_environment, make_task, say, script

from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import PromptFormat, messages
from mlagent_jax.agent.response import ALL_FIELDS, parse
from mlagent_jax.agent.trajectory import Step
from mlagent_jax.environment.tools import TOOLS
from mlagent_jax.errors import UserError
from mlagent_jax.pipelines.reading import read
from mlagent_jax.pipelines.summary import summarise

TASKS_DIR = Path(__file__).parents[2] / "tasks"
FULL, COMPACT = PromptFormat("full"), PromptFormat("compact", observation_chars=120)


@pytest.fixture
def situation(tmp_path):
    environment = make_environment(tmp_path)
    state, steps = environment.initial_state(), []
    for prediction in (12.0, 18.0):
        action = edit(script(prediction))
        after = environment.step(state, action)
        steps.append(
            Step(state, say(action), action, after.outcome, after.feedback, after.state, 0.1,
                 after.m_before, after.m_after, after.diff, tokens=(5, 6), logprobs=(-0.1, -0.2))
        )  # fmt: skip
        state = after.state
    return Situation(environment.task, tuple(steps), ideas=("use a forest", "take the log"), seed=1)


@pytest.mark.parametrize("form", [FULL, COMPACT])
def test_roles_and_the_agents_own_tokens(form, situation):
    chat = messages(form, situation)
    assert [m.role for m in chat] == ["system", "user"] + ["assistant", "user"] * 2
    assert [m.content for m in chat[2::2]] == [step.response for step in situation.steps]
    assert [m.tokens for m in chat[2::2]] == [(5, 6)] * 2
    assert all(m.tokens is None for m in chat if m.role != "assistant")


@pytest.mark.parametrize("form", [FULL, COMPACT])
def test_a_state_is_a_prefix_of_the_longer_episode(form, situation):
    earlier = replace(situation, steps=situation.steps[:1])
    assert messages(form, situation)[:4] == messages(form, earlier)


@pytest.mark.parametrize("form", [FULL, COMPACT])
def test_ideas_are_shown_only_when_asked(form, situation):
    assert "forest" not in str(messages(form, situation))
    primed = messages(form, situation, with_ideas=True)
    assert "1. use a forest\n2. take the log" in primed[1].content
    assert [m for i, m in enumerate(primed) if i != 1] == [
        m for i, m in enumerate(messages(form, situation)) if i != 1
    ]


def test_the_full_prompt_says_everything(situation):
    system, user = (m.content for m in messages(FULL, situation)[:2])
    for tool in TOOLS.values():
        assert tool.name in system and tool.usage in system and tool.description in system
    assert [system.rindex(f"\n{label}: ") for label in ALL_FIELDS] == sorted(
        system.rindex(f"\n{label}: ") for label in ALL_FIELDS
    )
    assert "15 actions" in system and "10 seconds" in user
    assert situation.task.description in user and "mae" in user


def test_the_formats_example_has_the_form_that_the_parser_wants(situation):
    for thought in (True, False):
        system = messages(PromptFormat("full", thought=thought), situation)[0].content
        template = system[system.rindex("nothing after it:") :].partition("\n\n")[2]
        lines = template.replace("[one tool, by its exact name]", "List Files").split("\n")
        lines[-1] = 'Action Input: {"dir_path": "."}'
        assert parse("\n".join(lines), thought).tool == "List Files"


def test_the_compact_prompt_is_short_and_keeps_the_score(situation):
    chat = messages(COMPACT, situation)
    assert len(chat[0].content.split()) < 60
    assert chat[1].content == situation.task.brief
    assert [message.content for message in chat[3::2]] == [
        "Saved to train.py.\nvalidation mae: 2.0000\nPublic mae 2.0000, better than 5.0000.",
        "Saved to train.py.\nvalidation mae: 8.0000\nPublic mae 8.0000, worse than 2.0000.",
    ]


def test_the_compact_prompt_says_in_one_line_what_a_pipelines_starter_does(situation):
    starter = (TASKS_DIR / "digits8" / "train.py").read_text()
    task = replace(situation.task, starter=starter)
    chat = messages(COMPACT, Situation(task, situation.steps))
    assert chat[1].content.split("\n") == [task.brief, f"train.py: {summarise(read(starter))}"]
    without = messages(replace(COMPACT, starter_summary=False), Situation(task, situation.steps))
    assert without[1].content == task.brief and without[2:] == chat[2:]
    assert summarise(read(starter)) not in messages(FULL, Situation(task, situation.steps))[1].content


def test_long_feedback_is_cut_in_its_middle(situation):
    longer = "first line\n" + "a line of output\n" * 99 + "Public mae 2.0000, better than 5.0000."
    step = replace(situation.steps[0], feedback=longer, diff="")
    compact = messages(COMPACT, replace(situation, steps=(step,)))[-1].content
    assert compact.startswith("first line\n...\na line") and compact.endswith("better than 5.0000.")
    assert len(compact) <= 120
    full = messages(PromptFormat("full", 200), replace(situation, steps=(step,)))[-1].content
    assert full.startswith("first line\na line") and full.endswith("better than 5.0000.") and len(full) == 200


def test_nothing_follows_the_last_action(situation):
    last = replace(situation.steps[1], after=replace(situation.steps[1].after, done="final_answer"))
    chat = messages(FULL, replace(situation, steps=(situation.steps[0], last)))
    assert [m.role for m in chat[2:]] == ["assistant", "user", "assistant"]


def test_without_thought_the_prompt_asks_for_none(situation):
    for style in ("full", "compact"):
        system = messages(PromptFormat(style, thought=False), situation)[0].content
        assert "Reflection" not in system and "Fact Check" not in system and "Action Input" in system


def test_hidden_scores_are_not_in_the_prompt(tmp_path):
    task = make_task(tmp_path, show_public_score=False)
    environment = make_environment(tmp_path, task=task)
    state = environment.initial_state()
    after = environment.step(state, edit(script(12.0)))
    step = Step(state, "x", None, after.outcome, after.feedback, after.state, 0.5, 5.0, 2.0)
    assert "Public" not in str(messages(FULL, Situation(task, (step,)))[3:])


def test_a_format_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="'tiny', but must be one of full, compact"):
        PromptFormat("tiny")
    with pytest.raises(UserError, match="observation_chars is 0"):
        PromptFormat("full", 0)


@pytest.mark.parametrize("form", [FULL, COMPACT])
def test_the_prompt_names_the_file_that_the_task_wants(form, situation):
    assert "submission.csv" in messages(form, situation)[0].content
    task = replace(situation.task, target_columns=(), target_array="clean")
    system = messages(form, replace(situation, task=task))[0].content
    assert "submission.npy" in system
    assert "submission.csv" not in system
