"""A chat model behind an OpenAI-compatible API, with retries for transient faults.

The `openai` client has retries of its own, but it does not log them, and it does not wait when a server asks for more
than a minute (`Retry-After`). So retries are done here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from absl import logging

from mlagent_jax.llm import faults
from mlagent_jax.llm.backend import (
    Answer,
    ChatRequest,
    ModelError,
    ModelUnavailableError,
    TooLongError,
    Usage,
)
from mlagent_jax.llm.completion import NoCompletionError, one_line, read_completion
from mlagent_jax.llm.config import ModelConfig
from mlagent_jax.llm.faults import TransientError
from mlagent_jax.text.surrogates import replace_surrogates

if TYPE_CHECKING:
    import openai

_NO_COMPLETION = "did not send a chat completion"
_FIRST_PAUSE, _MAX_PAUSE = 0.5, 30.0  # seconds
_SCHEMA_NAME = "answer"
_OPENAI_KEY = "OPENAI_API_KEY"


class Endpoint:
    """Implements `Backend`. At most `config.parallel` requests are under way at once.

    role: for messages. Raises ModelError if the configuration cannot work.
    """

    def __init__(self, role: str, config: ModelConfig) -> None:
        self._role = role
        self._config = config
        self._slots = threading.BoundedSemaphore(config.parallel)
        self._limit = "max_tokens" if config.token_limit == "auto" else config.token_limit
        self._client = _client(role, config)

    def ask(self, request: ChatRequest, abandoned: Callable[[], None] = lambda: None) -> Answer:
        """See `Backend.ask`."""
        with self._slots:
            return self._ask_with_retries(request, abandoned)

    def close(self) -> None:
        self._client.close()

    def _ask_with_retries(self, request: ChatRequest, abandoned: Callable[[], None]) -> Answer:
        retries = self._config.retries
        for attempt in range(retries + 1):
            try:
                return self._ask(request)
            except TransientError as error:
                if error.may_cost:
                    abandoned()
                if attempt >= retries:
                    raise ModelUnavailableError(self._message(error.fault, str(error))) from error
                backoff = min(_FIRST_PAUSE * 2**attempt, _MAX_PAUSE)
                pause = backoff if error.retry_after is None else error.retry_after
                logging.warning(
                    "%s: the endpoint at %s %s (%s); retrying in %.1f s, attempt %d of %d.",
                    *(self._role, self._client.base_url, error.fault, error, pause, attempt + 2, retries + 1),
                )
                time.sleep(pause)
        raise AssertionError("unreachable: the last attempt has returned or raised")

    def _ask(self, request: ChatRequest) -> Answer:
        """Makes one request. Raises what `ask` raises, and TransientError."""
        import openai

        began, limit = time.monotonic(), self._limit
        try:
            completion = json.loads(self._send(request, limit, began))
            return read_completion(completion, request.max_tokens, time.monotonic() - began)
        except openai.APIConnectionError as error:
            late = isinstance(error, openai.APITimeoutError)
            reason = self._timeout() if late else one_line(f"{error} {error.__cause__ or ''}".strip())
            was_sent = not type(error.__cause__).__name__.startswith("Connect")
            raise TransientError("does not answer", reason, may_cost=was_sent) from error
        except openai.APIStatusError as error:
            if faults.wants_other_limit(error) and limit == "max_tokens" and self._chooses_limit:
                logging.info("%s: the endpoint wants max_completion_tokens.", self._role)
                self._limit = "max_completion_tokens"
                return self._ask(request)
            return self._handle_status(error, time.monotonic() - began)
        except openai.APIError as error:
            raise ModelError(self._message("cannot be used", str(error))) from error
        except NoCompletionError as error:
            raise TransientError(_NO_COMPLETION, str(error)) from error
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
            raise TransientError(_NO_COMPLETION, one_line(str(error))) from error

    @property
    def _chooses_limit(self) -> bool:
        return self._config.token_limit == "auto"

    def _send(self, request: ChatRequest, limit: str, began: float) -> bytes:
        """The body that the server sends. Raises what the client raises, and TransientError."""
        extra: dict[str, Any] = {limit: request.max_tokens}
        if request.seed is not None:
            extra["seed"] = request.seed
        if request.schema is not None:
            extra["response_format"] = _response_format(request.schema)
        turns: Any = [
            {"role": message.role, "content": replace_surrogates(message.content)} for message in request.chat
        ]
        with self._client.chat.completions.with_streaming_response.create(
            model=self._config.model, messages=turns, temperature=request.temperature, **extra
        ) as response:
            return self._read(response, began)

    def _read(self, response: openai.APIResponse[Any], began: float) -> bytes:
        """Reads the body within the time limit: the client's own limit is for each part of it."""
        body = bytearray()
        try:
            for part in response.iter_bytes():
                body += part
                if time.monotonic() - began > self._config.timeout_seconds:
                    raise TransientError("does not answer", self._timeout())
        except TransientError:
            raise
        except (
            Exception
        ) as error:  # any of the transport's, which the client does not wrap while a body is read
            late = "timeout" in type(error).__name__.lower()
            reason = self._timeout() if late else one_line(f"the connection broke: {error}")
            raise TransientError("does not answer", reason) from error
        return bytes(body)

    def _handle_status(self, error: openai.APIStatusError, seconds: float) -> Answer:
        """Raises the exception that fits a status error; returns an empty answer if a content filter caused it."""
        if faults.is_too_long(error):
            raise TooLongError(one_line(faults.error_text(error))) from error
        if faults.is_filtered(error):
            return Answer("", Usage(seconds), "the server's content filter refused the request")
        reason = faults.reason_of(error)
        if faults.may_pass(error):
            pause = faults.retry_after(error.response.headers)
            raise TransientError("is busy or broken", reason, pause, may_cost=False) from error
        if faults.refuses_schema(error):
            reason += f"; set config.models.{self._role}.structured_output to False"
        elif faults.refuses_temperature(error):
            reason += f"; set config.models.{self._role}.temperature, now {self._config.temperature:g}, to 1"
        raise ModelError(self._message("refuses the request", reason)) from error

    def _timeout(self) -> str:
        return f"no answer within timeout_seconds = {self._config.timeout_seconds:g}"

    def _message(self, fault: str, reason: str) -> str:
        return (
            f"config.models.{self._role}: the endpoint at {self._client.base_url} {fault} for model "
            f"{self._config.model!r} ({reason}); check base_url, model and the key in api_key_variable "
            f"({_key_variable(self._config) or 'none is set'}) and start again: finished work is kept"
        )


def check_client(role: str) -> None:
    """Raises ModelError if the client of endpoints is not installed. role: for the message."""
    if importlib.util.find_spec("openai") is None:
        raise ModelError(
            f"config.models.{role} is an endpoint, which needs the openai package: pip install 'mlagent-jax[endpoint]'"
        )


def endpoint_address(config: ModelConfig) -> str:
    """The address that requests go to, as far as it is configured; "" for OpenAI's."""
    return (config.base_url or os.environ.get("OPENAI_BASE_URL", "")).rstrip("/")


def _key_variable(config: ModelConfig) -> str:
    """The key for OpenAI goes nowhere else unless it is named for there. "" for none."""
    return config.api_key_variable or ("" if config.base_url else _OPENAI_KEY)


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": _SCHEMA_NAME, "schema": dict(schema), "strict": True},
    }


def _client(role: str, config: ModelConfig) -> openai.OpenAI:
    where = f"config.models.{role}"
    check_client(role)
    import openai

    if not config.model:
        raise ModelError(f"{where} has no model: set {where}.model to its name at the endpoint")
    if config.base_url and not _is_address(config.base_url):
        raise ModelError(
            f"{where}.base_url is {config.base_url!r}, expected a URL such as http://localhost:8000/v1"
        )
    variable = _key_variable(config)
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable():
        raise ModelError(
            f"{where}: the key in the environment variable {variable} has a character that is not "
            "printable ASCII"
        )
    if not key and variable:
        raise ModelError(
            f"{where} needs a key in the environment variable {variable}, or the base_url of your own server and an "
            "empty api_key_variable"
        )
    return openai.OpenAI(
        api_key=key or faults.NO_KEY,
        base_url=config.base_url or None,
        max_retries=0,
        timeout=config.timeout_seconds,
        # No proxy reaches this machine's own servers, wherever the environment sends other requests.
        http_client=openai.DefaultHttpxClient(trust_env=False) if _is_loopback(config.base_url) else None,
    )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
