"""An OpenAI-compatible server for one engine, as an ASGI application.

Every request gets a response, even if the engine dies. Every error is JSON. /health and /metrics report the state.
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
from mlagent_jax.serving.errors import ApiError, short_repr
from mlagent_jax.serving.output_processor import OutputProcessor
from mlagent_jax.serving.protocol import ParsedRequest, parse_request
from mlagent_jax.serving.responses import EventStream, JsonResponse, error_response, sse_event
from mlagent_jax.text.tokenizer import Tokenizer

MAX_BODY_BYTES = 8 * 2**20
# Browsers send text and forms to other sites without a CORS preflight. Of those types, only the default of curl and
# urllib is accepted.
_CONTENT_TYPES = ("", "application/json", "application/x-www-form-urlencoded")


@dataclass
class _Totals:
    """Counters. Each request ends as one of the other four. tokens_served: in complete responses."""

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
    """Answers status 429 while `max_requests` requests are running. Closes with the application.

    client_timeout: how long a client may take to send its request, and to read each part of a stream, in seconds.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        model: str,
        max_requests: int = 1024,
        client_timeout: float = 120.0,
    ):
        self._tokenizer, self._model = tokenizer, model
        self._max_requests, self._client_timeout = max_requests, client_timeout
        self._thread = EngineThread(engine)
        self._totals = _Totals()
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._endpoint(chat=True), methods=["POST"]),
                Route("/v1/completions", self._endpoint(chat=False), methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/models/{model:path}", self._model_by_name),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
            ],
            exception_handlers={HTTPException: _http_error, Exception: _unexpected},
            lifespan=self._lifespan,
        )

    def close_after(self, seconds: float) -> None:
        """Call from the event loop. Requests still running after this time end with an error."""
        error = EngineClosedError("the server is shutting down")
        asyncio.get_running_loop().call_later(seconds, self._thread.end, error)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self._thread.stop()

    def _endpoint(self, chat: bool) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            self._totals.requests += 1
            try:
                return await self._respond(request, chat)
            except ApiError as error:
                self._count_error(error)
                return error_response(error)
            except ClientDisconnect:
                self._totals.requests_abandoned += 1
                return Response(status_code=499)  # nobody reads it
            except BaseException:  # including cancellation
                self._totals.requests_failed += 1
                raise

        return respond

    async def _respond(self, request: Request, chat: bool) -> Response:
        body = await _read_json(request, self._client_timeout)
        running = self._totals.open - 1
        if running >= self._max_requests:
            raise ApiError(429, f"{running} requests are running; try again later", code="busy")
        engine = self._thread.engine
        # Not on the event loop, which serves other streams: tokenizing a long prompt takes a while.
        parsed = await run_in_threadpool(
            parse_request,
            body,
            chat,
            self._model,
            self._tokenizer,
            engine.model.vocab_size,
            engine.config.max_length,
        )
        try:
            output = OutputProcessor(parsed, self._model, self._tokenizer, self._open_streams(parsed))
        except _ENGINE_ERRORS as error:
            raise _api_error(error, 503) from error
        if parsed.stream:
            return EventStream(
                self._events(output),
                lambda complete: self._end_stream(output, complete),
                self._client_timeout,
            )
        try:
            response = await _with_disconnect(request, output.full())
        except _ENGINE_ERRORS as error:
            raise _api_error(error, 500) from error
        finally:
            output.close()
        self._count_served(output)
        return JsonResponse(response)

    def _open_streams(self, parsed: ParsedRequest) -> list[TokenStream]:
        requests = [
            generate.Request(
                prompt, seeds, parsed.max_tokens, parsed.stop_token_ids, parsed.sampling, parsed.min_tokens
            )
            for prompt, seeds in zip(parsed.prompts, parsed.seeds, strict=True)
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

    async def _events(self, output: OutputProcessor) -> AsyncIterator[str]:
        try:
            async for chunk in output.chunks():
                yield sse_event(chunk)
            yield "data: [DONE]\n\n"
            return
        except _ENGINE_ERRORS as error:
            output.error = _api_error(error, 500)
        except Exception:
            logging.exception("A stream failed.")
            output.error = _unexpected_error()
        yield sse_event(output.error.body)

    def _end_stream(self, output: OutputProcessor, complete: bool) -> None:
        """complete: whether all of it was sent."""
        output.close()
        if output.error:
            self._count_error(output.error)
        elif complete:
            self._count_served(output)
        else:
            self._totals.requests_abandoned += 1

    def _count_served(self, output: OutputProcessor) -> None:
        self._totals.requests_served += 1
        self._totals.tokens_served += output.tokens

    def _count_error(self, error: ApiError) -> None:
        if error.status < 500:
            self._totals.requests_refused += 1
        else:
            self._totals.requests_failed += 1

    async def _models(self, request: Request) -> Response:
        return JsonResponse({"object": "list", "data": [self._model_card]})

    async def _model_by_name(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name != self._model:
            error = f"the model {short_repr(name)} does not exist; this server has {self._model!r}"
            return error_response(ApiError(404, error, "model", "model_not_found"))
        return JsonResponse(self._model_card)

    @property
    def _model_card(self) -> dict[str, Any]:
        length = self._thread.engine.config.max_length
        return {
            "id": self._model,
            "object": "model",
            "created": 0,
            "owned_by": "mlagent-jax",
            "max_model_len": length,  # vLLM's addition
        }

    async def _health(self, request: Request) -> Response:
        reason = self._thread.unhealthy_reason
        if reason:
            return JsonResponse({"status": "unhealthy", "reason": reason}, 503)
        return JsonResponse({"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        """The server's counters, in the text format of Prometheus."""
        counters = {f"{name}_total": value for name, value in asdict(self._totals).items()}
        values = counters | {"requests_open": self._totals.open} | self._thread.gauges
        values["healthy"] = not self._thread.unhealthy_reason
        lines = []
        for name, value in values.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE mlagent_{name} {kind}", f"mlagent_{name} {float(value):.17g}"]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


_ENGINE_ERRORS = (generate.RequestError, generate.LogitsNotFiniteError, EngineEndedError)


def _api_error(error: Exception, failed_status: int) -> ApiError:
    """failed_status: the HTTP status if the engine has failed."""
    if isinstance(error, generate.RequestError):
        return ApiError(400, str(error))
    if isinstance(error, generate.LogitsNotFiniteError):
        return ApiError(500, str(error), code="non_finite_logits")
    if isinstance(error, EngineFailedError):
        return ApiError(failed_status, str(error), code="engine_failed")
    return ApiError(503, str(error), code="shutting_down")


def _unexpected_error() -> ApiError:
    return ApiError(500, "an unexpected error ended this request; see the server's log")


async def _with_disconnect(request: Request, response: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """Awaits the response. Raises ClientDisconnect as soon as the client disconnects."""
    work = asyncio.ensure_future(response)
    disconnect = asyncio.ensure_future(request.receive())  # after the body, only the disconnect can follow
    try:
        await asyncio.wait({work, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        work.cancel()
        disconnect.cancel()


async def _read_json(request: Request, timeout: float) -> Any:
    """The decoded body. Raises ApiError. timeout: to receive the body, in seconds."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _CONTENT_TYPES:
        raise ApiError(
            415, f"the body's Content-Type is {short_repr(content_type)}, but must be application/json"
        )
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise ApiError(415, f"the body's Content-Encoding is {short_repr(encoding)}; send it without any")
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise ApiError(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {timeout:g} s") from None
    try:
        return json.loads(bytes(body), parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JsonResponse(ApiError(error.status_code, message).body, error.status_code, error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    return error_response(_unexpected_error())
