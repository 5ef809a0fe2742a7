"""Chats as clients send them, as messages of the roles that a chat template has.

`developer` is OpenAI's newer word for `system`. Calls of tools and what came of them are written as Qwen2.5's chat
template writes them, unless the model's own has a role for the latter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from mlagent_jax.serving.errors import ApiError, shown
from mlagent_jax.text.chat import Message, encode_prompt
from mlagent_jax.text.chat_template import ChatTemplateError
from mlagent_jax.text.tokenizer import Tokenizer

_ROLES = ("system", "developer", "user", "assistant", "tool")
# Fields of a message that no template shows; clients send back whole messages that they got.
_NO_MATTER = {"name", "tool_call_id", "refusal", "annotations", "id"}


def chat_prompt(given: Any, tokenizer: Tokenizer) -> list[int]:
    """Token ids up to the assistant's next turn. Raises ApiError."""
    if not isinstance(given, list) or not given:
        raise ApiError(400, "messages must be a list of at least one message", "messages")
    messages = [_message(message, f"messages[{number}]") for number, message in enumerate(given)]
    try:
        return _encode(tokenizer, messages)
    except ChatTemplateError as error:
        raise ApiError(400, str(error), "messages") from error


def _encode(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    if any(message.role == "tool" for message in messages):
        try:
            return encode_prompt(tokenizer, messages).tolist()
        except ChatTemplateError:
            messages = _without_tool_role(messages)
    return encode_prompt(tokenizer, messages).tolist()


def _without_tool_role(messages: Sequence[Message]) -> list[Message]:
    """What tools gave, one after the other, in a turn of the user."""
    rewritten: list[Message] = []
    for is_tool, group in groupby(messages, lambda message: message.role == "tool"):
        if is_tool:
            given = [f"<tool_response>\n{message.content}\n</tool_response>" for message in group]
            rewritten.append(Message("user", "\n".join(given)))
        else:
            rewritten += group
    return rewritten


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise ApiError(400, f"{where} must be an object whose role is one of {', '.join(_ROLES)}", "messages")
    role = message["role"]
    known = {"role", "content", *_NO_MATTER, *(("tool_calls",) if role == "assistant" else ())}
    for name, value in message.items():
        if name not in known and value not in (None, [], {}, ""):
            raise ApiError(
                400, f"{where}.{shown(name)[1:-1]} is not implemented here; leave it out", "messages"
            )
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ApiError(400, f"{where}.tool_calls must be a list", "messages")
    silent = bool(calls) and message.get("content") is None
    content = "" if silent else _content(message.get("content"), where)
    written = [_call(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(calls)]
    return Message("system" if role == "developer" else role, "\n".join([content] * bool(content) + written))


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        if len(texts) == len(content):
            return "".join(texts)
    raise ApiError(400, f"{where}.content must be a text, or a list of parts of type text", "messages")


def _call(call: Any, where: str) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ApiError(400, f"{where} must be an object with a function that has a name", "messages")
    arguments = function.get("arguments") or "{}"
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"{where}.function.arguments is not JSON: {error}", "messages") from error
    name, given = (json.dumps(value, ensure_ascii=False) for value in (function["name"], arguments))
    return f'<tool_call>\n{{"name": {name}, "arguments": {given}}}\n</tool_call>'
