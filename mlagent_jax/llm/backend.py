"""What a language model is asked and answers, and the interface of whatever serves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mlagent_jax.errors import UserError
from mlagent_jax.text.chat import Message


class ModelError(UserError):
    """A role's model cannot be used: its package, address, name, key, folder, budget or a request is wrong."""


class ModelUnavailableError(ModelError):
    """The model did not answer, despite retries. The fault may be transient."""


class TooLongError(Exception):
    """The request is longer than the model's context."""


@dataclass(frozen=True)
class ChatRequest:
    """One request: together with a backend's identity, everything that determines its answer.

    seed: of the sampling; None where nothing is sampled. schema: the JSON schema that the answer must have, or None.
    """

    chat: tuple[Message, ...]
    max_tokens: int
    temperature: float
    seed: int | None = None
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Usage:
    """What an answer cost: seconds, tokens as counted by the server (0 if it does not say), and dollars.

    cached_tokens: those of `prompt_tokens` that the server had in its cache. reasoning_tokens: those of
    `completion_tokens` that are no part of the answer's text.
    """

    seconds: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    dollars: float = 0.0


@dataclass(frozen=True)
class Answer:
    """A model's answer. text: "" if there is none. problem: why the text is not a complete answer, or "".

    reasoning: what a reasoning model thought before, if its server tells; never a part of the text.
    """

    text: str
    usage: Usage
    problem: str = ""
    reasoning: str = ""


class Backend(Protocol):
    """Serves one model. Thread-safe."""

    def ask(self, request: ChatRequest, abandoned: Callable[[], None] = lambda: None) -> Answer:
        """Returns the answer, which may have a problem; see `Answer`. Its usage has no dollars.

        abandoned: called after each request that was given up although the model may have worked on it, such as one
            that took too long. What it raises ends the call.

        Raises:
            ModelUnavailableError: no answer despite retries; trying later may help.
            ModelError: the request is refused.
            TooLongError: the request is longer than the model's context.
        """
        ...

    def close(self) -> None: ...
