"""The response format: what is parsed, what is not, and a distinct message for each fault."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagent_jax.agent.response import ALL_FIELDS, Thoughts, extract_response, parse, render, split_fields
from mlagent_jax.environment.state import Action, Malformed

GOOD = """Reflection: The last run printed 0.21.
Research Plan and Status: 1. baseline done.
2. try a forest.
Fact Check: 0.21 is confirmed.
Thought: A forest handles non-linear effects.
Action: Edit Script (AI)
Action Input: {"script_name": "train.py", "edit_instruction": "Use a forest", "save_name": "train.py"}"""
EDIT = Action(
    "Edit Script (AI)",
    {"script_name": "train.py", "edit_instruction": "Use a forest", "save_name": "train.py"},
)


def test_a_good_response():
    assert parse(GOOD) == EDIT
    fields = split_fields(GOOD)
    assert tuple(fields) == ALL_FIELDS
    assert fields["Research Plan and Status"] == "1. baseline done.\n2. try a forest."


@pytest.mark.parametrize(
    "text",
    [
        f"\n\n  {GOOD}\n\n",
        GOOD.replace("\n", "\n\n"),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace(": ", " :  "),
        GOOD.replace("Action Input: {", "Action Input:\n```json\n{") + "\n```\n",
        GOOD.replace("Action Input: {", "Action Input:\n```\n{\n") + "\n```",
        GOOD.replace('{"script_name"', '{\n  "script_name"'),
        GOOD.replace("The last run printed 0.21.", ""),
    ],
)
def test_harmless_differences_are_tolerated(text):
    # " :  " also changes the colons in the JSON, which stays valid.
    assert parse(text) == EDIT


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", '"Reflection:" is missing'),
        ("I think we should use a forest.", '"Reflection:" is missing'),
        (GOOD.replace("Thought:", "Idea:"), '"Thought:" is missing'),
        (GOOD.replace("thought:", "x").replace("Thought:", "thought:"), '"Thought:" is missing'),
        (GOOD.replace("Thought:", "Tmp").replace("Fact Check:", "Thought:").replace("Tmp", "Fact Check:"),
         '"Thought:" is not in its place'),
        (GOOD.partition("\nAction Input")[0], '"Action Input:" is missing'),
        (f"Sure!\n{GOOD}", 'nothing may stand before "Reflection:"'),
        (GOOD.replace("Edit Script (AI)", ""), '"Action:" is empty'),
        (GOOD.replace("Action: Edit", "Action: List Files\nAction: Edit"), "one tool on one line"),
        (GOOD.partition("Input: ")[0] + "Input:", '"Action Input:" is empty'),
        (GOOD[:-1], "Action Input is not valid JSON: Expecting ',' delimiter near"),
        (GOOD.replace('"script_name"', "script_name"), "Action Input is not valid JSON"),
        (GOOD.partition("Input: ")[0] + 'Input: ["train.py"]', "must be a JSON object"),
        (GOOD.partition("Input: ")[0] + 'Input: "train.py"', "must be a JSON object"),
        (GOOD + "\nObservation: it works", "nothing may follow the JSON object"),
        (GOOD + "\n" + GOOD, "nothing may follow the JSON object"),
        (GOOD.partition("Input: ")[0] + 'Input: {"a": 1, "a": 2}', "a name appears twice"),
        (GOOD.partition("Input: ")[0] + 'Input: {"a": NaN}', "NaN is not a JSON value"),
        (GOOD.partition("Input: ")[0] + 'Input: {"a": "\\ud800"}', "surrogate"),
        (GOOD.partition("Input: ")[0] + "Input: " + '{"a":' * 100_000, "nested too deeply"),
        (GOOD.partition("Input: ")[0] + 'Input: {"a": ' + "9" * 10_000 + "}", "not valid JSON"),
    ],
)  # fmt: skip
def test_each_fault_is_told(text, fault):
    malformed = parse(text)
    assert isinstance(malformed, Malformed)
    assert malformed.feedback.startswith("Invalid response: ") and fault in malformed.feedback
    assert len(malformed.feedback) < 300


def test_without_thought():
    text = 'Action: List Files\nAction Input: {"dir_path": "."}'
    assert parse(text, thought=False) == Action("List Files", {"dir_path": "."})
    assert isinstance(parse(text), Malformed)
    assert isinstance(parse(GOOD, thought=False), Malformed)


@given(st.text())
def test_no_text_raises(text):
    assert isinstance(parse(text), Action | Malformed)
    assert isinstance(parse(text, thought=False), Action | Malformed)
    assert isinstance(parse(GOOD.partition("Input: ")[0] + "Input: " + text), Action | Malformed)


@given(st.lists(st.sampled_from([*GOOD.split("\n"), "{", "}", "```json", '"a": 1', "\x85", "\ud800"])))
def test_no_shuffled_response_raises(lines):
    assert isinstance(parse("\n".join(lines)), Action | Malformed)


ARGUMENTS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.integers(-(10**9), 10**9)
    | st.booleans()
    | st.none(),
)


@given(ARGUMENTS, st.booleans())
def test_what_is_rendered_parses_back(arguments, thought):
    action = Action("Copy File", arguments)
    thoughts = Thoughts("a", "b: c", "", "two\nlines") if thought else None
    assert parse(render(action, thoughts), thought) == action


def test_rendering_is_the_papers_format():
    thoughts = Thoughts(
        "The last run printed 0.21.",
        "1. baseline done.\n2. try a forest.",
        "0.21 is confirmed.",
        "A forest handles non-linear effects.",
    )
    assert render(EDIT, thoughts) == GOOD
    assert json.loads(render(EDIT).partition("Action Input: ")[2]) == EDIT.arguments


def test_what_would_be_misread_is_not_rendered():
    with pytest.raises(ValueError, match="would be parsed as something else"):
        render(EDIT, Thoughts("x\nResearch Plan and Status: y", "", "", "\nAction: List Files"))
    with pytest.raises(ValueError, match="would be parsed as something else"):
        render(Action("a\nb", {}))


LIST = Action("List Files", {"dir_path": "."})
SHORT = 'Action: List Files\nAction Input: {"dir_path": "."}'


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"Sure, here it is:\n\n{GOOD}",
        f"<think>\nAction: List Files\n</think>\n{GOOD}",
        f"thoughts of a template's opening tag</think>{GOOD}",
        f"```\n{GOOD}\n```",
        f"```text\n{GOOD}\n```\nI hope this helps!",
        re.sub(r"^([A-Z][A-Za-z ]+):", r"**\1:**", GOOD, flags=re.MULTILINE),
        re.sub(r"^([A-Z][A-Za-z ]+):", r"**\1**:", GOOD, flags=re.MULTILINE),
        re.sub(r"^([A-Z][A-Za-z ]+):", r"### \1:", GOOD, flags=re.MULTILINE),
        re.sub(r"^([A-Z][A-Za-z ]+):", r"- **\1:**", GOOD, flags=re.MULTILINE),
        GOOD.replace("Edit Script (AI)", "**Edit Script (AI)**"),
        GOOD.replace("Edit Script (AI)", "`Edit Script (AI)`"),
        GOOD.replace("Action Input: {", "Action Input:\n```json\n{") + "\n```\nThat is all.",
        GOOD.replace("Action Input: {", "**Action Input**:\n~~~\n{") + "\n~~~",
        f"{GOOD.replace('Edit Script (AI)', 'Undo Edit Script')}\n\nNo, better:\n\n{GOOD}",
    ],
)
def test_the_last_whole_response_is_found_in_a_chat_models_answer(answer):
    assert parse(extract_response(answer)) == EDIT


def test_a_good_response_is_found_as_it_is():
    assert extract_response(GOOD) == GOOD
    assert parse(extract_response(f"I list:\n{SHORT}\nDone.", thought=False), thought=False) == LIST


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I would use a forest.",
        GOOD.replace("Thought:", "Idea:"),
        GOOD[:-1],
        GOOD.replace("Action: Edit", "Action: List Files\nAction: Edit"),
        f"{GOOD}\nObservation: it works\n{GOOD.replace('train.py', 'other.py')}",
        f"{GOOD}\n\n**Observation:** 0.3\n",
        SHORT,
        GOOD.partition("Input: ")[0] + 'Input: {"a": 1, "a": 2}',
        GOOD.partition("Input: ")[0] + 'Input: ["train.py"]',
    ],
)
def test_what_the_format_excludes_stays_malformed(answer):
    assert isinstance(parse(answer), Malformed)
    assert isinstance(parse(extract_response(answer)), Malformed)


@given(
    st.lists(
        st.sampled_from([*GOOD.split("\n"), "{", "}", "```json", "<think>", "</think>", "**Action:** x"])
    )
)
def test_no_answer_raises_and_what_parses_is_left_alone(lines):
    text = "\n".join(lines)
    found = extract_response(text)
    if isinstance(parse(text), Action) and "think>" not in text:
        assert found == text.strip()
