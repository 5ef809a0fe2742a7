"""What clients send in OpenAI's formats and with vLLM's additions, read and judged."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlagent_jax.generate.batches import MAX_STOP_IDS
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.serving.errors import ApiError, shown
from mlagent_jax.serving.fields import known_fields, number, switch
from mlagent_jax.serving.messages import chat_prompt
from mlagent_jax.text.tokenizer import Tokenizer

MAX_SAMPLES, MAX_PROMPTS, MAX_STOPS = 128, 128, 4
MAX_STOP_LENGTH = 1024  # characters
_COMPLETION_TOKENS = 16  # OpenAI's default, for completions
# OpenAI sets none for chats; here an answer's room in the cache is set aside before it begins.
_CHAT_TOKENS = 2048


@dataclass(frozen=True)
class Wanted:
    """A request that was understood: `samples` answers for each prompt, whose seeds are in the same order.

    hidden: ids that are not shown in the text.
    """

    chat: bool
    prompts: tuple[tuple[int, ...], ...]
    samples: int
    seeds: tuple[tuple[int, ...], ...]
    min_tokens: int
    max_tokens: int
    sampling: SamplingParams
    stops: tuple[str, ...]
    stop_ids: tuple[int, ...]
    hidden: frozenset[int]
    stream: bool
    usage_in_stream: bool
    logprobs: bool


def read_request(
    body: Any, chat: bool, model: str, tokenizer: Tokenizer, vocab_size: int, max_length: int
) -> Wanted:
    """Raises ApiError. model: the one that is served; vocab_size: its own; max_length: prompt and answer."""
    fields = known_fields(body, chat)
    _check_model(fields.get("model", model), model)
    prompts = (
        [tuple(chat_prompt(fields.get("messages"), tokenizer))]
        if chat
        else _prompts(fields, tokenizer, vocab_size)
    )
    samples = number(fields, "n", 1, int, lambda n: 1 <= n <= MAX_SAMPLES, f"between 1 and {MAX_SAMPLES}")
    if fields.get("best_of", samples) != samples:
        raise ApiError(400, f"best_of is {shown(fields['best_of'])}, but only n can be had", "best_of")
    seed = number(fields, "seed", secrets.randbits(32), int, lambda n: True, "")
    max_tokens = _max_tokens(fields, chat, max(map(len, prompts)), max_length)
    return Wanted(
        chat=chat,
        prompts=tuple(prompts),
        samples=samples,
        seeds=tuple(tuple(_seeds(seed, i, samples)) for i in range(len(prompts))),
        min_tokens=number(
            fields,
            "min_tokens",
            0,
            int,
            lambda n: 0 <= n <= max_tokens,
            f"between 0 and max_tokens, {max_tokens}",
        ),
        max_tokens=max_tokens,
        sampling=_sampling(fields),
        stops=_stops(fields.get("stop")),
        stop_ids=_stop_ids(fields, tokenizer, vocab_size),
        hidden=frozenset(
            tokenizer.control.ids.values() if switch(fields, "skip_special_tokens", True) else ()
        ),
        stream=switch(fields, "stream"),
        usage_in_stream=_usage_in_stream(fields.get("stream_options", {})),
        logprobs=switch(fields, "logprobs") if chat else _completion_logprobs(fields),
    )


def _check_model(name: Any, model: str) -> None:
    if name != model:
        raise ApiError(
            404,
            f"the model {shown(name)} does not exist; here is {model!r}",
            "model",
            "model_not_found",
        )


def _seeds(seed: int, prompt: int, samples: int) -> list[int]:
    """The same for a sample whatever n is, so that n = 1 gives the first of n = 4."""
    return [
        int(np.random.SeedSequence([seed % 2**64, prompt, i]).generate_state(1)[0]) for i in range(samples)
    ]


def _prompts(fields: Mapping[str, Any], tokenizer: Tokenizer, vocab_size: int) -> list[tuple[int, ...]]:
    given = fields.get("prompt")
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        given = [given]
    if not isinstance(given, list) or not 0 < len(given) <= MAX_PROMPTS:
        raise ApiError(400, f"prompt must be one to {MAX_PROMPTS} texts or lists of token ids", "prompt")
    whole = switch(fields, "add_special_tokens", True)
    prompts = []
    for one in given:
        ids = _text_prompt(one, tokenizer, whole) if isinstance(one, str) else one
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise ApiError(400, "prompt must be one or several texts or lists of token ids", "prompt")
        if not ids:
            raise ApiError(400, "prompt is empty; at least one token is needed", "prompt")
        _check_ids(ids, vocab_size, "prompt")
        prompts.append(tuple(ids))
    return prompts


def _text_prompt(text: str, tokenizer: Tokenizer, whole: bool) -> list[int]:
    """Control tokens are read by their names, unlike in a chat's contents; whole: with a `bos_token` and the like."""
    if whole:
        return tokenizer.encode(text, special=True)
    parts = tokenizer.control.split(text)
    return [
        token for part in parts for token in ([part] if isinstance(part, int) else tokenizer.encode(part))
    ]


def _check_ids(ids: list[int], vocab_size: int, name: str) -> None:
    outside = next((token for token in ids if not 0 <= token < vocab_size), None)
    if outside is not None:
        raise ApiError(400, f"{name}: token {shown(outside)} is outside the vocabulary of {vocab_size}", name)


def _max_tokens(fields: Mapping[str, Any], chat: bool, longest: int, max_length: int) -> int:
    name = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
    room = max_length - longest
    asked = number(fields, name, None, int, lambda n: n >= 1, "at least 1")
    if room < 1 or (asked or 0) > room:
        raise ApiError(
            400,
            f"this model's maximum context length is {max_length} tokens, but the prompt has {longest} and {name} is "
            f"{shown(asked) if asked else 'at least 1'}; shorten one of them",
            "messages" if chat else "prompt",
            "context_length_exceeded",
        )
    return asked or min(room, _CHAT_TOKENS if chat else _COMPLETION_TOKENS)


def _sampling(fields: Mapping[str, Any]) -> SamplingParams:
    top_k = number(fields, "top_k", 0, int, lambda k: -1 <= k < 2**31, "at least 1, or 0 or -1 for all")
    return SamplingParams(
        temperature=number(fields, "temperature", 1.0, float, lambda t: 0 <= t <= 2, "between 0 and 2"),
        top_p=number(fields, "top_p", 1.0, float, lambda p: 0 < p <= 1, "above 0 and at most 1"),
        top_k=max(0, top_k),
        min_p=number(fields, "min_p", 0.0, float, lambda p: 0 <= p <= 1, "between 0 and 1"),
    )


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else [] if given is None else given
    if (
        not isinstance(stops, list)
        or len(stops) > MAX_STOPS
        or not all(isinstance(s, str) and 0 < len(s) <= MAX_STOP_LENGTH for s in stops)
    ):
        raise ApiError(
            400,
            f"stop must be a text or a list of at most {MAX_STOPS} texts, none empty or longer than "
            f"{MAX_STOP_LENGTH:,} characters",
            "stop",
        )
    return tuple(stops)


def _stop_ids(fields: Mapping[str, Any], tokenizer: Tokenizer, vocab_size: int) -> tuple[int, ...]:
    """What ends an answer: the model's own, unless they are to be ignored, and those that were asked for."""
    given = fields.get("stop_token_ids", [])
    if not isinstance(given, list) or not all(type(token) is int for token in given):
        raise ApiError(
            400, f"stop_token_ids is {shown(given)}, but must be a list of token ids", "stop_token_ids"
        )
    _check_ids(given, vocab_size, "stop_token_ids")
    own = () if switch(fields, "ignore_eos") else tokenizer.stop_ids
    ids = tuple(dict.fromkeys((*own, *given)))
    if len(ids) > MAX_STOP_IDS:
        raise ApiError(
            400,
            f"stop_token_ids has {len(ids) - len(own)} ids beside the model's own {len(own)}; at most {MAX_STOP_IDS} "
            "are possible in all",
            "stop_token_ids",
        )
    return ids


def _usage_in_stream(options: Any) -> bool:
    if not isinstance(options, dict):
        raise ApiError(400, f"stream_options is {shown(options)}, but must be an object", "stream_options")
    for name, value in options.items():
        if name not in ("include_usage", "include_obfuscation") and value:
            raise ApiError(
                400,
                f"stream_options.{shown(name)[1:-1]} is not implemented here; leave it out",
                "stream_options",
            )
    return switch(options, "include_usage")


def _completion_logprobs(fields: Mapping[str, Any]) -> bool:
    """Completions say of how many tokens beside the sampled one."""
    value = fields.get("logprobs", False)
    if value not in (False, 0, 1):
        raise ApiError(400, f"logprobs is {shown(value)}; only the sampled token's can be had", "logprobs")
    return value is not False
