"""Reads chat completions as servers send them, which keep to OpenAI's form more or less."""

from __future__ import annotations

from typing import Any

from mlagent_jax.llm.backend import Answer, Usage
from mlagent_jax.text.surrogates import replace_surrogates

MAX_SHOWN_CHARS = 400  # of what a server sent, in messages
_SHOWN_REFUSAL_CHARS = 160


class NoCompletionError(ValueError):
    """What the server sent is no chat completion; the message shows it."""


def read_completion(completion: Any, max_tokens: int, seconds: float) -> Answer:
    """The answer in a decoded completion. Raises NoCompletionError."""
    choices = completion.get("choices") if isinstance(completion, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    text = _content_text(message.get("content")) if isinstance(message, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict) or text is None:
        raise NoCompletionError(one_line(str(completion)))
    reasoning = _content_text(message.get("reasoning_content") or message.get("reasoning")) or ""
    problem = _problem(text, reasoning, message.get("refusal"), choice.get("finish_reason"), max_tokens)
    return Answer(text, _usage(completion.get("usage"), seconds), problem, reasoning)


def one_line(text: str, max_chars: int = MAX_SHOWN_CHARS) -> str:
    """The text on one line, shortened to `max_chars` characters."""
    line = " ".join(text.split())
    return line if len(line) <= max_chars else f"{line[: max_chars - 3]}..."


def _content_text(content: Any) -> str | None:
    """The text of a message. Some servers send a list of parts, or nothing. None if it is anything else."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is None:
        return ""
    return replace_surrogates(content) if isinstance(content, str) else None


def _usage(sent: Any, seconds: float) -> Usage:
    return Usage(
        seconds,
        prompt_tokens=_count(sent, "prompt_tokens"),
        completion_tokens=_count(sent, "completion_tokens"),
        cached_tokens=_count(_part(sent, "prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(_part(sent, "completion_tokens_details"), "reasoning_tokens"),
    )


def _part(sent: Any, name: str) -> Any:
    return sent.get(name) if isinstance(sent, dict) else None


def _count(sent: Any, name: str) -> int:
    """A count from the server's usage; 0 if it is missing or not a number."""
    count = _part(sent, name)
    return int(count) if isinstance(count, int | float) and 0 <= count < 2**53 else 0


def _problem(text: str, reasoning: str, refusal: Any, finish_reason: Any, max_tokens: int) -> str:
    """Why this is not a complete answer, or ""."""
    if refusal:
        return f"the model refused: {one_line(str(refusal), _SHOWN_REFUSAL_CHARS)}"
    if finish_reason == "content_filter":
        return "a content filter cut it off"
    if finish_reason == "length":
        if reasoning and not text.strip():
            return f"the model thought for all of its {max_tokens} tokens and said nothing"
        return f"it was cut off at {max_tokens} tokens"
    if not text.strip():
        return "the model thought and said nothing" if reasoning else "it is empty"
    return ""
