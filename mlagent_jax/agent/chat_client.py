"""A chat model behind an OpenAI-compatible address: asked again when that can help, and told apart when it can't.

The `openai` client could try again on its own, but in silence, and it does not wait when a server asks for more than
a minute (`Retry-After`); so that is done here.
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

if TYPE_CHECKING:
    import openai

_BUSY = (408, 409, 425, 429)
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached")
_TOO_LONG_STATUS = (400, 413, 422)
_TOO_LONG = (  # OpenAI's code, and what vLLM, llama.cpp, TGI and others say
    "context_length",
    "context length",
    "context size",
    "context window",
    "too long",
    "too many tokens",
    "max_new_tokens",
    "maximum number of tokens",
)
_NO_COMPLETION = "sent something else than a chat completion"
_FILTERED = ("content_filter", "content management policy")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds
_MOST_ASKED_FOR = 600.0  # seconds that a server may tell us to wait
_SAID_CHARS = 400  # of what a server said


class EndpointError(UserError):
    """The endpoint cannot be used: its package, address, model, key or a request is wrong, or it is down."""


class EndpointUnavailableError(EndpointError):
    """It did not answer, time and again; the fault may pass."""


class TooLongError(Exception):
    """The request is longer than the model's context."""


class _PassingError(Exception):
    """A fault that may pass. pause: seconds that the server asks for, if it does."""

    def __init__(self, fault: str, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.fault = fault
        self.pause = pause


@dataclass(frozen=True)
class EndpointConfig:
    """base_url: e.g. "http://localhost:8000/v1"; "" for OpenAI's own. model: its name there.

    temperature, max_tokens: of a policy's response. coder_max_tokens: of a script, a report or ideas.
    context_tokens: of the model; episodes end before their history is longer, at 3 characters a token.
    parallel: requests at a time. timeout_seconds: of one. retries: after the first, with growing pauses or as long as
    the server asks for.
    api_key_variable: the environment variable that holds the key; servers of one's own may need none.
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
    """text: "" if there is none. problem: why the text is not a whole answer, or ""."""

    text: str
    usage: Usage
    problem: str = ""


class Endpoint:
    """A chat model behind an address. Thread-safe. Raises EndpointError if it cannot be used at all.

    prompt_tokens, completion_tokens: as the server counted them so far, for the bill.
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
        """The model's answer, with what may be wrong with it.

        Raises EndpointError; EndpointUnavailableError if trying later may help; TooLongError.
        """
        extra: dict[str, Any] = {} if seed is None else {"seed": seed}
        turns: Any = [{"role": message.role, "content": _as_text(message.content)} for message in chat]
        began = time.monotonic()
        for attempt in range(self.config.retries + 1):
            try:
                return self._ask(turns, max_tokens, temperature, extra, began)
            except _PassingError as error:
                if attempt >= self.config.retries:
                    raise EndpointUnavailableError(self._complaint(error.fault, str(error))) from error
                pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) if error.pause is None else error.pause
                logging.warning(
                    "The endpoint at %s %s (%s); it is asked again in %.1f s, attempt %d of %d.",
                    *(self._client.base_url, error.fault, error, pause, attempt + 2, self.config.retries + 1),
                )
                time.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def complete(
        self, chat: Sequence[Message], max_tokens: int, temperature: float, seed: int | None = None
    ) -> str:
        """The text of `ask`."""
        return self.ask(chat, max_tokens, temperature, seed).text

    def _ask(self, turns: Any, max_tokens: int, temperature: float, extra: Any, began: float) -> Answer:
        """One request. Raises what `ask` does, and _PassingError."""
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
            raise _PassingError("does not answer", limit) from error
        except openai.APIConnectionError as error:
            cause = f"{error} {error.__cause__ or ''}".strip()
            raise _PassingError("does not answer", cause[:_SAID_CHARS]) from error
        except openai.APIStatusError as error:
            return self._refused(error, time.monotonic() - began)
        except openai.APIError as error:
            raise EndpointError(self._complaint("cannot be used", str(error))) from error
        except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
            raise _PassingError(_NO_COMPLETION, excerpt(str(error), _SAID_CHARS)) from error
        return self._answer(completion, max_tokens, time.monotonic() - began)

    def _refused(self, error: openai.APIStatusError, seconds: float) -> Answer:
        """What an error's status and text mean: an answer only where the model's filter is meant."""
        text = _said(error)
        said = f"{error.code} {text}".lower()
        if error.status_code in _TOO_LONG_STATUS and any(words in said for words in _TOO_LONG):
            raise TooLongError(excerpt(text, _SAID_CHARS)) from error
        if error.status_code == 400 and any(words in said for words in _FILTERED):
            return Answer("", Usage(seconds), "the server's content filter refused the request")
        reason = f"{type(error).__name__}: {excerpt(text, _SAID_CHARS)}"
        if error.code not in _NO_MONEY and (error.status_code in _BUSY or error.status_code >= 500):
            raise _PassingError("is busy or broken", reason, _asked_pause(error.response.headers)) from error
        raise EndpointError(self._complaint("refuses the request", reason)) from error

    def _answer(self, completion: Any, max_tokens: int, seconds: float) -> Answer:
        choices = getattr(completion, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        text = _content(getattr(message, "content", None))
        if not hasattr(message, "content") or text is None:
            raise _PassingError(_NO_COMPLETION, excerpt(str(completion), _SAID_CHARS))
        counts = getattr(completion, "usage", None)
        usage = Usage(seconds, _count(counts, "prompt_tokens"), _count(counts, "completion_tokens"))
        with self._lock:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens
        return Answer(
            text, usage, _problem(text, message, getattr(choice, "finish_reason", None), max_tokens)
        )

    def _complaint(self, fault: str, reason: str) -> str:
        return (
            f"the endpoint at {self._client.base_url} {fault} for model {self.config.model!r} ({reason}); check "
            f"base_url, model and key ({self.config.api_key_variable}) and start again: finished work is kept"
        )


def _said(error: openai.APIStatusError) -> str:
    """With what the server sent, where the client's own text leaves it out: that has only OpenAI's `message`."""
    sent = error.body
    if isinstance(sent, dict):
        sent = "" if isinstance(sent.get("message"), str) else sent.get("detail") or sent
    return f"{error} - {sent}" if sent else str(error)


def _content(content: Any) -> str | None:
    """The text. Some servers send parts instead of it, or nothing; None for what can't be read."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is None:
        return ""
    return _as_text(content) if isinstance(content, str) else None


def _count(usage: Any, name: str) -> int:
    """0 where the server does not say, or says something else than a number."""
    count = getattr(usage, name, 0)
    return int(count) if isinstance(count, int | float) and 0 <= count < 2**53 else 0


def _problem(text: str, message: Any, finish_reason: str | None, max_tokens: int) -> str:
    """Why this is not a whole answer, or ""."""
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


def _asked_pause(headers: Any) -> float | None:
    """Seconds that `Retry-After` asks for: a number, or a date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        said = headers.get(name, "")
        try:
            seconds = float(said) / unit
        except ValueError:
            date = email.utils.parsedate_tz(said)
            if date is None:
                continue
            try:
                seconds = email.utils.mktime_tz(date) - time.time()
            except (ValueError, OverflowError):  # no such year
                continue
        if seconds == seconds:
            return min(max(seconds, 0.0), _MOST_ASKED_FOR)
    return None


def _client(config: EndpointConfig) -> openai.OpenAI:
    try:
        import openai
    except ImportError:
        raise EndpointError(
            "endpoints need the openai package: pip install 'mlagent-jax[endpoint]'"
        ) from None
    if not config.model:
        raise EndpointError("no model is named for the endpoint: set its `model`")
    if config.base_url and not _is_address(config.base_url):
        raise EndpointError(
            f"the endpoint's base_url is {config.base_url!r}, expected an address such as http://localhost:8000/v1"
        )
    key = os.environ.get(config.api_key_variable, "").strip()
    if not key.isascii() or not key.isprintable():
        raise EndpointError(
            f"the key in the environment variable {config.api_key_variable} has a character that no key has"
        )
    if not key and not config.base_url:
        raise EndpointError(
            f"the endpoint needs a key in the environment variable {config.api_key_variable}, "
            "or the base_url of a server of your own"
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


def _as_text(content: str) -> str:
    """What a script printed or a model said may hold lone surrogates, which files and HTTP cannot."""
    return content.encode(errors="replace").decode()
