"""HTTP responses: strict JSON, and event streams that report an error at their end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from absl import logging
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from mlagent_jax.serving.errors import ApiError


class JsonResponse(Response):
    """A response in JSON, so without NaN and infinities."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def error_response(error: ApiError) -> Response:
    return JsonResponse(error.body, error.status, error.headers)


class EventStream(StreamingResponse):
    """Server-sent events.

    on_end(complete): called exactly once, however the stream ends, even before the first event.
    client_timeout: how long a client may take to read what is sent, in seconds.
    """

    def __init__(self, events: AsyncIterator[str], on_end: Callable[[bool], None], client_timeout: float):
        super().__init__(
            self._until_complete(events),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )
        self._on_end, self._client_timeout = on_end, client_timeout
        self._complete = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_timeout(message: Message) -> None:
            async with asyncio.timeout(self._client_timeout):
                await send(message)

        try:
            await super().__call__(scope, receive, send_with_timeout)
        except TimeoutError:
            # The response is incomplete, so the server closes the connection.
            logging.info("A client did not read its stream.")
        finally:
            self._on_end(self._complete)

    async def _until_complete(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        async for event in events:
            yield event
        self._complete = True


def sse_event(content: Any) -> str:
    """One server-sent event with JSON content."""
    return f"data: {json.dumps(content, allow_nan=False)}\n\n"
