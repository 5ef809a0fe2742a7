"""Parses and validates requests in OpenAI's formats, with vLLM's additions."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlagent_jax.generate.batches import MAX_STOP_IDS
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.serving.errors import ApiError, short_repr
from mlagent_jax.serving.fields import read_bool, read_number, supported_fields
from mlagent_jax.serving.messages import encode_messages
from mlagent_jax.text.tokenizer import Tokenizer

MAX_N, MAX_PROMPTS, MAX_STOP_STRINGS = 128, 128, 4
MAX_STOP_CHARS = 1024
_COMPLETION_TOKENS = 16  # OpenAI's default for completions
# OpenAI has no default for chats. Here one is needed: cache for the longest answer is reserved before it begins.
_CHAT_TOKENS = 2048


@dataclass(frozen=True)
class ParsedRequest:
    """A valid request for `n` samples of each prompt.

    prompts: token ids. seeds: one for each sample, for each prompt.
    stop: strings that end the text. stop_token_ids: tokens that end it, including the model's own.
    hidden_token_ids: tokens that do not appear in the text.
    """

    chat: bool
    prompts: tuple[tuple[int, ...], ...]
    n: int
    seeds: tuple[tuple[int, ...], ...]
    min_tokens: int
    max_tokens: int
    sampling: SamplingParams
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    hidden_token_ids: frozenset[int]
    stream: bool
    include_usage: bool
    logprobs: bool


def parse_request(
    body: Any, chat: bool, model: str, tokenizer: Tokenizer, vocab_size: int, max_length: int
) -> ParsedRequest:
    """Raises ApiError.

    Args:
        body: the decoded JSON.
        chat: whether it is a chat completion.
        model: the name of the served model. vocab_size: the model's, not the tokenizer's.
        max_length: of prompt and answer together, in tokens.
    """
    fields = supported_fields(body, chat)
    _check_model(fields.get("model", model), model)
    prompts = (
        [tuple(encode_messages(fields.get("messages"), tokenizer))]
        if chat
        else _prompts(fields, tokenizer, vocab_size)
    )
    n = read_number(fields, "n", 1, int, lambda n: 1 <= n <= MAX_N, f"between 1 and {MAX_N}")
    if fields.get("best_of", n) != n:
        raise ApiError(
            400,
            f"best_of is {short_repr(fields['best_of'])}, but must be equal to n, which is {n}",
            "best_of",
        )
    seed = read_number(fields, "seed", secrets.randbits(32), int, lambda n: True, "")
    max_tokens = _max_tokens(fields, chat, max(map(len, prompts)), max_length)
    return ParsedRequest(
        chat=chat,
        prompts=tuple(prompts),
        n=n,
        seeds=tuple(tuple(_seeds(seed, i, n)) for i in range(len(prompts))),
        min_tokens=read_number(
            fields,
            "min_tokens",
            0,
            int,
            lambda n: 0 <= n <= max_tokens,
            f"between 0 and max_tokens, {max_tokens}",
        ),
        max_tokens=max_tokens,
        sampling=_sampling(fields),
        stop=_stop_strings(fields.get("stop")),
        stop_token_ids=_stop_token_ids(fields, tokenizer, vocab_size),
        hidden_token_ids=frozenset(
            tokenizer.control.ids.values() if read_bool(fields, "skip_special_tokens", True) else ()
        ),
        stream=read_bool(fields, "stream"),
        include_usage=_include_usage(fields.get("stream_options", {})),
        logprobs=read_bool(fields, "logprobs") if chat else _completion_logprobs(fields),
    )


def _check_model(name: Any, model: str) -> None:
    if name != model:
        raise ApiError(
            404,
            f"the model {short_repr(name)} does not exist; this server has {model!r}",
            "model",
            "model_not_found",
        )


def _seeds(seed: int, prompt: int, n: int) -> list[int]:
    """A sample's seed does not depend on n: the sample of n = 1 is the first of n = 4."""
    return [int(np.random.SeedSequence([seed % 2**64, prompt, i]).generate_state(1)[0]) for i in range(n)]


def _prompts(fields: Mapping[str, Any], tokenizer: Tokenizer, vocab_size: int) -> list[tuple[int, ...]]:
    value = fields.get("prompt")
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        value = [value]
    if not isinstance(value, list) or not 0 < len(value) <= MAX_PROMPTS:
        raise ApiError(400, f"prompt must be 1 to {MAX_PROMPTS} strings or lists of token ids", "prompt")
    add_special_tokens = read_bool(fields, "add_special_tokens", True)
    prompts = []
    for one in value:
        ids = _encode_text(one, tokenizer, add_special_tokens) if isinstance(one, str) else one
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise ApiError(400, "prompt must be one or several strings or lists of token ids", "prompt")
        if not ids:
            raise ApiError(400, "prompt is empty; at least one token is needed", "prompt")
        _check_ids(ids, vocab_size, "prompt")
        prompts.append(tuple(ids))
    return prompts


def _encode_text(text: str, tokenizer: Tokenizer, add_special_tokens: bool) -> list[int]:
    """Names of control tokens in the text become these tokens, unlike in the contents of a chat.

    add_special_tokens: whether a `bos_token` and the like are added.
    """
    if add_special_tokens:
        return tokenizer.encode(text, special=True)
    parts = tokenizer.control.split(text)
    return [
        token for part in parts for token in ([part] if isinstance(part, int) else tokenizer.encode(part))
    ]


def _check_ids(ids: list[int], vocab_size: int, name: str) -> None:
    outside = next((token for token in ids if not 0 <= token < vocab_size), None)
    if outside is not None:
        raise ApiError(
            400, f"{name}: token {short_repr(outside)} is outside the vocabulary of {vocab_size}", name
        )


def _max_tokens(fields: Mapping[str, Any], chat: bool, longest: int, max_length: int) -> int:
    """longest: length of the longest prompt."""
    name = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
    room = max_length - longest
    requested = read_number(fields, name, None, int, lambda n: n >= 1, "at least 1")
    if room < 1 or (requested or 0) > room:
        raise ApiError(
            400,
            f"this model's maximum context length is {max_length} tokens, but the prompt has {longest} and {name} is "
            f"{short_repr(requested) if requested else 'at least 1'}; shorten one of them",
            "messages" if chat else "prompt",
            "context_length_exceeded",
        )
    return requested or min(room, _CHAT_TOKENS if chat else _COMPLETION_TOKENS)


def _sampling(fields: Mapping[str, Any]) -> SamplingParams:
    top_k = read_number(fields, "top_k", 0, int, lambda k: -1 <= k < 2**31, "at least 1, or 0 or -1 for all")
    return SamplingParams(
        temperature=read_number(fields, "temperature", 1.0, float, lambda t: 0 <= t <= 2, "between 0 and 2"),
        top_p=read_number(fields, "top_p", 1.0, float, lambda p: 0 < p <= 1, "above 0 and at most 1"),
        top_k=max(0, top_k),
        min_p=read_number(fields, "min_p", 0.0, float, lambda p: 0 <= p <= 1, "between 0 and 1"),
    )


def _stop_strings(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if (
        not isinstance(stops, list)
        or len(stops) > MAX_STOP_STRINGS
        or not all(isinstance(s, str) and 0 < len(s) <= MAX_STOP_CHARS for s in stops)
    ):
        raise ApiError(
            400,
            f"stop must be a string or a list of at most {MAX_STOP_STRINGS} strings, none empty or longer than "
            f"{MAX_STOP_CHARS:,} characters",
            "stop",
        )
    return tuple(stops)


def _stop_token_ids(fields: Mapping[str, Any], tokenizer: Tokenizer, vocab_size: int) -> tuple[int, ...]:
    """The model's own stop tokens, unless `ignore_eos`, and those of the request."""
    requested = fields.get("stop_token_ids", [])
    if not isinstance(requested, list) or not all(type(token) is int for token in requested):
        raise ApiError(
            400,
            f"stop_token_ids is {short_repr(requested)}, but must be a list of token ids",
            "stop_token_ids",
        )
    _check_ids(requested, vocab_size, "stop_token_ids")
    own = () if read_bool(fields, "ignore_eos") else tokenizer.stop_ids
    ids = tuple(dict.fromkeys((*own, *requested)))
    if len(ids) > MAX_STOP_IDS:
        raise ApiError(
            400,
            f"stop_token_ids has {len(ids) - len(own)} ids in addition to the model's own {len(own)}; at most "
            f"{MAX_STOP_IDS} are possible in total",
            "stop_token_ids",
        )
    return ids


def _include_usage(options: Any) -> bool:
    if not isinstance(options, dict):
        raise ApiError(
            400, f"stream_options is {short_repr(options)}, but must be an object", "stream_options"
        )
    for name, value in options.items():
        if name not in ("include_usage", "include_obfuscation") and value:
            raise ApiError(
                400,
                f"stream_options.{short_repr(name)[1:-1]} is not implemented here; leave it out",
                "stream_options",
            )
    return read_bool(options, "include_usage")


def _completion_logprobs(fields: Mapping[str, Any]) -> bool:
    """Whether log-probabilities are wanted. For completions, `logprobs` is the number of alternatives per token."""
    value = fields.get("logprobs", False)
    if value not in (False, 0, 1):
        raise ApiError(
            400, f"logprobs is {short_repr(value)}; only that of the sampled token is available", "logprobs"
        )
    return value is not False
