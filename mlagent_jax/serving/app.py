"""An OpenAI-compatible server over one engine, as an ASGI application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from mlagent_jax.generate import request as generate
from mlagent_jax.generate.engine import Engine
from mlagent_jax.serving.answers import Answers
from mlagent_jax.serving.engine_thread import EngineFailedError, EngineThread, Grown, TokenStream
from mlagent_jax.serving.protocol import ApiError, Wanted, read_request
from mlagent_jax.text.stop_strings import TextStream
from mlagent_jax.text.tokenizer import Tokenizer

MAX_BODY = 8 * 2**20  # bytes


@dataclass
class _Totals:
    requests: int = 0
    refused: int = 0
    abandoned: int = 0


class Server:
    """Requests beyond `max_requests` at once are told to come again (429). Closes with the application."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, model: str, max_requests: int = 1024):
        self._tokenizer, self._model, self._max_requests = tokenizer, model, max_requests
        self._thread = EngineThread(engine)
        self._totals = _Totals()
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._endpoint(chat=True), methods=["POST"]),
                Route("/v1/completions", self._endpoint(chat=False), methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
            ],
            exception_handlers={HTTPException: _http_error},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self._thread.stop()

    def _endpoint(self, chat: bool) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            self._totals.requests += 1
            try:
                return await self._answer(request, chat)
            except ApiError as error:
                self._totals.refused += 1
                return JSONResponse(error.body, error.status)
            except ClientDisconnect:
                self._totals.abandoned += 1
                return Response(status_code=499)  # nobody reads it

        return answer

    async def _answer(self, request: Request, chat: bool) -> Response:
        engine = self._thread.engine
        wanted = read_request(
            await _json(request),
            chat,
            self._model,
            self._tokenizer,
            engine.model.vocab_size,
            engine.config.max_length,
        )
        if self._thread.open >= self._max_requests:
            raise ApiError(429, f"{self._thread.open} requests are under way; try again later", code="busy")
        work = _Work(wanted, self._model, self._tokenizer, self._open(wanted))
        if wanted.stream:
            return StreamingResponse(self._events(work), media_type="text/event-stream")
        try:
            return JSONResponse(await _unless_gone(request, work.whole()))
        except EngineFailedError as error:
            raise ApiError(500, str(error)) from error
        finally:
            work.close()

    def _open(self, wanted: Wanted) -> list[TokenStream]:
        requests = [
            generate.Request(
                prompt,
                seeds,
                wanted.max_tokens,
                self._tokenizer.stop_ids,
                wanted.sampling,
            )
            for prompt, seeds in zip(wanted.prompts, wanted.seeds, strict=True)
        ]
        streams: list[TokenStream] = []
        try:
            for each in requests:
                streams.append(self._thread.open_stream(each))
        except Exception as error:
            for stream in streams:
                stream.close()
            if isinstance(error, generate.RequestError):
                raise ApiError(400, str(error)) from error
            if isinstance(error, EngineFailedError):
                raise ApiError(503, str(error)) from error
            raise
        return streams

    async def _events(self, work: _Work) -> AsyncIterator[str]:
        """Server-sent events; where the client goes away, Starlette cancels this."""
        try:
            async for piece in work.pieces():
                yield f"data: {json.dumps(piece)}\n\n"
            yield "data: [DONE]\n\n"
        except EngineFailedError as error:
            yield f"data: {json.dumps(ApiError(500, str(error)).body)}\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self._totals.abandoned += 1
            raise
        finally:
            work.close()

    async def _models(self, request: Request) -> Response:
        model = {"id": self._model, "object": "model", "created": 0, "owned_by": "mlagent-jax"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse(
            "failed" if self._thread.failed else "ok", 503 if self._thread.failed else 200
        )

    async def _metrics(self, request: Request) -> Response:
        """In Prometheus' text format."""
        totals = self._totals
        values = {
            "requests_total": totals.requests,
            "requests_refused_total": totals.refused,
            "requests_abandoned_total": totals.abandoned,
            "requests_open": self._thread.open,
        } | self._thread.gauges
        lines = []
        for name, value in values.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE mlagent_{name} {kind}", f"mlagent_{name} {value}"]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


class _Work:
    """The answers to one request as they grow."""

    def __init__(self, wanted: Wanted, model: str, tokenizer: Tokenizer, streams: list[TokenStream]):
        self._wanted, self._streams = wanted, streams
        self._answers = Answers(wanted, model, tokenizer)
        count = len(streams) * wanted.samples
        self._texts = [TextStream(tokenizer, wanted.stops) for _ in range(count)]
        self._closed = False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for stream in self._streams:
                stream.close()

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
        return self._answers.whole(choices, self._tokens)

    async def pieces(self) -> AsyncIterator[dict[str, Any]]:
        if self._wanted.chat:
            for index in range(len(self._texts)):
                yield self._answers.first_piece(index)
        async for index, text, reason, grown in self._growth():
            if text or reason or self._wanted.logprobs:
                yield self._answers.piece(index, text, reason, grown.tokens, grown.logprobs)
        if self._wanted.usage_in_stream:
            yield self._answers.usage_piece(self._tokens)

    @property
    def _tokens(self) -> int:
        return sum(text.tokens for text in self._texts)

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
                    new = text.push(grown.tokens, grown.finished)
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


async def _unless_gone(request: Request, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """Raises ClientDisconnect as soon as the client has gone away."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())  # the body has been read: what comes is the end
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _json(request: Request) -> Any:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise ApiError(413, f"the body is longer than {MAX_BODY} bytes")
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(ApiError(error.status_code, message).body, error.status_code)
