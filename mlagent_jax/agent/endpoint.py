"""An OpenAI-compatible endpoint as policy, as coder and as idea writer.

The `openai` client waits and tries again on its own when connections fail, when the server is busy (408, 409,
429) or broken (5xx). What is said here is what is left after that.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from mlagent_jax.agent.policy import Response, Situation
from mlagent_jax.agent.prompt import PromptFormat, messages
from mlagent_jax.environment.coder import CoderError, CoderUnavailableError
from mlagent_jax.environment.task import Task
from mlagent_jax.errors import UserError
from mlagent_jax.fields import setting
from mlagent_jax.text.chat import Message

if TYPE_CHECKING:
    import openai

_CHARS_PER_TOKEN = 3  # a low guess, so that a prompt that is said to fit does
_BLOCK_CHARS = 10_000  # of a file, in one request of Understand File
_FENCE = re.compile(r"^```(?:python|py)?[ \t]*\r?\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.):])\s*(.+?)\s*$")
_ADVICE = "[advice]"
_BUSY = (408, 409, 429)
_TOO_LONG = ("context_length", "context length", "too long")  # OpenAI's code, and what other servers say


class EndpointError(UserError):
    """The endpoint cannot be used: its package, address, model, key or a request is wrong, or it is down."""


class EndpointUnavailableError(EndpointError):
    """It did not answer, time and again; the fault may pass."""


class _TooLongError(Exception):
    """The request is longer than the model's context."""


@dataclass(frozen=True)
class EndpointConfig:
    """base_url: e.g. "http://localhost:8000/v1"; "" for OpenAI's own. model: its name there.

    temperature, max_tokens: of a policy's response. coder_max_tokens: of a script, a report or ideas.
    context_tokens: of the model; episodes end before their history is longer, at 3 characters a token.
    parallel: requests at a time. timeout_seconds: of one. retries: after the first, with growing pauses.
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

    def complete(
        self, chat: Sequence[Message], max_tokens: int, temperature: float, seed: int | None = None
    ) -> str:
        """The model's answer. Raises EndpointError; EndpointUnavailableError if trying later may help."""
        import openai

        extra: dict[str, Any] = {} if seed is None else {"seed": seed}
        turns: Any = [{"role": message.role, "content": _as_text(message.content)} for message in chat]
        try:
            completion = self._client.chat.completions.create(
                model=self.config.model,
                messages=turns,
                max_tokens=max_tokens,
                temperature=temperature,
                **extra,
            )
        except openai.APIConnectionError as error:
            raise EndpointUnavailableError(self._complaint("does not answer", error)) from error
        except openai.APIStatusError as error:
            raise self._refusal(error) from error
        except openai.APIError as error:
            raise EndpointError(self._complaint("cannot be used", error)) from error
        return self._content(completion)

    def _refusal(self, error: openai.APIStatusError) -> Exception:
        text = f"{error.code} {error}".lower()
        if error.status_code == 400 and any(words in text for words in _TOO_LONG):
            return _TooLongError(str(error))
        if error.code != "insufficient_quota" and (error.status_code in _BUSY or error.status_code >= 500):
            return EndpointUnavailableError(self._complaint("is busy or broken", error))
        return EndpointError(self._complaint("refuses the request", error))

    def _content(self, completion: Any) -> str:
        choices = getattr(completion, "choices", None)
        if not choices:
            raise EndpointUnavailableError(self._complaint("sent something else than a chat completion"))
        if completion.usage:
            with self._lock:
                self.prompt_tokens += completion.usage.prompt_tokens
                self.completion_tokens += completion.usage.completion_tokens
        return choices[0].message.content or ""

    def _complaint(self, fault: str, error: Exception | None = None) -> str:
        reason = f" ({type(error).__name__}: {error})" if error else ""
        return (
            f"the endpoint at {self._client.base_url} {fault} for model {self.config.model!r}{reason}; check "
            f"base_url, model and key ({self.config.api_key_variable}) and start again: finished work is kept"
        )


class EndpointPolicy:
    """Implements `Policy`. Seeds are passed on; whether they fix a response is up to the server.

    writes_free_code: that of the coder it works with, since what it puts into a workspace goes through that.
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
            return list(pool.map(self._respond, situations))

    def _respond(self, situation: Situation) -> Response:
        config = self._endpoint.config
        seed = np.random.SeedSequence([situation.seed, len(situation.steps)]).generate_state(1)[0]
        try:
            text = self._endpoint.complete(
                self._chat(situation), config.max_tokens, config.temperature, int(seed) >> 1
            )
        except _TooLongError as error:
            raise EndpointError(
                f"a prompt is longer than {config.model!r} takes ({error}); "
                f"lower the endpoint's context_tokens, now {config.context_tokens}"
            ) from error
        return Response(text)

    def _chat(self, situation: Situation) -> list[Message]:
        return messages(self._form, situation, self._with_ideas)


class EndpointCoder:
    """Implements `Coder`, at temperature 0. A server that is down is our fault, a wrong key the user's."""

    name = "endpoint"
    writes_free_code = True

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def edit(self, script: str, instruction: str) -> str:
        answer = self._ask(
            "You edit Python scripts. Answer with the whole edited script in one ```python fence and nothing "
            "else. Change only what the instruction asks for.",
            f"The script:\n```python\n{script}\n```\n\nThe instruction:\n{instruction}",
        )
        fence = _FENCE.search(answer)
        if fence is None:
            raise CoderError(
                "the assistant did not answer with a whole script; make the instruction simpler."
            )
        return fence[1]

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
        )

    def _ask(self, system: str, user: str) -> str:
        chat = [Message("system", system), Message("user", user)]
        try:
            return self._endpoint.complete(chat, self._endpoint.config.coder_max_tokens, temperature=0.0)
        except EndpointUnavailableError as error:
            raise CoderUnavailableError(str(error)) from error
        except _TooLongError as error:
            # It may be coder_max_tokens that this model has no room for, which the agent could not know.
            logging.warning("The coder was not given a file: %s", error)
            raise CoderError("the file is too long for the assistant.") from None


class EndpointIdeaWriter:
    """Implements `IdeaWriter`."""

    name = "endpoint"

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def write(self, task: Task, axis: str | None, count: int) -> list[str]:
        """At most `count` one-line ideas. Raises EndpointError, also for an answer without any."""
        subject = f"the {axis} side of the work only" if axis else "its data, model or learning"
        question = (
            f"A task:\n{task.description.strip()}\n\nIts metric is {task.metric}. A first script:\n"
            f"```python\n{task.starter}\n```\n\nWrite {count} different ideas to improve it, on {subject}. "
            f'After a line "{_ADVICE}", write them as a numbered list: one line and one sentence each.'
        )
        chat = [
            Message("system", "You are an experienced machine learning engineer; your advice is concrete."),
            Message("user", question),
        ]
        try:
            answer = self._endpoint.complete(chat, self._endpoint.config.coder_max_tokens, temperature=1.0)
        except _TooLongError as error:
            raise EndpointError(
                f"task {task.name}: description and starter are too long ({error})"
            ) from error
        ideas = _list_items(answer)
        if not ideas:
            raise EndpointError(f"task {task.name}: the endpoint wrote no list of ideas; use another model")
        return ideas[:count]


def _client(config: EndpointConfig) -> openai.OpenAI:
    try:
        import openai
    except ImportError:
        raise EndpointError(
            "endpoints need the openai package: pip install 'mlagent-jax[endpoint]'"
        ) from None
    if not config.model:
        raise EndpointError("no model is named for the endpoint: set its `model`")
    key = os.environ.get(config.api_key_variable)
    if not key and not config.base_url:
        raise EndpointError(
            f"the endpoint needs a key in the environment variable {config.api_key_variable}, "
            "or the base_url of a server of your own"
        )
    return openai.OpenAI(
        api_key=key or "none",
        base_url=config.base_url or None,
        max_retries=config.retries,
        timeout=config.timeout_seconds,
    )


def _as_text(content: str) -> str:
    """What a script printed may hold lone surrogates, which JSON over HTTP cannot."""
    return content.encode(errors="replace").decode()


def _list_items(answer: str) -> list[str]:
    """The items of the list after the marker, or of the whole answer; each idea once."""
    text = answer.partition(_ADVICE)[2] or answer
    items = [match[1] for line in text.splitlines() if (match := _ITEM.match(line))]
    return list(dict.fromkeys(items))
