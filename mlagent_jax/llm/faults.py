"""What an error of a server means: whether it may pass, and what only the user can mend."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlagent_jax.llm.completion import one_line

if TYPE_CHECKING:
    import openai

_RETRY_STATUSES = (408, 409, 425, 429)  # and all from 500
_QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached")
_TOO_LONG_STATUSES = (400, 413, 422)
_TOO_LONG_PHRASES = (  # OpenAI's error code, and the messages of vLLM, llama.cpp, TGI and others
    "context_length",
    "context length",
    "context size",
    "context window",
    "too long",
    "too many tokens",
    "max_new_tokens",
    "maximum number of tokens",
)
_FILTER_PHRASES = ("content_filter", "content management policy")
_BAD_REQUEST = (400, 422)
NO_KEY = "none"  # what the client, which must have a key, sends in place of one
_MAX_RETRY_AFTER = 600.0  # seconds that a server can make us wait


class TransientError(Exception):
    """A fault that may not occur again.

    retry_after: the seconds that the server asks us to wait, if it does. may_cost: whether the model may have worked on
    the request.
    """

    def __init__(
        self, fault: str, reason: str, retry_after: float | None = None, may_cost: bool = True
    ) -> None:
        super().__init__(reason)
        self.fault = fault
        self.retry_after = retry_after
        self.may_cost = may_cost


def is_too_long(error: openai.APIStatusError) -> bool:
    """Whether the request is longer than the model's context."""
    return error.status_code in _TOO_LONG_STATUSES and _mentions(error, _TOO_LONG_PHRASES)


def is_filtered(error: openai.APIStatusError) -> bool:
    """Whether a content filter refused the request."""
    return error.status_code == 400 and _mentions(error, _FILTER_PHRASES)


def wants_other_limit(error: openai.APIStatusError) -> bool:
    """Whether the model takes `max_completion_tokens` instead of `max_tokens`, as OpenAI's reasoning models do.

    vLLM names both where a request is too long.
    """
    named = error.status_code in _BAD_REQUEST and _mentions(error, ("max_completion_tokens",))
    return named and not is_too_long(error)


def refuses_schema(error: openai.APIStatusError) -> bool:
    """Whether the server knows no JSON schema of answers, or not this one."""
    return error.status_code in _BAD_REQUEST and _mentions(error, ("response_format", "json_schema"))


def refuses_temperature(error: openai.APIStatusError) -> bool:
    """Whether the model takes no such temperature, as OpenAI's reasoning models, which take 1 alone."""
    return error.status_code in _BAD_REQUEST and _mentions(error, ("temperature",))


def may_pass(error: openai.APIStatusError) -> bool:
    """Whether the same request may succeed later."""
    return (
        error.status_code in _RETRY_STATUSES or error.status_code >= 500
    ) and error.code not in _QUOTA_CODES


def reason_of(error: openai.APIStatusError) -> str:
    """The kind of error and the server's message, on one line."""
    return f"{type(error).__name__}: {one_line(error_text(error))}"


def error_text(error: openai.APIStatusError) -> str:
    """The error with the server's message, which the client only shows if it is in OpenAI's field `message`.

    Some servers repeat the key that they were sent, which is left out.
    """
    sent = error.body
    if isinstance(sent, dict):
        sent = "" if isinstance(sent.get("message"), str) else sent.get("detail") or sent
    text = f"{error} - {sent}" if sent else str(error)
    key = error.request.headers.get("Authorization", "").removeprefix("Bearer ")
    return text.replace(key, "[key]") if key and key != NO_KEY else text


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that the header `Retry-After` asks for, as a number or as a date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            seconds = float(value) / unit
        except ValueError:
            date = email.utils.parsedate_tz(value)
            if date is None:
                continue
            try:
                seconds = email.utils.mktime_tz(date) - time.time()
            except (ValueError, OverflowError):  # no such year
                continue
        if seconds == seconds:
            return min(max(seconds, 0.0), _MAX_RETRY_AFTER)
    return None


def _mentions(error: openai.APIStatusError, phrases: tuple[str, ...]) -> bool:
    lower = f"{error.code} {error_text(error)}".lower()
    return any(phrase in lower for phrase in phrases)
