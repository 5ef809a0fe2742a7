"""Converts clients' chat messages to messages with the roles of a chat template.

`developer` is OpenAI's newer name for `system`. Tool calls and their results are written as by Qwen2.5's chat
template, unless the model's own template has a role for results.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from mlagent_jax.serving.errors import ApiError, short_repr
from mlagent_jax.text.chat import Message, encode_prompt
from mlagent_jax.text.chat_template import ChatTemplateError
from mlagent_jax.text.tokenizer import Tokenizer

_ROLES = ("system", "developer", "user", "assistant", "tool")
# Fields of a message that no template shows. Clients send back complete messages that they have received.
_IGNORED = {"name", "tool_call_id", "refusal", "annotations", "id"}


def encode_messages(value: Any, tokenizer: Tokenizer) -> list[int]:
    """Token ids of the `messages` field, up to the header of the assistant's next turn. Raises ApiError."""
    if not isinstance(value, list) or not value:
        raise ApiError(400, "messages must be a list of at least one message", "messages")
    messages = [_message(message, f"messages[{number}]") for number, message in enumerate(value)]
    try:
        return _encode(tokenizer, messages)
    except ChatTemplateError as error:
        raise ApiError(400, str(error), "messages") from error


def _encode(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    if any(message.role == "tool" for message in messages):
        try:
            return encode_prompt(tokenizer, messages).tolist()
        except ChatTemplateError:
            messages = _tool_results_as_user(messages)
    return encode_prompt(tokenizer, messages).tolist()


def _tool_results_as_user(messages: Sequence[Message]) -> list[Message]:
    """Merges consecutive tool results into a turn of the user."""
    rewritten: list[Message] = []
    for is_tool, group in groupby(messages, lambda message: message.role == "tool"):
        if is_tool:
            results = [f"<tool_response>\n{message.content}\n</tool_response>" for message in group]
            rewritten.append(Message("user", "\n".join(results)))
        else:
            rewritten += group
    return rewritten


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise ApiError(400, f"{where} must be an object whose role is one of {', '.join(_ROLES)}", "messages")
    role = message["role"]
    known = {"role", "content", *_IGNORED, *(("tool_calls",) if role == "assistant" else ())}
    for name, value in message.items():
        if name not in known and value not in (None, [], {}, ""):
            raise ApiError(
                400, f"{where}.{short_repr(name)[1:-1]} is not implemented here; leave it out", "messages"
            )
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ApiError(400, f"{where}.tool_calls must be a list", "messages")
    only_calls = bool(calls) and message.get("content") is None
    content = "" if only_calls else _content(message.get("content"), where)
    call_texts = [_call(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(calls)]
    return Message(
        "system" if role == "developer" else role, "\n".join([content] * bool(content) + call_texts)
    )


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
    name, arguments = (json.dumps(value, ensure_ascii=False) for value in (function["name"], arguments))
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
