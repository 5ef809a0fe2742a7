"""Turns the tokens of one request's samples into text, and that into a response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from mlagent_jax.serving.engine_thread import TokenStream
from mlagent_jax.serving.errors import ApiError
from mlagent_jax.serving.protocol import ParsedRequest
from mlagent_jax.serving.response_builder import ResponseBuilder
from mlagent_jax.text.detokenizer import IncrementalDetokenizer
from mlagent_jax.text.tokenizer import Tokenizer


class _TextDelta(NamedTuple):
    """What is new of one choice. reason: OpenAI's finish_reason, or None if the choice goes on."""

    choice: int
    text: str
    reason: str | None
    tokens: list[int]
    logprobs: list[float]


class OutputProcessor:
    """Always close it: that frees what the engine holds.

    tokens: of all choices so far. error: what ended the response, if anything did.
    """

    def __init__(self, request: ParsedRequest, model: str, tokenizer: Tokenizer, streams: list[TokenStream]):
        """`streams`: one for each prompt."""
        self._request, self._streams = request, streams
        self._builder = ResponseBuilder(request, model, tokenizer)
        self._detokenizers = [
            IncrementalDetokenizer(
                tokenizer, request.stop, request.hidden_token_ids, min_tokens=request.min_tokens
            )
            for _ in range(len(streams) * request.n)
        ]
        self.error: ApiError | None = None
        self._closed = False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for stream in self._streams:
                stream.close()

    @property
    def tokens(self) -> int:
        return sum(each.tokens for each in self._detokenizers)

    async def full(self) -> dict[str, Any]:
        """The complete response."""
        ids: list[list[int]] = [[] for _ in self._detokenizers]
        logprobs: list[list[float]] = [[] for _ in self._detokenizers]
        reasons = [""] * len(self._detokenizers)
        async for delta in self._deltas():
            ids[delta.choice] += delta.tokens
            logprobs[delta.choice] += delta.logprobs
            reasons[delta.choice] = delta.reason or ""
        choices = [
            self._builder.choice(i, detokenizer.text, reasons[i], ids[i], logprobs[i])
            for i, detokenizer in enumerate(self._detokenizers)
        ]
        return self._builder.full(choices, self.tokens)

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a streamed response."""
        if self._request.chat:
            for index in range(len(self._detokenizers)):
                yield self._builder.role_chunk(index)
        async for delta in self._deltas():
            if delta.text or delta.reason or self._request.logprobs:
                yield self._builder.chunk(*delta)
        if self._request.include_usage:
            yield self._builder.usage_chunk(self.tokens)

    async def _deltas(self) -> AsyncIterator[_TextDelta]:
        """What is new of any choice, until all have finished."""
        finished = [False] * len(self._detokenizers)
        pending = {asyncio.create_task(stream.next()): stream for stream in self._streams}
        try:
            while not all(finished):
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    stream = pending.pop(task)
                    new = task.result()
                    pending[asyncio.create_task(stream.next())] = stream
                    index = self._streams.index(stream) * self._request.n + new.index
                    if finished[index]:
                        continue  # the engine has sampled a little more after a stop string
                    detokenizer = self._detokenizers[index]
                    before = detokenizer.tokens
                    text = detokenizer.push(new.tokens, new.finished, hide_last=new.stopped)
                    count = detokenizer.tokens - before
                    reason = None
                    if detokenizer.stopped or new.finished:
                        finished[index] = True
                        reason = "stop" if detokenizer.stopped or new.stopped else "length"
                        if not new.finished:
                            stream.cancel(new.index)
                    yield _TextDelta(index, text, reason, new.tokens[:count], new.logprobs[:count])
        finally:
            for task in pending:
                task.cancel()
