"""Chats as token ids, message by message, so that a state is a prefix of every longer one of its episode.

The text around the contents is the tokenizer's chat template's, and only there are control tokens read by their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlagent_jax.errors import UserError
from mlagent_jax.text.chat_template import ChatTemplateError
from mlagent_jax.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Message:
    """One turn.

    tokens: the ids that were sampled for it, end of turn included; kept, never re-made from text.
    """

    role: str
    content: str
    tokens: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Encoded:
    """A chat as ids.

    tokens: int32 (T,). action: bool (T,), True on assistant content and the token that ends the turn.
    spans: [start, end) of each assistant message's action tokens.
    """

    tokens: np.ndarray
    action: np.ndarray
    spans: tuple[tuple[int, int], ...]


class NothingSupervisedError(UserError):
    """A sequence without one token to learn from: training on it would look healthy and teach nothing."""


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message]) -> Encoded:
    """The chat as the tokenizer's template has it, with what is an assistant's marked.

    Where an assistant's content would be joined with the end of the header before it (both are new lines), it is kept
    apart, as it is sampled after that; `apply_chat_template` joins them. A kept response without an end of turn (cut at
    the length limit) gets one that carries no loss, since it was not sampled.
    Raises ChatTemplateError where the template refuses the chat, or what is sampled would not be what is trained.
    """
    tokenizer.template.check_grows([message.role for message in messages])
    return _encode(tokenizer, messages, prompt=False)


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> np.ndarray:
    """int32 (T,): the chat so far and the header of the assistant's next turn.

    A template that changes contents is taken as it is, where nobody writes control tokens and no ids are kept. Raises
    ChatTemplateError.
    """
    tokenizer.template.around(
        [message.role for message in messages], True
    )  # else a message might be left out
    try:
        return _encode(tokenizer, messages, prompt=True).tokens
    except ChatTemplateError:
        whole = _as_one_text(tokenizer, messages)
        if whole is None:
            raise
        return whole


def check_trainable(tokenizer: Tokenizer) -> None:
    """Raises ChatTemplateError where an agent's chats cannot be learnt from with this tokenizer's template."""
    turns = [Message(role, role) for role in ("system", "user", "assistant", "user", "assistant")]
    encode_chat(tokenizer, turns)


def response_text(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """The text of sampled ids, without the token that ended the turn."""
    ids = list(tokens)
    if ids and ids[-1] in tokenizer.stop_ids:
        ids.pop()
    return tokenizer.decode(ids)


def require_supervision(encoded: Encoded, name: str) -> Encoded:
    """Raises NothingSupervisedError, with `name`, for a sequence that has no action token."""
    if not encoded.action.any():
        raise NothingSupervisedError(
            f"{name} has {len(encoded.tokens)} tokens, none of them an assistant's: nothing to learn from"
        )
    return encoded


def tokenizer_texts(chats: Sequence[Sequence[Message]]) -> Iterator[str]:
    """What a tokenizer for these chats should be trained on: every content, and the headers around it."""
    for chat in chats:
        for message in chat:
            yield f"{message.role}\n"
            yield message.content


class _Writer:
    """Ids as they are written. Text waits until a control token or an action, which nothing is joined with."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer, self._joined = tokenizer, tokenizer.template.joined
        self._text = ""
        self.tokens: list[int] = []
        self.action: list[bool] = []
        self.spans: list[tuple[int, int]] = []

    def template_text(self, text: str) -> None:
        for part in self._tokenizer.control.split(text):
            if isinstance(part, int):
                self.flush()
                self._append([part], action=False)
            else:
                self._text += part

    def content(self, text: str) -> None:
        if not self._joined:
            self.flush()
        self._text += text
        if not self._joined:
            self.flush()

    def answer(self, text: str) -> list[int]:
        """An assistant's text as ids that follow the header before it, which has to end where it is sampled from."""
        header = self._text if self._joined else ""
        self.flush()
        ids, before = self._tokenizer.encode(header + text), self._tokenizer.encode(header)
        together = ids[: len(before)] == before
        return ids[len(before) :] if together else self._tokenizer.encode(text)

    def act(self, ids: Sequence[int]) -> None:
        self.flush()
        self.spans.append((len(self.tokens), len(self.tokens) + len(ids)))
        self._append(ids, action=True)

    def flush(self) -> None:
        text, self._text = self._text, ""
        if text:
            self._append(self._tokenizer.encode(text), action=False)

    def _append(self, ids: Sequence[int], action: bool) -> None:
        self.tokens.extend(ids)
        self.action.extend([action] * len(ids))


def _encode(tokenizer: Tokenizer, messages: Sequence[Message], prompt: bool) -> Encoded:
    # Where ids are kept, their text is not read: a template that cuts it (at "</think>", say) changes nothing of them.
    turns = [(m.role, m.content if m.tokens is None else m.role) for m in messages]
    around, contents = tokenizer.template.fit(turns, prompt)
    writer, before = _Writer(tokenizer), around[0]
    for message, content, after in zip(messages, contents, around[1:], strict=True):
        writer.template_text(before)
        if message.role != "assistant":
            writer.content(content)
            before = after
            continue
        gap, end, before = tokenizer.control.first(after)
        if message.tokens is None:
            writer.act([*writer.answer(content + gap), end])
        else:
            writer.act(message.tokens)
            if not message.tokens or message.tokens[-1] != end:
                writer.template_text(after)
                before = ""
    writer.template_text(before)
    writer.flush()
    return Encoded(np.array(writer.tokens, np.int32), np.array(writer.action, bool), tuple(writer.spans))


def _as_one_text(tokenizer: Tokenizer, messages: Sequence[Message]) -> np.ndarray | None:
    """What the template makes of a chat, as it is; None where a message has ids of its own, or names control tokens."""
    if any(m.tokens is not None or tokenizer.control.named_in(m.content) for m in messages):
        return None
    writer = _Writer(tokenizer)
    writer.template_text(tokenizer.template.render([(m.role, m.content) for m in messages], True))
    writer.flush()
    return np.array(writer.tokens, np.int32)
