"""The engine in a thread of its own, and streams of tokens from it to asyncio."""

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
    """The engine takes no more requests, and gives up those it has."""


class EngineFailedError(EngineEndedError):
    """It died; the server must be started again."""


class EngineClosedError(EngineEndedError):
    """It was told to stop."""


@dataclass(frozen=True)
class Grown:
    """index: of the sample. finished: these tokens are its last; stopped: by a stop id."""

    index: int
    tokens: list[int]
    logprobs: list[float]
    finished: bool
    stopped: bool


class TokenStream:
    """What a request's samples produce, for one asyncio task. Close it in any case: that frees what it holds."""

    def __init__(self, thread: EngineThread, request: Request):
        self._thread, self.request = thread, request
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[Grown | Exception] = asyncio.Queue()
        self.samples: list[Sample] = []  # the thread's

    async def next(self) -> Grown:
        """Raises EngineEndedError, RequestError for what the engine refuses, and LogitsNotFiniteError."""
        arrived = await self._arrived.get()
        if isinstance(arrived, Exception):
            raise arrived
        return arrived

    def cancel(self, index: int) -> None:
        self._thread.call(lambda: self._thread.engine.cancel(self.samples[index]))

    def close(self) -> None:
        self._thread.close(self)

    def tell(self, news: Grown | Exception) -> None:
        """For the thread."""
        # RuntimeError: the server is going down and its event loop with it.
        try:
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, news)
        except RuntimeError:
            logging.info("An answer came after the server had closed.")


class EngineThread:
    """Steps the engine as long as there is work. gauges: how it stood after the last step.

    Every stream that was opened is told how it ended, whatever ends the engine and whenever.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.gauges = _gauges(engine)
        self._unsound = ""  # the last answer that could not be given since the model's numbers are not finite
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._streams: dict[Sample, tuple[TokenStream, int]] = {}
        self._told: dict[Sample, int] = {}
        self._lock = threading.Lock()  # of the next two, so that none is opened unseen while the thread ends
        self._open: set[TokenStream] = set()
        self._ended: EngineEndedError | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def ailment(self) -> str:
        """Why it cannot be relied on for answers; empty where it can."""
        return str(self._ended) if self._ended else self._unsound

    def open_stream(self, request: Request) -> TokenStream:
        """From asyncio. Raises EngineEndedError, and RequestError at once for what can never be served."""
        self.engine.check(request)
        stream = TokenStream(self, request)
        with self._lock:
            if self._ended:
                raise type(self._ended)(str(self._ended))
            self._open.add(stream)
        self.call(lambda: self._submit(stream))
        return stream

    def call(self, work: Callable[[], None]) -> None:
        """Does this in the thread, between two steps."""
        self._inbox.put(work)

    def close(self, stream: TokenStream) -> None:
        with self._lock:
            self._open.discard(stream)
        self.call(lambda: self._forget(stream))

    def end(self, error: EngineEndedError) -> None:
        """Takes nothing more, and tells all that are waiting."""
        with self._lock:
            self._ended = self._ended or error
            streams, self._open = self._open, set()
        for stream in streams:
            stream.tell(type(error)(str(error)))

    def stop(self) -> None:
        self.end(EngineClosedError("the server is shutting down"))
        self._inbox.put(None)
        self._thread.join()

    def _submit(self, stream: TokenStream) -> None:
        try:
            stream.samples = self.engine.submit(stream.request)
        except RequestError as error:
            stream.tell(error)
            return
        for index, sample in enumerate(stream.samples):
            self._streams[sample] = (stream, index)
            self._told[sample] = 0

    def _forget(self, stream: TokenStream) -> None:
        for sample in stream.samples:
            self.engine.cancel(sample)
            self._streams.pop(sample, None)
            self._told.pop(sample, None)

    def _run(self) -> None:
        error: EngineEndedError = EngineClosedError("the server is shutting down")
        try:
            self._work()
        except BaseException as caught:  # whatever it is, nobody is to wait for this thread any more
            logging.exception("The engine failed.")
            error = EngineFailedError(f"the engine failed: {caught!r}; the server must be started again")
        finally:
            self.end(error)

    def _work(self) -> None:
        while True:
            while self.engine.idle or not self._inbox.empty():
                work = self._inbox.get()
                if work is None:
                    return
                work()
                self.gauges = _gauges(self.engine)
            for sample in self.engine.step():
                self._tell(sample)
            self.gauges = _gauges(self.engine)

    def _tell(self, sample: Sample) -> None:
        if sample.error:
            logging.error("%s", sample.error)
            self._unsound = str(sample.error)
        if sample not in self._streams:
            return
        stream, index = self._streams[sample]
        if sample.error:
            stream.tell(sample.error)
            return
        told = self._told[sample]
        self._told[sample] = len(sample.tokens)
        stream.tell(
            Grown(index, sample.tokens[told:], sample.logprobs[told:], sample.finished, sample.stopped)
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
