"""A chat model as policy: expert, or evaluated agent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from absl import logging

from mlagent_jax.agent.answers import describe
from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.prompt import PromptFormat, messages
from mlagent_jax.agent.response import extract_response
from mlagent_jax.agent.structured import read_structured, response_schema
from mlagent_jax.llm.backend import Answer, ModelError, TooLongError
from mlagent_jax.llm.chat_model import CHARS_PER_TOKEN, ChatModel
from mlagent_jax.text.chat import Message

_ATTEMPTS = 3  # to get a response


class LLMPolicy:
    """Implements `RemotePolicy`. Passes seeds on; whether they determine a response is up to the server.

    A response is what `extract_response` finds in an answer, so a chat model may write other text around the fields.
    structured: whether answers are JSON of a fixed schema instead.
    writes_free_code: that of the coder it works with, which writes all code in the workspace.
    """

    def __init__(
        self,
        model: ChatModel,
        form: PromptFormat,
        name: str = "llm",
        with_ideas: bool = True,
        writes_free_code: bool = False,
        structured: bool = False,
    ) -> None:
        self.name = name
        self.writes_free_code = writes_free_code
        self._model = model
        self._form = form
        self._with_ideas = with_ideas
        self._schema = response_schema(form.thought) if structured else None

    @property
    def parallel(self) -> int:
        return self._model.config.parallel

    def fits(self, situation: Situation) -> bool:
        config = self._model.config
        chars = sum(len(message.content) for message in self._chat(situation))
        return chars <= (config.context_tokens - config.max_tokens) * CHARS_PER_TOKEN

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        """Raises ModelError."""
        return [self.respond_to(situation) for situation in situations]

    def respond_to(self, situation: Situation) -> Response:
        """Raises ModelError."""
        config, chat = self._model.config, self._chat(situation)
        for attempt in range(_ATTEMPTS):
            try:
                answer = self._model.ask(chat, _seed(situation, attempt), self._schema)
            except TooLongError as error:
                raise ModelError(
                    f"config.models.{self._model.role}: a prompt is too long for {config.model!r} ({error}); lower "
                    f"config.models.{self._model.role}.context_tokens, now {config.context_tokens}"
                ) from error
            text = self._response(answer)
            if text.strip():
                break
            logging.warning(
                "%s on %s, step %d: the answer contains no response (%s); max_tokens is %d",
                *(self.name, situation.task.name, len(situation.steps), describe(answer), config.max_tokens),
            )
        return Response(text, usage=answer.usage)

    def _response(self, answer: Answer) -> str:
        if self._schema is not None and (text := read_structured(answer.text, self._form.thought)):
            return text
        return extract_response(answer.text, self._form.thought)

    def _chat(self, situation: Situation) -> list[Message]:
        return messages(self._form, situation, self._with_ideas)


def _seed(situation: Situation, attempt: int) -> int:
    seeds = [situation.seed, len(situation.steps), *([attempt] if attempt else [])]
    return int(np.random.SeedSequence(seeds).generate_state(1)[0]) >> 1
