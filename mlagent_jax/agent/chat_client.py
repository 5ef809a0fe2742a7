"""A client for a chat model behind an OpenAI-compatible API, with retries for transient faults.

The `openai` client has retries of its own, but it does not log them, and it does not wait when a server asks for more
than a minute (`Retry-After`). So retries are done here.
"""

from __future__ import annotations

import email.utils
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from absl import logging

from mlagent_jax.agent.answers import excerpt
from mlagent_jax.agent.policy import Usage
from mlagent_jax.errors import UserError
from mlagent_jax.fields import setting
from mlagent_jax.text.chat import Message
from mlagent_jax.text.surrogates import replace_surrogates

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
_NO_COMPLETION = "did not send a chat completion"
_FILTER_PHRASES = ("content_filter", "content management policy")
_FIRST_PAUSE, _MAX_PAUSE = 0.5, 30.0  # seconds
_MAX_RETRY_AFTER = 600.0  # seconds that a server can make us wait
_MAX_MESSAGE_CHARS = 400  # of a server's error message


class EndpointError(UserError):
    """The endpoint cannot be used: its package, URL, model, key or a request is wrong, or it is down."""


class EndpointUnavailableError(EndpointError):
    """The endpoint did not answer, despite retries. The fault may be transient."""


class TooLongError(Exception):
    """The request is longer than the model's context."""


class _TransientError(Exception):
    """A fault that may not occur again. retry_after: the seconds that the server asks us to wait, if it does."""

    def __init__(self, fault: str, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.fault = fault
        self.retry_after = retry_after


@dataclass(frozen=True)
class EndpointConfig:
    """How to reach and use a chat model.

    base_url: such as "http://localhost:8000/v1"; "" for OpenAI's. model: its name at that server.
    temperature, max_tokens: for a policy's responses. coder_max_tokens: for scripts, reports and ideas.
    context_tokens: the model's context; an episode ends before its history exceeds it, assuming 3 characters per token.
    parallel: the number of concurrent requests. timeout_seconds: for one request.
    retries: after the first attempt, with growing pauses, or those that the server asks for.
    api_key_variable: the environment variable with the key; your own server may need none.
    """

    base_url: str = setting("", defines_run=False)
    model: str = setting("")
    temperature: float = setting(0.7, at_least=0)
    max_tokens: int = setting(1024, at_least=1)
    coder_max_tokens: int = setting(4096, at_least=1)
    context_tokens: int = setting(16_384, at_least=2)
    parallel: int = setting(8, at_least=1, at_most=4096, defines_run=False)
    timeout_seconds: float = setting(120.0, above=0, defines_run=False)
    retries: int = setting(5, at_least=0, defines_run=False)
    api_key_variable: str = setting("OPENAI_API_KEY", filled=True, defines_run=False)


@dataclass(frozen=True)
class Answer:
    """A chat completion. text: "" if there is none. problem: why the text is not a complete answer, or ""."""

    text: str
    usage: Usage
    problem: str = ""


class Endpoint:
    """A chat model behind a URL. Thread-safe. Raises EndpointError if the configuration cannot work.

    prompt_tokens, completion_tokens: the totals so far, as counted and billed by the server.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._lock = threading.Lock()
        self._client = _client(config)

    def ask(
        self, chat: Sequence[Message], max_tokens: int, temperature: float, seed: int | None = None
    ) -> Answer:
        """Returns the model's answer, which may have a problem; see `Answer`.

        Raises:
            EndpointUnavailableError: no answer despite retries; trying later may help.
            EndpointError: the server refuses the request.
            TooLongError: the request is longer than the model's context.
        """
        extra: dict[str, Any] = {} if seed is None else {"seed": seed}
        turns: Any = [
            {"role": message.role, "content": replace_surrogates(message.content)} for message in chat
        ]
        began = time.monotonic()
        for attempt in range(self.config.retries + 1):
            try:
                return self._ask(turns, max_tokens, temperature, extra, began)
            except _TransientError as error:
                if attempt >= self.config.retries:
                    raise EndpointUnavailableError(self._error_message(error.fault, str(error))) from error
                backoff = min(_FIRST_PAUSE * 2**attempt, _MAX_PAUSE)
                pause = backoff if error.retry_after is None else error.retry_after
                logging.warning(
                    "The endpoint at %s %s (%s); retrying in %.1f s, attempt %d of %d.",
                    *(self._client.base_url, error.fault, error, pause, attempt + 2, self.config.retries + 1),
                )
                time.sleep(pause)
        raise AssertionError("unreachable: the last attempt has returned or raised")

    def complete(
        self, chat: Sequence[Message], max_tokens: int, temperature: float, seed: int | None = None
    ) -> str:
        """Returns only the text of `ask`."""
        return self.ask(chat, max_tokens, temperature, seed).text

    def _ask(self, turns: Any, max_tokens: int, temperature: float, extra: Any, began: float) -> Answer:
        """Makes one request. Raises what `ask` raises, and _TransientError."""
        import openai

        try:
            completion = self._client.chat.completions.create(
                model=self.config.model,
                messages=turns,
                max_tokens=max_tokens,
                temperature=temperature,
                **extra,
            )
        except openai.APITimeoutError as error:
            limit = f"no answer within timeout_seconds = {self.config.timeout_seconds:g}"
            raise _TransientError("does not answer", limit) from error
        except openai.APIConnectionError as error:
            cause = f"{error} {error.__cause__ or ''}".strip()
            raise _TransientError("does not answer", cause[:_MAX_MESSAGE_CHARS]) from error
        except openai.APIStatusError as error:
            return self._handle_status(error, time.monotonic() - began)
        except openai.APIError as error:
            raise EndpointError(self._error_message("cannot be used", str(error))) from error
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
            raise _TransientError(_NO_COMPLETION, excerpt(str(error), _MAX_MESSAGE_CHARS)) from error
        return self._parse(completion, max_tokens, time.monotonic() - began)

    def _handle_status(self, error: openai.APIStatusError, seconds: float) -> Answer:
        """Raises the exception that fits a status error; returns an empty answer if a content filter caused it."""
        text = _error_text(error)
        lower = f"{error.code} {text}".lower()
        if error.status_code in _TOO_LONG_STATUSES and any(phrase in lower for phrase in _TOO_LONG_PHRASES):
            raise TooLongError(excerpt(text, _MAX_MESSAGE_CHARS)) from error
        if error.status_code == 400 and any(phrase in lower for phrase in _FILTER_PHRASES):
            return Answer("", Usage(seconds), "the server's content filter refused the request")
        reason = f"{type(error).__name__}: {excerpt(text, _MAX_MESSAGE_CHARS)}"
        may_pass = error.status_code in _RETRY_STATUSES or error.status_code >= 500
        if may_pass and error.code not in _QUOTA_CODES:
            raise _TransientError(
                "is busy or broken", reason, _retry_after(error.response.headers)
            ) from error
        raise EndpointError(self._error_message("refuses the request", reason)) from error

    def _parse(self, completion: Any, max_tokens: int, seconds: float) -> Answer:
        choices = getattr(completion, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        text = _content_text(getattr(message, "content", None))
        if not hasattr(message, "content") or text is None:
            raise _TransientError(_NO_COMPLETION, excerpt(str(completion), _MAX_MESSAGE_CHARS))
        counts = getattr(completion, "usage", None)
        usage = Usage(seconds, _count(counts, "prompt_tokens"), _count(counts, "completion_tokens"))
        with self._lock:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens
        return Answer(
            text, usage, _problem(text, message, getattr(choice, "finish_reason", None), max_tokens)
        )

    def _error_message(self, fault: str, reason: str) -> str:
        return (
            f"the endpoint at {self._client.base_url} {fault} for model {self.config.model!r} ({reason}); check "
            f"base_url, model and key ({self.config.api_key_variable}) and start again: finished work is kept"
        )


def _error_text(error: openai.APIStatusError) -> str:
    """The error with the server's message, which the client only shows if it is in OpenAI's field `message`."""
    sent = error.body
    if isinstance(sent, dict):
        sent = "" if isinstance(sent.get("message"), str) else sent.get("detail") or sent
    return f"{error} - {sent}" if sent else str(error)


def _content_text(content: Any) -> str | None:
    """The text of a message. Some servers send a list of parts, or nothing. None if it is anything else."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is None:
        return ""
    return replace_surrogates(content) if isinstance(content, str) else None


def _count(usage: Any, name: str) -> int:
    """A count from the server's usage; 0 if it is missing or not a number."""
    count = getattr(usage, name, 0)
    return int(count) if isinstance(count, int | float) and 0 <= count < 2**53 else 0


def _problem(text: str, message: Any, finish_reason: str | None, max_tokens: int) -> str:
    """Why this is not a complete answer, or ""."""
    if refusal := getattr(message, "refusal", None):
        return f"the model refused: {excerpt(str(refusal))}"
    if finish_reason == "content_filter":
        return "a content filter cut it off"
    if finish_reason == "length":
        return f"it was cut off at {max_tokens} tokens"
    if not text.strip():
        thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
        return "the model thought and said nothing" if thought else "it is empty"
    return ""


def _retry_after(headers: Any) -> float | None:
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


def _client(config: EndpointConfig) -> openai.OpenAI:
    try:
        import openai
    except ImportError:
        raise EndpointError(
            "endpoints need the openai package: pip install 'mlagent-jax[endpoint]'"
        ) from None
    if not config.model:
        raise EndpointError("the endpoint has no model: set its `model`")
    if config.base_url and not _is_address(config.base_url):
        raise EndpointError(
            f"the endpoint's base_url is {config.base_url!r}, expected a URL such as http://localhost:8000/v1"
        )
    key = os.environ.get(config.api_key_variable, "").strip()
    if not key.isascii() or not key.isprintable():
        raise EndpointError(
            f"the key in the environment variable {config.api_key_variable} has a character that is not printable ASCII"
        )
    if not key and not config.base_url:
        raise EndpointError(
            f"the endpoint needs a key in the environment variable {config.api_key_variable}, or the base_url of your "
            "own server"
        )
    return openai.OpenAI(
        api_key=key or "none",
        base_url=config.base_url or None,
        max_retries=0,
        timeout=config.timeout_seconds,
    )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
