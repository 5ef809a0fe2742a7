"""Responses as JSON of a fixed schema, for servers that hold a model to one; what is stored is the usual format."""

from __future__ import annotations

import json
from typing import Any

from mlagent_jax.agent.response import ACTION, ACTION_FIELDS, ACTION_INPUT, ALL_FIELDS, Thoughts, render
from mlagent_jax.environment.state import Action
from mlagent_jax.environment.tools import TOOLS, Tool

_TYPES = {str: "string", int: "integer"}


def response_schema(thought: bool) -> dict[str, Any]:
    """The fields of a response as a JSON schema, by OpenAI's rules of strict schemas.

    thought: whether responses have all six fields, or only the two of the action.
    """
    properties: dict[str, Any] = {
        label: {"type": "string"} for label in (ALL_FIELDS if thought else ACTION_FIELDS)
    }
    properties[ACTION] = {"type": "string", "enum": list(TOOLS)}
    properties[ACTION_INPUT] = {"anyOf": [_arguments(tool) for tool in TOOLS.values()]}
    return _object(properties)


def read_structured(text: str, thought: bool) -> str:
    """The response that a JSON answer holds, in the usual format; "" if it is no such JSON.

    Line breaks within a field become spaces where they would make it another field.
    """
    try:
        values = json.loads(text)
        labels = ALL_FIELDS if thought else ACTION_FIELDS
        fields = [values[label] for label in labels]
        action = Action(values[ACTION], dict(values[ACTION_INPUT]))
        thoughts = fields[: -len(ACTION_FIELDS)]
        if not all(isinstance(field, str) for field in (*thoughts, action.tool)):
            return ""
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    lines = [" ".join(field.split()) for field in thoughts]
    for said in (thoughts, lines):
        try:
            return render(action, Thoughts(*said) if thought else None)
        except ValueError:
            continue
    return ""


def _arguments(tool: Tool) -> dict[str, Any]:
    return _object({argument.name: {"type": _TYPES[argument.kind]} for argument in tool.arguments})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
