"""A chat model behind an OpenAI-compatible API as policy, as coder and as idea writer.

Answers are parsed leniently, as a careful person would read them: see `answers`, `whole_script` and
`response.extract_response`. An unusable answer is asked for again, with a note on what was wrong with it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

import numpy as np
from absl import logging

from mlagent_jax.agent import answers
from mlagent_jax.agent.chat_client import (
    Answer,
    Endpoint,
    EndpointConfig,
    EndpointError,
    EndpointUnavailableError,
    TooLongError,
)
from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.prompt import PromptFormat, messages
from mlagent_jax.agent.response import extract_response
from mlagent_jax.agent.whole_script import UnusableAnswerError, find_script
from mlagent_jax.environment.coder import CoderError, CoderUnavailableError
from mlagent_jax.files import write_atomically
from mlagent_jax.tasks.task import Task
from mlagent_jax.text.chat import Message

__all__ = [
    "Endpoint",
    "EndpointCoder",
    "EndpointConfig",
    "EndpointError",
    "EndpointIdeaWriter",
    "EndpointPolicy",
    "EndpointUnavailableError",
]

_CHARS_PER_TOKEN = 3  # a low estimate, so that a prompt that seems to fit does
_BLOCK_CHARS = 10_000  # of a file, per request of Understand File
_ATTEMPTS = 3  # to get a usable answer, or (in a row) any new idea
_LOG_EVERY_SECONDS = 15.0
_REMINDER = "Mind what was asked for, and leave out all explanations."
_PARTIAL = ".partial"  # suffix of the files with unfinished lists of ideas
T = TypeVar("T")


class EndpointPolicy:
    """Implements `Policy`. Passes seeds on; whether they determine a response is up to the server.

    A response is what `extract_response` finds in an answer, so a chat model may write other text around the fields.
    writes_free_code: that of the coder it works with, which writes all code in the workspace.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        form: PromptFormat,
        name: str = "endpoint",
        with_ideas: bool = True,
        writes_free_code: bool = False,
    ) -> None:
        self.name = name
        self.writes_free_code = writes_free_code
        self._endpoint = endpoint
        self._form = form
        self._with_ideas = with_ideas

    def fits(self, situation: Situation) -> bool:
        config = self._endpoint.config
        chars = sum(len(message.content) for message in self._chat(situation))
        return chars <= (config.context_tokens - config.max_tokens) * _CHARS_PER_TOKEN

    def respond(self, situations: Sequence[Situation]) -> list[Response]:
        """Raises EndpointError."""
        with ThreadPoolExecutor(self._endpoint.config.parallel) as pool:
            asked = [pool.submit(self._respond, situation) for situation in situations]
            last = time.monotonic()
            try:
                for count, done in enumerate(as_completed(asked), start=1):
                    done.result()
                    if count < len(asked) and time.monotonic() - last >= _LOG_EVERY_SECONDS:
                        last = time.monotonic()
                        logging.info("%s: %d of %d answers received", self.name, count, len(asked))
            except BaseException:
                for future in asked:
                    future.cancel()
                raise
            return [future.result() for future in asked]

    def _respond(self, situation: Situation) -> Response:
        config = self._endpoint.config
        chat = self._chat(situation)
        for attempt in range(_ATTEMPTS):
            seeds = [situation.seed, len(situation.steps), *([attempt] if attempt else [])]
            seed = int(np.random.SeedSequence(seeds).generate_state(1)[0]) >> 1
            try:
                answer = self._endpoint.ask(chat, config.max_tokens, config.temperature, seed)
            except TooLongError as error:
                raise EndpointError(
                    f"a prompt is too long for {config.model!r} ({error}); "
                    f"lower the endpoint's context_tokens, now {config.context_tokens}"
                ) from error
            text = extract_response(answer.text, self._form.thought)
            if text.strip():
                break
            logging.warning(
                "%s on %s, step %d: the answer contains no response (%s); max_tokens is %d",
                *(self.name, situation.task.name, len(situation.steps), _describe(answer), config.max_tokens),
            )
        return Response(text, usage=answer.usage)

    def _chat(self, situation: Situation) -> list[Message]:
        return messages(self._form, situation, self._with_ideas)


class EndpointCoder:
    """Implements `Coder`, at temperature 0.

    Raises CoderUnavailableError if the server is down, and EndpointError if the user's configuration is wrong.
    """

    name = "endpoint"
    writes_free_code = True

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def edit(self, script: str, instruction: str) -> str:
        return self._ask(
            "You edit Python scripts. Answer with the whole edited script in one ```python fence and nothing "
            "else. Change only what the instruction asks for.",
            f"The script:\n```python\n{script}\n```\n\nThe instruction:\n{instruction}",
            lambda answer: find_script(answer.text, script),
            "the assistant did not answer with a whole script",
        )

    def understand(self, text: str, question: str) -> str:
        blocks = [text[start : start + _BLOCK_CHARS] for start in range(0, len(text), _BLOCK_CHARS)] or [""]
        reports = [self._report(block, question) for block in blocks]
        if len(reports) == 1:
            return reports[0]
        return self._report("\n\n".join(reports), question)

    def _report(self, text: str, question: str) -> str:
        return self._ask(
            "You read files for an engineer. Report briefly what the file says on the request, and only "
            "what is there.",
            f"The file, or reports on parts of it:\n{text}\n\nThe request:\n{question}",
            _some_text,
            "the assistant gave no report",
        )

    def _ask(self, system: str, user: str, parse: Callable[[Answer], T], fault: str) -> T:
        """What `parse` returns for an answer. If it raises UnusableAnswerError, asks again with a note on why."""
        note, answer = "", None
        for _ in range(_ATTEMPTS):
            answer = self._answer([Message("system", system), Message("user", f"{user}{note}")])
            try:
                return parse(answer)
            except UnusableAnswerError as error:
                reason = f"{error}; {answer.problem}" if answer.problem else str(error)
            logging.warning("The coder's answer is unusable (%s): %s", reason, answers.excerpt(answer.text))
            note = f"\n\nYour last answer can't be used: {reason}. {_REMINDER}"
        began = f"; the last began {answers.excerpt(answer.text)!r}" if answer and answer.text else ""
        raise CoderError(f"{fault} in {_ATTEMPTS} attempts ({reason}{began}); make the instruction simpler.")

    def _answer(self, chat: Sequence[Message]) -> Answer:
        try:
            return self._endpoint.ask(chat, self._endpoint.config.coder_max_tokens, temperature=0.0)
        except EndpointUnavailableError as error:
            raise CoderUnavailableError(str(error)) from error
        except TooLongError as error:
            # The cause may be coder_max_tokens, which the agent knows nothing about; so the log has the details.
            logging.warning("A file is too long for the coder: %s", error)
            raise CoderError("the file is too long for the assistant.") from None


def _some_text(answer: Answer) -> str:
    text = answers.without_thinking(answer.text)
    if not text:
        raise UnusableAnswerError(answer.problem or "it is empty")
    return text


def _describe(answer: Answer) -> str:
    return answer.problem or answers.excerpt(answer.text) or "it is empty"


class EndpointIdeaWriter:
    """Implements `IdeaWriter`. Collects ideas over several answers.

    folder: where unfinished lists of ideas are kept, so that they outlive a failure; see `forget`.
    """

    name = "endpoint"

    def __init__(self, endpoint: Endpoint, folder: Path | None = None) -> None:
        self._endpoint = endpoint
        self._folder = folder

    def write(self, task: Task, axis: str | None, count: int) -> list[str]:
        """Returns at most `count` one-line ideas. Raises EndpointError, also if no answer contains any."""
        partial = self._path(task.name, axis)
        ideas: list[str] = json.loads(partial.read_text()) if partial is not None and partial.exists() else []
        number = without_ideas = 0
        last = ""
        while len(ideas) < count and without_ideas < _ATTEMPTS:
            number += 1
            answer = self._answer(task, axis, count - len(ideas), ideas)
            new = answers.distinct(answers.list_items(answer.text), tuple(ideas))
            without_ideas = 0 if new else without_ideas + 1
            ideas += new
            last = _describe(answer) if not new else ""
            if partial is not None and new:
                write_atomically(partial, json.dumps(ideas, ensure_ascii=False))
            logging.info(
                "ideas: %s, %s: %d of %d after answer %d, %.1f s, %d + %d tokens%s",
                *(task.name, axis or "all", min(len(ideas), count), count, number, answer.usage.seconds),
                *(answer.usage.prompt_tokens, answer.usage.completion_tokens),
                f"; nothing new in: {last}" if last else "",
            )
        if not ideas:
            raise EndpointError(
                f"task {task.name}: none of {number} answers contains a list of ideas; the last was: {last}; use"
                " another model"
            )
        return ideas[:count]

    def forget(self, task: str) -> None:
        """Removes the unfinished lists of a task, once its idea pool is stored."""
        for path in self._folder.glob(f"*{_PARTIAL}") if self._folder is not None else ():
            if path.name.rpartition("@")[0] == task:
                path.unlink()

    def _path(self, task: str, axis: str | None) -> Path | None:
        return None if self._folder is None else self._folder / f"{task}@{axis or 'all'}{_PARTIAL}"

    def _answer(self, task: Task, axis: str | None, count: int, known: Sequence[str]) -> Answer:
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
            return self._endpoint.ask(chat, self._endpoint.config.coder_max_tokens, temperature=1.0)
        except TooLongError as error:
            if known:
                return self._answer(task, axis, count, ())
            raise EndpointError(
                f"task {task.name}: description and starter are too long ({error})"
            ) from error
