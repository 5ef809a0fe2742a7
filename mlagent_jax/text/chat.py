"""ChatML as token ids: message by message, so that a state is a prefix of every longer one of its episode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlagent_jax.errors import UserError
from mlagent_jax.text.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")


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

    tokens: int32 (T,). action: bool (T,), True on assistant content and its `<|im_end|>`.
    spans: [start, end) of each assistant message's action tokens.
    """

    tokens: np.ndarray
    action: np.ndarray
    spans: tuple[tuple[int, int], ...]


class NothingSupervisedError(UserError):
    """A sequence without one token to learn from: training on it would look healthy and teach nothing."""


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message]) -> Encoded:
    """`<|im_start|>role\\ncontent<|im_end|>\\n` for each message, as Qwen's template has it.

    A kept response without an end of turn (cut at the length limit) gets one that carries no loss, since it
    was not sampled.
    """
    tokens: list[int] = []
    action: list[bool] = []
    spans: list[tuple[int, int]] = []
    for message in messages:
        _append(tokens, action, _header(tokenizer, message.role), supervised=False)
        body, ended = _body(tokenizer, message)
        supervised = message.role == "assistant"
        if supervised:
            spans.append((len(tokens), len(tokens) + len(body)))
        _append(tokens, action, body, supervised)
        _append(
            tokens, action, ([] if ended else [tokenizer.im_end]) + tokenizer.encode("\n"), supervised=False
        )
    return Encoded(np.array(tokens, np.int32), np.array(action, bool), tuple(spans))


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> np.ndarray:
    """int32 (T,): the chat so far and the header of the assistant's next turn."""
    chat = encode_chat(tokenizer, messages).tokens
    return np.concatenate([chat, np.array(_header(tokenizer, "assistant"), np.int32)])


def response_text(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """The text of sampled ids, without the end of turn."""
    ids = list(tokens)
    if ids and ids[-1] in (tokenizer.im_end, tokenizer.end_of_text):
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


def _header(tokenizer: Tokenizer, role: str) -> list[int]:
    if role not in ROLES:
        raise ValueError(f"message role {role!r} is none of {', '.join(ROLES)}")
    return [tokenizer.im_start, *tokenizer.encode(f"{role}\n")]


def _body(tokenizer: Tokenizer, message: Message) -> tuple[list[int], bool]:
    if message.tokens is None:
        return [*tokenizer.encode(message.content), tokenizer.im_end], True
    tokens = list(message.tokens)
    return tokens, bool(tokens) and tokens[-1] == tokenizer.im_end


def _append(tokens: list[int], action: list[bool], ids: Sequence[int], supervised: bool) -> None:
    tokens.extend(ids)
    action.extend([supervised] * len(ids))
