"""Which fields of a request are taken, and how their values are read. A null is a field that was left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlagent_jax.serving.errors import ApiError, shown

# Fields that say nothing about the answer.
_NO_MATTER = {
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
# Fields of OpenAI and vLLM that change an answer in ways not implemented, and the values that change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
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
_NEUTRAL_IN_CHATS: dict[str, tuple[Any, ...]] = {
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
_TAKEN = {
    *("model", "n", "max_tokens", "stop", "seed", "stream", "stream_options", "logprobs"),
    *("temperature", "top_p", "top_k", "min_p"),
    *("stop_token_ids", "ignore_eos", "min_tokens", "skip_special_tokens"),
}
_TAKEN_IN_CHATS = {"messages", "max_completion_tokens"}
_TAKEN_IN_COMPLETIONS = {"prompt", "best_of", "add_special_tokens"}


def known_fields(body: Any, chat: bool) -> dict[str, Any]:
    """Those that were given and matter. Raises ApiError for what is not known, or not implemented."""
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    neutral = _NEUTRAL | _NEUTRAL_IN_CHATS if chat else _NEUTRAL
    taken = _TAKEN | (_TAKEN_IN_CHATS if chat else _TAKEN_IN_COMPLETIONS)
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if name in taken or name in _NO_MATTER:
            continue
        if name not in neutral:
            raise ApiError(400, f"unknown argument: {shown(name)[1:-1]}", name, "unknown_parameter")
        if value not in neutral[name]:
            raise ApiError(
                400,
                f"{name} is not implemented here, and {shown(value)} asks for it; leave it out",
                name,
                "unsupported_parameter",
            )
    return {name: value for name, value in given.items() if name in taken}


def number(
    fields: Mapping[str, Any],
    name: str,
    default: Any,
    kind: type,
    allowed: Callable[[Any], bool],
    range_: str,
) -> Any:
    """kind: float, or int, for which 4.0 is taken as well. range_: what is `allowed`, for the message."""
    if name not in fields:
        return default
    value = fields[name]
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if fits and kind is int and isinstance(value, float):
        fits = value.is_integer()
    if not fits or not allowed(value):
        kinds = "a number" if kind is float else "a whole number"
        raise ApiError(400, f"{name} is {shown(value)}, but must be {kinds} {range_}".rstrip(), name)
    return kind(value)


def switch(fields: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ApiError(400, f"{name} is {shown(value)}, but must be true or false", name)
    return value
