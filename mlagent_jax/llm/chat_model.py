"""A role's model: each distinct call is paid for once, counted, held to the budget, and can be replayed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from mlagent_jax.llm.backend import Answer, Backend, ChatRequest, ModelError, TooLongError, Usage
from mlagent_jax.llm.call_store import CallStore
from mlagent_jax.llm.config import ModelConfig
from mlagent_jax.llm.usage import Budget, UsageLog
from mlagent_jax.single_flight import SingleFlight
from mlagent_jax.text.chat import Message

CHARS_PER_TOKEN = 3  # a low estimate, so that a prompt that seems to fit does
_TOO_LONG = "too_long"
_MESSAGE_TOKENS = 16  # at most, of a chat template for each message


class NotRecordedError(ModelError):
    """A call that is to be replayed is not in the store."""


class ChatModel:
    """One role's model. Thread-safe.

    A call's key is everything that determines its answer: the model's identity, the messages, the JSON schema, the
    lengths and the sampling; at a temperature above 0 also the seed, so that samples differ and a repeated run gets its
    own again. A call whose key is in the store is answered from there. Identical calls that arrive together are one.

    identity: what tells the model from others. backend: None to replay, where a call that is not in the store raises
    NotRecordedError.
    """

    def __init__(
        self,
        role: str,
        config: ModelConfig,
        identity: Mapping[str, str],
        backend: Backend | None,
        store: CallStore,
        usage: UsageLog,
        budget: Budget,
    ) -> None:
        self.role = role
        self.config = config
        self._identity = identity
        self._backend = backend
        self._store = store
        self._usage = usage
        self._budget = budget
        self._flights: SingleFlight[Answer] = SingleFlight()

    def ask(
        self, chat: Sequence[Message], seed: int | None = None, schema: Mapping[str, Any] | None = None
    ) -> Answer:
        """Returns the model's answer, which may have a problem; see `Answer`. Recorded answers cost no dollars.

        seed: tells samples of the same chat apart; of no effect at temperature 0. schema: of the JSON to answer with.

        Raises:
            ModelUnavailableError: no answer despite retries; trying later may help.
            ModelError: the request is refused, the budget is spent, or the call to replay is not recorded.
            TooLongError: the request is longer than the model's context.
        """
        config = self.config
        request = ChatRequest(
            tuple(chat),
            config.max_tokens,
            config.temperature,
            seed if config.temperature > 0 else None,
            schema,
        )
        key = call_key(self._identity, request)
        answer, was_shared = self._flights.do(key, lambda: self._recorded(key) or self._paid(key, request))
        if not was_shared:
            return answer
        self._usage.add_recorded(self.role)
        return _without_cost(answer)

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()

    def _recorded(self, key: str) -> Answer | None:
        record = self._store.get(key)
        if record is not None:
            self._usage.add_recorded(self.role)
            return _without_cost(_answer(record))
        # A refusal costs nothing, and the model's context may have grown since: so only a replay takes it from here.
        if self._backend is None and (refusal := self._store.get(f"{key}/{_TOO_LONG}")) is not None:
            raise TooLongError(refusal[_TOO_LONG])
        return None

    def _paid(self, key: str, request: ChatRequest) -> Answer:
        if self._backend is None:
            raise NotRecordedError(
                f"config.models.replay is True, but this call of config.models.{self.role} is not recorded in "
                f"{self._store.path}: name the folder of the recorded run's calls in config.models.cache_dir, with the "
                "settings of that run, or set config.models.replay to False"
            )
        most = self._most_dollars(request)

        def abandoned() -> None:
            self._usage.add_abandoned(self.role, most)
            self._budget.check(self.role, most)

        with self._budget.reserve(self.role, most):
            try:
                answer = self._backend.ask(request, abandoned)
            except TooLongError as error:
                self._store.put(f"{key}/{_TOO_LONG}", {_TOO_LONG: str(error)})
                raise
            usage = replace(answer.usage, dollars=self._dollars(answer.usage, most))
            try:
                # First, so that whatever ends the process between the two hides no money that is spent.
                self._usage.add(self.role, usage)
            finally:
                stored = self._store.put(key, asdict(replace(answer, usage=usage)))
        return replace(_answer(stored), usage=usage)

    def _dollars(self, usage: Usage, most: float) -> float:
        """The price of an answer, which is `most` if its server does not count tokens."""
        if not usage.prompt_tokens and not usage.completion_tokens:
            return most
        return self.config.price.dollars(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)

    def _most_dollars(self, request: ChatRequest) -> float:
        # Tokenizers that fall back to bytes have at most one token for each byte.
        size = sum(
            len(message.content.encode(errors="replace")) + _MESSAGE_TOKENS for message in request.chat
        )
        if request.schema is not None:
            size += len(json.dumps(request.schema))
        price = self.config.price
        return max(price.dollars(size, request.max_tokens), price.dollars(size, request.max_tokens, size))


def call_key(identity: Mapping[str, str], request: ChatRequest) -> str:
    """The key of a call in the store: a hexadecimal digest of all that determines its answer."""
    content = {
        **identity,
        "messages": [[message.role, message.content] for message in request.chat],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "schema": request.schema,
    }
    # Not sorted: the order of a schema's properties is the one in which a model writes them.
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _answer(record: dict[str, Any]) -> Answer:
    return Answer(**{**record, "usage": Usage(**record["usage"])})


def _without_cost(answer: Answer) -> Answer:
    return replace(answer, usage=replace(answer.usage, seconds=0.0, dollars=0.0))
