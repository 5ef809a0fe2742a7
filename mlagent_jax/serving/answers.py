"""Answers in OpenAI's formats, whole or in pieces."""

from __future__ import annotations

import secrets
import time
from typing import Any

from mlagent_jax.serving.protocol import Wanted
from mlagent_jax.text.tokenizer import Tokenizer


class Answers:
    """The responses to one request, which share an id."""

    def __init__(self, wanted: Wanted, model: str, tokenizer: Tokenizer):
        self._wanted, self._tokenizer = wanted, tokenizer
        kind = "chat.completion" if wanted.chat else "text_completion"
        self._whole: dict[str, Any] = {
            "id": f"{'chatcmpl' if wanted.chat else 'cmpl'}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }
        self._piece = self._whole | ({"object": "chat.completion.chunk"} if wanted.chat else {})
        if wanted.usage_in_stream:
            self._piece["usage"] = None  # but for the last piece's

    def whole(self, choices: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        return self._whole | {"choices": choices, "usage": self.usage(tokens)}

    def choice(
        self, index: int, text: str, reason: str, ids: list[int], logprobs: list[float]
    ) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text}} if self._wanted.chat else {"text": text}
        return {"index": index, **said, "finish_reason": reason, "logprobs": self._logprobs(ids, logprobs)}

    def first_piece(self, index: int) -> dict[str, Any]:
        """Of a chat: whose turn it is."""
        delta = {"role": "assistant", "content": ""}
        return self._piece | {"choices": [{"index": index, "delta": delta, "finish_reason": None}]}

    def piece(
        self, index: int, text: str, reason: str | None, ids: list[int], logprobs: list[float]
    ) -> dict[str, Any]:
        said: dict[str, Any] = (
            {"delta": {"content": text} if text else {}} if self._wanted.chat else {"text": text}
        )
        choice = {"index": index, **said, "finish_reason": reason, "logprobs": self._logprobs(ids, logprobs)}
        return self._piece | {"choices": [choice]}

    def usage_piece(self, tokens: int) -> dict[str, Any]:
        return self._piece | {"choices": [], "usage": self.usage(tokens)}

    def usage(self, tokens: int) -> dict[str, int]:
        """tokens: of all answers."""
        prompts = sum(map(len, self._wanted.prompts))
        return {"prompt_tokens": prompts, "completion_tokens": tokens, "total_tokens": prompts + tokens}

    def _logprobs(self, ids: list[int], logprobs: list[float]) -> dict[str, Any] | None:
        if not self._wanted.logprobs:
            return None
        spelt = [self._tokenizer.token_bytes(token) for token in ids]
        texts = [each.decode(errors="replace") for each in spelt]
        if not self._wanted.chat:
            return {"tokens": texts, "token_logprobs": logprobs, "top_logprobs": None, "text_offset": None}
        content = [
            {"token": text, "logprob": logprob, "bytes": list(own), "top_logprobs": []}
            for text, own, logprob in zip(texts, spelt, logprobs, strict=True)
        ]
        return {"content": content, "refusal": None}
