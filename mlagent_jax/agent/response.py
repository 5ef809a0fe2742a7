"""The response format: six labelled fields in order (arXiv 2505.23723 v1, table 6), or only the last two.

Reflection: what the last feedback means
Research Plan and Status: the plan, and what is done and confirmed
Fact Check: which claims of the plan are confirmed
Thought: what to do now, and why
Action: a tool
Action Input: its arguments, a JSON object
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from mlagent_jax.environment.feedback import BAD_RESPONSE, clip
from mlagent_jax.environment.state import Action, Malformed

REFLECTION, PLAN, FACT_CHECK, THOUGHT = "Reflection", "Research Plan and Status", "Fact Check", "Thought"
ACTION, ACTION_INPUT = "Action", "Action Input"
ACTION_FIELDS = (ACTION, ACTION_INPUT)
ALL_FIELDS = (REFLECTION, PLAN, FACT_CHECK, THOUGHT, *ACTION_FIELDS)

_FENCE = re.compile(r"\A```(?:json)?[ \t]*\n(?P<body>.*)\n[ \t]*```\Z", re.DOTALL)


@dataclass(frozen=True)
class Thoughts:
    """The four fields before the action."""

    reflection: str
    plan: str
    fact_check: str
    thought: str


class _FormatError(Exception):
    """Carries the feedback of a `Malformed`."""


def parse(text: str, thought: bool = True) -> Action | Malformed:
    """The action of a response; its tool and arguments are not checked yet. Never raises.

    thought: whether all six fields are required, or only the two of the action.
    """
    try:
        values = split_fields(text, ALL_FIELDS if thought else ACTION_FIELDS)
        return Action(_tool(values[ACTION]), _arguments(values[ACTION_INPUT]))
    except _FormatError as error:
        return Malformed(f"{BAD_RESPONSE} {error}")


def split_fields(text: str, labels: tuple[str, ...] = ALL_FIELDS) -> dict[str, str]:
    """The fields by label, stripped. Raises an exception that `parse` turns into feedback."""
    order = ", ".join(f"{label}:" for label in labels)
    ends, starts, position = [], [], 0
    for label in labels:
        match = _find(label, text, position)
        if match is None:
            fault = "is not in its place" if _find(label, text, 0) else "is missing"
            raise _FormatError(f'lines must start with {order} in this order; "{label}:" {fault}.')
        ends.append(match.start())
        starts.append(match.end())
        position = match.end()
    if text[: ends[0]].strip():
        raise _FormatError(f'nothing may stand before "{labels[0]}:".')
    return {
        label: text[start:end].strip()
        for label, start, end in zip(labels, starts, [*ends[1:], len(text)], strict=True)
    }


def render(action: Action, thoughts: Thoughts | None = None) -> str:
    """The response that `parse` reads as `action`; without thoughts, only the fields of the action.

    Raises ValueError for texts that would be read as something else, such as a thought with a line "Action:
    ...".
    """
    arguments = json.dumps(dict(action.arguments), ensure_ascii=False)
    values = [action.tool, arguments]
    labels: tuple[str, ...] = ACTION_FIELDS
    if thoughts is not None:
        values = [thoughts.reflection, thoughts.plan, thoughts.fact_check, thoughts.thought, *values]
        labels = ALL_FIELDS
    text = "\n".join(f"{label}: {value}".rstrip() for label, value in zip(labels, values, strict=True))
    if parse(text, thought=thoughts is not None) != action:
        raise ValueError(f"this response would not be read as it was meant: {text!r}")
    return text


def _find(label: str, text: str, position: int) -> re.Match[str] | None:
    pattern = re.compile(rf"^[ \t]*{re.escape(label)}[ \t]*:", re.MULTILINE)
    return pattern.search(text, position)


def _tool(value: str) -> str:
    if not value:
        raise _FormatError(f'the field "{ACTION}:" is empty; name one tool.')
    if "\n" in value:
        raise _FormatError(f'the field "{ACTION}:" must be the name of one tool on one line.')
    return value


def _arguments(value: str) -> dict[str, Any]:
    fenced = _FENCE.match(value)
    source = fenced["body"].strip() if fenced else value
    if not source:
        raise _FormatError(f'the field "{ACTION_INPUT}:" is empty; give the arguments as a JSON object.')
    try:
        arguments, end = _DECODER.raw_decode(source)
        json.dumps(arguments, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        near = clip(source[max(error.pos - 10, 0) : error.pos + 10], 20)
        raise _FormatError(f"{ACTION_INPUT} is not valid JSON: {error.msg} near {near!r}.") from None
    except UnicodeEncodeError:
        raise _FormatError(f"{ACTION_INPUT} holds half a surrogate pair, which is not text.") from None
    except RecursionError:
        raise _FormatError(f"{ACTION_INPUT} is nested too deeply.") from None
    except ValueError as error:
        raise _FormatError(f"{ACTION_INPUT} is not valid JSON: {clip(str(error), 80)}.") from None
    if not isinstance(arguments, dict):
        raise _FormatError(f'{ACTION_INPUT} must be a JSON object such as {{"dir_path": "."}}.')
    if source[end:].strip():
        raise _FormatError(f"nothing may follow the JSON object of {ACTION_INPUT}.")
    return arguments


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    arguments = dict(pairs)
    if len(arguments) < len(pairs):
        raise ValueError("a name appears twice")
    return arguments


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_constant)
