"""Which fields of a request are supported, and how their values are read. A null counts as a missing field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlagent_jax.serving.errors import ApiError, short_repr

# Fields without effect on the answer.
_IGNORED = {
    *(
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    ),
    *("parallel_tool_calls", "prediction", "request_id", "cache_salt"),
}
# Unsupported fields of OpenAI and vLLM, each with the values that change nothing.
_NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "logit_bias": ({}, []),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "logits_processors": ([],),
    "response_format": ({"type": "text"},),
    "structured_outputs": ({},),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "echo": (False,),
    "suffix": ("",),
    "top_logprobs": (0,),
    "prompt_logprobs": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "include_stop_str_in_output": (False,),
    "spaces_between_special_tokens": (True, False),
    "return_tokens_as_token_ids": (False,),
    "return_token_ids": (False,),
    "priority": (0,),
}
_NEUTRAL_VALUES_IN_CHATS: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),  # there are no tools to choose from
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "add_special_tokens": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "mm_processor_kwargs": ({},),
}
_SUPPORTED = {
    *("model", "n", "max_tokens", "stop", "seed", "stream", "stream_options", "logprobs"),
    *("temperature", "top_p", "top_k", "min_p"),
    *("stop_token_ids", "ignore_eos", "min_tokens", "skip_special_tokens"),
}
_SUPPORTED_IN_CHATS = {"messages", "max_completion_tokens"}
_SUPPORTED_IN_COMPLETIONS = {"prompt", "best_of", "add_special_tokens"}


def supported_fields(body: Any, chat: bool) -> dict[str, Any]:
    """The supported fields that are present. Raises ApiError for unknown and unsupported ones."""
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    neutral = _NEUTRAL_VALUES | _NEUTRAL_VALUES_IN_CHATS if chat else _NEUTRAL_VALUES
    supported = _SUPPORTED | (_SUPPORTED_IN_CHATS if chat else _SUPPORTED_IN_COMPLETIONS)
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if name in supported or name in _IGNORED:
            continue
        if name not in neutral:
            raise ApiError(400, f"unknown argument: {short_repr(name)[1:-1]}", name, "unknown_parameter")
        if value not in neutral[name]:
            raise ApiError(
                400,
                f"{name} is not implemented here, and {short_repr(value)} asks for it; leave it out",
                name,
                "unsupported_parameter",
            )
    return {name: value for name, value in given.items() if name in supported}


def read_number(
    fields: Mapping[str, Any],
    name: str,
    default: Any,
    kind: type,
    allowed: Callable[[Any], bool],
    range_text: str,
) -> Any:
    """The number in a field. Raises ApiError.

    kind: float or int; an int may also be written as 4.0. range_text: describes `allowed` in the error message.
    """
    if name not in fields:
        return default
    value = fields[name]
    valid = isinstance(value, (int, float)) and not isinstance(value, bool)
    if valid and kind is int and isinstance(value, float):
        valid = value.is_integer()
    if not valid or not allowed(value):
        article = "a number" if kind is float else "a whole number"
        raise ApiError(
            400, f"{name} is {short_repr(value)}, but must be {article} {range_text}".rstrip(), name
        )
    return kind(value)


def read_bool(fields: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """The boolean in a field. Raises ApiError."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ApiError(400, f"{name} is {short_repr(value)}, but must be true or false", name)
    return value
