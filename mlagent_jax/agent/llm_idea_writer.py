"""A chat model as idea writer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from mlagent_jax.agent import answers
from mlagent_jax.llm.backend import Answer, ModelError, TooLongError
from mlagent_jax.llm.chat_model import ChatModel
from mlagent_jax.tasks.task import Task
from mlagent_jax.text.chat import Message

_ATTEMPTS = 3  # in a row, to get any new idea
_SCHEMA = {
    "type": "object",
    "properties": {"ideas": {"type": "array", "items": {"type": "string"}}},
    "required": ["ideas"],
    "additionalProperties": False,
}


class LLMIdeaWriter:
    """Implements `IdeaWriter`. Collects ideas over several answers.

    seed: of the sampling. After a failure the same seed asks for the same answers again, which are recorded.
    structured: whether answers are JSON of a fixed schema.
    """

    def __init__(self, model: ChatModel, seed: int = 0, structured: bool = False) -> None:
        self.name = model.config.model
        self._model = model
        self._seed = seed
        self._schema = _SCHEMA if structured else None

    def write(self, task: Task, axis: str | None, count: int) -> list[str]:
        """Returns at most `count` one-line ideas. Raises ModelError, also if no answer contains any."""
        ideas: list[str] = []
        number = without_ideas = 0  # answers
        last = ""
        while len(ideas) < count and without_ideas < _ATTEMPTS:
            number += 1
            seed = self._seed_of(task.name, axis, len(ideas), without_ideas)
            answer = self._answer(task, axis, count - len(ideas), ideas, seed)
            new = answers.distinct(answers.list_items(answer.text), tuple(ideas))
            without_ideas = 0 if new else without_ideas + 1
            ideas += new
            last = answers.describe(answer) if not new else ""
            logging.info(
                "ideas: %s, %s: %d of %d after answer %d, %.1f s, %d + %d tokens, $%.4g%s",
                *(task.name, axis or "all", min(len(ideas), count), count, number, answer.usage.seconds),
                *(answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.dollars),
                f"; nothing new in: {last}" if last else "",
            )
        if not ideas:
            raise ModelError(
                f"config.models.{self._model.role}, task {task.name}: none of {number} answers contains a list of "
                f"ideas; the last was: {last}; use another model"
            )
        return ideas[:count]

    def _seed_of(self, task: str, axis: str | None, known: int, failures: int) -> int:
        """Another one for each request, and the same in a run that is resumed."""
        of_list = zlib.crc32(f"{task}@{axis}".encode())
        return int(np.random.SeedSequence([self._seed, of_list, known, failures]).generate_state(1)[0]) >> 1

    def _answer(self, task: Task, axis: str | None, count: int, known: Sequence[str], seed: int) -> Answer:
        subject = f"the {axis} side of the work only" if axis else "its data, model or learning"
        question = (
            f"A task:\n{task.description.strip()}\n\nIts metric is {task.metric}. A first script:\n"
            f"```python\n{task.starter}\n```\n\nWrite {count} different ideas to improve it, on {subject}. "
            f'After a line "{answers.ADVICE}", write them as a numbered list: one line and one sentence each.'
        )
        if known:
            listed = "\n".join(f"- {idea}" for idea in known)
            question += f"\n\nThese are known already; write others:\n{listed}"
        chat = [
            Message("system", "You are an experienced machine learning engineer; your advice is concrete."),
            Message("user", question),
        ]
        try:
            return self._model.ask(chat, seed, self._schema)
        except TooLongError as error:
            if known:
                return self._answer(task, axis, count, (), seed)
            raise ModelError(
                f"config.models.{self._model.role}, task {task.name}: description and starter are too long ({error})"
            ) from error
