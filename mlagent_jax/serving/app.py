"""An OpenAI-compatible server over one engine, as an ASGI application.

Every request is answered, whatever dies; every error is JSON; /health and /metrics tell what was.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from absl import logging
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from mlagent_jax.generate import request as generate
from mlagent_jax.generate.engine import Engine
from mlagent_jax.serving.engine_thread import (
    EngineClosedError,
    EngineEndedError,
    EngineFailedError,
    EngineThread,
    TokenStream,
)
from mlagent_jax.serving.errors import ApiError, shown
from mlagent_jax.serving.protocol import Wanted, read_request
from mlagent_jax.serving.responses import Events, Json, error_response, event
from mlagent_jax.serving.work import Work
from mlagent_jax.text.tokenizer import Tokenizer

MAX_BODY = 8 * 2**20  # bytes
# That browsers send to other sites unasked, but for curl's and urllib's default.
_BODY_TYPES = ("", "application/json", "application/x-www-form-urlencoded")


@dataclass
class _Totals:
    """Requests for answers: each ends as one of the others. tokens_served: of those that were answered."""

    requests: int = 0
    requests_served: int = 0
    requests_refused: int = 0
    requests_failed: int = 0
    requests_abandoned: int = 0
    tokens_served: int = 0

    @property
    def open(self) -> int:
        ended = self.requests_served + self.requests_refused + self.requests_failed + self.requests_abandoned
        return self.requests - ended


class Server:
    """Requests beyond `max_requests` at once are told to come again (429). Closes with the application.

    patience: seconds in which a client must send its request, and read on in what it is sent.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        model: str,
        max_requests: int = 1024,
        patience: float = 120.0,
    ):
        self._tokenizer, self._model = tokenizer, model
        self._max_requests, self._patience = max_requests, patience
        self._thread = EngineThread(engine)
        self._totals = _Totals()
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._endpoint(chat=True), methods=["POST"]),
                Route("/v1/completions", self._endpoint(chat=False), methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/models/{model:path}", self._one_model),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
            ],
            exception_handlers={HTTPException: _http_error, Exception: _unforeseen},
            lifespan=self._lifespan,
        )

    def close_within(self, seconds: float) -> None:
        """From the event loop: answers under way have so long to end, and are then ended with an error."""
        error = EngineClosedError("the server is shutting down")
        asyncio.get_running_loop().call_later(seconds, self._thread.end, error)

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
                self._count_error(error)
                return error_response(error)
            except ClientDisconnect:
                self._totals.requests_abandoned += 1
                return Response(status_code=499)  # nobody reads it
            except BaseException:  # a cancelled one too
                self._totals.requests_failed += 1
                raise

        return answer

    async def _answer(self, request: Request, chat: bool) -> Response:
        body = await _json(request, self._patience)
        under_way = self._totals.open - 1
        if under_way >= self._max_requests:
            raise ApiError(429, f"{under_way} requests are under way; try again later", code="busy")
        engine = self._thread.engine
        # Not on the event loop: a long prompt takes a while, and others are being streamed to.
        wanted = await run_in_threadpool(
            read_request,
            body,
            chat,
            self._model,
            self._tokenizer,
            engine.model.vocab_size,
            engine.config.max_length,
        )
        try:
            work = Work(wanted, self._model, self._tokenizer, self._open(wanted))
        except _ENGINE_ERRORS as error:
            raise _api_error(error, 503) from error
        if wanted.stream:
            return Events(
                self._events(work), lambda complete: self._end_stream(work, complete), self._patience
            )
        try:
            whole = await _unless_gone(request, work.whole())
        except _ENGINE_ERRORS as error:
            raise _api_error(error, 500) from error
        finally:
            work.close()
        self._count_served(work)
        return Json(whole)

    def _open(self, wanted: Wanted) -> list[TokenStream]:
        requests = [
            generate.Request(
                prompt, seeds, wanted.max_tokens, wanted.stop_ids, wanted.sampling, wanted.min_tokens
            )
            for prompt, seeds in zip(wanted.prompts, wanted.seeds, strict=True)
        ]
        streams: list[TokenStream] = []
        try:
            for each in requests:
                streams.append(self._thread.open_stream(each))
        except BaseException:
            for stream in streams:
                stream.close()
            raise
        return streams

    async def _events(self, work: Work) -> AsyncIterator[str]:
        try:
            async for piece in work.pieces():
                yield event(piece)
            yield "data: [DONE]\n\n"
            return
        except _ENGINE_ERRORS as error:
            work.error = _api_error(error, 500)
        except Exception:
            logging.exception("A stream failed.")
            work.error = _unforeseen_error()
        yield event(work.error.body)

    def _end_stream(self, work: Work, complete: bool) -> None:
        """complete: all of it was sent."""
        work.close()
        if work.error:
            self._count_error(work.error)
        elif complete:
            self._count_served(work)
        else:
            self._totals.requests_abandoned += 1

    def _count_served(self, work: Work) -> None:
        self._totals.requests_served += 1
        self._totals.tokens_served += work.tokens

    def _count_error(self, error: ApiError) -> None:
        if error.status < 500:
            self._totals.requests_refused += 1
        else:
            self._totals.requests_failed += 1

    async def _models(self, request: Request) -> Response:
        return Json({"object": "list", "data": [self._description]})

    async def _one_model(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name != self._model:
            error = f"the model {shown(name)} does not exist; here is {self._model!r}"
            return error_response(ApiError(404, error, "model", "model_not_found"))
        return Json(self._description)

    @property
    def _description(self) -> dict[str, Any]:
        length = self._thread.engine.config.max_length
        return {
            "id": self._model,
            "object": "model",
            "created": 0,
            "owned_by": "mlagent-jax",
            "max_model_len": length,  # vLLM's addition
        }

    async def _health(self, request: Request) -> Response:
        ailment = self._thread.ailment
        if ailment:
            return Json({"status": "unhealthy", "reason": ailment}, 503)
        return Json({"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        """In Prometheus' text format."""
        counters = {f"{name}_total": value for name, value in asdict(self._totals).items()}
        values = counters | {"requests_open": self._totals.open} | self._thread.gauges
        values["healthy"] = not self._thread.ailment
        lines = []
        for name, value in values.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE mlagent_{name} {kind}", f"mlagent_{name} {float(value):.17g}"]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


_ENGINE_ERRORS = (generate.RequestError, generate.LogitsNotFiniteError, EngineEndedError)


def _api_error(error: Exception, failed: int) -> ApiError:
    """failed: the status where the engine has failed."""
    if isinstance(error, generate.RequestError):
        return ApiError(400, str(error))
    if isinstance(error, generate.LogitsNotFiniteError):
        return ApiError(500, str(error), code="non_finite_logits")
    if isinstance(error, EngineFailedError):
        return ApiError(failed, str(error), code="engine_failed")
    return ApiError(503, str(error), code="shutting_down")


def _unforeseen_error() -> ApiError:
    return ApiError(500, "an error that was not foreseen ended this request; the server's log has it")


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


async def _json(request: Request, patience: float) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _BODY_TYPES:
        raise ApiError(415, f"the body's Content-Type is {shown(kind)}, but must be application/json")
    coding = request.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise ApiError(415, f"the body's Content-Encoding is {shown(coding)}; send it as it is")
    body = bytearray()
    try:
        async with asyncio.timeout(patience):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY:
                    raise ApiError(413, f"the body is longer than {MAX_BODY} bytes")
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {patience:g} s") from None
    try:
        return json.loads(bytes(body), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return Json(ApiError(error.status_code, message).body, error.status_code, error.headers)


async def _unforeseen(request: Request, error: Exception) -> Response:
    return error_response(_unforeseen_error())
