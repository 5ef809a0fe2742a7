"""The answers to one request as they grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from mlagent_jax.serving.answers import Answers
from mlagent_jax.serving.engine_thread import Grown, TokenStream
from mlagent_jax.serving.errors import ApiError
from mlagent_jax.serving.protocol import Wanted
from mlagent_jax.text.stop_strings import TextStream
from mlagent_jax.text.tokenizer import Tokenizer


class Work:
    """Close it in any case: that frees what the engine holds. tokens: of all answers so far. error: what ended it."""

    def __init__(self, wanted: Wanted, model: str, tokenizer: Tokenizer, streams: list[TokenStream]):
        self._wanted, self._streams = wanted, streams
        self._answers = Answers(wanted, model, tokenizer)
        count = len(streams) * wanted.samples
        self._texts = [
            TextStream(tokenizer, wanted.stops, wanted.hidden, wanted.min_tokens) for _ in range(count)
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
        return sum(text.tokens for text in self._texts)

    async def whole(self) -> dict[str, Any]:
        ids: list[list[int]] = [[] for _ in self._texts]
        logprobs: list[list[float]] = [[] for _ in self._texts]
        reasons = [""] * len(self._texts)
        async for index, _, reason, grown in self._growth():
            ids[index] += grown.tokens
            logprobs[index] += grown.logprobs
            reasons[index] = reason or ""
        choices = [
            self._answers.choice(i, text.text, reasons[i], ids[i], logprobs[i])
            for i, text in enumerate(self._texts)
        ]
        return self._answers.whole(choices, self.tokens)

    async def pieces(self) -> AsyncIterator[dict[str, Any]]:
        if self._wanted.chat:
            for index in range(len(self._texts)):
                yield self._answers.first_piece(index)
        async for index, text, reason, grown in self._growth():
            if text or reason or self._wanted.logprobs:
                yield self._answers.piece(index, text, reason, grown.tokens, grown.logprobs)
        if self._wanted.usage_in_stream:
            yield self._answers.usage_piece(self.tokens)

    async def _growth(self) -> AsyncIterator[tuple[int, str, str | None, Grown]]:
        """(index, new text, why it ended, new tokens) of any answer, until all have ended."""
        ended = [False] * len(self._texts)
        arrivals = {asyncio.create_task(stream.next()): stream for stream in self._streams}
        try:
            while not all(ended):
                done, _ = await asyncio.wait(arrivals, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    stream = arrivals.pop(task)
                    grown = task.result()
                    arrivals[asyncio.create_task(stream.next())] = stream
                    index = self._streams.index(stream) * self._wanted.samples + grown.index
                    if ended[index]:
                        continue  # it went on for a moment after its stop string
                    text = self._texts[index]
                    before = text.tokens
                    new = text.push(grown.tokens, grown.finished, silent=grown.stopped)
                    count = text.tokens - before
                    grown = replace(grown, tokens=grown.tokens[:count], logprobs=grown.logprobs[:count])
                    reason = None
                    if text.stopped or grown.finished:
                        ended[index] = True
                        reason = "stop" if text.stopped or grown.stopped else "length"
                        if not grown.finished:
                            stream.cancel(grown.index)
                    yield index, new, reason, grown
        finally:
            for task in arrivals:
                task.cancel()
