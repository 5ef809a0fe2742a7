"""Runs the engine in a thread of its own, and streams its tokens to asyncio."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from absl import logging

from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.request import Request, RequestError, Sample


class EngineEndedError(RuntimeError):
    """The engine accepts no more requests and has dropped those that it had."""


class EngineFailedError(EngineEndedError):
    """The engine died. The server must be restarted."""


class EngineClosedError(EngineEndedError):
    """The engine was told to stop."""


@dataclass(frozen=True)
class TokenDelta:
    """The new tokens of one sample.

    index: of the sample in its request. finished: there will be no more; stopped: because of a stop token.
    """

    index: int
    tokens: list[int]
    logprobs: list[float]
    finished: bool
    stopped: bool


class TokenStream:
    """The tokens of one request's samples, for one asyncio task. Always close it: that frees its slots."""

    def __init__(self, thread: EngineThread, request: Request):
        self._thread, self.request = thread, request
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[TokenDelta | Exception] = asyncio.Queue()
        self.samples: list[Sample] = []  # used by the engine's thread only

    async def next(self) -> TokenDelta:
        """Raises EngineEndedError, LogitsNotFiniteError, and RequestError for a request that the engine rejects."""
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    def cancel(self, index: int) -> None:
        """Stops one sample."""
        self._thread.call(lambda: self._thread.engine.cancel(self.samples[index]))

    def close(self) -> None:
        self._thread.close(self)

    def put(self, item: TokenDelta | Exception) -> None:
        """Called from other threads."""
        # RuntimeError: the server is shutting down, and its event loop is closed.
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:
            logging.info("Tokens arrived after the server had closed.")


class EngineThread:
    """Steps the engine while there is work. `gauges`: the engine's state after the last step.

    Every opened stream is notified of how it ended, however and whenever the engine ends.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.gauges = _gauges(engine)
        self._not_finite = ""  # the last error about logits that are not finite
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._streams: dict[Sample, tuple[TokenStream, int]] = {}
        self._sent: dict[Sample, int] = {}  # how many tokens of a sample its stream has got
        # Guards the next two, so that no stream is opened unnoticed while the thread ends.
        self._lock = threading.Lock()
        self._open: set[TokenStream] = set()
        self._ended: EngineEndedError | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def unhealthy_reason(self) -> str:
        """Why answers cannot be relied on; "" if they can."""
        return str(self._ended) if self._ended else self._not_finite

    def open_stream(self, request: Request) -> TokenStream:
        """Call from asyncio. Raises EngineEndedError, and RequestError for a request that can never be served."""
        self.engine.check(request)
        stream = TokenStream(self, request)
        with self._lock:
            if self._ended:
                raise type(self._ended)(str(self._ended))
            self._open.add(stream)
        self.call(lambda: self._submit(stream))
        return stream

    def call(self, function: Callable[[], None]) -> None:
        """Calls the function in the thread, between two steps."""
        self._inbox.put(function)

    def close(self, stream: TokenStream) -> None:
        with self._lock:
            self._open.discard(stream)
        self.call(lambda: self._remove(stream))

    def end(self, error: EngineEndedError) -> None:
        """Accepts no more requests, and ends all open streams with `error`."""
        with self._lock:
            self._ended = self._ended or error
            streams, self._open = self._open, set()
        for stream in streams:
            stream.put(type(error)(str(error)))

    def stop(self) -> None:
        self.end(EngineClosedError("the server is shutting down"))
        self._inbox.put(None)
        self._thread.join()

    def _submit(self, stream: TokenStream) -> None:
        try:
            stream.samples = self.engine.submit(stream.request)
        except RequestError as error:
            stream.put(error)
            return
        for index, sample in enumerate(stream.samples):
            self._streams[sample] = (stream, index)
            self._sent[sample] = 0

    def _remove(self, stream: TokenStream) -> None:
        for sample in stream.samples:
            self.engine.cancel(sample)
            self._streams.pop(sample, None)
            self._sent.pop(sample, None)

    def _run(self) -> None:
        error: EngineEndedError = EngineClosedError("the server is shutting down")
        try:
            self._loop()
        except BaseException as caught:  # whatever it is, nobody may keep waiting for this thread
            logging.exception("The engine failed.")
            error = EngineFailedError(f"the engine failed: {caught!r}; restart the server")
        finally:
            self.end(error)

    def _loop(self) -> None:
        while True:
            while self.engine.idle or not self._inbox.empty():
                function = self._inbox.get()
                if function is None:
                    return
                function()
                self.gauges = _gauges(self.engine)
            for sample in self.engine.step():
                self._send(sample)
            self.gauges = _gauges(self.engine)

    def _send(self, sample: Sample) -> None:
        """Passes a sample's new tokens, or its error, to its stream."""
        if sample.error:
            logging.error("%s", sample.error)
            self._not_finite = str(sample.error)
        if sample not in self._streams:
            return
        stream, index = self._streams[sample]
        if sample.error:
            stream.put(sample.error)
            return
        sent = self._sent[sample]
        self._sent[sample] = len(sample.tokens)
        stream.put(
            TokenDelta(index, sample.tokens[sent:], sample.logprobs[sent:], sample.finished, sample.stopped)
        )


def _gauges(engine: Engine) -> dict[str, float]:
    return {
        "samples_running": engine.running,
        "samples_waiting": engine.waiting,
        "cache_use_ratio": engine.cache_use,
        "prompt_tokens_read_total": engine.counts.prefilled,
        "prompt_tokens_reused_total": engine.counts.reused,
        "tokens_generated_total": engine.counts.decoded,
    }
