"""A role's model: each distinct call is paid for once, counted, held to the budget, and can be replayed."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from typing import Any

from mlagent_jax.llm.backend import Answer, Backend, ModelError, Question, TooLongError, Usage
from mlagent_jax.llm.call_store import CallStore
from mlagent_jax.llm.config import ModelConfig
from mlagent_jax.llm.usage import Budget, UsageLog
from mlagent_jax.text.chat import Message

CHARS_PER_TOKEN = 3  # a low estimate, so that a prompt that seems to fit does
_TOO_LONG = "too_long"


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
        self._lock = threading.Lock()
        self._running: dict[str, Future[Answer]] = {}

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
        question = Question(
            tuple(chat),
            config.max_tokens,
            config.temperature,
            seed if config.temperature > 0 else None,
            schema,
        )
        key = call_key(self._identity, question)
        with self._lock:
            running = self._running.get(key)
            if running is None:
                mine: Future[Answer] = Future()
                self._running[key] = mine
        if running is not None:
            answer = running.result()
            self._usage.add_recorded(self.role)
            return _without_cost(answer)
        try:
            answer = self._recorded(key) or self._paid(key, question)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(answer)
            return answer
        finally:
            with self._lock:
                del self._running[key]

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()

    def _recorded(self, key: str) -> Answer | None:
        record = self._store.get(key)
        if record is None:
            return None
        self._usage.add_recorded(self.role)
        if _TOO_LONG in record:
            raise TooLongError(record[_TOO_LONG])
        return _without_cost(Answer(**{**record, "usage": Usage(**record["usage"])}))

    def _paid(self, key: str, question: Question) -> Answer:
        if self._backend is None:
            raise NotRecordedError(
                f"config.models.replay is True, but this call of config.models.{self.role} is not recorded in "
                f"{self._store.path}: name the folder of the recorded run's calls in config.models.cache_dir, with the "
                "settings of that run, or set config.models.replay to False"
            )
        with self._budget.reserve(self.role, self._most_dollars(question)):
            try:
                answer = self._backend.ask(question)
            except TooLongError as error:
                self._store.put(key, self.config.model, {_TOO_LONG: str(error)})
                raise
            usage = answer.usage
            dollars = self.config.price.dollars(
                usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens
            )
            answer = replace(answer, usage=replace(usage, dollars=dollars))
            try:
                self._store.put(key, self.config.model, asdict(answer))
            finally:  # money that is spent shows, even if the answer cannot be stored
                self._usage.add(self.role, answer.usage)
        return answer

    def _most_dollars(self, question: Question) -> float:
        # Of bytes, as many scripts have a token for each character, which takes three of them.
        size = sum(len(message.content.encode(errors="replace")) for message in question.chat)
        return self.config.price.dollars(size / CHARS_PER_TOKEN, question.max_tokens)


def call_key(identity: Mapping[str, str], question: Question) -> str:
    """The key of a call in the store: a hexadecimal digest of all that determines its answer."""
    content = {
        **identity,
        "messages": [[message.role, message.content] for message in question.chat],
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        "seed": question.seed,
        "schema": question.schema,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _without_cost(answer: Answer) -> Answer:
    return replace(answer, usage=replace(answer.usage, seconds=0.0, dollars=0.0))
