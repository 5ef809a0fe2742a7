"""Encodes chats message by message, so that a state is a prefix of every later state of its episode.

The text between the contents comes from the tokenizer's chat template. Only there do names of control tokens become
these tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from mlagent_jax.errors import UserError
from mlagent_jax.text.chat_template import ChatTemplateError
from mlagent_jax.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Message:
    """One turn.

    tokens: the ids that were sampled for it, including the end of turn. They are kept, never re-encoded from text.
    """

    role: str
    content: str
    tokens: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Encoded:
    """An encoded chat.

    tokens: int32. action: True on assistant content and the token that ends the turn.
    response_ranges: [start, end) of each assistant message's action tokens.
    """

    tokens: Int[np.ndarray, " T"]
    action: Bool[np.ndarray, " T"]
    response_ranges: tuple[tuple[int, int], ...]


class NothingSupervisedError(UserError):
    """A sequence without any token to learn from: training on it would look healthy and have no effect."""


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message]) -> Encoded:
    """Encodes the chat by the tokenizer's template, and marks the assistant's tokens.

    A tokenizer could merge an assistant's content with the end of the header before it (both may be newlines), as
    `apply_chat_template` does. Here it is encoded separately, because it is sampled after the header. A response with
    `tokens` but without an end of turn (truncated at the length limit) gets one without loss, because it was not
    sampled.

    Raises ChatTemplateError if the template rejects the chat, or the tokens to train on would differ from those that
    were sampled.
    """
    tokenizer.template.check_prefix_preserving([message.role for message in messages])
    return _encode(tokenizer, messages, add_generation_prompt=False)


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> Int[np.ndarray, " T"]:
    """The chat so far, followed by the header of the assistant's next turn; int32.

    If the template changes contents, its output is encoded as it is, provided that no message has ids or names control
    tokens. Raises ChatTemplateError.
    """
    # Raises if the template would leave out a message.
    tokenizer.template.delimiters([message.role for message in messages], True)
    try:
        return _encode(tokenizer, messages, add_generation_prompt=True).tokens
    except ChatTemplateError:
        tokens = _encode_rendered(tokenizer, messages)
        if tokens is None:
            raise
        return tokens


def check_trainable(tokenizer: Tokenizer) -> None:
    """Raises ChatTemplateError if this tokenizer's template does not allow training on an agent's chats."""
    turns = [Message(role, role) for role in ("system", "user", "assistant", "user", "assistant")]
    encode_chat(tokenizer, turns)


def response_text(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """The text of sampled ids, without the token that ended the turn."""
    ids = list(tokens)
    if ids and ids[-1] in tokenizer.stop_ids:
        ids.pop()
    return tokenizer.decode(ids)


def require_supervision(encoded: Encoded, name: str) -> Encoded:
    """Returns `encoded`. Raises NothingSupervisedError, with `name`, if it has no action token."""
    if not encoded.action.any():
        raise NothingSupervisedError(
            f"{name} has {len(encoded.tokens)} tokens, none of them an assistant's, so there is nothing to learn from"
        )
    return encoded


def tokenizer_texts(chats: Sequence[Sequence[Message]]) -> Iterator[str]:
    """The texts to train a tokenizer for these chats on: every content and every header."""
    for chat in chats:
        for message in chat:
            yield f"{message.role}\n"
            yield message.content


class _Encoder:
    """Collects token ids. Buffers text until a control token or an action, which are never merged with it."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer, self._joined = tokenizer, tokenizer.template.joined
        self._text = ""  # not encoded yet
        self.tokens: list[int] = []
        self.action: list[bool] = []
        self.response_ranges: list[tuple[int, int]] = []

    def add_template_text(self, text: str) -> None:
        for part in self._tokenizer.control.split(text):
            if isinstance(part, int):
                self.flush()
                self._append([part], action=False)
            else:
                self._text += part

    def add_content(self, text: str) -> None:
        if not self._joined:
            self.flush()
        self._text += text
        if not self._joined:
            self.flush()

    def encode_response(self, text: str) -> list[int]:
        """An assistant's text as ids that can follow the ids of the header, after which it is sampled."""
        header = self._text if self._joined else ""
        self.flush()
        ids, header_ids = self._tokenizer.encode(header + text), self._tokenizer.encode(header)
        is_continuation = ids[: len(header_ids)] == header_ids
        return ids[len(header_ids) :] if is_continuation else self._tokenizer.encode(text)

    def add_action(self, ids: Sequence[int]) -> None:
        self.flush()
        self.response_ranges.append((len(self.tokens), len(self.tokens) + len(ids)))
        self._append(ids, action=True)

    def flush(self) -> None:
        text, self._text = self._text, ""
        if text:
            self._append(self._tokenizer.encode(text), action=False)

    def _append(self, ids: Sequence[int], action: bool) -> None:
        self.tokens.extend(ids)
        self.action.extend([action] * len(ids))


def _encode(tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool) -> Encoded:
    # The text of messages with ids is not used, so the role stands in for it: a template may shorten the text (for
    # example at "</think>") without effect on the ids.
    turns = [(m.role, m.content if m.tokens is None else m.role) for m in messages]
    delimiters, contents = tokenizer.template.split(turns, add_generation_prompt)
    encoder, before = _Encoder(tokenizer), delimiters[0]
    for message, content, after in zip(messages, contents, delimiters[1:], strict=True):
        encoder.add_template_text(before)
        if message.role != "assistant":
            encoder.add_content(content)
            before = after
            continue
        gap, end_of_turn, before = tokenizer.control.partition_end_of_turn(after)
        if message.tokens is None:
            encoder.add_action([*encoder.encode_response(content + gap), end_of_turn])
        else:
            encoder.add_action(message.tokens)
            if not message.tokens or message.tokens[-1] != end_of_turn:
                encoder.add_template_text(after)
                before = ""
    encoder.add_template_text(before)
    encoder.flush()
    return Encoded(
        np.array(encoder.tokens, np.int32), np.array(encoder.action, bool), tuple(encoder.response_ranges)
    )


def _encode_rendered(tokenizer: Tokenizer, messages: Sequence[Message]) -> Int[np.ndarray, " T"] | None:
    """Encodes the rendered chat as a whole; None if a message has ids or names control tokens."""
    if any(m.tokens is not None or tokenizer.control.occurs_in(m.content) for m in messages):
        return None
    encoder = _Encoder(tokenizer)
    encoder.add_template_text(tokenizer.template.render([(m.role, m.content) for m in messages], True))
    encoder.flush()
    return np.array(encoder.tokens, np.int32)
