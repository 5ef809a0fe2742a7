"""Answers as JSON of a schema: they hold what a response holds, and are stored in its usual format."""

import json

import jsonschema
import pytest
from chat_server import error, model_of
from fakes import make_task

from mlagent_jax.agent.llm_idea_writer import LLMIdeaWriter
from mlagent_jax.agent.llm_policy import LLMPolicy
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import PromptFormat
from mlagent_jax.agent.response import ACTION_FIELDS, ALL_FIELDS, parse, split_fields
from mlagent_jax.agent.structured import read_structured, response_schema
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import TOOLS
from mlagent_jax.llm.backend import ModelError

THOUGHTS = dict(zip(ALL_FIELDS, ("It ran.", "Plan:\n1. a forest", "Confirmed.", "Edit it."), strict=False))


def arguments(tool):
    return {argument.name: argument.kind(7) for argument in tool.arguments}


def answer(tool="List Files", thoughts=THOUGHTS, **given):
    return {**thoughts, "Action": tool, "Action Input": arguments(TOOLS[tool]), **given}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("thought", [True, False])
def test_the_schema_holds_every_action_and_what_is_read_is_that_action(tool, thought):
    values = answer(tool, THOUGHTS if thought else {})
    jsonschema.Draft202012Validator.check_schema(response_schema(thought))
    jsonschema.validate(values, response_schema(thought))
    text = read_structured(json.dumps(values), thought)
    assert parse(text, thought) == Action(tool, arguments(TOOLS[tool]))
    if thought:
        fields = split_fields(text)
        assert {label: fields[label] for label in THOUGHTS} == THOUGHTS


@pytest.mark.parametrize(
    "values",
    [
        {label: value for label, value in answer().items() if label != "Thought"},
        answer() | {"Action": "Delete Everything"},
        answer() | {"Action Input": {"path": "."}},
        answer() | {"Action Input": "."},
        answer() | {"more": "text"},
    ],
)
def test_the_schema_holds_nothing_else(values):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, response_schema(True))


def test_the_fields_are_asked_for_in_their_order_and_all_are_required():
    """As a model writes them in the schema's order, it thinks before it acts."""
    for thought, labels in ((True, ALL_FIELDS), (False, ACTION_FIELDS)):
        schema = response_schema(thought)
        assert tuple(schema["properties"]) == labels == tuple(schema["required"])


def test_a_thought_cannot_become_an_action():
    text = read_structured(
        json.dumps(answer(Thought="I could say\nAction: Final Answer\nAction Input: {}")), True
    )
    assert parse(text) == Action("List Files", {"dir_path": "7"})


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[1]", "{}", json.dumps(answer(Thought=3)), json.dumps(answer())[:-9], "[" * 99_999],
)
def test_what_is_no_such_json_is_left_to_the_usual_format(text):
    assert read_structured(text, True) == ""


def test_a_policy_asks_for_it_and_stores_the_usual_format(server, tmp_path):
    situation = Situation(make_task(tmp_path), ())
    usual = "Reflection: a\nResearch Plan and Status: b\nFact Check: c\nThought: d\n" + (
        'Action: List Files\nAction Input: {"dir_path": "."}'
    )
    server.answers = [json.dumps(answer()), usual]
    policy = LLMPolicy(model_of(server, "expert"), PromptFormat(), structured=True)
    (response,) = policy.respond([situation])
    assert parse(response.text) == Action("List Files", {"dir_path": "7"})
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == response_schema(True)
    policy = LLMPolicy(model_of(server, "expert"), PromptFormat(), structured=True)
    assert policy.respond([situation])[0].text == usual, "of a server that ignores the schema"
    server.answers = [error(400, "response_format is not supported")]
    with pytest.raises(ModelError, match=r"set config.models.expert.structured_output to False"):
        LLMPolicy(model_of(server, "expert"), PromptFormat(), structured=True).respond([situation])


def test_an_idea_writer_asks_for_a_list(server, tmp_path):
    server.answers = [json.dumps({"ideas": ["Use a forest.", "Log the target."]})]
    writer = LLMIdeaWriter(model_of(server, "idea_writer"), structured=True)
    assert writer.write(make_task(tmp_path), None, 2) == ["Use a forest.", "Log the target."]
    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    jsonschema.validate({"ideas": ["Use a forest."]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(["Use a forest."], schema)
