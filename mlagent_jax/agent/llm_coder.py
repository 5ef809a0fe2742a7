"""A chat model as coder.

Answers are parsed leniently, as a careful person would read them: see `answers` and `whole_script`. An unusable answer
is asked for again, with a note on what was wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from absl import logging

from mlagent_jax.agent import answers
from mlagent_jax.agent.search_replace import FORM, apply_blocks
from mlagent_jax.agent.whole_script import UnusableAnswerError, find_script
from mlagent_jax.environment.coder import CoderError, CoderUnavailableError
from mlagent_jax.llm.backend import Answer, ModelUnavailableError, TooLongError
from mlagent_jax.llm.chat_model import ChatModel
from mlagent_jax.text.chat import Message

_BLOCK_CHARS = 10_000  # of a file, per request of Understand File
_ATTEMPTS = 3  # to get a usable answer
_REMINDER = "Mind what was asked for, and leave out all explanations."
T = TypeVar("T")


_Form = tuple[
    str, Callable[[str, str], str], str
]  # how to answer, what finds the script, what an agent is told
_SCRIPT: _Form = (
    "Answer with the whole edited script in one ```python fence, from its first line to its last, and nothing else.",
    find_script,
    "the assistant did not answer with a whole script",
)
_BLOCKS: _Form = (
    f"Answer with blocks of this form and nothing else; search for whole lines:\n{FORM}\n",
    apply_blocks,
    "the assistant did not answer with blocks that fit",
)


class LLMCoder:
    """Implements `Coder`.

    answer: "script" or "blocks", see `CoderConfig`.
    Raises CoderUnavailableError if the server is down, and ModelError if the user's configuration is wrong.
    """

    writes_free_code = True

    def __init__(self, model: ChatModel, answer: str = "script") -> None:
        self.name = model.config.model
        self._model = model
        self._answers_in_blocks = answer == "blocks"

    def edit(self, script: str, instruction: str) -> str:
        """An answer that changes nothing is asked for again, once: small models like to copy what they read."""
        form, find, fault = _BLOCKS if self._answers_in_blocks else _SCRIPT
        was_copied = False

        def changed(answer: Answer) -> str:
            nonlocal was_copied
            edited = find(answer.text, script)
            if edited.strip() == script.strip() and not was_copied:
                was_copied = True
                raise UnusableAnswerError("it is the script as it was, so the instruction is not carried out")
            return edited

        return self._ask(
            f"You edit Python scripts. {form} Make the change that the instruction asks for and no other: replace the "
            "code that it concerns, and import every name that you use.",
            f"The instruction: {instruction}\n\nThe script:\n```python\n{script}\n```\n\nCarry out the instruction: "
            f"{instruction}",
            changed,
            fault,
        )

    def understand(self, text: str, question: str) -> str:
        blocks = [text[start : start + _BLOCK_CHARS] for start in range(0, len(text), _BLOCK_CHARS)] or [""]
        reports = [self._report(block, question) for block in blocks]
        if len(reports) == 1:
            return reports[0]
        return self._report("\n\n".join(reports), question)

    def _report(self, text: str, question: str) -> str:
        return self._ask(
            "You read files for an engineer. Report in two sentences at most what the file says on the request, and "
            "only what is there.",
            f"The file, or reports on parts of it:\n{text}\n\nThe request:\n{question}",
            _some_text,
            "the assistant gave no report",
        )

    def _ask(self, system: str, user: str, parse: Callable[[Answer], T], fault: str) -> T:
        """What `parse` returns for an answer. If it raises UnusableAnswerError, asks again with a note on why."""
        note, answer = "", None
        for attempt in range(_ATTEMPTS):
            answer = self._answer([Message("system", system), Message("user", f"{user}{note}")], attempt)
            try:
                return parse(answer)
            except UnusableAnswerError as error:
                reason = f"{error}; {answer.problem}" if answer.problem else str(error)
            logging.warning("The coder's answer is unusable (%s): %s", reason, answers.excerpt(answer.text))
            # Another text each time: at temperature 0 the same would be answered alike.
            last = "Your last answer" if attempt == 0 else f"Your last {attempt + 1} answers"
            note = f"\n\n{last} can't be used: {reason}. {_REMINDER}"
        began = f"; the last began {answers.excerpt(answer.text)!r}" if answer and answer.text else ""
        raise CoderError(f"{fault} in {_ATTEMPTS} attempts ({reason}{began}); make the instruction simpler.")

    def _answer(self, chat: Sequence[Message], attempt: int) -> Answer:
        try:
            return self._model.ask(chat, seed=attempt)
        except ModelUnavailableError as error:
            raise CoderUnavailableError(str(error)) from error
        except TooLongError as error:
            # The cause may be max_tokens, which the agent knows nothing about; so the log has the details.
            logging.warning("A file is too long for the coder: %s", error)
            raise CoderError("the file is too long for the assistant.") from None


def _some_text(answer: Answer) -> str:
    text = answers.without_thinking(answer.text)
    if not text:
        raise UnusableAnswerError(answer.problem or "it is empty")
    return text
