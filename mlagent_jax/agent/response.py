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

from absl import logging

from mlagent_jax.agent.answers import without_thinking
from mlagent_jax.environment.feedback import BAD_RESPONSE, clip
from mlagent_jax.environment.state import Action, Malformed

REFLECTION, PLAN, FACT_CHECK, THOUGHT = "Reflection", "Research Plan and Status", "Fact Check", "Thought"
ACTION, ACTION_INPUT = "Action", "Action Input"
ACTION_FIELDS = (ACTION, ACTION_INPUT)
ALL_FIELDS = (REFLECTION, PLAN, FACT_CHECK, THOUGHT, *ACTION_FIELDS)

_FENCE = re.compile(r"\A```(?:json)?[ \t]*\n(?P<body>.*)\n[ \t]*```\Z", re.DOTALL)


@dataclass(frozen=True)
class Thoughts:
    """The four fields that precede the action."""

    reflection: str
    plan: str
    fact_check: str
    thought: str


class _FormatError(Exception):
    """The message is the feedback of a `Malformed`."""


def parse(text: str, thought: bool = True) -> Action | Malformed:
    """Parses a response into an action, whose tool and arguments are not checked yet. Never raises.

    thought: whether all six fields are required, or only the two of the action.
    """
    try:
        values = split_fields(text, ALL_FIELDS if thought else ACTION_FIELDS)
        return Action(_tool(values[ACTION]), _arguments(values[ACTION_INPUT]))
    except _FormatError as error:
        return Malformed(f"{BAD_RESPONSE} {error}")


def split_fields(text: str, labels: tuple[str, ...] = ALL_FIELDS) -> dict[str, str]:
    """The stripped fields by label. Raises an exception that `parse` turns into feedback."""
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


def extract_response(answer: str, thought: bool = True) -> str:
    """Extracts the response from a chat model's answer, in the format that `parse` expects; the answer if it has none.

    For models that were not trained on the format. Thinking tags are removed; fields may be bold, headings or in a
    fence, with other text around them; of several complete responses the last counts. Nothing is made up or repaired:
    an answer with fields in another order, two tools or broken JSON stays malformed. So does one that goes on to play
    the environment, since its later actions rest on invented observations.
    """
    text = without_thinking(answer)
    action = parse(text, thought)
    if isinstance(action, Action) and action.tool == action.tool.strip(_EMPHASIS):
        return text
    labels = ALL_FIELDS if thought else ACTION_FIELDS
    names = "|".join(sorted(map(re.escape, ALL_FIELDS), key=len, reverse=True))
    label = re.compile(
        rf"^[ \t>#*_-]*({names})[ \t]*[*_]*[ \t]*:[ \t]*[*_]*[ \t]*", re.MULTILINE | re.IGNORECASE
    )
    proper = {name.lower(): name for name in ALL_FIELDS}
    plain = label.sub(lambda match: f"{proper[match[1].lower()]}: ", text)
    if _OBSERVATION.search(plain):
        return text
    starts = [match.start() for match in re.finditer(rf"^{re.escape(labels[0])}:", plain, re.MULTILINE)]
    for start in reversed(starts[-_MAX_CANDIDATES:]):
        response = _without_what_follows(plain[start:])
        if isinstance(parse(response, thought), Action):
            logging.info("Extracted a response from a longer answer: %s", clip(answer, 200))
            return response
    return text


def _without_what_follows(text: str) -> str:
    """The text up to the end of the first Action Input's JSON object, without emphasis around the tool's name."""
    text = re.sub(rf"^({ACTION}: )[*_`\"]*(.*?)[*_`\"]*[ \t]*$", r"\1\2", text, count=1, flags=re.MULTILINE)
    match = re.search(rf"^{ACTION_INPUT}:\s*[*_]*\s*(?:```+|~~~+|`)?(?:json)?\s*(?=\{{)", text, re.MULTILINE)
    if match is None:
        return text
    try:
        end = _DECODER.raw_decode(text, match.end())[1]
    except (ValueError, RecursionError):
        return text
    return f"{text[: match.start()]}{ACTION_INPUT}: {text[match.end() : end]}"


_MAX_CANDIDATES = (
    16  # responses that are tried, from the end of an answer: a model may repeat itself endlessly
)
_EMPHASIS = "*_`\"' "
_OBSERVATION = re.compile(r"^[ \t>#*_-]*(?:Observation|Feedback)s?[ \t*_]*:", re.MULTILINE)


def render(action: Action, thoughts: Thoughts | None = None) -> str:
    """Writes the response that `parse` reads as `action`. Without thoughts, it has only the fields of the action.

    Raises ValueError if it would be parsed differently, such as for a thought with a line "Action: ...".
    """
    arguments = json.dumps(dict(action.arguments), ensure_ascii=False)
    values = [action.tool, arguments]
    labels: tuple[str, ...] = ACTION_FIELDS
    if thoughts is not None:
        values = [thoughts.reflection, thoughts.plan, thoughts.fact_check, thoughts.thought, *values]
        labels = ALL_FIELDS
    text = "\n".join(f"{label}: {value}".rstrip() for label, value in zip(labels, values, strict=True))
    if parse(text, thought=thoughts is not None) != action:
        raise ValueError(f"this response would be parsed as something else: {text!r}")
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
