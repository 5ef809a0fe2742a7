"""Builds responses in OpenAI's formats: a complete response, or the chunks of a stream."""

from __future__ import annotations

import secrets
import time
from typing import Any

from mlagent_jax.serving.protocol import ParsedRequest
from mlagent_jax.text.tokenizer import Tokenizer


class ResponseBuilder:
    """Builds the response to one request. All chunks of it share an id."""

    def __init__(self, request: ParsedRequest, model: str, tokenizer: Tokenizer):
        self._request, self._tokenizer = request, tokenizer
        kind = "chat.completion" if request.chat else "text_completion"
        self._full: dict[str, Any] = {
            "id": f"{'chatcmpl' if request.chat else 'cmpl'}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }
        self._chunk = self._full | ({"object": "chat.completion.chunk"} if request.chat else {})
        if request.include_usage:
            self._chunk["usage"] = None  # except in the last chunk

    def full(self, choices: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        """The complete response. tokens: of all choices."""
        return self._full | {"choices": choices, "usage": self.usage(tokens)}

    def choice(
        self, index: int, text: str, reason: str, ids: list[int], logprobs: list[float]
    ) -> dict[str, Any]:
        content = (
            {"message": {"role": "assistant", "content": text}} if self._request.chat else {"text": text}
        )
        return {
            "index": index,
            **content,
            "finish_reason": reason,
            "logprobs": self._logprobs(ids, logprobs),
        }

    def role_chunk(self, index: int) -> dict[str, Any]:
        """The first chunk of a choice in a chat."""
        delta = {"role": "assistant", "content": ""}
        return self._chunk | {"choices": [{"index": index, "delta": delta, "finish_reason": None}]}

    def chunk(
        self, index: int, text: str, reason: str | None, ids: list[int], logprobs: list[float]
    ) -> dict[str, Any]:
        content: dict[str, Any] = (
            {"delta": {"content": text} if text else {}} if self._request.chat else {"text": text}
        )
        choice = {
            "index": index,
            **content,
            "finish_reason": reason,
            "logprobs": self._logprobs(ids, logprobs),
        }
        return self._chunk | {"choices": [choice]}

    def usage_chunk(self, tokens: int) -> dict[str, Any]:
        return self._chunk | {"choices": [], "usage": self.usage(tokens)}

    def usage(self, tokens: int) -> dict[str, int]:
        """tokens: of all choices."""
        prompts = sum(map(len, self._request.prompts))
        return {"prompt_tokens": prompts, "completion_tokens": tokens, "total_tokens": prompts + tokens}

    def _logprobs(self, ids: list[int], logprobs: list[float]) -> dict[str, Any] | None:
        if not self._request.logprobs:
            return None
        token_bytes = [self._tokenizer.token_bytes(token) for token in ids]
        texts = [each.decode(errors="replace") for each in token_bytes]
        if not self._request.chat:
            return {"tokens": texts, "token_logprobs": logprobs, "top_logprobs": None, "text_offset": None}
        content = [
            {"token": text, "logprob": logprob, "bytes": list(raw), "top_logprobs": []}
            for text, raw, logprob in zip(texts, token_bytes, logprobs, strict=True)
        ]
        return {"content": content, "refusal": None}
