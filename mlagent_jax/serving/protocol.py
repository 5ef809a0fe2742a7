"""What clients send in OpenAI's formats, read and judged."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.text.chat import Message, encode_prompt
from mlagent_jax.text.chat_template import ROLES
from mlagent_jax.text.tokenizer import Tokenizer

MAX_SAMPLES, MAX_PROMPTS, MAX_STOPS = 128, 128, 4
_COMPLETION_TOKENS = 16  # OpenAI's default, for completions
# OpenAI sets none for chats; here an answer's room in the cache is set aside before it begins.
_CHAT_TOKENS = 2048
_IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
# Fields that change an answer in ways not implemented, and the values that change nothing.
_INERT: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "logit_bias": ({}, None),
    "tools": ([], None),
    "tool_choice": ("none", None),
    "response_format": ({"type": "text"}, None),
    "echo": (False, None),
    "suffix": ("", None),
    "top_logprobs": (0, None),
}
_COMMON = {
    *("model", "n", "max_tokens", "stop", "seed", "stream", "stream_options", "logprobs"),
    *("temperature", "top_p", "top_k", "min_p"),
}


class ApiError(Exception):
    """Becomes a response in the form that OpenAI's clients read."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Wanted:
    """A request that was understood: `samples` answers for each prompt, whose seeds are in the same order."""

    chat: bool
    prompts: tuple[tuple[int, ...], ...]
    samples: int
    seeds: tuple[tuple[int, ...], ...]
    max_tokens: int
    sampling: SamplingParams
    stops: tuple[str, ...]
    stream: bool
    usage_in_stream: bool
    logprobs: bool


def read_request(
    body: Any, chat: bool, model: str, tokenizer: Tokenizer, vocab_size: int, max_length: int
) -> Wanted:
    """Raises ApiError. model: the one that is served; vocab_size: its own; max_length: prompt and answer."""
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    _check_fields(body, chat)
    name = body.get("model")
    if name != model:
        raise ApiError(
            404, f"the model {name!r} does not exist; here is {model!r}", "model", "model_not_found"
        )
    prompts = [_chat_prompt(body, tokenizer)] if chat else _prompts(body.get("prompt"), tokenizer, vocab_size)
    samples = _number(body, "n", 1, int, lambda n: 1 <= n <= MAX_SAMPLES, f"between 1 and {MAX_SAMPLES}")
    if body.get("best_of") not in (None, samples):
        raise ApiError(400, f"best_of is {body['best_of']!r}, but only n can be had", "best_of")
    seed = _number(body, "seed", secrets.randbits(32), int, lambda n: True, "")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise ApiError(400, f"stream_options is {options!r}, but must be an object", "stream_options")
    return Wanted(
        chat=chat,
        prompts=tuple(prompts),
        samples=samples,
        seeds=tuple(tuple(_seeds(seed, i, samples)) for i in range(len(prompts))),
        max_tokens=_max_tokens(body, chat, max(map(len, prompts)), max_length),
        sampling=_sampling(body),
        stops=_stops(body.get("stop")),
        stream=_switch(body, "stream"),
        usage_in_stream=_switch(options, "include_usage"),
        logprobs=_switch(body, "logprobs") if chat else _completion_logprobs(body),
    )


def _check_fields(body: Mapping[str, Any], chat: bool) -> None:
    own = {"messages", "max_completion_tokens"} if chat else {"prompt", "best_of"}
    for name, value in body.items():
        if name in _INERT:
            if value not in _INERT[name]:
                raise ApiError(
                    400, f"{name} is not implemented here; leave it out", name, "unsupported_parameter"
                )
        elif name not in _COMMON | own | _IGNORED:
            raise ApiError(400, f"unknown argument: {name}", name, "unknown_parameter")


def _seeds(seed: int, prompt: int, samples: int) -> list[int]:
    """The same for a sample whatever n is, so that n = 1 gives the first of n = 4."""
    return [
        int(np.random.SeedSequence([seed % 2**64, prompt, i]).generate_state(1)[0]) for i in range(samples)
    ]


def _chat_prompt(body: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[int, ...]:
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise ApiError(400, "messages must be a list of at least one message", "messages")
    messages = []
    for number, message in enumerate(given):
        where = f"messages[{number}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise ApiError(
                400, f"{where} must be an object whose role is one of {', '.join(ROLES)}", "messages"
            )
        messages.append(Message(message["role"], _content(message.get("content"), where)))
    return tuple(encode_prompt(tokenizer, messages).tolist())


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        if len(texts) == len(content):
            return "".join(texts)
    raise ApiError(400, f"{where}.content must be a text, or a list of parts of type text", "messages")


def _prompts(given: Any, tokenizer: Tokenizer, vocab_size: int) -> list[tuple[int, ...]]:
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        given = [given]
    if not isinstance(given, list) or not 0 < len(given) <= MAX_PROMPTS:
        raise ApiError(400, f"prompt must be one to {MAX_PROMPTS} texts or lists of token ids", "prompt")
    prompts = []
    for one in given:
        ids = tokenizer.encode(one) if isinstance(one, str) else one
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise ApiError(400, "prompt must be one or several texts or lists of token ids", "prompt")
        if not ids:
            raise ApiError(400, "prompt is empty; at least one token is needed", "prompt")
        outside = next((token for token in ids if not 0 <= token < vocab_size), None)
        if outside is not None:
            raise ApiError(400, f"token {outside} is outside the vocabulary of {vocab_size}", "prompt")
        prompts.append(tuple(ids))
    return prompts


def _max_tokens(body: Mapping[str, Any], chat: bool, longest: int, max_length: int) -> int:
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    room = max_length - longest
    asked = _number(body, name, None, int, lambda n: n >= 1, "at least 1")
    if room < 1 or (asked or 0) > room:
        raise ApiError(
            400,
            f"this model's maximum context length is {max_length} tokens, but the prompt has {longest} and {name} is "
            f"{asked or 'at least 1'}; shorten one of them",
            "messages" if chat else "prompt",
            "context_length_exceeded",
        )
    return asked or min(room, _CHAT_TOKENS if chat else _COMPLETION_TOKENS)


def _sampling(body: Mapping[str, Any]) -> SamplingParams:
    return SamplingParams(
        temperature=_number(body, "temperature", 1.0, float, lambda t: 0 <= t <= 2, "between 0 and 2"),
        top_p=_number(body, "top_p", 1.0, float, lambda p: 0 < p <= 1, "above 0 and at most 1"),
        top_k=_number(body, "top_k", 0, int, lambda k: 0 <= k < 2**31, "at least 0"),
        min_p=_number(body, "min_p", 0.0, float, lambda p: 0 <= p <= 1, "between 0 and 1"),
    )


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given or []
    if (
        not isinstance(stops, list)
        or len(stops) > MAX_STOPS
        or not all(isinstance(s, str) and s for s in stops)
    ):
        raise ApiError(400, f"stop must be a text or a list of at most {MAX_STOPS} texts, none empty", "stop")
    return tuple(stops)


def _switch(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise ApiError(400, f"{name} is {value!r}, but must be true or false", name)
    return bool(value)


def _completion_logprobs(body: Mapping[str, Any]) -> bool:
    """Completions say of how many tokens beside the sampled one."""
    value = body.get("logprobs")
    if value not in (None, False, 0, 1):
        raise ApiError(400, f"logprobs is {value!r}; only the sampled token's can be had", "logprobs")
    return value is not None and value is not False


def _number(
    body: Mapping[str, Any], name: str, default: Any, kind: type, allowed: Callable[[Any], bool], range_: str
) -> Any:
    value = body.get(name)
    if value is None:
        return default
    fits = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    if not fits or not allowed(value):
        kinds = "a number" if kind is float else "a whole number"
        raise ApiError(400, f"{name} is {value!r}, but must be {kinds} {range_}".rstrip(), name)
    return kind(value)
