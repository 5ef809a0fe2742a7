"""Tool specifications, and the feedback for calls that do not match them."""

import json

import pytest

from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import COPY_FILE, EDIT, INSPECT, LIST_FILES, TOOLS, check


def test_the_papers_seven_tools_and_their_arguments():
    # arXiv 2505.23723 v1, table 4.
    assert {name: [a.name for a in tool.arguments] for name, tool in TOOLS.items()} == {
        "List Files": ["dir_path"],
        "Copy File": ["source", "destination"],
        "Inspect Script Lines": ["script_name", "start_line_number", "end_line_number"],
        "Execute Script": ["script_name"],
        "Understand File": ["file_name", "things_to_look_for"],
        "Edit Script (AI)": ["script_name", "edit_instruction", "save_name"],
        "Final Answer": ["final_answer"],
    }


def test_usage_is_json_with_every_argument():
    for tool in TOOLS.values():
        assert list(json.loads(tool.usage)) == [argument.name for argument in tool.arguments]


def test_good_calls_pass():
    assert check(Action(LIST_FILES, {"dir_path": "."})) is None
    lines = {"script_name": "train.py", "start_line_number": 1, "end_line_number": 9}
    assert check(Action(INSPECT, lines)) is None


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("Edit Script", EDIT),
        ("edit script (ai)", EDIT),
        ("ListFiles", LIST_FILES),
        ("Inspect Lines", INSPECT),
    ],
)
def test_unknown_tools_come_with_a_guess_and_the_list(name, guess):
    feedback = check(Action(name, {})).feedback
    assert feedback.startswith("Invalid action: the tools are ")
    assert feedback.endswith(f"there is no {name!r}. Did you mean {guess}?")
    assert all(tool in feedback for tool in TOOLS)


def test_nothing_is_guessed_for_nonsense_and_long_names_are_cut():
    feedback = check(Action("zzz" * 1000, {})).feedback
    assert "Did you mean" not in feedback and len(feedback) < 300


@pytest.mark.parametrize(
    ("action", "fault"),
    [
        (Action(COPY_FILE, {"source": "a"}), "destination is missing"),
        (Action(LIST_FILES, {"dir_path": ".", "recursive": True}), "recursive is unknown"),
        (Action(LIST_FILES, {"dir_path": 3}), "dir_path must be a string, not 3"),
        (Action(LIST_FILES, {"dir_path": None}), "dir_path must be a string, not null"),
        (
            Action(INSPECT, {"script_name": "a", "start_line_number": "1", "end_line_number": 9}),
            'start_line_number must be an integer, not "1"',
        ),
        (
            Action(INSPECT, {"script_name": "a", "start_line_number": True, "end_line_number": 9}),
            "start_line_number must be an integer, not true",
        ),
        (
            Action(INSPECT, {"script_name": "a", "start_line_number": 1.0, "end_line_number": 9}),
            "start_line_number must be an integer, not 1.0",
        ),
    ],
)
def test_wrong_arguments_are_named_with_the_usage(action, fault):
    feedback = check(action).feedback
    usage = TOOLS[action.tool].usage
    assert feedback == f"ActionInputParsingError: {action.tool} takes {usage}: {fault}."


def test_all_faults_are_told_at_once():
    feedback = check(Action(COPY_FILE, {"src": "a", "destination": 1})).feedback
    assert "source is missing; src is unknown; destination must be a string, not 1" in feedback
